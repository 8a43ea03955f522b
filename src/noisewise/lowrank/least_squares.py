"""Least squares by the pseudo-inverse: the minimum-norm solution, and how certain its rank is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, array_of, numpy_home, numpy_too
from noisewise.lowrank.certificate import Error
from noisewise.lowrank.dtypes import times
from noisewise.lowrank.inputs import check_readable
from noisewise.lowrank.magnitude import column_norms
from noisewise.lowrank.penrose import largest_of
from noisewise.lowrank.pseudo_inverse import PseudoInverse, Route, entries_of, inverse_of


@numpy_home
@dataclass(frozen=True, eq=False, repr=False)
class LeastSquares:
    """The minimum-norm X among all X that minimise |A X - B|_F; it multiplies like X.

    Attributes:
        x: [*batch, n, c], or [*batch, n] for a vector B.
        residual: |A x - b| for each column, float64.
        inverse: the pseudo-inverse that was used, with `rank`, `gap`, `route` and `penrose()`.
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
        """The route that inverted A."""
        return self.inverse.route

    @property
    def error(self) -> Error:
        """|A A^+ A - A|_F, exact."""
        return self.inverse.error

    def dense(self) -> Tensor:
        """The matrix X."""
        return self.x

    __array_ufunc__ = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ANN401
        return np.array(array_of(self.x) if isinstance(self.x, Tensor) else self.x, dtype)

    def __matmul__(self, other: Tensor) -> Tensor:
        return times(self.x, other)

    def __rmatmul__(self, other: Tensor) -> Tensor:
        """A @ X: the right sides that the solution reaches."""
        return times(other, self.x)

    def __repr__(self) -> str:
        """One sentence about the solution."""
        size = "x".join(str(length) for length in self.inverse.matrix.shape[-2:])
        parts = [f"LeastSquares of a {size} matrix, rank {self.rank} by {self.route}"]
        gap = float(self.gap.min()) if self.gap.numel() else math.inf
        parts += [f"s_r / s_(r+1) = {gap:.2g}"] if math.isfinite(gap) else []
        parts += [f"the largest |Ax-b| is {largest_of(self.residual):.2g}"]
        return "; ".join([*parts, *self.inverse.notes])


@numpy_too
def lstsq(
    matrix: object,
    right_side: Array,
    *,
    rtol: float | None = None,
    route: Route = "auto",
    epsilon: float | None = None,
    hermitian: bool = False,
) -> LeastSquares:
    """Return the minimum-norm least-squares solution of A X = B.

    Args:
        matrix: A [*batch, m, n], dense, or a LowRank.
        right_side: B [*batch, m, c], or a vector [m]. If B is complex or double, A is converted to
            complex or double too.
        rtol: see `pinv`.
        route: see `pinv`.
        epsilon: the e of route "limit", see `pinv`.
        hermitian: see `pinv`.

    Raises:
        ValueError: if the numbers of rows differ, for NaN or Inf, and as `pinv`.

    Example:
        >>> a = torch.tensor([[1.0, 1.0]])
        >>> lstsq(a, torch.tensor([2.0])).x
        tensor([1., 1.])
    """
    vector = right_side.dim() == 1
    b = right_side[:, None] if vector else right_side
    read = entries_of(matrix)
    rows = read.m
    if b.shape[-2] != rows:
        raise ValueError(f"A has {rows} rows and B has {b.shape[-2]}: the numbers must agree.")
    check_readable(b)
    if not bool(torch.isfinite(b).all()):
        raise ValueError("The right side holds NaN or Inf: replace these values first.")
    dtype = torch.promote_types(read.dtype, b.dtype)
    inverse = inverse_of(read.converted(dtype), rtol, route, epsilon, hermitian)
    b = b.to(dtype)
    x = inverse.matmat(b)
    residual = column_norms(inverse.matrix @ x - b)
    if vector:
        return LeastSquares(x[..., 0], residual[..., 0], inverse)
    return LeastSquares(x, residual, inverse)
