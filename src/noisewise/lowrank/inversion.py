"""The routes to a pseudo-inverse, and the choice of a safe one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Taken = Literal["svd", "eigh", "qr", "cholesky", "limit"]


@dataclass(frozen=True)
class Inverted:
    """X = left right, and what is known about A; see `PseudoInverse`."""

    left: Tensor
    right: Tensor
    ranks: Tensor
    gap: Tensor
    margin: Tensor
    condition: Tensor
    route: Taken
    notes: tuple[str, ...]
    for_gradient: tuple[Tensor, Tensor, Tensor, Tensor]


def inverted(
    a: Tensor, rtol: float | None, route: str, epsilon: float | None, hermitian: bool = False
) -> Inverted:
    """Return the pseudo-inverse of A, computed by a route.

    Args:
        a: [*batch, m, n], finite.
        rtol: relative cutoff, or None.
        route: "auto", "svd", "qr", "cholesky" or "limit".
        epsilon: the e of route "limit".
        hermitian: A equals its conjugate transpose: eigenvalues instead of singular values.

    Raises:
        ValueError: if the route needs full rank and A does not have it.
    """
    if a.numel() == 0 or hermitian:
        return _by_svd(a, rtol, hermitian)
    if route == "limit":
        return _by_limit(a, epsilon)
    if route == "svd":
        return _by_svd(a, rtol)
    # Cholesky and QR cut nothing off, so "auto" uses them only for a cutoff at the rounding level.
    trusted = rtol is None or rtol <= max(a.shape[-2:]) * torch.finfo(a.dtype).eps
    if route == "cholesky" or (route == "auto" and trusted):
        found = _by_cholesky(a)
        if found is not None:
            return found
    if route == "qr" or (route == "auto" and trusted):
        found = _by_qr(a)
        if found is not None:
            return found
    if route != "auto":
        raise ValueError(
            f"route={route!r} is not safe for this matrix, because it does not have full rank or "
            "is too near to a lower rank: use route='svd'."
        )
    return _by_svd(a, rtol)


def _full(
    a: Tensor,
    left: Tensor,
    right: Tensor,
    condition: Tensor,
    route: Literal["qr", "cholesky"],
) -> Inverted:
    """The result for a matrix of full rank."""
    infinite = torch.full(a.shape[:-2], math.inf, dtype=torch.float64, device=a.device)
    ranks = torch.full(a.shape[:-2], min(a.shape[-2:]), device=a.device)
    none = a.new_zeros(0)
    kept = none, none.real, none, infinite
    return Inverted(left, right, ranks, infinite, infinite, condition, route, (), kept)


def _by_cholesky(a: Tensor) -> Inverted | None:
    """Gram matrix, Cholesky, and one step of refinement; None if the condition is too high.

    The error of the plain inverse is cond^2 eps; the step (2 - X A) X squares it and adds cond eps.
    """
    tall = a if a.shape[-2] >= a.shape[-1] else a.mH
    factor, info = torch.linalg.cholesky_ex(tall.mH @ tall)
    if bool((info > 0).any()):
        return None
    condition = _condition(factor.mH)
    if not bool((condition <= 0.2 * torch.finfo(a.dtype).eps ** (-1 / 3)).all()):
        return None
    x = torch.cholesky_solve(tall.mH, factor)
    x = 2 * x - (x @ tall) @ x
    eye = torch.eye(x.shape[-2], dtype=a.dtype, device=a.device)
    eye = eye.expand(*a.shape[:-2], *eye.shape)
    left, right = (eye, x) if tall is a else (x.mH, eye)
    return _full(a, left, right, condition, "cholesky")


def _by_qr(a: Tensor) -> Inverted | None:
    """A = Q R: A^+ = R^-1 Q^H; A^H = Q R: A^+ = Q R^-H. None if R is nearly singular."""
    is_tall = a.shape[-2] >= a.shape[-1]
    q, r = torch.linalg.qr(a if is_tall else a.mH)
    condition = _condition(r)
    limit = 0.01 / (max(a.shape[-2:]) * torch.finfo(a.dtype).eps)
    if not bool((condition <= limit).all()):
        return None
    eye = torch.eye(r.shape[-1], dtype=a.dtype, device=a.device).expand_as(r)
    inverse = torch.linalg.solve_triangular(r, eye, upper=True)
    left, right = (inverse, q.mH) if is_tall else (q, inverse.mH)
    return _full(a, left, right, condition, "qr")


def _condition(r: Tensor) -> Tensor:
    """A bound of s_1 / s_r of a triangular factor: sqrt(|R|_1 |R|_inf |R^-1|_1 |R^-1|_inf).

    The ratio of the diagonal entries is not a bound, as Kahan's matrix shows.
    """
    diagonal = r.diagonal(dim1=-2, dim2=-1).abs().amin(-1)
    eye = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device).expand_as(r)
    safe = r + torch.diag_embed((r.diagonal(dim1=-2, dim2=-1) == 0).to(r.dtype))
    inverse = torch.linalg.solve_triangular(safe, eye, upper=True)
    value = torch.ones(r.shape[:-2], dtype=torch.float64, device=r.device)
    for part in (r, inverse):
        for dim in (-1, -2):
            value = value * part.abs().double().sum(dim).amax(-1).sqrt()
    return torch.where((diagonal > 0) & value.isfinite(), value, math.inf)


def _of_hermitian(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of A = A^H by its eigenvalues: U = V sign(lambda), S = |lambda|."""
    values, vectors = torch.linalg.eigh(a)
    s, order = values.abs().sort(-1, descending=True)
    vectors = vectors.gather(-1, order[..., None, :].expand(vectors.shape))
    is_negative = values.gather(-1, order) < 0
    return torch.where(is_negative[..., None, :], -vectors, vectors), s, vectors.mH


