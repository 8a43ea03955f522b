"""DDIM (Song et al. 2021), deterministic and of first order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State


def _walk(
    denoise: Denoise, x: Tensor, levels: list[float], _: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    for sigma, lower in pairwise(levels):
        x0 = denoise(x, sigma)
        yield sigma, x, x0
        x = torch.lerp(x0, x, lower / sigma)
    yield levels[-1], x, denoise(x, levels[-1])


DDIM = Sampler("ddim", _walk)


def ddim(
    denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor | None = None
) -> Iterator[State]:
    """DDIM, deterministic: ``x' = x0 + (sigma' / sigma) (x - x0)``.

    It is Euler's first-order step on the same equation as `heun`. The denoiser is called num_steps
    times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps].
        condition: class of each picture, int64 [n], or None.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall.

    Source: Song et al. 2021, equation 13.

    Example:
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([2.0, 1.0])
        >>> [s.x.item() for s in ddim(lambda x, sigma, c: 0 * x, noise, sigmas)]
        [2.0, 1.0]
    """
    return DDIM.states(denoiser, noise, sigmas, condition)
