"""Derivatives of a truncated singular value decomposition, computed only from its factors and A.

`frames` moves the two subspaces; here this becomes the derivative of the product U S V^H, which
needs only a gap after s_k, and of the vectors. Between kept values, dU and dV contain
1 / (s_j^2 - s_i^2) (Townsend 2016; Wan and Zhang 2019 for the phases of complex vectors). The
random sketch is not differentiated: that gradient is wrong by up to 80 % in float32 if the
requested rank is above the numerical rank. All derivatives can be differentiated again, backward
and forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

from noisewise.lowrank.frames import active, cutoff, frames, known


def needs_gradient(a: Tensor) -> bool:
    """Whether derivatives flow to A, backward or forward."""
    return a.requires_grad or forward_ad.unpack_dual(a).tangent is not None


def truncation(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
    """Return U S Vh as the differentiable best approximation of A.

    If rounding is all that is cut off (k above the numerical rank, or no smaller than A), the
    derivative is that of A itself, which is right for every change that keeps the rank within k.

    Args:
        a: [*batch, m, n].
        u: [*batch, m, k].
        s: [*batch, k].
        vh: [*batch, k, n].
    """
    value = (u.detach() * s.detach()[..., None, :].to(u.dtype)) @ vh.detach()
    moving = active(s, a.shape)
    whole = value + (a - a.detach())
    if s.shape[-1] >= min(a.shape[-2:]) or (s.shape[-1] and not bool(moving.any())):
        return whole
    u, k, v = frames(a, u, s, vh.mH, moving)
    kept = moving.all(-1)[..., None, None]
    return whole if not bool(kept.any()) else torch.where(kept, u @ k @ v.mH, whole)


def kept_part(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
    """Return U S Vh as the differentiable part of A in the directions with s > 0.

    Unlike `truncation`, every matrix of a batch has its own number of directions.

    Args:
        a: [*batch, m, n].
        u: [*batch, m, k].
        s: [*batch, k]; 0 for directions that are cut off.
        vh: [*batch, k, n].
    """
    moving = s > 0
    only = moving[..., None, :].to(u.dtype)
    u, k, v = frames(a, u * only, s, vh.mH * only, moving)
    return u @ k @ v.mH


def with_gradient(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, S, Vh as differentiable functions of A.

    Singular vectors have gradients only if their singular values differ; otherwise the backward
    pass raises ValueError, and forward tangents are NaN. For results that do not depend on the
    choice of vectors, use `truncation`.

    Args:
        a: [*batch, m, n], the matrix that the gradient flows to.
        u: [*batch, m, k]; the largest entry of each column is real and positive.
        s: [*batch, k].
        vh: [*batch, k, n].
    """
    moving = active(s, a.shape)
    limit = cutoff(s, a.shape).detach() if s.shape[-1] else s.detach()
    u, k, v = frames(a, u, s, vh.mH, moving)
    r, s, w = _Diagonal.apply(k, limit)
    u, v = u @ r, v @ w
    if u.is_complex() and 0 not in u.shape:
        u, v = _with_phase(u, v)
    return u, s, v.mH


