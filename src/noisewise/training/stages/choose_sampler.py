"""Where a teacher's sampler stops and how many calls it takes: measured for each trained net.

Papers: Karras et al. 2022 (EDM) for the levels and Heun's step. EDM stops at sigma = 0.002. A net
that trained for minutes draws better pictures if the sampler stops earlier and denoises once there.
The best level differs from net to net and from set to set, so it is measured against held-out
pictures, on one walk down many levels (D(x, sigma) at each level is the picture of a stop there).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from noisewise.diffusion import HEUN, Denoiser, karras_sigmas
from noisewise.training.models.model_config import SamplerSettings

_STOPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
_SAMPLER = HEUN  # the sampler of all measurements here
_ABOVE = 5  # levels of the long walk above the first stop
_NEAR = 0.1  # share of the lowest distance within which distances count as equal
_FEW = tuple((steps, stop) for steps in (4, 5, 6, 8) for stop in (0.5, 0.3, 0.18, 0.08))
_SPREADS = (4.0, 10.0)  # other rho for the chosen sampler: more levels at high or at low noise
_LONG = _SAMPLER.num_calls(_ABOVE + len(_STOPS))  # network calls of the long walk
_MOST = max(_SAMPLER.num_calls(steps) for steps, _ in _FEW)
_CALLS = _LONG + sum(_SAMPLER.num_calls(n) for n, _ in _FEW) + len(_SPREADS) * _MOST  # a picture
_CHUNK = 64
_PATIENCE = 2.0  # after this many times the seconds asked for, the choice uses what it has


class Measured(Protocol):
    """A distance with an interval."""

    @property
    def value(self) -> float:
        """Best guess."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        ...


class Reference(Protocol):
    """Real pictures that a set of pictures can be measured against."""

    def distance(self, images: Tensor) -> Measured:
        """Return the distance of images, [n, c, h, w] in [-1, 1]."""
        ...


