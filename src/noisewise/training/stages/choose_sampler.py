"""Where a teacher's sampler stops and how many calls it takes: measured for each trained net.

Papers: Karras et al. 2022 (EDM) for the levels and Heun's step. EDM stops at sigma = 0.002. A net
that trained for minutes draws better pictures if the sampler stops earlier and denoises once there.
The best level differs from net to net and from set to set, so it is measured against real pictures.

All samplers start from the same noise, so they are compared in pairs: what their pictures share
cancels. Too few pictures choose wrongly (measured: 80 pictures find the better of two samplers in 8
to 12 of 16 draws, 256 in 15), so where time is short fewer samplers are tried, on as many pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from noisewise.diffusion import HEUN, Denoiser, karras_sigmas
from noisewise.quality.judge import Difference, Floors
from noisewise.training.models.model_config import SamplerSettings

_STOPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)  # of the long walk
_SAMPLER = HEUN  # the sampler of all measurements here
_ABOVE = 5  # levels of the long walk above the first stop
_STEPS = (3, 4, 5, 6, 8, 10)
_ENDS = (1.0, 0.7, 0.5, 0.3, 0.18, 0.08, 0.05)
_FIRST = ((5, 0.3), (4, 0.5), (6, 0.18), (8, 0.08))  # tried first: few steps must stop early
_SPREADS = (4.0, 10.0)  # other rho for the chosen sampler: more levels at high or at low noise
_LONG = _SAMPLER.num_calls(_ABOVE + len(_STOPS))  # network calls of the long walk
_NEAR = 0.1  # of the floors: a sampler with fewer calls may be this much farther, no more
_CHUNK = 64
_PATIENCE = 2.0  # after this many times the seconds asked for, the choice uses what it has


class Judging(Protocol):
    """Real pictures that a set of pictures can be measured against."""

    def measure(self, images: Tensor) -> Floors:
        """Return how far images, [n, c, h, w] in [-1, 1], are from real ones."""
        ...


@dataclass(frozen=True)
class SamplerChoice:
    """The chosen sampler and the measurements behind the choice.

    Attributes:
        settings: the sampler, with its reason.
        by_stop: (sigma_min, floors at 500 pictures) of each stop of the long walk; empty if time
            was short.
        few: (num_steps, sigma_min, floors) of each sampler with few calls, as they were tried.
        by_spread: (rho, floors) of the chosen one of these, for each spacing of its levels.
        num_images: pictures behind each number.
        seconds: duration of the measurement.
    """

    settings: SamplerSettings
    by_stop: tuple[tuple[float, float], ...]
    few: tuple[tuple[int, float, float], ...]
    by_spread: tuple[tuple[float, float], ...]
    num_images: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "by_stop": [list(pair) for pair in self.by_stop],
            "few": [list(row) for row in self.few],
            "by_spread": [list(pair) for pair in self.by_spread],
            "num_images": self.num_images,
            "seconds": self.seconds,
        }


Inputs = Callable[[int, int], tuple[Tensor, Tensor | None]]
Key = tuple[int, float, float]  # number of levels, last level, rho


def choose_sampler(
    denoiser: Denoiser,
    judge: Judging,
    inputs: Inputs,
    settings: SamplerSettings,
    num_images: int = 256,
    seconds: float | None = None,
    calls: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SamplerChoice:
    """Choose sigma_min, num_steps and rho by what the judge says of the sampler's pictures.

    Four samplers of 7 to 15 calls are tried, then the neighbours of the best one, until none of
    them is better. Of those within a tenth of the best, the one with the fewest calls is chosen (no
    interval makes this tenth wider). Its levels are then spaced in two other ways, which are taken
    only if surely better. If there is time left, one long walk shows what each stop would give if
    calls cost nothing.

    Args:
        denoiser: trained.
        judge: real pictures.
        inputs: ``inputs(start, count)`` gives standard normal noise [count, c, h, w], and labels or
            None.
        settings: sigma_max and the usual rho; returned with the chosen values and the reason.
        num_images: pictures behind each number.
        seconds: about how long the choice may take; it then tries fewer samplers.
        calls: network calls a picture that the choice may take, all together; None: no limit.
        clock: seconds that never go back; with several processes, the same on all.

    Source: our own measurements; we know no paper that measures it for each net.
    """
    search = _Search(denoiser, judge, inputs, settings, num_images, seconds, calls, clock)
    search.climb()
    if not search.found:
        reason = "the usual one: the budget is too short to measure others"
        kept = replace(settings, reason=reason)
        return SamplerChoice(kept, (), (), (), num_images, clock() - search.start)
    best = search.best()
    chosen = search.spread(search.cheapest_as_good(best))
    by_stop = search.long_walk()
    steps, stop, rho = chosen
    rho_tried = best[2]
    few = [
        (key[0], key[1], found.value) for key, found in search.found.items() if key[2] == rho_tried
    ]
    spreads = {k[2]: f.at_standard for k, f in search.found.items() if k[:2] == chosen[:2]}
    settings = replace(
        settings,
        name=_SAMPLER.name,
        sigma_min=stop,
        num_steps=steps,
        rho=rho,
        reason=_reason(search, chosen, few, spreads, by_stop),
    )
    return SamplerChoice(
        settings,
        tuple(by_stop.items()),
        tuple(few),
        tuple(spreads.items()),
        num_images,
        clock() - search.start,
    )


class _Search:
    """What was tried, and whether there is time for more."""

    def __init__(
        self,
        denoiser: Denoiser,
        judge: Judging,
        inputs: Inputs,
        settings: SamplerSettings,
        num_images: int,
        seconds: float | None,
        calls: float | None,
        clock: Callable[[], float],
    ) -> None:
        """Start the clock, and measure the time of one call if time is limited."""
        self.start = clock()
        self.denoiser, self.judge, self.inputs = denoiser, judge, inputs
        self.settings, self.num_images = settings, num_images
        self.seconds, self.clock = seconds, clock
        self.found: dict[Key, Floors] = {}
        self._left = float("inf") if calls is None else calls
        if seconds is not None:
            self._left = min(self._left, seconds / (self._seconds_a_call() * num_images))

    def climb(self) -> None:
        """Try the first samplers, then the neighbours of the best one until none is better."""
        rho = self.settings.rho
        for steps, stop in _FIRST:
            self._try((steps, stop, rho))
        while self.found:
            best = self.best()
            fresh = [key for key in _neighbours(best) if key not in self.found]
            tried = [self._try(key) for key in fresh]
            if not any(tried) or self.best() == best:
                return

    def best(self) -> Key:
        """The sampler whose pictures are nearest to real ones."""
        return min(self.found, key=lambda key: self.found[key].value)

    def cheapest_as_good(self, best: Key) -> Key:
        """The sampler with the fewest calls of those within a tenth of the best.

        The best of many is partly lucky: in 16 draws, the smallest number chose what a trained
        judge finds best 8 times, and this rule 15 times.
        """
        allowed = _NEAR * max(self.found[best].value, 1.0)
        good = [key for key in self.found if self._minus(key, best).value <= allowed]
        fewest = min(key[0] for key in good)
        return min((k for k in good if k[0] == fewest), key=lambda k: self.found[k].value)

    def spread(self, chosen: Key) -> Key:
        """The same sampler with its levels spaced otherwise, where that is surely better."""
        better = chosen
        for rho in _SPREADS:
            key = (chosen[0], chosen[1], rho)
            if rho == chosen[2] or not self._try(key):
                continue
            surely = self._minus(key, chosen).high < 0
            if surely and self.found[key].value < self.found[better].value:
                better = key
        return better

    def long_walk(self) -> dict[float, float]:
        """What each stop gives in many calls; {} if there is no time for it."""
        if not self._affordable(_LONG):
            return {}
        levels = torch.tensor(_stops(self.settings.sigma_max), dtype=torch.float32)
        walks = self._walk(levels, _STOPS)
        return {stop: self.judge.measure(walks[stop]).at_standard for stop in _STOPS}

    def _try(self, key: Key) -> bool:
        """Measure a sampler if there is time; say whether it is measured."""
        steps, stop, rho = key
        if key in self.found:
            return True
        if stop >= self.settings.sigma_max or not self._affordable(_SAMPLER.num_calls(steps)):
            return False
        sigmas = karras_sigmas(steps, stop, self.settings.sigma_max, rho)
        pictures = self._walk(sigmas, (stop,))[stop]
        self.found[key] = self.judge.measure(pictures)
        return True

    def _minus(self, key: Key, other: Key) -> Difference:
        return self.found[key].minus(self.found[other])

    def _affordable(self, calls: int) -> bool:
        """Whether these calls are within what is left; if so, they are taken from it."""
        late = self.seconds is not None and (self.clock() - self.start > _PATIENCE * self.seconds)
        if late or calls > self._left:
            return False
        self._left -= calls
        return True

    @torch.no_grad()
    def _seconds_a_call(self) -> float:
        """Seconds of one network call for one picture."""
        noise, labels = self.inputs(0, _CHUNK)
        sigma = noise.new_ones(len(noise))
        self.denoiser(noise, sigma, labels)
        start = self.clock()
        self.denoiser(noise, sigma, labels)
        return max(self.clock() - start, 1e-9) / len(noise)

    @torch.no_grad()
    def _walk(self, sigmas: Tensor, wanted: tuple[float, ...]) -> dict[float, Tensor]:
        """D(x, sigma) at the wanted levels of a walk down `sigmas`, for the same pictures."""
        parts: dict[float, list[Tensor]] = {}
        names = [round(float(sigma), 4) for sigma in sigmas]  # float32 has more digits than _STOPS
        for start in range(0, self.num_images, _CHUNK):
            noise, labels = self.inputs(start, min(_CHUNK, self.num_images - start))
            levels = sigmas.to(noise.device)
            for state in _SAMPLER.states(self.denoiser, noise, levels, labels):
                name = names[state.step - 1]
                if name in wanted:
                    parts.setdefault(name, []).append(state.x0.float().clamp(-1, 1).cpu())
        return {name: torch.cat(part) for name, part in parts.items()}


def _neighbours(key: Key) -> list[Key]:
    """One step more or less, the next stop above or below, and both: same spacing."""
    steps, stop, rho = key
    at, end = _STEPS.index(steps), _ENDS.index(stop)
    found = []
    for step_by, end_by in ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1)):
        i, j = at + step_by, end + end_by
        if 0 <= i < len(_STEPS) and 0 <= j < len(_ENDS):
            found.append((_STEPS[i], _ENDS[j], rho))
    return found


def _stops(sigma_max: float) -> list[float]:
    """Levels of the long walk: a few from sigma_max to the first stop, then every stop."""
    above = karras_sigmas(_ABOVE + 1, _STOPS[0], sigma_max).tolist()[:-1]
    return [*above, *_STOPS]


def _reason(
    search: _Search,
    chosen: Key,
    few: list[tuple[int, float, float]],
    spreads: dict[float, float],
    by_stop: dict[float, float],
) -> str:
    """The choice in words, for people."""
    steps, stop, rho = chosen
    best = min(floors for _, _, floors in few)
    text = (
        f"measured on {search.num_images} pictures: "
        f"{search.found[chosen].at_standard:.2g} floors in "
        f"{_SAMPLER.num_calls(steps)} calls, stopped at sigma {stop:g} (best of {len(few)}: "
        f"{best:.2g})"
    )
    others = ", ".join(f"{value:.2g} with {r:g}" for r, value in spreads.items() if r != rho)
    if others:
        text += f", spread with rho {rho:g} ({others})"
    if by_stop:
        ideal = min(by_stop, key=by_stop.__getitem__)
        text += f"; up to {_LONG} calls reach {by_stop[ideal]:.2g} at {ideal:g}"
    return text