def _with_phase(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Turn both vectors of each pair so that the largest entry of the left one stays real."""
    largest = u.gather(-2, u.detach().abs().argmax(-2, keepdim=True))
    size = (largest.real.square() + largest.imag.square()).sqrt()
    turn = largest.conj() / torch.where(size > 0, size, torch.ones_like(size))
    turn = torch.where(size > 0, turn, torch.ones_like(turn))
    return u * turn, v * turn


class _Diagonal(torch.autograd.Function):
    """K = R S W^H for a square K that is diagonal at this point; the phases of W do not turn."""

    generate_vmap_rule = True

    @staticmethod
    def forward(k: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
        eye = eye.expand(k.shape).clone()
        return eye, k.diagonal(dim1=-2, dim2=-1).real.clone(), eye.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        _, limit = inputs
        ctx.save_for_backward(*output, limit)
        ctx.save_for_forward(*output, limit)

    @staticmethod
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any,  # noqa: ANN401 (torch's own type)
        grad_r: Tensor,
        grad_s: Tensor,
        grad_w: Tensor,
    ) -> tuple[Tensor | None, ...]:
        r, s, w, limit = ctx.saved_tensors
        on_r, on_w = r.mH @ grad_r, w.mH @ grad_w
        on_r, on_w = _Refused.apply(on_r, on_w, _equal(s, limit))
        inverse = _inverse_gaps(s)
        x, y = inverse * on_r, inverse * on_w
        values = s.to(on_r.dtype)
        core = (x + x.mH) * values[..., None, :] + values[..., :, None] * (y + y.mH)
        core = core + torch.diag_embed(grad_s).to(core.dtype)
        if core.is_complex():
            core = core + torch.diag_embed(1j * _phases(on_r, s))
        return r @ core @ w.mH, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        r, s, w, limit = ctx.saved_tensors
        moved = r.mH @ tangents[0] @ w
        inverse = _inverse_gaps(s)
        values = s.to(moved.dtype)
        row, column = values[..., None, :], values[..., :, None]
        turn_r = inverse * (moved * row + column * moved.mH)
        turn_w = inverse * (column * moved + moved.mH * row)
        if moved.is_complex():
            turn_r = turn_r + torch.diag_embed(1j * _phases(moved, s))
        equal = _equal(s, limit)
        turn_r, turn_w = (torch.where(equal, torch.nan, turn) for turn in (turn_r, turn_w))
        return r @ turn_r, moved.diagonal(dim1=-2, dim2=-1).real, w @ turn_w


def _phases(moved: Tensor, s: Tensor) -> Tensor:
    return moved.diagonal(dim1=-2, dim2=-1).imag / torch.where(s > 0, s, torch.ones_like(s))


def _inverse_gaps(s: Tensor) -> Tensor:
    """1 / (s_j^2 - s_i^2) where the values differ, else 0; [*batch, k, k]."""
    row, column = s[..., None, :], s[..., :, None]
    gaps = (row - column) * (row + column)
    size = torch.maximum(row.square(), column.square())
    apart = gaps.abs() > 4 * torch.finfo(s.dtype).eps * size
    return torch.where(apart, 1 / torch.where(apart, gaps, torch.ones_like(gaps)), 0.0)


def _equal(s: Tensor, limit: Tensor) -> Tensor:
    """Which pairs of values above the rounding level are equal up to it, bool [*batch, k, k]."""
    above = s > limit
    equal = (s[..., None, :] - s[..., :, None]).abs() <= limit[..., None]
    equal = equal & above[..., None, :] & above[..., :, None]
    return equal & ~torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)


class _Refused(torch.autograd.Function):
    """The gradients of both bases, refused if they turn vectors of equal singular values."""

    @staticmethod
    def forward(on_r: Tensor, on_w: Tensor, equal: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        size = torch.maximum(on_r.abs(), on_w.abs())
        if size.shape[-1] < 2:
            return on_r.clone(), on_w.clone()
        limit = torch.finfo(size.dtype).eps ** 0.5 * size.amax((-2, -1), keepdim=True)
        turned = equal & (size > limit)
        found = known(turned.any())
        if found is None:
            return on_r.masked_fill(turned, torch.nan), on_w.masked_fill(turned, torch.nan)
        if found:
            raise ValueError(
                "Singular vectors of equal singular values have no gradient: use dense(), products "
                "with the whole value, or only the singular values."
            )
        return on_r.clone(), on_w.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        pass

    @staticmethod
    def backward(ctx: Any, grad_r: Tensor, grad_w: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyrefly: ignore[bad-override]
        return grad_r, grad_w, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return tangents[0].clone(), tangents[1].clone()

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Tensor) -> tuple[Any, Any]:  # noqa: ANN401
        del info
        first = [
            x[None] if d is None else x.movedim(d, 0) for x, d in zip(given, in_dims, strict=True)
        ]
        on_r, on_w = torch.broadcast_tensors(*first[:2])
        return _Refused.apply(on_r, on_w, first[2]), (0, 0)
