"""EDM's sampler (Karras et al. 2022): Heun's method, of second order, with churn if asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State, normal_from


def _walk(
    denoise: Denoise, x: Tensor, levels: list[float], normal: Normal, churn: float = 0.0
) -> Iterator[tuple[float, Tensor, Tensor]]:
    gain = 1 + min(churn / len(levels), math.sqrt(2) - 1)
    for level, lower in pairwise(levels):
        sigma = level * gain
        if churn > 0:
            x = x.add(normal(), alpha=math.sqrt(sigma**2 - level**2))
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        slope = (x - x0) / sigma
        euler = x.add(slope, alpha=lower - sigma)
        slope += (euler - denoise(euler, lower)) / lower
        x = x.add(slope, alpha=(lower - sigma) / 2)
    yield levels[-1], x, denoise(x, levels[-1])


HEUN = Sampler("heun", _walk, calls_each=2)


def churned_heun(churn: float) -> Sampler:
    """Return Heun's sampler with churn; see `heun`.

    Raises:
        ValueError: if churn is not above 0.

    Example:
        >>> churned_heun(10.0).stochastic
        True
    """
    if not churn > 0:
        raise ValueError(f"churn is {churn:g}; it must be above 0")
    return Sampler("heun with churn", partial(_walk, churn=churn), calls_each=2, stochastic=True)


def heun(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    condition: Tensor | None = None,
    churn: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """EDM's sampler: Heun's second-order step on ``dx / dsigma = (x - D(x, sigma)) / sigma``.

    With churn each step first adds noise, up to ``sigma (1 + min(churn / num_steps, sqrt 2 - 1))``,
    which lets the sampler repair its own errors; then the State's sigma is that raised level. The
    final denoise adds none. The denoiser is called 2 (num_steps - 1) + 1 times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps], for example `karras_sigmas`.
        condition: class of each picture, int64 [n], or None.
        churn: S_churn of the paper, 0 or more; 0 is deterministic.
        generator: source of the churn's noise; needed if churn > 0.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall, if churn is negative, or if it has no generator.

    Source: Karras et al. 2022, algorithms 1 and 2 (S_min = 0, S_max = infinity, S_noise = 1).

    Example:
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([2.0, 1.0])
        >>> states = heun(lambda x, sigma, c: 0 * x, noise, sigmas)
        >>> [(s.step, s.sigma, s.x.item(), s.calls) for s in states]
        [(1, 2.0, 2.0, 1), (2, 1.0, 1.0, 3)]
    """
    if churn == 0:
        return HEUN.states(denoiser, noise, sigmas, condition)
    if generator is None:
        raise ValueError("churn adds noise at each level; give a generator for it")
    source = normal_from(noise, generator)
    return churned_heun(churn).states(denoiser, noise, sigmas, condition, source)
