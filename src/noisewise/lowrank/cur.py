"""A ~ C U R with columns C and rows R of A itself; the core U is never inverted.

Sorensen and Embree 2016 (rows from the orthonormal factor of the columns); Park and Nakatsukasa
2024 (arXiv 2405.06375: more rows than columns, and a stable evaluation of the core).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.arrays import numpy_home, numpy_too
from noisewise.lowrank.certificate import Error, Residual, certificate, check_probability
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.gradients import needs_gradient
from noisewise.lowrank.inputs import Randomness, as_matrix, check_adjoint, new_generator
from noisewise.lowrank.interpolative import fitted
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, adjoint, to_unit
from noisewise.lowrank.pivoting import coefficients, pivots
from noisewise.lowrank.range_finder import known_scale
from noisewise.lowrank.request import rank_and_tol, whole
from noisewise.lowrank.selection import Selected, check_tolerance, error_of, select

Core = Literal["projection", "cross"]


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CUR(LowRank):
    """A ~ C U R with C = A[:, J] and R = A[I, :]; left and right are computed without U.

    Attributes:
        C: the columns, [*batch, m, k].
        core: U, [*batch, k, number of rows]. Its entries are large if C or R is ill-conditioned;
            products and `dense` do not use it.
        R: the rows, [*batch, number of rows, n].
        column_index: J, int64 [*batch, k].
        row_index: I, int64 [*batch, number of rows].
    """

    C: Tensor
    core: Tensor
    R: Tensor
    column_index: Tensor
    row_index: Tensor

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """C, core, R."""
        return self.C, self.core, self.R

    @property
    def columns(self) -> Tensor:
        """J, the index of the columns."""
        return self.column_index

    @property
    def rows(self) -> Tensor:
        """I, the index of the rows."""
        return self.row_index

    @property
    def mT(self) -> CUR:
        """The transpose: columns become rows, rows become columns."""
        parts = self.right, self.left, self.R, self.core, self.C
        return self._swapped(*(part.mT for part in parts))

    @property
    def mH(self) -> CUR:
        """The conjugate transpose."""
        parts = self.right, self.left, self.R, self.core, self.C
        return self._swapped(*(part.mH for part in parts))

    def _rounded(self, dtype: torch.dtype) -> dict[str, Tensor]:
        parts = {"C": self.C.to(dtype), "core": self.core.to(dtype), "R": self.R.to(dtype)}
        return {**super()._rounded(dtype), **parts}

    def _swapped(self, left: Tensor, right: Tensor, c: Tensor, core: Tensor, r: Tensor) -> CUR:
        return replace(
            self,
            left=left,
            right=right,
            C=c,
            core=core,
            R=r,
            column_index=self.row_index,
            row_index=self.column_index,
        )


@numpy_too
def cur(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    core: Core = "projection",
    oversample: int | None = None,
    generator: Randomness = None,
    failure_probability: float | None = 1e-6,
) -> CUR:
    """Return an approximation by columns and rows of the matrix itself.

    ``A ~ C U R``. The columns C = A[:, J] are chosen as in `interpolative`. The rows I are pivots
    of the orthonormal factor of C; rows chosen independently give the cross core ten times the
    error. The core is

    * "projection": ``U = C^+ A R^+``, the best core for these columns and rows. Its error satisfies
      ``|A - C U R|_F^2 <= |A - C C^+ A|_F^2 + |A - A R^+ R|_F^2``.
    * "cross": ``U = A[I, J]^+``. It uses nothing of A except C, R and the probes of the
      certificate, and it takes more rows than columns, so that one bad row does little harm.

    With a tolerance, columns are chosen for tol / sqrt(2), and rows are added until the error is
    within tol.

    Args:
        matrix: A [*batch, m, n], anything that `svd` takes.
        rank: number of columns, 0 to min(m, n); if `tol` is given too, the largest number of
            columns and of rows.
        tol: relative error to reach in the Frobenius norm; only for the projection core.
        core: see above.
        oversample: number of rows beyond the number of columns; by default half the number of
            columns for a cross core, else 0.
        generator: the source of the sketch and the probes; by default a fixed seed.
        failure_probability: see `svd`.

    Returns:
        `columns` J, `rows` I, and the factors C, core, R. dense() and products use
        ``Q (Q[I]^+ R)`` or ``Q (Q^H A P) P^H`` with C = Q T, R^H = P S, never the core itself. The
        value is detached: no gradient flows.

    Raises:
        ValueError: as `svd`; and for a tolerance with the cross core, because no choice of rows
            bounds its error in advance.

    Example:
        >>> i = torch.arange(1.0, 31.0)
        >>> a = 1 / (i[:, None] + i)
        >>> r = cur(a, rank=5)
        >>> bool(torch.equal(r.C, a[:, r.columns])), float(r.error.relative_upper) < 1e-3
        (True, True)
    """
    if core not in ("projection", "cross"):
        raise ValueError(f"core is {core!r}: give 'projection' or 'cross'.")
    if core == "cross" and tol is not None:
        raise ValueError("core='cross' needs a rank; with a tolerance use core='projection'.")
    if oversample is not None:
        oversample = whole("oversample", oversample)
    check_probability(failure_probability)
    a = as_matrix(matrix)
    if isinstance(a, Dense) and needs_gradient(a.tensor):
        a = Dense(a.tensor.detach(), a.notes)
    rank, tol = rank_and_tol(a.m, a.n, rank, tol)
    generator = new_generator(generator)
    with torch.no_grad():
        check_adjoint(a, generator)
        a, unit = to_unit(a)
        result = _chosen(a, rank, tol, core, oversample, failure_probability, generator)
        return result if unit is None else _times(result, unit)


def _chosen(
    a: Matrix,
    rank: int | None,
    tol: float | None,
    core: Core,
    oversample: int | None,
    failure_probability: float | None,
    generator: torch.Generator,
) -> CUR:
    """Choose columns and rows, and compute the core."""
    found = select(
        a,
        rank,
        None if tol is None else tol / math.sqrt(2),
        oversample=10,
        bound=None,
        probability=failure_probability,
        generator=generator,
        project=core == "projection",
    )
    k = found.index.shape[-1]
    extra = oversample if oversample is not None else (k // 2 if core == "cross" else 0)
    index = rows_of(found.q, min(k + extra, a.m))
    if core == "cross":
        return _cross(a, found, index, failure_probability, generator)
    result = _projected(a, found, index, failure_probability, generator)
    if tol is None:
        return result
    met, notes = check_tolerance(a, result.error, tol, rank)
    if not met:
        more = _more_rows(a, tol, rank, failure_probability, generator)
        other = _projected(a, found, more, failure_probability, generator)
        met, why = check_tolerance(a, other.error, tol, rank)
        if met or rank is None:
            result, notes = other, why
    return replace(result, converged=met, notes=(*result.notes, *notes))


def _times(value: CUR, unit: Tensor) -> CUR:
    """The value of the matrix times `unit`."""
    size = unit[..., None, None].to(value.dtype)
    return replace(
        value,
        right=value.right * size,
        error=value.error.scaled(unit),
        C=value.C * size,
        core=value.core / size,
        R=value.R * size,
    )


def rows_of(q: Tensor, count: int) -> Tensor:
    """Return rows on which orthonormal columns stay well-conditioned: pivots, in several sweeps.

    Args:
        q: [*batch, m, k].
        count: number of rows, up to m; each sweep chooses up to k of the remaining rows.
    """
    free = torch.ones(q.shape[:-1], dtype=torch.bool, device=q.device)
    index = torch.zeros(*q.shape[:-2], 0, dtype=torch.int64, device=q.device)
    while index.shape[-1] < count:
        step = min(max(q.shape[-1], 1), count - index.shape[-1])
        chosen = pivots(q.mH, step, free) if q.shape[-1] else free.int().argmax(-1, keepdim=True)
        free = free.scatter(-1, chosen, False)
        index = torch.cat([index, chosen], -1)
    return index


def _more_rows(
    a: Matrix,
    tol: float,
    most: int | None,
    probability: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Rows that alone represent A within tol / sqrt(2); with such columns the error is <= tol."""
    return select(
        adjoint(a),
        most,
        tol / math.sqrt(2),
        oversample=10,
        bound=None,
        probability=probability,
        generator=generator,
    ).index


