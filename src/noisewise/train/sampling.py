"""Where a teacher's sampler stops and how many calls it takes: measured for each trained net.

Papers: Karras et al. 2022 (EDM) for the levels and Heun's step. EDM stops at sigma = 0.002. A net
trained for minutes is better stopped earlier and asked for the picture: which level that is differs
from net to net and from set to set, so it is measured against held-out pictures, on one walk down a
fine ladder of levels (each level's D(x, sigma) is what stopping there would have given).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from noisewise.diffusion import Denoiser, heun, karras_sigmas
from noisewise.train.description import SamplerSettings

_STOPS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
_STEPS = (3, 4, 5, 6, 8)
_CHUNK = 64


class Measured(Protocol):
    """A distance with an interval."""

    value: float
    low: float
    high: float


class Reference(Protocol):
    """Real pictures that a set of pictures can be measured against."""

    def distance(self, images: Tensor, /) -> Measured:
        """Return the distance of images, [n, c, h, w] in [-1, 1]."""
        ...


@dataclass(frozen=True)
class SamplerChoice:
    """The chosen sampler and what the choice rests on.

    Attributes:
        settings: the sampler, with its reason.
        by_stop: (sigma_min, distance) of each level tried.
        by_steps: (num_steps, distance) of each number of steps tried, at the chosen level.
        num_images: pictures behind each distance.
        seconds: how long the measurement took.
    """

    settings: SamplerSettings
    by_stop: tuple[tuple[float, float], ...]
    by_steps: tuple[tuple[int, float], ...]
    num_images: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "by_stop": [list(pair) for pair in self.by_stop],
            "by_steps": [list(pair) for pair in self.by_steps],
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
) -> SamplerChoice:
    """Choose sigma_min and num_steps by the distance of the sampler's pictures to real ones.

    First sigma_min: one walk of many steps, D(x, sigma) judged at every level; the lowest distance
    wins. Then num_steps: the fewest whose distance lies within the winner's interval.

    Args:
        denoiser: trained.
        reference: held-out pictures.
        inputs: ``inputs(start, count)`` gives standard normal noise [count, c, h, w], and labels or
            None.
        settings: sigma_max and rho; returned with the chosen values and the reason.
        num_images: pictures for each distance.
        seconds: stop measuring numbers of steps after this long; None: measure all.

    Source: our own measurements; no paper is known to us that measures it for each net.
    """
    start = time.monotonic()
    levels = torch.tensor(_stops(settings.sigma_max), dtype=torch.float32)
    walks = _walk(denoiser, inputs, levels, num_images)
    by_stop = {s: reference.distance(x0) for s, x0 in walks.items() if s in _STOPS}
    stop = min(by_stop, key=lambda sigma: by_stop[sigma].value)
    by_steps: dict[int, Measured] = {}
    for num_steps in _STEPS:
        sigmas = karras_sigmas(num_steps, stop, settings.sigma_max, settings.rho)
        x0 = _walk(denoiser, inputs, sigmas, num_images)[float(sigmas[-1])]
        by_steps[num_steps] = reference.distance(x0)
        if seconds is not None and time.monotonic() - start > seconds:
            break
    best = min(by_steps, key=lambda steps: by_steps[steps].value)
    steps = min(n for n, d in by_steps.items() if d.value <= by_steps[best].high)
    last = min(by_stop)
    reason = (
        f"measured on {num_images} pictures against held-out ones: distance "
        f"{by_stop[stop].value:.4f} when stopped at sigma {stop:g}, {by_stop[last].value:.4f} at "
        f"{last:g}; {by_steps[steps].value:.4f} in {2 * steps - 1} calls, "
        f"{by_steps[best].value:.4f} in {2 * best - 1}"
    )
    return SamplerChoice(
        replace(settings, name="heun", sigma_min=stop, num_steps=steps, reason=reason),
        tuple((sigma, float(d.value)) for sigma, d in by_stop.items()),
        tuple((n, float(d.value)) for n, d in by_steps.items()),
        num_images,
        time.monotonic() - start,
    )


def _stops(sigma_max: float) -> list[float]:
    """Levels of the fine walk: a few from sigma_max to the first stop, then every stop."""
    above = karras_sigmas(6, _STOPS[0], sigma_max).tolist()[:-1]
    return [*above, *_STOPS]


@torch.no_grad()
def _walk(
    denoiser: Denoiser, inputs: Inputs, sigmas: Tensor, num_images: int
) -> dict[float, Tensor]:
    """D(x, sigma) at every level of a walk down `sigmas`, for the same pictures at each."""
    found: dict[float, list[Tensor]] = {}
    names = [round(float(sigma), 6) for sigma in sigmas]
    for start in range(0, num_images, _CHUNK):
        noise, labels = inputs(start, min(_CHUNK, num_images - start))
        for state in heun(denoiser, noise, sigmas.to(noise.device), labels):
            found.setdefault(names[state.step - 1], []).append(state.x0.float().cpu())
    named = {name: torch.cat(parts) for name, parts in found.items()}
    return {**named, float(sigmas[-1]): named[names[-1]]}
