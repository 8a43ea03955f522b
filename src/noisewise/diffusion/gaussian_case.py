"""The loss of `distill` where everything is known: teacher and generator are Gaussians.

The data are N(0, 1), the generator draws ``x_g = b z``, z ~ N(0, 1), and the noise is sigma. Both
denoisers are then straight lines through 0, ``f_phi(x) = x / (1 + v)`` and ``f_psi(x) =
b^2 x / (b^2 + v)`` with ``v = sigma^2``, and every expectation is a polynomial in b. Any Gaussian
comes to this in units of its own deviation.

Papers: Zhou et al. 2024 (SiD); Huang et al. 2024 (FGM, lambda 1/2); Su 2024 (lambda 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser
from noisewise.diffusion.distill import score_identity_loss

_ROOT = math.sqrt(2.0)
# A plain mean over these points (z, noise) is exact for every quadratic of two normal numbers.
_POINTS = ((_ROOT, 0.0), (-_ROOT, 0.0), (0.0, _ROOT), (0.0, -_ROOT))


def line_denoiser(width: float | Tensor) -> Denoiser:
    """The exact denoiser of N(0, width^2): ``E[x0 | x] = width^2 x / (width^2 + sigma^2)``.

    Example:
        >>> line_denoiser(1.0)(torch.ones(1, 1), torch.ones(1))
        tensor([[0.5000]])
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        variance = torch.as_tensor(width, dtype=x.dtype) ** 2
        return variance * x / (variance + sigma.square()[:, None])

    return denoise


def held_gradient(
    b: float, sigma: float, lam: float, fake_width: float | None = None, only_l1: bool = False
) -> float:
    """Gradient of the loss by b as training takes it, by `score_identity_loss` itself.

    Teacher and fake score are held; the gradient flows through x and x_g.

    Args:
        b: width of the generator.
        sigma: noise level, above 0.
        lam: lambda of L2 - lambda L1.
        fake_width: width that the fake score knows; None: b, the fake score at its optimum.
        only_l1: of L1 alone.

    Example:
        >>> held_gradient(0.5, 1.0, 1.0) < 0 < held_gradient(2.0, 1.0, 1.0)  # both towards 1
        True
    """
    width = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    z, noise = torch.tensor(_POINTS, dtype=torch.float64).T
    levels = torch.full((len(z),), sigma, dtype=torch.float64)
    teacher, fake = line_denoiser(1.0), line_denoiser(b if fake_width is None else fake_width)

    def gradient(at: float) -> float:
        x_g = (width * z)[:, None]
        step = score_identity_loss(
            teacher, fake, x_g, levels, noise[:, None], lam=at, weight="none"
        )
        return float(torch.autograd.grad(step.loss, width)[0])

    return gradient(0.0) - gradient(1.0) if only_l1 else gradient(lam)


def normal_pairs(points: int = 32) -> tuple[Tensor, Tensor]:
    """Pairs of normal numbers on a grid, of equal weight; each has variance 1.

    Args:
        points: of each of the two numbers.

    Returns:
        Both numbers of each pair, float64 [points^2, 1].

    Example:
        >>> z, noise = normal_pairs(8)
        >>> z.shape, round(float(z.square().mean()), 6), abs(float((z * noise).mean())) < 1e-12
        (torch.Size([64, 1]), 1.0, True)
    """
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    values = _ROOT * torch.erfinv(2 * middles - 1)
    values = values / values.square().mean().sqrt()
    z, noise = torch.meshgrid(values, values, indexing="ij")
    return z.reshape(-1, 1), noise.reshape(-1, 1)


def gap(b: float, sigma: float) -> float:
    """The slope of ``f_phi - f_psi``: ``alpha = v (1 - b^2) / ((1 + v) (b^2 + v))``.

    Example:
        >>> gap(1.0, 2.0), round(gap(0.5, 1.0), 3)
        (0.0, 0.3)
    """
    v = sigma**2
    return v * (1 - b**2) / ((1 + v) * (b**2 + v))


