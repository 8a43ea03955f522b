"""Guidance: a denoiser moves on from its answer for all classes, towards the class asked for.

Papers: Ho and Salimans 2022, "Classifier-free diffusion guidance"; Kynkaanniemi et al. 2024,
"Applying guidance in a limited interval improves sample and distribution quality" (at high noise it
loses variety, at low noise it does nothing); Karras et al. 2024, "Guiding a diffusion model with a
bad version of itself" (any weaker denoiser will do); Sadat et al. 2024, "No training, no problem"
(a label that says nothing serves as well as one that was trained to mean "any"); Zhou et al. 2024,
"Guided score identity distillation" (guidance that is distilled into a generator).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.samplers.sampler import Sampler, sample


def guided(
    denoiser: Denoiser, weak: Denoiser, weight: float, interval: tuple[float, float]
) -> Denoiser:
    """Return ``D_w = D + (w - 1) (D - D_weak)`` inside an interval of noise levels, D elsewhere.

    With w = 1 it is the denoiser itself. Only pictures inside the interval cost a second call.

    Args:
        denoiser: D(x, sigma, condition).
        weak: D_weak, a denoiser with the same arguments: the same net for all classes at once
            (`with_shares`), or a smaller or less trained one.
        weight: w, 1 or more; 1 does not guide.
        interval: (low, high): it guides where low < sigma <= high.

    Raises:
        ValueError: if the weight or the interval cannot be used.

    Source: Kynkaanniemi et al. 2024, equation 4.

    Example:
        >>> better = guided(lambda x, s, c: x + 1, lambda x, s, c: x, 1.5, (0.2, 2.0))
        >>> better(torch.zeros(3, 1), torch.tensor([0.1, 1.0, 5.0])).flatten()
        tensor([1.0000, 1.5000, 1.0000])
    """
    check_guidance(weight, interval)
    if weight == 1:
        return denoiser
    low, high = interval

    def guiding(x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        x0 = denoiser(x, sigma, condition)
        inside = (sigma > low) & (sigma <= high)
        if not bool(inside.any()):
            return x0
        if bool(inside.all()):
            return torch.lerp(weak(x, sigma, condition), x0, weight)
        labels = None if condition is None else condition[inside]
        mixed = x0.clone()
        mixed[inside] = torch.lerp(weak(x[inside], sigma[inside], labels), x0[inside], weight)
        return mixed

    return guiding


class GuidedByShares(nn.Module):
    """A denoiser guided away from its own answer for all classes at once; gradients pass through.

    ``D_w(x, c) = D(x, c) + (w - 1) (D(x, c) - D(x, shares))`` inside an interval of noise levels,
    D elsewhere: `guided` with `with_shares`, as a module that can be trained. Only pictures inside
    the interval cost a second call.

    Args:
        denoiser: D; its weights are a part of this module.
        shares: of the classes, float [num_classes], summing to 1.
        weight: w, 1 or more.
        interval: (low, high): it guides where low < sigma <= high.

    Raises:
        ValueError: if the weight or the interval cannot be used.

    Source: Zhou et al. 2024, long and short guidance (arXiv 2406.01561), which trains a fake score
    inside its own guidance; Sadat et al. 2024 for the shares.

    Example:
        >>> linear = nn.Identity()
        >>> linear.forward = lambda x, sigma, c: c @ torch.tensor([[1.0], [3.0]])
        >>> better = GuidedByShares(linear, torch.tensor([0.5, 0.5]), 2.0, (0.2, 2.0))
        >>> better(torch.zeros(2, 1), torch.tensor([0.1, 1.0]), torch.eye(2)).flatten()
        tensor([1., 4.])
    """

    def __init__(
        self, denoiser: nn.Module, shares: Tensor, weight: float, interval: tuple[float, float]
    ) -> None:
        """Take the denoiser."""
        super().__init__()
        check_guidance(weight, interval)
        self.denoiser, self.weight, self.interval = denoiser, weight, interval
        self._shares = shares  # no buffer: a frozen constant, in no file

    def forward(
        self, x: Tensor, sigma: Tensor, condition: Tensor | None = None, *more: Tensor
    ) -> Tensor:
        """Denoise x [n, ...] at sigma [n]; `more` has one row a picture, and is handed on."""
        x0 = self.denoiser(x, sigma, condition, *more)
        low, high = self.interval
        rows = ((sigma > low) & (sigma <= high)).nonzero()[:, 0]
        if not len(rows):
            return x0
        shares = self._shares.to(x.device, x.dtype).expand(len(rows), -1)
        weak = self.denoiser(x[rows], sigma[rows], shares, *(one[rows] for one in more))
        return x0.index_copy(0, rows, torch.lerp(weak, x0[rows], self.weight))


def with_shares(denoiser: Denoiser, shares: Tensor) -> Denoiser:
    """Return a denoiser that is asked about all classes at once, whatever its condition.

    Args:
        denoiser: one that `takes_shares`.
        shares: of the classes, float [num_classes], summing to 1.

    Example:
        >>> with_shares(lambda x, sigma, c: c, torch.tensor([0.75, 0.25]))(torch.zeros(1, 1), 1.0)
        tensor([[0.7500, 0.2500]])
    """

    def mean(x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        return denoiser(x, sigma, shares.to(x.device, x.dtype).expand(len(x), -1))

    return mean


def takes_shares(denoiser: nn.Module) -> bool:
    """Whether a denoiser takes shares of the classes, float [n, num_classes], as its condition.

    A module says so by ``takes_shares = True``; one such part of a denoiser is enough.

    Example:
        >>> takes_shares(nn.Identity())
        False
    """
    return any(getattr(part, "takes_shares", False) is True for part in denoiser.modules())


def guided_calls(sampler: Sampler, sigmas: Tensor, interval: tuple[float, float]) -> int:
    """Count the network calls for a picture when this sampler is guided in an interval.

    The sampler walks once with a denoiser that only counts, so samplers of any kind are counted
    truly.

    Args:
        sampler: any.
        sigmas: falling noise levels, of the dtype with which pictures are drawn.
        interval: as for `guided`.

    Raises:
        ValueError: as `guided` and the sampler do.

    Example:
        >>> from noisewise.diffusion import DDIM, HEUN
        >>> sigmas = torch.tensor([9.0, 2.0, 1.0, 0.1])
        >>> guided_calls(DDIM, sigmas, (0.5, 2.0)), guided_calls(HEUN, sigmas, (0.5, 2.0))
        (6, 11)
    """
    calls = 0

    def counting(x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.zeros_like(x)

    still = torch.zeros(1, 1, 1, 1, dtype=sigmas.dtype)
    twice = guided(counting, counting, 2.0, interval)
    sample(sampler.states(twice, still, sigmas.cpu(), None, lambda: torch.zeros_like(still)))
    return calls


def check_guidance(weight: float, interval: tuple[float, float] = (0.0, math.inf)) -> None:
    """Refuse a weight below 1 or not finite, and an empty interval.

    Raises:
        ValueError: with values that can be used.
    """
    if not 1 <= weight < math.inf:
        raise ValueError(
            f"guidance of {weight:g} does not work; use 1 for none, or more, such as 1.5"
        )
    low, high = interval
    if not 0 <= low < high:
        raise ValueError(
            f"guidance between the noise levels {low:g} and {high:g} does not work; the first must "
            "be 0 or more and below the second"
        )
