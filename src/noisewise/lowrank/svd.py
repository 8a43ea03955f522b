"""Truncated singular value decompositions by rank or by tolerance, with their error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisewise.lowrank.arrays import numpy_too
from noisewise.lowrank.certificate import (
    Error,
    Kind,
    Norm,
    Residual,
    certificate,
    check_probability,
    rounding,
)
from noisewise.lowrank.dtypes import dtype_name
from noisewise.lowrank.factors import SVD, make
from noisewise.lowrank.gradients import needs_gradient
from noisewise.lowrank.inputs import Randomness, as_matrix, check_adjoint, new_generator
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, to_unit
from noisewise.lowrank.range_finder import (
    TINY,
    blocks,
    error_from_norms,
    known_scale,
    krylov,
    leave_one_out,
    subspace,
)
from noisewise.lowrank.request import rank_and_tol, whole
from noisewise.lowrank.singular_values import fixed_signs, of_projection, smallest_rank, tails

SMALL = 32  # up to this side, all singular values cost no more than a sketch
_NEAR = 30.0  # an error below this many roundings is measured again, from the factors
# Probability of failure of the search, if the final error is exact or only an estimate.
_SEARCH_PROBABILITY = 1e-6


@dataclass(frozen=True)
class _Request:
    """The checked arguments of `svd`."""

    rank: int | None
    tol: float | None
    accurate: bool
    probability: float | None
    norm: Norm
    oversample: int
    power: int


@numpy_too
def svd(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    generator: Randomness = None,
    accurate: bool = False,
    failure_probability: float | None = 1e-6,
    norm: Norm = "frobenius",
    oversample: int = 10,
    power: int = 2,
) -> SVD:
    """Return a truncated SVD with a given rank, or with the smallest rank that meets a tolerance.

    ``A ~ U diag(S) Vh``. By rank: a Gaussian sketch with rank + oversample columns, `power` steps
    of subspace iteration with an orthonormal basis after every product, then the SVD of A projected
    on this basis, cut to the first `rank` values. By tolerance: blocks are added until the error is
    certified to be at most ``tol |A|``; then as many values are dropped as the tolerance allows. A
    matrix with a side of up to 32 is decomposed completely.

    The error is exact and costs nothing, ``|A - A_k|_F^2 = |A|_F^2 - sum s_i^2``, if this
    difference is large against rounding. Otherwise fresh probes bound it.

    Args:
        matrix: A [*batch, m, n]: a dense tensor of any dtype (half precisions are computed in
            float32 and integers in float64; `notes` of the result say so), a sparse tensor, an
            array, or an operator (`operator`, `product`, `outputs`, scipy's LinearOperator).
        rank: the rank of the result, 0 to min(m, n). If `tol` is given too, the largest rank
            allowed.
        tol: relative error to reach, in `norm`. The whole batch gets the same rank.
        generator: the source of all random numbers, or its seed; by default a new one with a fixed
            seed.
        accurate: by rank, block Krylov iteration: the error is within 0.05 % of the best for most
            spectra, in about twice the time. By tolerance, two more power steps per block;
            docs/lowrank.md says why block Krylov is not used there.
        failure_probability: the probability that `error.upper` is too small, for the whole batch,
            up to 0.1. 0 gives the exact error (n products for an operator). None gives an estimate
            without a bound; with power=0 in the Frobenius norm it costs nothing (leave-one-out).
        norm: the norm of the tolerance and the error, "frobenius" or "spectral".
        oversample: columns of the sketch beyond `rank`.
        power: steps of subspace iteration.

    Returns:
        U [*batch, m, k], S with the largest value first, and Vh. The largest entry of each column
        of U is real and positive. Gradients flow to a dense A; they are those of the exact
        truncated SVD.

    Raises:
        ValueError: for NaN or Inf (with the place in the batch), a rank above min(m, n), neither
            rank nor tolerance, an operator whose rmatmat is not the adjoint of matmat, or other
            arguments out of range.

    Source: Halko, Martinsson and Tropp 2011 (arXiv 0909.4061); Yu, Gu and Li 2018; Musco and Musco
    2015 (arXiv 1504.05477).

    Example:
        >>> i = torch.arange(1, 201, dtype=torch.float64)
        >>> r = svd(torch.diag(1 / i**2), tol=0.01)
        >>> r.rank, r.converged, bool(r.error.relative_upper <= 0.01)
        (15, True, True)
    """
    a = as_matrix(matrix)
    request = _checked(a, rank, tol, accurate, failure_probability, norm, oversample, power)
    source = a.tensor if isinstance(a, Dense) and needs_gradient(a.tensor) else None
    with torch.no_grad():
        if source is not None:
            a = Dense(source.detach(), a.notes)
        a, unit = to_unit(a)
        generator = new_generator(generator)
        check_adjoint(a, generator)
        found = _decomposed(a, request, generator)
        if unit is not None:
            u, s, vh = found.factors
            s = (s.double() * unit[..., None]).to(s.dtype)
            found = make(u, s, vh, found.error.scaled(unit), found.converged, found.notes)
    if source is None:
        return found
    return make(*found.factors, found.error, found.converged, found.notes, source)


def _checked(
    a: Matrix,
    rank: object,
    tol: object,
    accurate: bool,
    probability: float | None,
    norm: Norm,
    oversample: object,
    power: object,
) -> _Request:
    """The request, with its numbers checked."""
    check_probability(probability)
    rank, tol = rank_and_tol(a.m, a.n, rank, tol)
    if norm not in ("frobenius", "spectral"):
        raise ValueError(f"norm is {norm!r}: give 'frobenius' or 'spectral'.")
    columns, steps = whole("oversample", oversample), whole("power", power)
    return _Request(rank, tol, bool(accurate), probability, norm, columns, steps)


def _decomposed(a: Matrix, request: _Request, generator: torch.Generator) -> SVD:
    """The decomposition without its gradient."""
    small = min(a.m, a.n)
    if a.batch.numel() == 0 or small == 0:
        return _empty(a, request)
    if request.tol is not None and request.tol >= 1:  # the zero matrix has the error |A|
        request = replace(request, rank=0, tol=None)
    sketch = math.prod(_krylov_shape(request.rank or 0)) if request.accurate else 0
    sketch = max(sketch, (request.rank or 0) + request.oversample)
    if a.entries is not None and (small <= SMALL or (request.tol is None and sketch >= small)):
        return _complete(a, request)
    if request.tol is not None:
        return _by_tolerance(a, request, request.tol, generator)
    assert request.rank is not None
    return _by_rank(a, request, request.rank, generator)


def _empty(a: Matrix, request: _Request) -> SVD:
    """No rows, no columns or an empty batch: the error is 0."""
    rank = 0 if request.rank is None else request.rank
    like = {"dtype": a.dtype, "device": a.device}
    u, vh = torch.zeros(*a.batch, a.m, rank, **like), torch.zeros(*a.batch, rank, a.n, **like)
    zero = torch.zeros(a.batch, dtype=torch.float64, device=a.device)
    error = Error(request.norm, "exact", zero, zero, 0.0, zero, zero)
    return make(u, u.real.new_zeros(*a.batch, rank), vh, error, True, a.notes)


def _complete(a: Matrix, request: _Request) -> SVD:
    """All singular values by LAPACK: the best approximation, with a known error."""
    assert a.entries is not None
    u, s, vh = torch.linalg.svd(a.entries, full_matrices=False)
    u, vh = fixed_signs(u, vh)
    losses = tails(s, request.norm)
    slack = rounding(a, tails(s, "frobenius")[..., 0])
    rank = s.shape[-1] if request.rank is None else request.rank
    if request.tol is not None:
        limit = torch.maximum(request.tol * losses[..., 0], 2 * slack)
        rank = min(rank, smallest_rank(losses + slack[..., None], limit))
    lost = losses[..., rank]
    lower = (lost - slack).clamp_min(0.0)
    error = Error(request.norm, "exact", lost, lost + slack, 0.0, losses[..., 0], lower)
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    return _with_notes(a, request, parts, _measured(a, request, parts, error, None))


def _krylov_shape(rank: int) -> tuple[int, int]:
    """Columns of a block, and the number of blocks: 5, with 3 columns in all per unit of rank."""
    return max(math.ceil(0.6 * rank), min(rank, 8) + 2), 5


def _by_rank(a: Matrix, request: _Request, rank: int, generator: torch.Generator) -> SVD:
    small, left_over = min(a.m, a.n), None
    size = min(rank + request.oversample, small)
    block, steps = _krylov_shape(rank)
    if request.accurate and block * steps <= small:
        q, w = krylov(a, block, steps, generator)
    elif (
        request.power == 0 and request.probability is None and size and request.norm == "frobenius"
    ):
        q, w, left_over = leave_one_out(a, size, generator)
    else:
        q, w = subspace(a, size, request.power + 2 * request.accurate, generator)
    _check_finite(w)
    u, s, vh = of_projection(q, w, rank)
    error = _error(a, request, (u, s, vh), left_over, generator)
    parts = u, s[..., :rank], vh
    return _with_notes(a, request, parts, _measured(a, request, parts, error, generator))


def _error(
    a: Matrix,
    request: _Request,
    parts: tuple[Tensor, Tensor, Tensor],
    left_over: Tensor | None,
    generator: torch.Generator,
) -> Error:
    """The error for a fixed rank, in the cheapest way; s holds all values of the sketch."""
    u, s, vh = parts
    rank = u.shape[-1]
    losses = tails(s, request.norm)
    lower, scale = losses[..., rank], losses[..., 0]
    known = a.frobenius() if request.norm == "frobenius" else None
    if known is not None:
        scale = known
        free = error_from_norms(known, s[..., :rank], a.dtype)
        if free is not None:
            return Error("frobenius", "exact", *free, 0.0, known, lower)
    if left_over is not None:
        guess = torch.hypot(left_over, lower)
        none = torch.full_like(guess, math.inf)
        return Error(request.norm, "estimate", guess, none, 0.0, scale, lower)
    residual = Residual(a, u * s[..., None, :rank].to(u.dtype), vh)
    return certificate(residual, request.norm, request.probability, generator, scale, lower)


def _by_tolerance(a: Matrix, request: _Request, tol: float, generator: torch.Generator) -> SVD:
    small = min(a.m, a.n)
    most = small if request.rank is None else min(request.rank + request.oversample, small)
    is_dense = a.entries is not None
    search_probability = request.probability or (
        0.0 if is_dense and request.probability == 0 else _SEARCH_PROBABILITY
    )
    found = blocks(
        a,
        tol,
        norm=request.norm,
        probability=search_probability,
        most=most,
        power=request.power + 2 * request.accurate,
        generator=generator,
    )
    _check_finite(found.w)
    u, s, vh = of_projection(found.q, found.w)
    scale = known_scale(a, found.w, request.norm)
    slack = rounding(a, known_scale(a, found.w, "frobenius"))
    met = found.upper + slack <= tol * scale
    limit = torch.where(met, tol * scale, found.upper + 2 * slack)
    losses = tails(s, request.norm)
    uppers = torch.hypot(found.upper[..., None], losses) + slack[..., None]
    rank = smallest_rank(uppers, limit)
    rank = rank if request.rank is None else min(rank, request.rank)
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    kind: Kind = "exact" if found.is_exact else "probes"
    error = Error(
        request.norm,
        kind,
        torch.hypot(found.estimate, losses[..., rank]),
        uppers[..., rank],
        0.0 if found.is_exact else search_probability,
        scale,
        losses[..., rank],
    )
    if not found.is_exact and not request.probability:
        error = _certified(a, request, parts, error, generator)
    return _with_notes(a, request, parts, _measured(a, request, parts, error, generator))


def _certified(
    a: Matrix,
    request: _Request,
    parts: tuple[Tensor, Tensor, Tensor],
    error: Error,
    generator: torch.Generator,
) -> Error:
    """The error of the factors themselves."""
    u, s, vh = parts
    residual = Residual(a, u * s[..., None, :].to(u.dtype), vh)
    probability = 0.0 if error.kind == "exact" and a.entries is not None else request.probability
    return certificate(
        residual, request.norm, probability, generator, error.scale, error.optimal_lower
    )


def _measured(
    a: Matrix,
    request: _Request,
    parts: tuple[Tensor, Tensor, Tensor],
    error: Error,
    generator: torch.Generator | None,
) -> Error:
    """The error; near rounding it is measured, because the factors are not the exact projection."""
    size = a.frobenius()
    slack = rounding(a, error.scale if size is None else size)
    if error.kind == "estimate" or not bool((error.upper < _NEAR * slack).any()):
        return error
    return _certified(a, request, parts, error, new_generator(generator))


def _with_notes(
    a: Matrix, request: _Request, parts: tuple[Tensor, Tensor, Tensor], error: Error
) -> SVD:
    """The result, with a note if the tolerance was not met."""
    if request.tol is None:
        return make(*parts, error, True, a.notes)
    reached = error.estimate if error.kind == "estimate" else error.upper
    if bool((reached <= request.tol * error.scale).all()):
        return make(*parts, error, True, a.notes)
    size = a.frobenius()
    slack = rounding(a, error.scale if size is None else size)
    note = f"the tolerance {request.tol:.2g} was not reached"
    if bool((slack >= request.tol * error.scale).any()):
        worst = (slack / error.scale.clamp_min(TINY)).max().item()
        note = (
            f"the tolerance {request.tol:.2g} is below the precision of {dtype_name(a.dtype)} "
            f"(about {worst:.1g})"
        )
    elif request.rank is not None and parts[1].shape[-1] >= request.rank:
        note += f" within rank {request.rank}"
    return make(*parts, error, False, (*a.notes, note))


def _check_finite(w: Tensor) -> None:
    if not bool(torch.isfinite(frobenius_norm(w)).all()):
        raise ValueError("The products hold NaN or Inf: check the operator and its scale.")