def _by_svd(a: Tensor, rtol: float | None, hermitian: bool = False) -> Inverted:
    u, s, vh = _of_hermitian(a) if hermitian else torch.linalg.svd(a, full_matrices=False)
    if rtol is None:
        rtol = max(*a.shape[-2:], 1) * torch.finfo(a.dtype).eps
    largest = s[..., :1] if s.shape[-1] else s.new_zeros(*s.shape[:-1], 1)
    cutoff = rtol * largest
    kept = s > cutoff
    ranks = kept.sum(-1)
    most = int(ranks.max()) if ranks.numel() else 0
    infinite = torch.full(ranks.shape, math.inf, dtype=torch.float64, device=a.device)
    below = torch.where(kept, 0.0, s.double()).amax(-1) if s.shape[-1] else 0 * infinite
    above = torch.where(kept, s.double(), math.inf).amin(-1) if s.shape[-1] else infinite
    cut = cutoff[..., 0].double()
    gap = torch.where((below > 0) & (ranks > 0), above / below, math.inf)
    up = torch.where(cut > 0, above / cut, math.inf)
    down = torch.where(below > 0, cut / below, math.inf)
    inverse = torch.where(kept, 1 / torch.where(kept, s, torch.ones_like(s)), 0.0)[..., :most]
    left = vh[..., :most, :].mH * inverse[..., None, :].to(a.dtype)
    condition = torch.where(ranks > 0, largest[..., 0].double() / above, 1.0)
    notes = ()
    if ranks.numel() and float(gap.min()) < 1e3:
        near = float(gap.min())
        notes = (
            f"the rank is uncertain: the next singular value is only {near:.2g} times smaller",
        )
    values = torch.where(kept, s, 0.0)[..., :most]
    kept_parts = u[..., :most], values, vh[..., :most, :], torch.minimum(up, down)
    return Inverted(
        left,
        u[..., :most].mH,
        ranks,
        gap,
        torch.minimum(up, down),
        condition,
        "eigh" if hermitian else "svd",
        notes,
        kept_parts,
    )


def _by_limit(a: Tensor, epsilon: float | None) -> Inverted:
    """(A^H A + e)^-1 A^H by a QR of A stacked on sqrt(e) I, without the Gram matrix."""
    is_tall = a.shape[-2] >= a.shape[-1]
    tall = a if is_tall else a.mH
    if epsilon is None:
        epsilon = torch.finfo(a.dtype).eps ** 0.5
    size = torch.linalg.matrix_norm(tall, 2)
    size = torch.where(size > 0, size, torch.ones_like(size))
    root = (math.sqrt(epsilon) * size)[..., None, None].to(a.dtype)
    n = tall.shape[-1]
    eye = torch.eye(n, dtype=a.dtype, device=a.device).expand(*a.shape[:-2], n, n)
    q, r = torch.linalg.qr(torch.cat([tall, root * eye], -2))
    # R^-1 is the lower block of Q divided by sqrt(e), so nothing has to be inverted.
    left, right = q[..., -n:, :] / root, q[..., :-n, :].mH
    if not is_tall:
        left, right = right.mH, left.mH
    condition = _condition(r)
    note = (
        f"epsilon = {epsilon:.1e} s_1^2: directions with s^2 near or below epsilon are damped, "
        "none is cut off"
    )
    found = _full(a, left, right, condition, "qr")
    return Inverted(
        left,
        right,
        found.ranks,
        found.gap,
        found.margin,
        condition,
        "limit",
        (note,),
        found.for_gradient,
    )
