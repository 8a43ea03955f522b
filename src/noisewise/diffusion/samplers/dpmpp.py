"""DPM-Solver++(2M) (Lu et al. 2022): one call a noise level, without noise or with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.ddpm import ancestral_step
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State, normal_from


def _walk(
    denoise: Denoise, x: Tensor, levels: list[float], _: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    before: tuple[Tensor, float] | None = None  # x0 at the level before, and that step in ln sigma
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        step = math.log(sigma / lower)
        x = torch.lerp(ahead_of(x0, step, before), x, lower / sigma)
        before = x0, step
    yield levels[-1], x, denoise(x, levels[-1])


def _walk_with_noise(
    denoise: Denoise, x: Tensor, levels: list[float], normal: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    before: tuple[Tensor, float] | None = None
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        step = math.log(sigma / lower)
        x = ancestral_step(ahead_of(x0, step, before), x, sigma, lower, normal())
        before = x0, step
    yield levels[-1], x, denoise(x, levels[-1])


def ahead_of(x0: Tensor, step: float, before: tuple[Tensor, float] | None) -> Tensor:
    """x0 at half of the next step, as a line through the last two levels has it."""
    return x0 if before is None else torch.lerp(before[0], x0, 1 + step / (2 * before[1]))


DPMPP_2M = Sampler("dpmpp_2m", _walk)
DPMPP_2M_SDE = Sampler("dpmpp_2m_sde", _walk_with_noise, stochastic=True)


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


def dpmpp_2m_sde(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator,
) -> Iterator[State]:
    """DPM-Solver++(2M) with noise: DDPM's step towards an x0 that is extrapolated from two levels.

    ``x' = x0* + (sigma' / sigma)^2 (x - x0*) + sigma' sqrt(1 - (sigma' / sigma)^2) n`` with fresh
    noise n, and x0* as in `dpmpp_2m`. Fresh noise takes the place of errors made at higher levels,
    which a walk without noise keeps. The denoiser is called num_steps times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps].
        condition: class of each picture, int64 [n], or None.
        generator: source of the noise of each step.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall.

    Source: Lu et al. 2022, "DPM-Solver++", SDE-DPM-Solver++(2M), divided by alpha.

    Example:
        >>> from noisewise.diffusion import sample
        >>> generator = torch.Generator().manual_seed(0)
        >>> states = dpmpp_2m_sde(lambda x, sigma, c: 0 * x, torch.ones(1, 1),
        ...                       torch.tensor([2.0, 1.0]), generator=generator)
        >>> sample(states)
        tensor([[0.]])
    """
    return DPMPP_2M_SDE.states(denoiser, noise, sigmas, condition, normal_from(noise, generator))
