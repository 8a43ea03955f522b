"""DPM-Solver++(2M) (Lu et al. 2022): of second order, deterministic, one call a noise level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State


def _walk(
    denoise: Denoise, x: Tensor, levels: list[float], _: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    before: tuple[Tensor, float] | None = None  # x0 at the level before, and that step in ln sigma
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        step = math.log(sigma / lower)
        ahead = x0
        if before is not None:
            ahead = torch.lerp(before[0], x0, 1 + step / (2 * before[1]))
        x = torch.lerp(ahead, x, lower / sigma)
        before = x0, step
    yield levels[-1], x, denoise(x, levels[-1])


DPMPP_2M = Sampler("dpmpp_2m", _walk)


def dpmpp_2m(
    denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor | None = None
) -> Iterator[State]:
    """DPM-Solver++(2M): a step of DDIM towards an x0 that is extrapolated from two levels.

    With ``h = ln(sigma / sigma')``, and ``x0_before``, ``h_before`` of the step before,
    ``x' = x0* + (sigma' / sigma) (x - x0*)``, ``x0* = x0 + h / (2 h_before) (x0 - x0_before)``. The
    first step has no level before it and is DDIM's. The denoiser is called num_steps times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps].
        condition: class of each picture, int64 [n], or None.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall.

    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2, divided by alpha: lambda = -ln sigma.

    Example:
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([4.0, 2.0, 1.0])
        >>> [s.x.item() for s in dpmpp_2m(lambda x, sigma, c: x / 4, noise, sigmas)]
        [4.0, 2.5, 1.46875]
    """
    return DPMPP_2M.states(denoiser, noise, sigmas, condition)
