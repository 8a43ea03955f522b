"""Tries samplers for a trained net, as many as the time allows, and compares them in pairs.

Papers: Karras et al. 2022 (EDM) for Heun's step and the levels; Lu et al. 2022 (DPM-Solver++) for
the sampler with as many levels as calls; Ho and Salimans 2022 and Kynkaanniemi et al. 2024 for
guidance in an interval, which costs a second call at each guided level.

All samplers start from the same noise, so they are compared in pairs: what their pictures share
cancels. Too few pictures choose wrongly (measured: 80 pictures find the better of two samplers in 8
to 12 of 16 draws, 256 in 15), so where time is short fewer samplers are tried, on as many pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from noisewise.diffusion import DPMPP_2M, HEUN, Denoiser, guided, karras_sigmas, sample
from noisewise.quality.judge import Difference, Floors
from noisewise.training.models.model_config import SamplerSettings
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.stages.at_once import at_once

_STOPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)  # of the long walk
_ABOVE = 5  # levels of the long walk above the first stop
LONG = HEUN.num_calls(_ABOVE + len(_STOPS))  # network calls of the long walk
STEPS = {HEUN.name: (3, 4, 5, 6, 8, 10), DPMPP_2M.name: (7, 9, 11, 15, 19, 23)}
FINE_ENDS = (0.05, 0.03, 0.02, 0.01)
_ENDS = (1.0, 0.7, 0.5, 0.3, 0.18, 0.08, *FINE_ENDS)
# Tried first, after the usual one: few steps must stop early.
_FIRST = {
    HEUN.name: ((5, 0.3), (4, 0.5), (6, 0.18), (8, 0.08)),
    DPMPP_2M.name: ((11, 0.18), (23, 0.08)),
}
_SPREADS = (4.0, 10.0)  # other rho for the chosen sampler: more levels at high or at low noise
_FEWER, _FEWEST = 2, 3  # the other sampler is tried with so many calls fewer, down to this number
_GUIDANCE = (1.3, 1.7, 2.2)
# Calls that the first search leaves for the rest, about two tries each, and as shares at most.
_FOR_OTHERS, _FOR_GUIDANCE = (16.0, 0.2), (26.0, 0.4)
_NEAR = 0.1  # of the floors: a sampler with fewer calls may be this much farther, no more
_PATIENCE = 2.0  # after this many times the seconds asked for, the choice uses what it has

Inputs = Callable[[int, int], tuple[Tensor, Tensor | None]]
Suffers = Callable[[Tensor, Tensor], bool]


class Judging(Protocol):
    """Real pictures that a set of pictures can be measured against."""

    def measure(self, images: Tensor) -> Floors:
        """Return how far images, [n, c, h, w] in [-1, 1], are from real ones."""
        ...


class SamplerSearch:
    """What was tried, and whether there is time for more; the arguments are `choose_sampler`'s.

    Attributes:
        found: how far the pictures of each sampler are from real ones, as they were tried.
        start: when the search began.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        judge: Judging,
        inputs: Inputs,
        usual: SamplerSettings,
        num_images: int,
        seconds: float | None,
        calls: float | None,
        clock: Callable[[], float],
        weak: Denoiser | None = None,
        as_shown: Callable[[Tensor], Tensor] = lambda images: images,
        palette: Palette = NO_PALETTE,
        sigma_data: float = 0.5,
    ) -> None:
        """Start the clock, and measure the time of one call if time is limited."""
        self.start = clock()
        self.found: dict[SamplerSettings, Floors] = {}
        self._denoiser, self._weak, self._judge, self._inputs = denoiser, weak, judge, inputs
        self._as_shown = as_shown
        self._usual, self._num_images = usual, num_images
        self._palette, self._sigma_data = palette, sigma_data
        self._seconds, self._clock = seconds, clock
        self._group = at_once(inputs(0, 1)[0][0, 0].numel())
        self._ends = [end for end in _ENDS if end < usual.sigma_max]
        self._left = float("inf") if calls is None else calls
        if seconds is not None:
            self._left = min(self._left, seconds / (self._seconds_a_call() * num_images))
        others, guidance = (min(n, s * self._left) for n, s in (_FOR_OTHERS, _FOR_GUIDANCE))
        self._for_guidance = 0.0 if weak is None else guidance
        others = others if usual.name == HEUN.name else 0.0  # the other one comes first already
        spare = self._left - usual.calls  # the usual one comes before all
        self._kept = max(0.0, min(others + self._for_guidance, spare))

    def climb(self) -> None:
        """Try the usual sampler and a few more of its name, then neighbours of the best.

        It ends when none of them is better.
        """
        self._try(self._usual)
        for steps, stop in _FIRST[self._usual.name]:
            if stop in self._ends:
                self._try(replace(self._usual, num_steps=steps, sigma_min=stop))
        while self.found:
            best = self.best()
            fresh = [key for key in self._neighbours(best) if key not in self.found]
            tried = [self._try(key) for key in fresh]
            if not any(tried) or self.best() == best:
                return

    def try_others(self, chosen: SamplerSettings) -> None:
        """Try DPM-Solver++(2M) in as many calls as the chosen sampler, and in fewer.

        It has more levels in these calls, so it may stop one level lower too.
        """
        self._kept = self._for_guidance
        if chosen.name == DPMPP_2M.name:
            return
        calls, at = chosen.calls, self._end_of(chosen)
        for stop in self._ends[at : at + 2]:
            while calls >= _FEWEST:
                steps = DPMPP_2M.most_steps(calls)
                key = replace(chosen, name=DPMPP_2M.name, num_steps=steps, sigma_min=stop)
                if not self._try(key):
                    return
                if not self._as_good(key, self.best()):
                    break
                calls -= _FEWER

    def best(self) -> SamplerSettings:
        """The sampler whose pictures are nearest to real ones."""
        return min(self.found, key=lambda key: self.found[key].value)

    def cheapest_as_good(self) -> SamplerSettings:
        """The sampler with the fewest calls of those within a tenth of the best.

        The best of many is partly lucky: in 16 draws, the smallest number chose what a trained
        judge finds best 8 times, and this rule 15 times.
        """
        best = self.best()
        good = [key for key in self.found if self._as_good(key, best)]
        return min(good, key=lambda key: (key.calls, self.found[key].value))

    def spread(self, chosen: SamplerSettings) -> SamplerSettings:
        """The same sampler with its levels spaced otherwise, where that is surely better."""
        better = chosen
        for rho in _SPREADS:
            key = replace(chosen, rho=rho)
            if rho == chosen.rho or not self._try(key):
                continue
            surely = self._minus(key, chosen).surely_less
            if surely and self.found[key].value < self.found[better].value:
                better = key
        return better

    def guide(self, chosen: SamplerSettings, suffers: Suffers | None) -> SamplerSettings:
        """The same sampler with guidance, where it is surely better, and worth its calls."""
        if self._weak is None:
            return chosen
        better = before = chosen
        self._kept = 0.0
        for weight in _GUIDANCE:
            key = replace(chosen, guidance=weight)
            if not self._try(key) or self._minus(key, before).surely_more:
                break
            before = key
            gain = self._minus(key, chosen)
            worth = gain.surely_less and -gain.value > self._near(chosen)
            if worth and self.found[key].value < self.found[better].value:
                better = key
        if better == chosen or suffers is None:
            return better
        return chosen if suffers(self._drawn(better), self._drawn(chosen)) else better

    def long_walk(self) -> dict[float, float]:
        """What each stop gives in many calls; {} if there is no time for it."""
        if not self._affordable(LONG):
            return {}
        levels = torch.tensor(_stops(self._usual.sigma_max), dtype=torch.float32)
        walks = self._walk(levels)
        return {stop: self._judge.measure(walks[stop]).at_standard for stop in _STOPS}

    def is_usual(self, key: SamplerSettings) -> bool:
        """Whether a sampler has the usual spacing and no guidance."""
        return (key.rho, key.guidance) == (self._usual.rho, 1.0)

    def _try(self, key: SamplerSettings) -> bool:
        """Measure a sampler if there is time; say whether it is measured."""
        if key in self.found:
            return True
        if not self._affordable(key.calls):
            return False
        self.found[key] = self._judge.measure(self._drawn(key))
        return True

    def _neighbours(self, key: SamplerSettings) -> list[SamplerSettings]:
        """One step more or less, the next stop above or below, and both: same spacing."""
        named = STEPS[key.name]
        at, end = named.index(key.num_steps), self._end_of(key)
        found = []
        for step_by, end_by in ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1)):
            i, j = at + step_by, end + end_by
            if 0 <= i < len(named) and 0 <= j < len(self._ends):
                found.append(replace(key, num_steps=named[i], sigma_min=self._ends[j]))
        return found

    def _end_of(self, key: SamplerSettings) -> int:
        """Which of the last noise levels is its own, or the nearest to it."""
        return min(
            range(len(self._ends)), key=lambda at: abs(math.log(self._ends[at] / key.sigma_min))
        )

    def _minus(self, key: SamplerSettings, other: SamplerSettings) -> Difference:
        return self.found[key].minus(self.found[other])

    def _near(self, best: SamplerSettings) -> float:
        """How much farther a sampler with fewer calls may be, in floors."""
        return _NEAR * max(self.found[best].value, 1.0)

    def _as_good(self, key: SamplerSettings, best: SamplerSettings) -> bool:
        return self._minus(key, best).value <= self._near(best)

    def _affordable(self, calls: int) -> bool:
        """Whether these calls are within what is left, and not kept; if so, they are taken."""
        spent = self._clock() - self.start
        late = self._seconds is not None and spent > _PATIENCE * self._seconds
        if late or calls > self._left - self._kept:
            return False
        self._left -= calls
        return True

    @torch.no_grad()
    def _seconds_a_call(self) -> float:
        """Seconds of one network call for one picture."""
        noise, labels = self._inputs(0, self._group)
        sigma = noise.new_ones(len(noise))
        self._denoiser(noise, sigma, labels)
        start = self._clock()
        self._denoiser(noise, sigma, labels)
        return max(self._clock() - start, 1e-9) / len(noise)

    @torch.no_grad()
    def _drawn(self, key: SamplerSettings) -> Tensor:
        """Pictures of a sampler as people get them, on the CPU; all samplers draw the same ones."""
        denoiser = self._denoiser
        if key.guidance != 1:
            assert self._weak is not None
            denoiser = guided(denoiser, self._weak, key.guidance, key.guidance_interval)
        parts, levels, palette = [], key.levels(), self._palette
        for noise, labels in self._noises():
            leaning = palette.during(denoiser, self._sigma_data, noise.shape[1])
            x0 = sample(key.sampler.states(leaning, noise, levels.to(noise.device), labels))
            again = partial(torch.roll, noise, 1, dims=3)  # other noise, the same for all samplers
            given = (denoiser, self._sigma_data, again, labels, self._as_shown)
            x0 = palette.after(x0.clamp(-1, 1), *given)
            parts.append(palette.applied(self._as_shown(x0.float().clamp(-1, 1)).cpu()))
        return torch.cat(parts)

    @torch.no_grad()
    def _walk(self, levels: Tensor) -> dict[float, Tensor]:
        """D(x, sigma) at the stops of a long walk, for the same pictures."""
        parts: dict[float, list[Tensor]] = {stop: [] for stop in _STOPS}
        names = [round(float(sigma), 4) for sigma in levels]  # float32 has more digits than _STOPS
        for noise, labels in self._noises():
            for state in HEUN.states(self._denoiser, noise, levels.to(noise.device), labels):
                if names[state.step - 1] in parts:
                    x0 = self._as_shown(state.x0.float().clamp(-1, 1)).cpu()
                    parts[names[state.step - 1]].append(self._palette.applied(x0))
        return {stop: torch.cat(part) for stop, part in parts.items()}

    def _noises(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, self._num_images, self._group):
            yield self._inputs(start, min(self._group, self._num_images - start))


def _stops(sigma_max: float) -> list[float]:
    """Levels of the long walk: a few from sigma_max to the first stop, then every stop."""
    above = karras_sigmas(_ABOVE + 1, _STOPS[0], sigma_max).tolist()[:-1]
    return [*above, *_STOPS]