def divergence(b: float, sigma: float) -> float:
    """The Fisher divergence ``L1 = E |f_phi - f_psi|^2 = alpha^2 (b^2 + v)``, fake at its optimum.

    Example:
        >>> divergence(1.0, 0.5), divergence(2.0, 0.5) > 0
        (0.0, True)
    """
    return gap(b, sigma) ** 2 * (b**2 + sigma**2)


def full_gradient(b: float, sigma: float) -> float:
    """Gradient of the divergence by b, with the fake score that moves along, by autograd.

    Example:
        >>> abs(full_gradient(0.5, 1.0) - 2 * held_gradient(0.5, 1.0, 0.5)) < 1e-12
        True
    """
    width = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    v = sigma**2
    alpha = v * (1 - width**2) / ((1 + v) * (width**2 + v))
    (found,) = torch.autograd.grad(alpha**2 * (width**2 + v), width)
    return float(found)


def widest(lam: float, sigma: float) -> float:
    """The width from which on a generator runs away: ``b = sqrt((lambda + v) / (lambda - 1))``.

    The held gradient is ``-2 b alpha (v / (1 + v) + lambda alpha)``. It is 0 at b = 1, where alpha
    is 0, and where ``alpha = -v / (lambda (1 + v))``, which is this b. Beyond it the generator
    becomes wider with every step. For lambda up to 1 there is no such width: every start ends at 1.

    Example:
        >>> widest(1.0, 1.0), round(widest(1.2, 0.01), 2), round(widest(2.0, 0.01), 2)
        (inf, 2.45, 1.41)
    """
    return math.inf if lam <= 1 else math.sqrt((lam + sigma**2) / (lam - 1))


def descend(
    b: float,
    sigma: float,
    lam: float,
    lr: float = 0.05,
    steps: int = 400,
    fake_share: float = 1.0,
    only_l1: bool = False,
) -> list[float]:
    """Widths of a generator that follows the held gradient, step by step, from b.

    Args:
        b: first width.
        sigma: noise level.
        lam: lambda.
        lr: rate of the generator.
        steps: number of steps; it ends early where the width leaves 1e-4 ... 100.
        fake_share: what the fake score catches up of its lag in a step; 1: it is at its optimum.
        only_l1: follow L1 alone.

    Example:
        >>> round(descend(0.3, 1.0, 1.0)[-1], 3), descend(3.0, 1.0, 2.0)[-1] > 50
        (1.0, True)
    """
    found, fake = [b], b
    for _ in range(steps):
        b -= lr * held_gradient(b, sigma, lam, fake, only_l1)
        fake += fake_share * (b - fake)
        found.append(b)
        if not 1e-4 < b < 100:
            break
    return found


def identity_error(num_samples: int, generator: torch.Generator) -> dict[str, float]:
    """How far both sides of the identity are apart in a mean over samples, in deviations of one.

    ``E h(x) f_psi(x) = E h(x) x_g`` for every h of x: the difference is noise, and falls as
    ``1 / sqrt(num_samples)``.

    Args:
        num_samples: at least 2.
        generator: draws the samples.

    Returns:
        By the name of h.

    Example:
        >>> found = identity_error(10_000, torch.Generator().manual_seed(0))
        >>> sorted(found), max(found.values()) < 0.05
        (['sin 3x', 'teacher', 'x cubed'], True)
    """
    b, sigma = 0.5, 0.7
    z, noise = torch.randn(2, num_samples, generator=generator, dtype=torch.float64)
    x_g = b * z
    x = x_g + sigma * noise
    mean = line_denoiser(b)(x[:, None], torch.full((num_samples,), sigma).double())[:, 0]
    functions = {"teacher": x / (1 + sigma**2), "x cubed": x**3, "sin 3x": (3 * x).sin()}
    found = {}
    for name, h in functions.items():
        apart = h * (mean - x_g)
        found[name] = abs(float(apart.mean() / apart.std()))
    return found
