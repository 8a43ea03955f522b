"""Real columns and rows: the interpolative decomposition A ~ A[:, J] Z.

Halko et al. 2011, section 5.2; Voronin and Martinsson 2017 (pivots on a sketch); Dong and
Martinsson 2023 (arXiv 2104.05877), who compare the ways to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noisewise.lowrank.certificate import check_probability
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.inputs import as_matrix, check_adjoint, new_generator
from noisewise.lowrank.operators import Dense, adjoint, to_unit
from noisewise.lowrank.pivoting import coefficients, solve_upper
from noisewise.lowrank.selection import check_wish, error_of, judged, select

Axis = Literal["columns", "rows"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Interpolative(LowRank):
    """A ~ A[:, J] Z (axis "columns"), or A ~ Z A[I, :] (axis "rows").

    Attributes:
        index: J or I, int64 [*batch, k], in the order of choice.
        axis: whether columns or rows were chosen.
    """

    index: Tensor
    axis: Axis

    @property
    def columns(self) -> Tensor | None:
        """J."""
        return self.index if self.axis == "columns" else None

    @property
    def rows(self) -> Tensor | None:
        """I."""
        return self.index if self.axis == "rows" else None

    @property
    def max_coefficient(self) -> float:
        """The largest |Z|: small coefficients make a stable decomposition."""
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


def interpolative(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    axis: Axis = "columns",
    generator: torch.Generator | None = None,
    failure_probability: float | None = 1e-6,
    oversample: int = 10,
    bound: float | None = None,
) -> Interpolative:
    """Return an approximation by columns (or rows) of the matrix itself.

    ``A ~ A[:, J] Z``: J are the pivots of a QR of a Gaussian sketch of rank + oversample rows, Z
    the least-squares fit on A itself, so that the error is that of projecting A on the columns
    chosen. The best k columns err by at most sqrt(k + 1) times the best rank-k approximation;
    pivots on a sketch come within two or three times it in practice, on Kahan's matrix too, where
    pivots on A fail. By tolerance, blocks of columns are chosen from what is left until it is met,
    and as many of the last ones dropped as it allows.

    Args:
        matrix: A [*batch, m, n], anything that `svd` takes. Of an operator, the chosen columns cost
            a product each.
        rank: columns, 0 to min(m, n); with `tol` too, the most allowed.
        tol: relative error wanted, in the Frobenius norm.
        axis: "columns" or "rows".
        generator: of the sketch and the probes; a fixed seed without one.
        failure_probability: see `svd`.
        oversample: rows of the sketch beyond `rank`.
        bound: swap columns until no coefficient (by the sketch) exceeds it, above 1; None: no
            swaps, coefficients are as the pivots leave them, mostly below 3.

    Returns:
        left = A[:, J], right = Z, `columns` = J (for rows: left = Z, right = A[I, :], `rows` = I).
        Gradients flow to a dense A with J held, through the columns and the fit.

    Raises:
        ValueError: as `svd`; for a bound of 1 or below.

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
        raise ValueError(f"bound is {bound}: coefficients can be kept below a bound above 1 only.")
    if oversample < 0:
        raise ValueError("oversample must be 0 or more.")
    check_probability(failure_probability)
    a = as_matrix(matrix)
    generator = new_generator(generator)
    with torch.no_grad():
        check_adjoint(a, generator)
    a = adjoint(a) if axis == "rows" else a
    check_wish(a, rank, tol)
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
        converged, notes = judged(frozen, error, tol, rank)
    if isinstance(a, Dense) and a.tensor.requires_grad:
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
    """T^-1 (Q^H A) for the coefficients T of the chosen columns in the basis Q."""
    size = torch.linalg.vector_norm(t, dim=-2, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    q, r = torch.linalg.qr(t / size)
    return solve_upper(r, q.mH @ inner) / size.mT
