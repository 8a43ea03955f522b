"""Least squares through the pseudo-inverse: the solution of minimum norm, with its doubts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.certificate import Error
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.penrose import most
from noisewise.lowrank.pseudo_inverse import PseudoInverse, Route, entries_of, inverse_of


@dataclass(frozen=True, eq=False, repr=False)
class LeastSquares:
    """The X of minimum norm among those that minimise |A X - B|_F; it multiplies like X.

    Attributes:
        x: [*batch, n, c], or [*batch, n] for a vector B.
        residual: |A x - b| of each column, float64.
        inverse: what was used, with `rank`, `gap`, `route` and the Penrose report.
    """

    x: Tensor
    residual: Tensor
    inverse: PseudoInverse

    @property
    def rank(self) -> int:
        """Numerical rank of A."""
        return self.inverse.rank

    @property
    def gap(self) -> Tensor:
        """s_r / s_(r+1), see `PseudoInverse`."""
        return self.inverse.gap

    @property
    def route(self) -> str:
        """How A was inverted."""
        return self.inverse.route

    @property
    def error(self) -> Error:
        """|A A^+ A - A|_F, exact."""
        return self.inverse.error

    def dense(self) -> Tensor:
        """X itself."""
        return self.x

    def __matmul__(self, other: Tensor) -> Tensor:
        return self.x @ other

    def __rmatmul__(self, other: Tensor) -> Tensor:
        """A @ X: the right-hand sides that are reached."""
        return other @ self.x

    def __repr__(self) -> str:
        """One sentence."""
        size = "x".join(str(length) for length in self.inverse.matrix.shape[-2:])
        parts = [f"LeastSquares of a {size} matrix, rank {self.rank} by {self.route}"]
        gap = float(self.gap.min()) if self.gap.numel() else math.inf
        parts += [f"gap behind it {gap:.2g}"] if math.isfinite(gap) else []
        parts += [f"the largest |Ax-b| is {most(self.residual):.2g}"]
        return "; ".join([*parts, *self.inverse.notes])


def lstsq(
    matrix: Tensor | LowRank,
    right_side: Tensor,
    *,
    rtol: float | None = None,
    route: Route = "auto",
    epsilon: float | None = None,
) -> LeastSquares:
    """Return the solution of minimum norm of A X = B in the sense of least squares.

    Args:
        matrix: A [*batch, m, n], dense, or a LowRank.
        right_side: B [*batch, m, c], or a vector [m]. Of a complex or a double B, A is taken to be
            complex or double, too.
        rtol: see `pinv`.
        route: see `pinv`.
        epsilon: of route "limit", see `pinv`.

    Raises:
        ValueError: where the rows do not agree, for NaN or Inf, and as `pinv`.

    Example:
        >>> a = torch.tensor([[1.0, 1.0]])
        >>> lstsq(a, torch.tensor([2.0])).x
        tensor([1., 1.])
    """
    vector = right_side.dim() == 1
    b = right_side[:, None] if vector else right_side
    rows = matrix.shape[-2]
    if b.shape[-2] != rows:
        raise ValueError(f"A has {rows} rows and B {b.shape[-2]}: they must agree.")
    if not bool(torch.isfinite(b).all()):
        raise ValueError("The right-hand side holds NaN or Inf: mend it first.")
    read = entries_of(matrix)
    dtype = torch.promote_types(read.dtype, b.dtype)
    inverse = inverse_of(read.converted(dtype), rtol, route, epsilon)
    b = b.to(dtype)
    x = inverse.matmat(b)
    residual = torch.linalg.vector_norm((inverse.matrix @ x - b).detach(), dim=-2).double()
    if vector:
        return LeastSquares(x[..., 0], residual[..., 0], inverse)
    return LeastSquares(x, residual, inverse)