def _projected(
    a: Matrix,
    found: Selected,
    index: Tensor,
    probability: float | None,
    generator: torch.Generator,
) -> CUR:
    """The core C^+ A R^+: A projected on the columns and on the rows."""
    columns, rows = found.columns, a.rows(index)
    p = torch.linalg.qr(rows.mH).Q
    middle = found.w.mH @ p
    right = middle @ p.mH
    if found.left_over is not None:
        # |A - Q M P^H|^2 = |A - Q W^H|^2 + |W^H - M P^H|^2; the second term is known.
        lost = frobenius_norm(found.w.mH - right)
        both = torch.hypot(found.left_over[0], lost), torch.hypot(found.left_over[1], lost)
        found = replace(found, left_over=both)
    error = error_of(a, found.q, right, middle, found, probability, generator)
    # U = T^-1 (Q^H A P) S^-H with C = Q T, R^H = P S.
    half = fitted(found.q.mH @ columns, middle)
    core = fitted(p.mH @ rows.mH, half.mH).mH
    return _value(a, found, index, (columns, core, rows), right, error)


def _cross(
    a: Matrix,
    found: Selected,
    index: Tensor,
    probability: float | None,
    generator: torch.Generator,
) -> CUR:
    """The core A[I, J]^+, evaluated as Q (Q[I]^+ R)."""
    columns, rows = found.columns, a.rows(index)
    where = index[..., :, None].expand(*index.shape, found.q.shape[-1])
    crossing = found.q.gather(-2, where)
    right = coefficients(crossing, rows)
    eye = torch.eye(index.shape[-1], dtype=a.dtype, device=a.device)
    inner = coefficients(crossing, eye.expand(*a.batch, *eye.shape))
    core = fitted(found.q.mH @ columns, inner)
    scale = known_scale(a, rows, "frobenius")
    residual = Residual(a, found.q, right)
    zero = torch.zeros_like(scale)
    error = certificate(residual, "frobenius", probability, generator, scale, zero)
    return _value(a, found, index, (columns, core, rows), right, error)


def _value(
    a: Matrix,
    found: Selected,
    index: Tensor,
    parts: tuple[Tensor, Tensor, Tensor],
    right: Tensor,
    error: Error,
) -> CUR:
    columns, core, rows = parts
    return CUR(
        left=found.q,
        right=right,
        error=error,
        notes=a.notes,
        C=columns,
        core=core,
        R=rows,
        column_index=found.index,
        row_index=index,
    )
