"""Chooses columns: a given number from one sketch, or blocks until a tolerance is met.

Voronin and Martinsson 2017 (pivots on a sketch); Dong, Chen, Martinsson and Pearce 2023 (arXiv
2309.16002: blocks of pivots on the residual).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.certificate import PROBES, Error, Residual, certificate, rounding, sketched
from noisewise.lowrank.dtypes import dtype_name
from noisewise.lowrank.operators import Matrix, gaussian
from noisewise.lowrank.pivoting import pivots, with_small_coefficients
from noisewise.lowrank.range_finder import (
    FIRST_BLOCK,
    LARGEST_BLOCK,
    empty_basis,
    error_from_norms,
    known_scale,
    orthonormal_to,
)
from noisewise.lowrank.singular_values import smallest_rank

# Probability of failure of the search, if the final error is exact or only an estimate.
SEARCH_PROBABILITY = 1e-6
NEAR = 30.0  # an error below this many roundings is measured again, from the factors


@dataclass(frozen=True)
class Selected:
    """Chosen columns of A, and the projection of A on their span.

    Attributes:
        index: int64 [*batch, k].
        columns: A[:, index], [*batch, m, k].
        q: an orthonormal basis of the span of A[:, index], [*batch, m, k].
        w: A^H q, [*batch, n, k].
        left_over: estimate and bound of |A - q w^H|_F, if the search has measured it.
        is_exact: whether both are the exact error.
        probability: the probability that the bound fails.
        scale: |A|_F, or the lower bound of |A|_F that the search used.
    """

    index: Tensor
    columns: Tensor
    q: Tensor
    w: Tensor
    left_over: tuple[Tensor, Tensor] | None = None
    is_exact: bool = True
    probability: float = 0.0
    scale: Tensor | None = None


def select(
    a: Matrix,
    rank: int | None,
    tol: float | None,
    *,
    oversample: int,
    bound: float | None,
    probability: float | None,
    generator: torch.Generator,
    project: bool = True,
) -> Selected:
    """Return a number of columns, or the columns for a tolerance; see `interpolative`.

    Without `project`, w stays empty, and the sketch is the only product with A.
    """
    if min(a.m, a.n) == 0 or a.batch.numel() == 0 or (tol is not None and tol >= 1):
        return _spanned(a, torch.zeros(*a.batch, 0, dtype=torch.int64, device=a.device))
    if tol is not None:
        return _until(a, tol, rank, oversample, bound, probability, generator)
    assert rank is not None
    size = min(rank + oversample, a.m)
    sketch = left_sketch(a, size, generator)
    index = pivots(sketch, rank)
    if bound is not None:
        index = with_small_coefficients(sketch, index, bound)
    return _spanned(a, index, project)


def left_sketch(a: Matrix | Residual, size: int, generator: torch.Generator) -> Tensor:
    """Omega A for a Gaussian Omega with `size` rows, [*batch, size, n].

    Only the directions of Omega matter, so it is drawn in single precision, three times as fast.
    """
    of = a.matrix if isinstance(a, Residual) else a
    drawn = torch.complex64 if of.dtype.is_complex else torch.float32
    omega = gaussian((*of.batch, size, of.m), drawn, of.device, generator)
    return a.rmatmat(omega.to(of.dtype).mH).mH


def _nothing(a: Matrix) -> tuple[Tensor, Tensor]:
    like = {"dtype": a.dtype, "device": a.device}
    return torch.zeros(*a.batch, a.m, 0, **like), torch.zeros(*a.batch, 0, a.n, **like)


def _spanned(a: Matrix, index: Tensor, project: bool = True) -> Selected:
    columns = a.columns(index) if index.shape[-1] else _nothing(a)[0]
    q = torch.linalg.qr(columns).Q if index.shape[-1] else columns
    w = a.rmatmat(q) if index.shape[-1] and project else _nothing(a)[1].mH
    return Selected(index, columns, q, w)


def _until(
    a: Matrix,
    tol: float,
    rank: int | None,
    oversample: int,
    bound: float | None,
    probability: float | None,
    generator: torch.Generator,
) -> Selected:
    """Add blocks of pivots on the residual until it is small; then drop the last columns."""
    most = min(a.m, a.n) if rank is None else rank
    state = empty_basis(a, generator)
    index = torch.zeros(*a.batch, 0, dtype=torch.int64, device=a.device)
    columns = _nothing(a)[0]
    allowed = torch.ones(*a.batch, a.n, dtype=torch.bool, device=a.device)
    search_probability = probability or SEARCH_PROBABILITY
    check = 0
    while True:
        check += 1
        left = state.residual()
        probe = sketched(left, PROBES if a.entries is None else 1, generator)
        found = state.measure("frobenius", search_probability / (check * (check + 1)), probe)
        estimate, upper, is_exact = found
        scale = known_scale(a, state.w, "frobenius")
        slack = rounding(a, scale)
        met = upper + slack <= tol * scale
        if index.shape[-1] >= most or bool((met | (estimate <= slack)).all()):
            break
        size = index.shape[-1]
        step = min(max(FIRST_BLOCK, size // 2), LARGEST_BLOCK, most - size)
        sketch = left_sketch(left, min(step + oversample, a.m), generator)
        chosen = pivots(sketch, step, allowed)
        if bound is not None:
            chosen = with_small_coefficients(sketch, chosen, bound)
        block = a.columns(chosen)
        q = orthonormal_to(block, state.q, generator)
        state.append(q, a.rmatmat(q))
        index, columns = torch.cat([index, chosen], -1), torch.cat([columns, block], -1)
        allowed = allowed.scatter(-1, chosen, False)
    # |A - Q_k W_k^H|^2 = |A - Q W^H|^2 + |the dropped columns of W|^2.
    kept = torch.linalg.vector_norm(state.w, dim=-2).double()
    zero = torch.zeros_like(kept.sum(-1, keepdim=True))
    dropped = kept.square().flip(-1).cumsum(-1).flip(-1).sqrt()
    dropped = torch.cat([dropped, zero], -1)
    limit = torch.where(met, tol * scale, upper + 2 * slack)
    uppers = torch.hypot(upper[..., None], dropped)
    k = smallest_rank(uppers + slack[..., None], limit)
    return Selected(
        index[..., :k],
        columns[..., :k],
        state.q[..., :k],
        state.w[..., :k],
        (torch.hypot(estimate, dropped[..., k]), uppers[..., k] + slack),
        is_exact,
        0.0 if is_exact else search_probability,
        scale,
    )


def error_of(
    a: Matrix,
    left: Tensor,
    right: Tensor,
    kept: Tensor,
    selected: Selected | None,
    probability: float | None,
    generator: torch.Generator,
) -> Error:
    """The error |A - left right|_F of an orthogonal projection of A.

    Args:
        a: A.
        left: [*batch, m, k].
        right: [*batch, k, n].
        kept: numbers [*batch, ...] whose squares sum to |left right|_F^2.
        selected: the result of the search, which may hold the error; or None.
        probability: the requested probability of failure.
        generator: the source of fresh probes.
    """
    known = a.frobenius()
    scale = known_scale(a, kept.flatten(len(a.batch))[..., None], "frobenius")
    if selected is not None and selected.scale is not None:
        scale = selected.scale
    lower = torch.zeros_like(scale)
    if known is not None:
        free = error_from_norms(known, kept.flatten(len(a.batch)), a.dtype)
        if free is not None:
            return Error("frobenius", "exact", *free, 0.0, known, lower)
    residual = Residual(a, left, right)
    if selected is not None and selected.left_over is not None:
        estimate, upper = selected.left_over
        is_clear = bool((upper >= NEAR * rounding(a, scale)).all())
        if selected.is_exact and not is_clear:
            probability = 0.0  # exact is possible, as the entries are known
        elif probability or selected.is_exact:
            kind = "exact" if selected.is_exact else "probes"
            return Error("frobenius", kind, estimate, upper, selected.probability, scale, lower)
    return certificate(residual, "frobenius", probability, generator, scale, lower)


def check_tolerance(
    a: Matrix, error: Error, tol: float | None, rank: int | None
) -> tuple[bool, tuple[str, ...]]:
    """Whether a tolerance was met, and a note if it was not."""
    if tol is None or tol >= 1:  # the zero matrix has the error |A|
        return True, ()
    reached = error.estimate if error.kind == "estimate" else error.upper
    if bool((reached <= tol * error.scale).all()):
        return True, ()
    slack = rounding(a, known_scale(a, error.scale[..., None, None], "frobenius"))
    if bool((slack >= tol * error.scale).any()):
        worst = (slack / error.scale.clamp_min(torch.finfo(torch.float64).tiny)).max().item()
        shown = f"is below the precision of {dtype_name(a.dtype)} (about {worst:.1g})"
        return False, (f"the tolerance {tol:.2g} {shown}",)
    within = "" if rank is None else f" within rank {rank}"
    return False, (f"the tolerance {tol:.2g} was not reached{within}",)
