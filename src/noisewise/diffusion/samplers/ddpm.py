"""DDPM (Ho et al. 2020): ancestral sampling, which adds noise at each level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State, normal_from


def _walk(
    denoise: Denoise, x: Tensor, levels: list[float], normal: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        x = ancestral_step(x0, x, sigma, lower, normal())
    yield levels[-1], x, denoise(x, levels[-1])


def ancestral_step(x0: Tensor, x: Tensor, sigma: float, lower: float, noise: Tensor) -> Tensor:
    """Draw x' at the lower level from the posterior ``q(x' | x, x0)``, see `ddpm`."""
    ratio = (lower / sigma) ** 2
    return torch.lerp(x0, x, ratio).add_(noise, alpha=lower * math.sqrt(1 - ratio))


DDPM = Sampler("ddpm", _walk, stochastic=True)


def ddpm(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator,
) -> Iterator[State]:
    """DDPM's ancestral sampling: draw x' from the posterior ``q(x' | x, x0)``.

    Mean ``x0 + (sigma'/sigma)^2 (x - x0)``, variance ``sigma'^2 (1 - (sigma'/sigma)^2)``: the
    paper's beta-tilde, divided by alpha^2. The denoiser is called num_steps times.

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

    Source: Ho et al. 2020, equations 6 and 7.

    Example:
        >>> from noisewise.diffusion import sample
        >>> generator = torch.Generator().manual_seed(0)
        >>> states = ddpm(lambda x, sigma, c: 0 * x, torch.ones(1, 1), torch.tensor([2.0, 1.0]),
        ...               generator=generator)
        >>> sample(states)
        tensor([[0.]])
    """
    return DDPM.states(denoiser, noise, sigmas, condition, normal_from(noise, generator))
