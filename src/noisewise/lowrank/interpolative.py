"""The interpolative decomposition A ~ A[:, J] Z: columns (or rows) of the matrix itself.

Halko et al. 2011, section 5.2; Voronin and Martinsson 2017 (pivots on a sketch); Dong and
Martinsson 2023 (arXiv 2104.05877: a comparison of methods that choose columns).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.arrays import numpy_home, numpy_too
from noisewise.lowrank.certificate import check_probability
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.gradients import needs_gradient
from noisewise.lowrank.inputs import Randomness, as_matrix, check_adjoint, new_generator
from noisewise.lowrank.operators import Dense, adjoint, to_unit
from noisewise.lowrank.pivoting import coefficients, solve_upper
from noisewise.lowrank.request import rank_and_tol, whole
from noisewise.lowrank.selection import check_tolerance, error_of, select

Axis = Literal["columns", "rows"]


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Interpolative(LowRank):
    """A ~ A[:, J] Z (axis "columns"), or A ~ Z A[I, :] (axis "rows").

    Attributes:
        index: J or I, int64 [*batch, k], in the order in which they were chosen.
        axis: "columns" or "rows".
    """

    index: Tensor
    axis: Axis

    @property
    def columns(self) -> Tensor | None:
        """J, or None if rows were chosen."""
        return self.index if self.axis == "columns" else None

    @property
    def rows(self) -> Tensor | None:
        """I, or None if columns were chosen."""
        return self.index if self.axis == "rows" else None

    @property
    def max_coefficient(self) -> float:
        """The largest |Z|. Small coefficients mean a stable decomposition."""
        z = self.right if self.axis == "columns" else self.left
        return float(z.detach().abs().max()) if z.numel() else 0.0

    @property
    def mT(self) -> Interpolative:
        """The transpose: columns become rows."""
        return self._swapped(self.right.mT, self.left.mT)

    @property
    def mH(self) -> Interpolative:
        """The conjugate transpose."""
        return self._swapped(self.right.mH, self.left.mH)

    def _swapped(self, left: Tensor, right: Tensor) -> Interpolative:
        other: Axis = "rows" if self.axis == "columns" else "columns"
        return replace(self, left=left, right=right, axis=other)


@numpy_too
def interpolative(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    axis: Axis = "columns",
    generator: Randomness = None,
    failure_probability: float | None = 1e-6,
    oversample: int = 10,
    bound: float | None = None,
) -> Interpolative:
    """Return an approximation by columns (or rows) of the matrix itself.

    ``A ~ A[:, J] Z``. J are the pivots of a QR of a Gaussian sketch with rank + oversample rows. Z
    is the least-squares fit to A itself, so the error is that of the projection of A on the chosen
    columns. The best k columns have at most sqrt(k + 1) times the error of the best rank-k
    approximation. Pivots on a sketch have two to three times that error in practice, also on
    Kahan's matrix, where pivots on A fail. With a tolerance, blocks of columns are chosen from the
    residual until the tolerance is met; then as many of the last columns are dropped as it allows.

    Args:
        matrix: A [*batch, m, n], anything that `svd` takes. For an operator, each chosen column
            costs one product.
        rank: number of columns, 0 to min(m, n); if `tol` is given too, the largest number allowed.
        tol: relative error to reach in the Frobenius norm.
        axis: "columns" or "rows".
        generator: the source of the sketch and the probes; by default a fixed seed.
        failure_probability: see `svd`.
        oversample: rows of the sketch beyond `rank`.
        bound: above 1; columns are swapped until no coefficient (computed from the sketch) exceeds
            it. None: no swaps; the coefficients are mostly below 3.

    Returns:
        left = A[:, J], right = Z, `columns` = J (for rows: left = Z, right = A[I, :], `rows` = I).
        Gradients flow to a dense A through the columns and the fit, for fixed J.

    Raises:
        ValueError: as `svd`; and for a bound of 1 or less.

    Example:
        >>> a = torch.arange(12.0).reshape(3, 4)
        >>> r = interpolative(a, rank=2)
        >>> bool(torch.allclose(r.left, a[:, r.columns]))
        True
        >>> bool(torch.allclose(r.dense(), a, atol=1e-5))
        True
    """
    if axis not in ("columns", "rows"):
        raise ValueError(f"axis is {axis!r}: give 'columns' or 'rows'.")
    if bound is not None and not bound > 1:
        raise ValueError(f"bound is {bound}: give a number above 1, or None for no bound.")
    oversample = whole("oversample", oversample)
    check_probability(failure_probability)
    a = as_matrix(matrix)
    generator = new_generator(generator)
    with torch.no_grad():
        check_adjoint(a, generator)
    a = adjoint(a) if axis == "rows" else a
    rank, tol = rank_and_tol(a.m, a.n, rank, tol)
    a, unit = to_unit(a)
    with torch.no_grad():
        frozen = Dense(a.tensor.detach(), a.notes) if isinstance(a, Dense) else a
        found = select(
            frozen,
            rank,
            tol,
            oversample=oversample,
            bound=bound,
            probability=failure_probability,
            generator=generator,
        )
        chosen = found.columns
        z = fitted(found.q.mH @ chosen, found.w.mH)
        kept = torch.linalg.vector_norm(found.w, dim=-2)
        error = error_of(frozen, chosen, z, kept, found, failure_probability, generator)
        converged, notes = check_tolerance(frozen, error, tol, rank)
    if isinstance(a, Dense) and needs_gradient(a.tensor):
        chosen = a.columns(found.index)
        z = coefficients(chosen, a.tensor)
    if unit is not None:
        chosen, error = chosen * unit[..., None, None].to(a.dtype), error.scaled(unit)
    result = Interpolative(
        left=chosen,
        right=z,
        error=error,
        converged=converged,
        notes=(*a.notes, *notes),
        index=found.index,
        axis="columns",
    )
    return result if axis == "columns" else result.mH


def fitted(t: Tensor, inner: Tensor) -> Tensor:
    """T^-1 (Q^H A), where T are the coefficients of the chosen columns in the basis Q."""
    size = torch.linalg.vector_norm(t, dim=-2, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    q, r = torch.linalg.qr(t / size)
    return solve_upper(r, q.mH @ inner) / size.mT
