"""Exact mean and mean square of the sign and the soft sign of a Gaussian.

Sources: Su 2024, "How Adam's epsilon changes the scaling of the learning rate" (soft sign for
Adam, its mean-field form). The integrals here are exact and our own derivation: write
(x^2 + b^2)^-k as an integral of exp(-t (x^2 + b^2)); then the Gaussian mean is elementary, and
t = tan^2(theta) / 2 gives, for x ~ N(a, 1) and phi = x / sqrt(x^2 + b^2),

    E phi   = a sqrt(2 / pi) int_0^{pi/2} cos(theta) exp(-E) dtheta
    E phi^2 = int_0^{pi/2} (1 + a^2 cos^2(theta)) sin(theta) exp(-E) dtheta
    E(theta) = (a^2 sin^2(theta) + b^2 tan^2(theta)) / 2

Every term is positive, so nothing cancels, from b = 0 (the sign) to b -> inf (the identity / b).
Adam itself divides by |x| + b, not by sqrt(x^2 + b^2); the means differ by up to 0.23.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sign_mean", "soft_sign_moments"]

_NODES = 32  # on each half of the interval


def sign_mean(a: Tensor) -> Tensor:
    """Return E sign(x) for x ~ N(a, 1): ``erf(a / sqrt 2)``.

    Args:
        a: mean over standard deviation, any shape; for a batch B it is g sqrt(B) / sigma.

    Source: Li et al. 2024 (surge), equation 8.

    Example:
        >>> round(float(sign_mean(torch.tensor(1.0))), 4)
        0.6827
    """
    return torch.erf(a / math.sqrt(2.0))


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1] (Golub and Welsch 1969: eigenvalues of the Jacobi matrix)."""
    k = torch.arange(1, n, dtype=torch.float64)
    side = k / (4 * k.square() - 1).sqrt()
    values, vectors = torch.linalg.eigh(side.diag(1) + side.diag(-1))
    return ((values + 1) / 2).tolist(), vectors[0].square().tolist()


def soft_sign_moments(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return E phi and E phi^2 of phi = x / sqrt(x^2 + b^2), x ~ N(a, 1).

    Args:
        a: mean over standard deviation, any shape; for a batch B: g sqrt(B) / sigma.
        b: epsilon over standard deviation, >= 0, broadcasts with a; eps sqrt(B) / sigma.

    Returns:
        Two tensors of the common shape; absolute and relative error below 2e-6 for |a|, b up to
        1e8.

    Raises:
        ValueError: for a negative b.

    Source: the head of this module; Su 2024 has the mean-field forms.

    Example:
        >>> first, second = soft_sign_moments(torch.tensor(0.0), torch.tensor(0.0))
        >>> float(first), round(float(second), 6)
        (0.0, 1.0)
    """
    if bool((b < 0).any()):
        raise ValueError("b (Adam's epsilon) must not be negative: pass b >= 0.")
    a, b = torch.broadcast_tensors(a, b)
    # Two pieces of theta: the peak at 0, at most nine of its widths 1 / |(a, b)|, and the decrease
    # to 0 at pi / 2, which is as wide as b; there the nodes are spaced logarithmically.
    reach = (9 / torch.hypot(a, b).clamp_min(1e-3)).clamp_max(math.pi / 4)
    ratio = 1 / b.clamp(1e-6, 1e3)
    stretch = torch.log1p(ratio)
    first, second = torch.zeros_like(reach), torch.zeros_like(reach)

    def add(sine: Tensor, cosine: Tensor, step: Tensor) -> None:
        tangent = sine / cosine
        density = step * torch.exp(-0.5 * ((a * sine).square() + (b * tangent).square()))
        first.add_(density * cosine)
        second.add_(density * sine * (1 + (a * cosine).square()))

    for node, weight in zip(*_gauss_legendre(_NODES), strict=True):
        angle = node * reach
        add(angle.sin(), angle.cos(), weight * reach)
        away = (math.pi / 4) * torch.expm1(node * stretch) / ratio  # from pi / 2
        step = (math.pi / 4) * weight * torch.exp(node * stretch) * stretch / ratio
        # If the piece of the peak ends before pi / 4, the rest is below exp(-40).
        add(away.cos(), away.sin(), torch.where(reach < math.pi / 4, 0.0, step))
    return a * math.sqrt(2 / math.pi) * first, second
