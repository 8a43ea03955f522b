"""Truncated singular value decompositions, by rank or by tolerance, with their error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
from noisewise.lowrank.inputs import as_matrix, check_adjoint, new_generator
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, Matrix, to_unit
from noisewise.lowrank.range_finder import (
    TINY,
    blocks,
    known_scale,
    krylov,
    leave_one_out,
    seen,
    subspace,
)
from noisewise.lowrank.singular_values import fixed_signs, of_projection, smallest_rank, tails

SMALL = 32  # up to this side, all singular values cost no more than a sketch
_NEAR = 30.0  # roundings within which the factors' own error is measured
_LOOKS = 1e-6  # probability spent on looks where the final error is exact or only estimated


@dataclass(frozen=True)
class _Wish:
    """What was asked for, checked."""

    rank: int | None
    tol: float | None
    accurate: bool
    probability: float | None
    norm: Norm
    oversample: int
    power: int


def svd(
    matrix: object,
    rank: int | None = None,
    *,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    accurate: bool = False,
    failure_probability: float | None = 1e-6,
    norm: Norm = "frobenius",
    oversample: int = 10,
    power: int = 2,
) -> SVD:
    """Return a truncated SVD of a given rank, or of the smallest rank that meets a tolerance.

    ``A ~ U diag(S) Vh``. By rank: a Gaussian sketch of rank + oversample columns, `power` steps of
    subspace iteration with an orthonormal basis after every product, the SVD of what it captures,
    the first `rank` values of it. By tolerance: blocks are added until the error is certified to
    be at most ``tol |A|``, then as many values are dropped as the tolerance allows. Matrices with a
    side of up to 32 are decomposed completely.

    The error is exact and free, ``|A - A_k|_F^2 = |A|_F^2 - sum s_i^2``, where that difference can
    be told from rounding; otherwise it is bounded by fresh probes.

    Args:
        matrix: A [*batch, m, n]: a dense tensor of any dtype (half precisions are computed in
            float32, integers in float64, and the result's `notes` say so), a sparse one, an array,
            or an operator (`operator`, `product`, `outputs`, scipy's LinearOperator).
        rank: of the result, 0 to min(m, n). With `tol` too, the highest rank allowed.
        tol: relative error wanted, in `norm`. One rank serves the whole batch.
        generator: of all random numbers; without one, a fresh one of a fixed seed.
        accurate: by rank, block Krylov iteration: the error is within 0.05 % of the best for most
            spectra, for about twice the time. By tolerance, two more power steps a block; why not
            block Krylov there, docs/lowrank.md says.
        failure_probability: chance that `error.upper` is too small, for the whole batch; 0 for an
            exact error (of an operator: n products), None for an estimate without a bound (of a
            plain sketch, power=0, in the Frobenius norm it costs nothing: leave-one-out).
        norm: "frobenius" or "spectral", of the tolerance and the error.
        oversample: columns of the sketch beyond `rank`.
        power: steps of subspace iteration.

    Returns:
        U [*batch, m, k], S falling, Vh; the largest entry of each column of U is real and positive.
        Gradients flow to a dense A, as those of the exact truncated SVD.

    Raises:
        ValueError: for NaN or Inf (naming the place in the batch), a rank above min(m, n), neither
            rank nor tolerance, an operator whose rmatmat is no adjoint, or nonsense arguments.

    Source: Halko, Martinsson and Tropp 2011 (arXiv 0909.4061); Yu, Gu and Li 2018; Musco and Musco
    2015 (arXiv 1504.05477).

    Example:
        >>> i = torch.arange(1, 201, dtype=torch.float64)
        >>> r = svd(torch.diag(1 / i**2), tol=0.01)
        >>> r.rank, r.converged, bool(r.error.relative_upper <= 0.01)
        (15, True, True)
    """
    a = as_matrix(matrix)
    wish = _Wish(rank, tol, accurate, failure_probability, norm, oversample, power)
    _check(wish, a)
    source = a.tensor if isinstance(a, Dense) and a.tensor.requires_grad else None
    with torch.no_grad():
        if source is not None:
            a = Dense(source.detach(), a.notes)
        a, unit = to_unit(a)
        generator = new_generator(generator)
        check_adjoint(a, generator)
        found = _decomposed(a, wish, generator)
        if unit is not None:
            u, s, vh = found.factors
            s = (s.double() * unit[..., None]).to(s.dtype)
            found = make(u, s, vh, found.error.scaled(unit), found.converged, found.notes)
    if source is None:
        return found
    return make(*found.factors, found.error, found.converged, found.notes, source)


def _check(wish: _Wish, a: Matrix) -> None:
    check_probability(wish.probability)
    if wish.rank is None and wish.tol is None:
        raise ValueError("Say how small: a rank, or a relative tolerance tol.")
    if wish.rank is not None and not 0 <= wish.rank <= min(a.m, a.n):
        raise ValueError(
            f"rank is {wish.rank}, but a matrix {a.m} x {a.n} has ranks from 0 to {min(a.m, a.n)}."
        )
    if wish.tol is not None and not (wish.tol > 0 and math.isfinite(wish.tol)):
        raise ValueError(f"tol is {wish.tol}: give a positive relative tolerance, such as 1e-3.")
    if wish.norm not in ("frobenius", "spectral"):
        raise ValueError(f"norm is {wish.norm!r}: give 'frobenius' or 'spectral'.")
    if wish.oversample < 0 or wish.power < 0:
        raise ValueError("oversample and power must be 0 or more.")


def _decomposed(a: Matrix, wish: _Wish, generator: torch.Generator) -> SVD:
    """The decomposition without its gradient."""
    small = min(a.m, a.n)
    if a.batch.numel() == 0 or small == 0:
        return _empty(a, wish)
    if wish.tol is not None and wish.tol >= 1:  # nothing at all errs by |A|
        wish = replace(wish, rank=0, tol=None)
    sketch = math.prod(_krylov_shape(wish.rank or 0)) if wish.accurate else 0
    sketch = max(sketch, (wish.rank or 0) + wish.oversample)
    if a.entries is not None and (small <= SMALL or (wish.tol is None and sketch >= small)):
        return _complete(a, wish)
    if wish.tol is not None:
        return _by_tolerance(a, wish, wish.tol, generator)
    assert wish.rank is not None
    return _by_rank(a, wish, wish.rank, generator)


def _empty(a: Matrix, wish: _Wish) -> SVD:
    """No rows, no columns, or an empty batch: nothing to be wrong about."""
    rank = 0 if wish.rank is None else wish.rank
    like = {"dtype": a.dtype, "device": a.device}
    u, vh = torch.zeros(*a.batch, a.m, rank, **like), torch.zeros(*a.batch, rank, a.n, **like)
    zero = torch.zeros(a.batch, dtype=torch.float64, device=a.device)
    error = Error(wish.norm, "exact", zero, zero, 0.0, zero, zero)
    return make(u, u.real.new_zeros(*a.batch, rank), vh, error, True, a.notes)


def _complete(a: Matrix, wish: _Wish) -> SVD:
    """All singular values by LAPACK: the best there is, and its error is known."""
    assert a.entries is not None
    u, s, vh = torch.linalg.svd(a.entries, full_matrices=False)
    u, vh = fixed_signs(u, vh)
    losses = tails(s, wish.norm)
    slack = rounding(a, tails(s, "frobenius")[..., 0])
    rank = s.shape[-1] if wish.rank is None else wish.rank
    if wish.tol is not None:
        limit = torch.maximum(wish.tol * losses[..., 0], 2 * slack)
        rank = min(rank, smallest_rank(losses + slack[..., None], limit))
    lost = losses[..., rank]
    lower = (lost - slack).clamp_min(0.0)
    error = Error(wish.norm, "exact", lost, lost + slack, 0.0, losses[..., 0], lower)
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    return _judged(a, wish, parts, _measured(a, wish, parts, error, None))


def _krylov_shape(rank: int) -> tuple[int, int]:
    """Columns of a block, and blocks: three columns in all for each wanted, five blocks."""
    return max(math.ceil(0.6 * rank), min(rank, 8) + 2), 5


def _by_rank(a: Matrix, wish: _Wish, rank: int, generator: torch.Generator) -> SVD:
    small, left_over = min(a.m, a.n), None
    size = min(rank + wish.oversample, small)
    block, steps = _krylov_shape(rank)
    if wish.accurate and block * steps <= small:
        q, w = krylov(a, block, steps, generator)
    elif wish.power == 0 and wish.probability is None and size and wish.norm == "frobenius":
        q, w, left_over = leave_one_out(a, size, generator)
    else:
        q, w = subspace(a, size, wish.power + 2 * wish.accurate, generator)
    _check_finite(w)
    u, s, vh = of_projection(q, w, rank)
    error = _error(a, wish, (u, s, vh), left_over, generator)
    parts = u, s[..., :rank], vh
    return _judged(a, wish, parts, _measured(a, wish, parts, error, generator))


def _error(
    a: Matrix,
    wish: _Wish,
    parts: tuple[Tensor, Tensor, Tensor],
    left_over: Tensor | None,
    generator: torch.Generator,
) -> Error:
    """The error at a fixed rank, by the cheapest way; s holds all values of the sketch."""
    u, s, vh = parts
    rank = u.shape[-1]
    losses = tails(s, wish.norm)
    lower, scale = losses[..., rank], losses[..., 0]
    known = a.frobenius() if wish.norm == "frobenius" else None
    if known is not None:
        scale = known
        free = seen(known, s[..., :rank], a.dtype)
        if free is not None:
            return Error("frobenius", "exact", *free, 0.0, known, lower)
    if left_over is not None:
        guess = torch.hypot(left_over, lower)
        none = torch.full_like(guess, math.inf)
        return Error(wish.norm, "estimate", guess, none, 0.0, scale, lower)
    residual = Residual(a, u * s[..., None, :rank].to(u.dtype), vh)
    return certificate(residual, wish.norm, wish.probability, generator, scale, lower)


def _by_tolerance(a: Matrix, wish: _Wish, tol: float, generator: torch.Generator) -> SVD:
    small = min(a.m, a.n)
    most = small if wish.rank is None else min(wish.rank + wish.oversample, small)
    is_dense = a.entries is not None
    looks = wish.probability or (0.0 if is_dense and wish.probability == 0 else _LOOKS)
    found = blocks(
        a,
        tol,
        norm=wish.norm,
        probability=looks,
        most=most,
        power=wish.power + 2 * wish.accurate,
        generator=generator,
    )
    _check_finite(found.w)
    u, s, vh = of_projection(found.q, found.w)
    scale = known_scale(a, found.w, wish.norm)
    slack = rounding(a, known_scale(a, found.w, "frobenius"))
    met = found.upper + slack <= tol * scale
    limit = torch.where(met, tol * scale, found.upper + 2 * slack)
    losses = tails(s, wish.norm)
    uppers = torch.hypot(found.upper[..., None], losses) + slack[..., None]
    rank = smallest_rank(uppers, limit)
    rank = rank if wish.rank is None else min(rank, wish.rank)
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    kind: Kind = "exact" if found.is_exact else "probes"
    error = Error(
        wish.norm,
        kind,
        torch.hypot(found.estimate, losses[..., rank]),
        uppers[..., rank],
        0.0 if found.is_exact else looks,
        scale,
        losses[..., rank],
    )
    if not found.is_exact and not wish.probability:
        error = _certified(a, wish, parts, error, generator)
    return _judged(a, wish, parts, _measured(a, wish, parts, error, generator))


def _certified(
    a: Matrix,
    wish: _Wish,
    parts: tuple[Tensor, Tensor, Tensor],
    error: Error,
    generator: torch.Generator,
) -> Error:
    """The error of these very factors."""
    u, s, vh = parts
    residual = Residual(a, u * s[..., None, :].to(u.dtype), vh)
    probability = 0.0 if error.kind == "exact" and a.entries is not None else wish.probability
    return certificate(
        residual, wish.norm, probability, generator, error.scale, error.optimal_lower
    )


def _measured(
    a: Matrix,
    wish: _Wish,
    parts: tuple[Tensor, Tensor, Tensor],
    error: Error,
    generator: torch.Generator | None,
) -> Error:
    """Near rounding what was proved of the projection is not true of the factors: measure them."""
    size = a.frobenius()
    slack = rounding(a, error.scale if size is None else size)
    if error.kind == "estimate" or not bool((error.upper < _NEAR * slack).any()):
        return error
    return _certified(a, wish, parts, error, new_generator(generator))


def _judged(a: Matrix, wish: _Wish, parts: tuple[Tensor, Tensor, Tensor], error: Error) -> SVD:
    """Whether the tolerance was met, and why not."""
    if wish.tol is None:
        return make(*parts, error, True, a.notes)
    reached = error.estimate if error.kind == "estimate" else error.upper
    if bool((reached <= wish.tol * error.scale).all()):
        return make(*parts, error, True, a.notes)
    size = a.frobenius()
    slack = rounding(a, error.scale if size is None else size)
    note = f"the tolerance {wish.tol:.2g} was not reached"
    if bool((slack >= wish.tol * error.scale).any()):
        worst = (slack / error.scale.clamp_min(TINY)).max().item()
        note = (
            f"the tolerance {wish.tol:.2g} is below what {dtype_name(a.dtype)} can show (about "
            f"{worst:.1g})"
        )
    elif wish.rank is not None and parts[1].shape[-1] >= wish.rank:
        note += f" within rank {wish.rank}"
    return make(*parts, error, False, (*a.notes, note))


def _check_finite(w: Tensor) -> None:
    if not bool(torch.isfinite(frobenius_norm(w)).all()):
        raise ValueError("The products hold NaN or Inf: the operator, or its scale, is at fault.")
