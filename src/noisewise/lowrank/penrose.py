"""How well a matrix meets Penrose's four conditions for a pseudo-inverse (Penrose 1955)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_home, numpy_too
from noisewise.lowrank.magnitude import frobenius_norm, is_plain, power_of_two


@numpy_home
@dataclass(frozen=True)
class Penrose:
    """The four conditions for X to be the pseudo-inverse of A, as relative residuals [*batch].

    Attributes:
        axa: |A X A - A|_F / |A|_F.
        xax: |X A X - X|_F / |X|_F.
        ax: |(A X)^H - A X|_F / |A X|_F.
        xa: |(X A)^H - X A|_F / |X A|_F.
    """

    axa: Tensor
    xax: Tensor
    ax: Tensor
    xa: Tensor

    @property
    def worst(self) -> Tensor:
        """The largest of the four."""
        return torch.stack([self.axa, self.xax, self.ax, self.xa]).amax(0)

    def __str__(self) -> str:
        shown = {
            "|AXA-A|": self.axa,
            "|XAX-X|": self.xax,
            "|(AX)*-AX|": self.ax,
            "|(XA)*-XA|": self.xa,
        }
        return ", ".join(f"{name} {largest_of(value):.1e}" for name, value in shown.items())


@numpy_too
def penrose(a: Array, x: Array) -> Penrose:
    """Return how well X meets the four conditions for being the pseudo-inverse of A.

    Args:
        a: [*batch, m, n].
        x: [*batch, n, m].

    Example:
        >>> a = torch.diag(torch.tensor([2.0, 4.0]))
        >>> bool(penrose(a, torch.diag(torch.tensor([0.5, 0.25]))).worst == 0)
        True
        >>> bool(penrose(a, torch.diag(torch.tensor([0.5, 0.0]))).axa > 0.8)
        True
    """
    a, x = a.detach(), x.detach()
    if a.numel() and not is_plain(frobenius_norm(a), a.dtype):
        # The conditions are the same for A / u and u X.
        largest = a.abs().amax((-2, -1)).double()
        unit = power_of_two(largest, a.dtype)[..., None, None].to(a.dtype)
        a, x = a / unit, x * unit
    if a.shape[-2] >= a.shape[-1]:  # form only the smaller of the products A X and X A
        xa = x @ a
        axa, xax = a @ xa, xa @ x
    else:
        ax = a @ x
        axa, xax = ax @ a, x @ ax
    return Penrose(_relative(axa - a, a), _relative(xax - x, x), _asymmetry(a, x), _asymmetry(x, a))


def _asymmetry(a: Tensor, b: Tensor) -> Tensor:
    """|(A B)^H - A B|_F / |A B|_F for A [m, k] and B [k, m].

    With [A, B^H] = Q [R, S], A B = Q (R S^H) Q^H: a 2 k x 2 k matrix with the same norm.
    """
    m, k = a.shape[-2:]
    if 0 < 2 * k < m:
        r = torch.linalg.qr(torch.cat([a, b.mH], -1), mode="r").R
        a, b = r[..., :k], r[..., k:].mH
    product = a @ b
    return _relative(product.mH - product, product)


def _relative(residual: Tensor, to: Tensor) -> Tensor:
    size = frobenius_norm(residual)
    return torch.where(size == 0, 0.0, size / frobenius_norm(to))


def largest_of(value: Tensor) -> float:
    """The largest value of a batch; 0 for an empty batch."""
    return float(value.max()) if value.numel() else 0.0
