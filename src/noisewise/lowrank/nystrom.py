"""Eigenvalues of a positive semi-definite matrix from one sketch: the Nystrom approximation.

Tropp, Yurtsever, Udell and Cevher 2017 (arXiv 1706.05736), algorithm 3: the fixed-rank version with
a shift against rounding. Halko, Martinsson and Tropp 2011, section 5.5, for the power steps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from noisewise.lowrank.arrays import numpy_too
from noisewise.lowrank.certificate import (
    Error,
    Norm,
    Residual,
    certificate,
    check_probability,
    rounding,
)
from noisewise.lowrank.factors import SVD, make
from noisewise.lowrank.gradients import needs_gradient
from noisewise.lowrank.inputs import Randomness, as_matrix, check_hermitian, new_generator
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, to_unit
from noisewise.lowrank.range_finder import FIRST_BLOCK, known_scale
from noisewise.lowrank.request import rank_and_tol, whole
from noisewise.lowrank.selection import check_tolerance
from noisewise.lowrank.singular_values import fixed_signs, smallest_rank, tails


@numpy_too
def nystrom(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    generator: Randomness = None,
    failure_probability: float | None = 1e-6,
    norm: Norm = "frobenius",
    oversample: int = 10,
    power: int = 1,
) -> SVD:
    """Return the largest eigenvalues and their vectors of a positive semi-definite matrix.

    ``A ~ (A Q) (Q^H A Q)^+ (A Q)^H`` for an orthonormal Q with rank + oversample columns, cut to
    `rank` eigenvalues. It is the best approximation with this range that stays below A, so it has a
    smaller error than ``Q Q^H A`` for the same products, and it needs no products with A^H. With
    ``power=0``, A is multiplied once; each step of subspace iteration multiplies it once more.

    Args:
        matrix: A = A^H [*batch, n, n], anything that `svd` takes; an operator may leave out
            rmatmat (`operator(..., hermitian=True)`).
        rank: the rank of the result, 0 to n. If `tol` is given too, the largest rank allowed.
        tol: relative error to reach, in `norm`; the sketch is doubled until it is certified.
        generator: the source of all random numbers, or its seed; by default a fixed seed.
        failure_probability: see `svd`. The certificate holds also if A is not semi-definite.
        norm: the norm of the tolerance and the error, "frobenius" or "spectral".
        oversample: columns of the sketch beyond `rank`.
        power: steps of subspace iteration.

    Returns:
        ``U diag(S) U^H``; S are the eigenvalues, largest first. No gradient flows.

    Raises:
        ValueError: if A is not square or not Hermitian, if the sketch has a negative eigenvalue
            beyond rounding, for a matrix that needs gradients (use `svd`), and as `svd`.

    Source: the papers at the top of this module.

    Example:
        >>> i = torch.arange(100.0, dtype=torch.float64) / 100
        >>> r = nystrom(torch.exp(-((i[:, None] - i) ** 2)), tol=1e-6)
        >>> r.rank, bool(r.error.relative_upper <= 1e-6), bool((r.S >= 0).all())
        (5, True, True)
    """
    check_probability(failure_probability)
    if norm not in ("frobenius", "spectral"):
        raise ValueError(f"norm is {norm!r}: give 'frobenius' or 'spectral'.")
    a = as_matrix(matrix)
    if isinstance(a, Dense) and needs_gradient(a.tensor):
        raise ValueError("No gradient flows through nystrom: give A.detach(), or use svd.")
    found_rank, found_tol = rank_and_tol(a.m, a.n, rank, tol)
    columns, steps = whole("oversample", oversample), whole("power", power)
    source = new_generator(generator)
    with torch.no_grad():
        a, unit = to_unit(a)
        check_hermitian(a, source)
        search = _Search(a, norm, failure_probability, steps, source)
        if found_tol is None:
            assert found_rank is not None
            found = search.by_rank(found_rank, min(found_rank + columns, a.n))
        else:
            found = search.by_tolerance(found_tol, found_rank)
    if unit is None:
        return found
    s = found.S * unit[..., None].to(found.S.dtype)
    error = found.error.scaled(unit)
    return make(found.U, s, found.Vh, error, found.converged, found.notes)


class _Search:
    """Sketches of one matrix, and the error of what they give."""

    def __init__(
        self,
        a: Matrix,
        norm: Norm,
        probability: float | None,
        power: int,
        generator: torch.Generator,
    ) -> None:
        self.a, self.norm, self.power, self.generator = a, norm, power, generator
        self.probability = probability

    def by_rank(self, rank: int, size: int) -> SVD:
        """The first `rank` eigenvalues from a sketch with `size` columns."""
        u, s = self.eigen(size)
        return make(*_cut(u, s, rank), self.error(u, s, rank, 1.0), True, self.a.notes)

    def by_tolerance(self, tol: float, most: int | None) -> SVD:
        """Double the sketch until half the tolerance is left for cutting the rank."""
        n, size, check = self.a.n, min(FIRST_BLOCK, self.a.n), 0
        limit = n if most is None else most
        while True:
            check += 1
            u, s = self.eigen(size)
            error = self.error(u, s, size, 1 / (check * (check + 1)))
            reached = error.estimate if error.kind == "estimate" else error.upper
            if size >= n or bool((reached <= tol / 2 * error.scale).all()):
                break
            if most is not None and size >= most + FIRST_BLOCK:
                break
            size = min(2 * size, n)
        losses = reached[..., None] + tails(s, self.norm)
        rank = min(smallest_rank(losses, tol * error.scale), limit)
        if rank < size:
            check += 1
            cut = self.error(u, s, rank, 1 / (check * (check + 1)))
            if cut.kind == "probes":  # the sum of both parts may be the smaller bound
                upper = torch.minimum(cut.upper, losses[..., rank])
                cut = replace(cut, upper=upper, failure_probability=self.probability or 0.0)
            error = cut
        converged, notes = check_tolerance(self.a, error, tol, most)
        return make(*_cut(u, s, rank), error, converged, (*self.a.notes, *notes))

    def eigen(self, size: int) -> tuple[Tensor, Tensor]:
        """U [*batch, n, size] and the eigenvalues [*batch, size] of the whole sketch."""
        a = self.a
        if size == 0 or a.batch.numel() == 0:
            u = torch.zeros(*a.batch, a.n, size, dtype=a.dtype, device=a.device)
            return u, u.real.new_zeros(*a.batch, size)
        q = torch.linalg.qr(a.gaussian(size, self.generator)).Q
        for _ in range(self.power):
            q = torch.linalg.qr(a.matmat(q)).Q
        y = a.matmat(q)
        b = q.mH @ y
        values, vectors = torch.linalg.eigh((b + b.mH) / 2)
        rounded = torch.finfo(a.dtype).eps * a.n**0.5 * frobenius_norm(y)
        lowest = values[..., 0].double()
        if bool((lowest < -10 * rounded).any()):
            raise ValueError(
                "The matrix has a negative eigenvalue, so it is not positive semi-definite: use "
                "svd."
            )
        shift = torch.maximum(rounded, -2 * lowest).clamp_min(torch.finfo(values.dtype).tiny)
        shift = shift[..., None].to(values.dtype)
        half = (y + q * shift[..., None]) @ (vectors * (values + shift).rsqrt()[..., None, :])
        u, s, vh = torch.linalg.svd(half, full_matrices=False)
        u, _ = fixed_signs(u, vh)
        return u, (s.square() - shift).clamp_min(0.0)

    def error(self, u: Tensor, s: Tensor, rank: int, share: float) -> Error:
        """The certificate of a truncation; |Nystrom| <= |A| also bounds the best error below."""
        losses = tails(s, self.norm)
        lower, scale = losses[..., rank], losses[..., 0]
        if self.norm == "frobenius":
            scale = known_scale(self.a, s[..., None], "frobenius")
        lower = (lower - rounding(self.a, scale)).clamp_min(0.0)
        u, s, vh = _cut(u, s, rank)
        residual = Residual(self.a, u * s[..., None, :].to(u.dtype), vh)
        probability = self.probability and self.probability * share
        if probability and self.norm == "frobenius" and self.a.entries is not None:
            probability = 0.0  # exact for the price of one product with A
        return certificate(residual, self.norm, probability, self.generator, scale, lower)


def _cut(u: Tensor, s: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    u = u[..., :rank]
    return u, s[..., :rank], u.mH