@dataclass(frozen=True)
class SamplerChoice:
    """The chosen sampler and the measurements behind the choice.

    Attributes:
        settings: the sampler, with its reason.
        by_stop: (sigma_min, distance) of each stop of the long walk.
        few: (num_steps, sigma_min, distance) of each sampler with few calls.
        by_spread: (rho, distance) of the chosen one of these, for each spacing of its levels.
        num_images: pictures behind each distance.
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


def choose_sampler(
    denoiser: Denoiser,
    reference: Reference,
    inputs: Inputs,
    settings: SamplerSettings,
    num_images: int = 256,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SamplerChoice:
    """Choose sigma_min, num_steps and rho by the distance of the sampler's pictures to real ones.

    One long walk shows the distance at every stop when calls cost nothing. Then samplers of 7 to 15
    calls are tried that stop at four levels. Of those whose distance is within a tenth of the best,
    the one with the fewest calls is chosen. Its levels are then spaced in two other ways; another
    spacing is chosen if its distance is smaller by more than that tenth.

    Args:
        denoiser: trained.
        reference: held-out pictures.
        inputs: ``inputs(start, count)`` gives standard normal noise [count, c, h, w], and labels or
            None.
        settings: sigma_max and the usual rho; returned with the chosen values and the reason.
        num_images: pictures for each distance, at most.
        seconds: about how long the choice may take; it then uses fewer pictures, at least 64. If
            these still take twice as long, it leaves out the samplers with more calls.
        clock: seconds that never go back; with several processes, the same on all.

    Source: our own measurements; we know no paper that measures it for each net.
    """
    start = clock()
    if seconds is not None:
        num_images = _affordable(denoiser, inputs, num_images, seconds, clock)
    levels = torch.tensor(_stops(settings.sigma_max), dtype=torch.float32)
    walks = _walk(denoiser, inputs, levels, num_images)
    by_stop = {stop: reference.distance(walks[stop]) for stop in _STOPS}
    few: dict[tuple[int, float], Measured] = {}

    def measured(steps: int, stop: float, rho: float) -> Measured:
        sigmas = karras_sigmas(steps, stop, settings.sigma_max, rho)
        return reference.distance(_walk(denoiser, inputs, sigmas, num_images)[stop])

    def late() -> bool:
        return seconds is not None and clock() - start > _PATIENCE * seconds

    for steps, stop in _FEW:
        if few and late():
            break
        few[steps, stop] = measured(steps, stop, settings.rho)
    best = min(few.values(), key=lambda distance: distance.value)
    # All samplers start from the same noise, so their order is surer than their intervals say.
    # An unbiased distance may be negative: then only the interval says what is near.
    equal = _NEAR * max(best.value, best.high - best.value)
    near = best.value + equal
    fewest = min(steps for (steps, _), d in few.items() if d.value <= near)
    chosen = min((k for k in few if k[0] == fewest), key=lambda k: few[k].value)
    spreads = {settings.rho: few[chosen]}
    for rho in _SPREADS:
        if rho != settings.rho and not late():
            spreads[rho] = measured(*chosen, rho)
    rho = min(spreads, key=lambda r: spreads[r].value)
    if spreads[rho].value >= few[chosen].value - equal:
        rho = settings.rho
    ideal = min(by_stop, key=lambda stop: by_stop[stop].value)
    others = ", ".join(f"{d.value:.4f} with {r:g}" for r, d in spreads.items() if r != rho)
    others = others or "the usual"
    reason = (
        f"measured on {num_images} pictures against held-out ones: distance "
        f"{spreads[rho].value:.4f} in {_SAMPLER.num_calls(fewest)} calls, stopped at sigma "
        f"{chosen[1]:g} (best of {len(few)}: {best.value:.4f}), "
        f"spread with rho {rho:g} ({others}); with up to {_LONG} calls "
        f"{by_stop[ideal].value:.4f} at {ideal:g} and {by_stop[min(by_stop)].value:.4f} "
        f"at {min(by_stop):g}"
    )
    return SamplerChoice(
        replace(
            settings,
            name=_SAMPLER.name,
            sigma_min=chosen[1],
            num_steps=fewest,
            rho=rho,
            reason=reason,
        ),
        tuple((stop, float(d.value)) for stop, d in by_stop.items()),
        tuple((steps, stop, float(d.value)) for (steps, stop), d in few.items()),
        tuple((r, float(d.value)) for r, d in spreads.items()),
        num_images,
        clock() - start,
    )


@torch.no_grad()
def _affordable(
    denoiser: Denoiser,
    inputs: Inputs,
    num_images: int,
    seconds: float,
    clock: Callable[[], float],
) -> int:
    """Number of pictures that all samplers can draw in this time, from the time of one call."""
    noise, labels = inputs(0, _CHUNK)
    sigma = noise.new_ones(len(noise))
    denoiser(noise, sigma, labels)
    start = clock()
    denoiser(noise, sigma, labels)
    one = (clock() - start) / len(noise)
    return min(num_images, max(_CHUNK, int(seconds / (one * _CALLS))))


def _stops(sigma_max: float) -> list[float]:
    """Levels of the long walk: a few from sigma_max to the first stop, then every stop."""
    above = karras_sigmas(_ABOVE + 1, _STOPS[0], sigma_max).tolist()[:-1]
    return [*above, *_STOPS]


@torch.no_grad()
def _walk(
    denoiser: Denoiser, inputs: Inputs, sigmas: Tensor, num_images: int
) -> dict[float, Tensor]:
    """D(x, sigma) at every level of a walk down `sigmas`, for the same pictures at each."""
    found: dict[float, list[Tensor]] = {}
    names = [round(float(sigma), 4) for sigma in sigmas]  # float32 has more digits than _STOPS
    for start in range(0, num_images, _CHUNK):
        noise, labels = inputs(start, min(_CHUNK, num_images - start))
        for state in _SAMPLER.states(denoiser, noise, sigmas.to(noise.device), labels):
            found.setdefault(names[state.step - 1], []).append(state.x0.float().clamp(-1, 1).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
