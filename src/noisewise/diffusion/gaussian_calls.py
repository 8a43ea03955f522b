"""The loss of a generator of several calls where everything is known; see `gaussian_case`.

The data are N(0, 1). Call k is given ``x_{k-1} + s_k z_k`` (the first one ``s_1 z_1``), which is
N(0, r_k^2), and multiplies it with a gain ``a_k``, the one number that it learns:

    r_1 = s_1,   r_k^2 = b_{k-1}^2 + s_k^2,   b_k = a_k r_k

b_k is the width of the pictures after call k. All calls are right at ``a_k = 1 / r_k``, that is
``1 / s_1`` and then ``1 / sqrt(1 + s_k^2)``. The teacher's own gain is ``1 / (1 + s_k^2)``: its
call gives the mean of what the picture may be, and makes pictures narrower.

A fake score that is told the call knows each b_k: K times the case of one call. One that is not
told knows the even mixture of N(0, b_k^2). It has the same fixed point. But where one call is too
wide by e and another too narrow by e, the mixture is right up to e^2, and what drives the two
apart back together is of order e^3 only. (Beyond Gaussians it is worse: two calls that draw one
half of the data each have the data as their mixture.)

Papers: Zhou et al. 2025 (few-step SiD); Yin et al. 2024 (DMD2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.distill import score_identity_loss
from noisewise.diffusion.gaussian_case import line_denoiser, normal_pairs


def mixture_denoiser(widths: Sequence[float]) -> Denoiser:
    """The exact denoiser of the even mixture of N(0, b^2) for every width b.

    ``E[x0 | x] = sum_k p_k(x) b_k^2 x / (b_k^2 + v) / sum_k p_k(x)``, with p_k = N(0, b_k^2 + v).

    Example:
        >>> x, sigma = torch.ones(1, 1), torch.ones(1)
        >>> mixture_denoiser([1.0, 1.0])(x, sigma), mixture_denoiser([1.0, 2.0])(x, sigma) > 0.5
        (tensor([[0.5000]]), tensor([[True]]))
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        variances = torch.tensor(widths, dtype=x.dtype) ** 2
        total = variances + sigma.square()[:, None]
        log_density = -(x.square() / total + total.log()) / 2
        share = log_density.softmax(1)
        return x * (share * variances / total).sum(1, keepdim=True)

    return denoise


def widths_of(gains: Sequence[float], sigmas: Sequence[float]) -> list[float]:
    """The width of the pictures after each call.

    Example:
        >>> widths_of(right_gains((2.5, 0.5)), (2.5, 0.5))
        [1.0, 1.0]
    """
    found: list[float] = []
    for gain, sigma in zip(gains, sigmas, strict=True):
        before = found[-1] if found else 0.0
        found.append(gain * math.hypot(before, sigma))
    return found


def right_gains(sigmas: Sequence[float]) -> list[float]:
    """The gains with which every call draws the data: ``1 / s_1``, then ``1 / sqrt(1 + s_k^2)``.

    Example:
        >>> [round(gain, 3) for gain in right_gains((2.5, 0.5))]
        [0.4, 0.894]
    """
    return [1 / sigmas[0], *(1 / math.hypot(1, sigma) for sigma in sigmas[1:])]


def teachers_gains(sigmas: Sequence[float]) -> list[float]:
    """The gains that a generator starts with, as a copy of its teacher: ``1 / (1 + s_k^2)``.

    Example:
        >>> teachers_gains((2.0, 0.5))
        [0.2, 0.8]
    """
    return [1 / (1 + sigma**2) for sigma in sigmas]


def gain_gradients(
    gains: Sequence[float], sigmas: Sequence[float], level: float, lam: float, told: bool = True
) -> list[float]:
    """Gradient of the loss by each gain as training takes it, by `score_identity_loss` itself.

    Each call has one K-th of the pictures. The calls before it are given: no gradient flows into
    them. The fake score is at its optimum.

    Args:
        gains: of each call.
        sigmas: noise level of each call.
        level: noise level of the loss.
        lam: lambda.
        told: the fake score is told the call; else it knows their mixture.

    Example:
        >>> found = gain_gradients(right_gains((2.5, 0.5)), (2.5, 0.5), 1.0, 1.2)
        >>> max(map(abs, found)) < 1e-12
        True
    """
    widths = widths_of(gains, sigmas)
    z, noise = normal_pairs()
    levels = torch.full((len(z),), level, dtype=torch.float64)
    found = []
    for k, gain in enumerate(gains):
        given = math.hypot(widths[k - 1] if k else 0.0, sigmas[k]) * z
        learnt = torch.tensor(gain, dtype=torch.float64, requires_grad=True)
        step = score_identity_loss(
            line_denoiser(1.0),
            line_denoiser(widths[k]) if told else mixture_denoiser(widths),
            learnt * given,
            levels,
            noise,
            lam=lam,
            weight="none",
        )
        (gradient,) = torch.autograd.grad(step.loss / len(gains), learnt)
        found.append(float(gradient))
    return found


def descend_calls(
    sigmas: Sequence[float],
    level: float,
    lam: float,
    lr: float = 0.5,
    steps: int = 100,
    told: bool = True,
) -> list[float]:
    """Widths after each call, of a generator that starts as its teacher and follows the gradient.

    The step of a gain is divided by the square of its input's width: a step of lr then changes
    every width alike (as Adam does, whatever the size of a gradient).

    Args:
        sigmas: noise level of each call.
        level: noise level of the loss.
        lam: lambda.
        lr: rate.
        steps: number of steps.
        told: the fake score is told the call.

    Example:
        >>> [round(width, 2) for width in descend_calls((2.5, 0.5), 0.5, 1.0)]
        [1.0, 1.0]
    """
    gains = teachers_gains(sigmas)
    for _ in range(steps):
        widths = [0.0, *widths_of(gains, sigmas)]
        found = gain_gradients(gains, sigmas, level, lam, told)
        gains = [
            gain - lr * len(sigmas) * gradient / (before**2 + sigma**2)
            for gain, gradient, before, sigma in zip(gains, found, widths, sigmas, strict=False)
        ]
    return widths_of(gains, sigmas)
