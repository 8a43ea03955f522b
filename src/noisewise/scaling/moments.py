"""Exact mean and mean square of the sign and the soft sign of a Gaussian.

Sources: Su 2024, "How Adam's epsilon changes the scaling of the learning rate" (soft sign for
Adam, its mean-field form); the integrals here are exact and our own derivation: with
(x^2 + b^2)^-k written as an integral of exp(-t (x^2 + b^2)), the Gaussian mean is elementary, and
t = tan^2(theta) / 2 leaves for x ~ N(a, 1), phi = x / sqrt(x^2 + b^2)

    E phi   = a sqrt(2 / pi) int_0^{pi/2} cos(theta) exp(-E) dtheta
    E phi^2 = int_0^{pi/2} (1 + a^2 cos^2(theta)) sin(theta) exp(-E) dtheta
    E(theta) = (a^2 sin^2(theta) + b^2 tan^2(theta)) / 2

Every term is positive, so nothing cancels, from b = 0 (the sign) to b -> inf (the identity / b).
Adam itself divides by |x| + b, not by sqrt(x^2 + b^2): up to 0.23 apart in the mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sign_mean", "soft_sign_moments"]

_NODES = 32  # on either half of the interval


def sign_mean(a: Tensor) -> Tensor:
    """Return E sign(x) for x ~ N(a, 1): ``erf(a / sqrt 2)``.

    Args:
        a: mean over deviation, any shape; for a batch B it is g sqrt(B) / sigma.

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
        a: mean over deviation, any shape; for a batch B: g sqrt(B) / sigma.
        b: softening over deviation, >= 0, of a shape that broadcasts; eps sqrt(B) / sigma.

    Returns:
        Two tensors of the joint shape, absolute error below 1e-6 for |a|, b up to 1e4.

    Raises:
        ValueError: for a negative b.

    Source: the module's head; Su 2024 has the mean-field forms.

    Example:
        >>> first, second = soft_sign_moments(torch.tensor(0.0), torch.tensor(0.0))
        >>> float(first), round(float(second), 6)
        (0.0, 1.0)
    """
    if bool((b < 0).any()):
        raise ValueError("Adam's epsilon is not negative: pass b >= 0.")
    a, b = torch.broadcast_tensors(a, b)
    # Nodes are spread by logarithm from the widths of the two layers: the peak at theta = 0, as
    # wide as 1 / |(a, b)|, and the fall to nothing at pi / 2, as wide as b.
    peak = torch.hypot(a, b).clamp_min(1e-3)
    fall = 1 / b.clamp(1e-6, 1e3)
    first, second = torch.zeros_like(peak), torch.zeros_like(peak)
    for node, weight in zip(*_gauss_legendre(_NODES), strict=True):
        for ratio, mirrored in ((peak, False), (fall, True)):
            stretch = torch.log1p(ratio)
            angle = (math.pi / 4) * torch.expm1(node * stretch) / ratio
            step = (math.pi / 4) * weight * torch.exp(node * stretch) * stretch / ratio
            sine, cosine = angle.sin(), angle.cos()
            if mirrored:
                sine, cosine = cosine, sine
            tangent = sine / cosine
            density = step * torch.exp(-0.5 * ((a * sine).square() + (b * tangent).square()))
            first += density * cosine
            second += density * sine * (1 + (a * cosine).square())
    return a * math.sqrt(2 / math.pi) * first, second
