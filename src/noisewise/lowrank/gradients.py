"""Gradients of a truncated singular value decomposition, computed only from its factors and A.

Let A = U S V^H + E with E orthogonal to U and V. A change dA moves the subspaces by
X = (1 - U U^H) dU and Y = (1 - V V^H) dV with

    X S - E Y = (1 - U U^H) dA V,        Y S - E^H X = (1 - V V^H) dA^H U.

The operator on the left is self-adjoint. So the same equations also carry gradients backward;
conjugate gradients solve them and need only products with A. Between kept values, dU and dV contain
1 / (s_j^2 - s_i^2) (Townsend 2016; Wan and Zhang 2019 for the phases of complex vectors). The
product U S V^H contains no such term: it has a separate gradient, which also exists for equal
values. The random sketch is not differentiated: that gradient is wrong by up to 80 % in float32 if
the requested rank is above the numerical rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_MOST_STEPS = 500


def with_gradient(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, S, Vh as differentiable functions of A.

    Singular vectors have gradients only if their singular values differ; otherwise the backward
    pass raises ValueError. For results that do not depend on the choice of vectors, use
    `truncation`.

    Args:
        a: [*batch, m, n], the matrix that the gradient flows to.
        u: [*batch, m, k]; the largest entry of each column is real and positive.
        s: [*batch, k].
        vh: [*batch, k, n].
    """
    return _Factors.apply(a, u.detach(), s.detach(), vh.detach())


def truncation(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
    """Return U S Vh as the differentiable best approximation of A.

    Args:
        a: [*batch, m, n].
        u: [*batch, m, k].
        s: [*batch, k].
        vh: [*batch, k, n].
    """
    return _Truncation.apply(a, u.detach(), s.detach(), vh.detach())


class _Factors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, a: Tensor, u: Tensor, s: Tensor, vh: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(a, u, s, vh)
        return u.clone(), s.clone(), vh.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override] (once_differentiable hides the names)
        ctx: Any,  # noqa: ANN401 (torch's own type)
        *grad_outputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor | None, ...]:
        grad_u, grad_s, grad_vh = grad_outputs
        a, u, s, vh = ctx.saved_tensors
        v = vh.mH
        grad_v = grad_vh.mH
        if u.is_complex():
            grad_u = _with_phase(u, v, grad_u, grad_v)
        on_u, on_v = u.mH @ grad_u, v.mH @ grad_v
        _refuse_equal_values(on_u, on_v, s, a)
        core = _core(on_u, on_v, s) + torch.diag_embed(grad_s).to(u.dtype)
        x, y = _solve(a, u, s, v, grad_u - u @ on_u, grad_v - v @ on_v)
        return u @ core @ vh + x @ vh + u @ y.mH, None, None, None


class _Truncation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
        ctx.save_for_backward(a, u, s, vh)
        return (u * s[..., None, :].to(u.dtype)) @ vh

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override] (once_differentiable hides the names)
        ctx: Any,  # noqa: ANN401 (torch's own type)
        *grad_outputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor | None, ...]:
        a, u, s, vh = ctx.saved_tensors
        return truncation_adjoint(a, u, s, vh, grad_outputs[0]), None, None, None


def truncation_adjoint(a: Tensor, u: Tensor, s: Tensor, vh: Tensor, grad: Tensor) -> Tensor:
    """Return the derivative of A -> U S Vh, applied to a matrix; the derivative is self-adjoint.

    Args:
        a: [*batch, m, n].
        u: [*batch, m, k].
        s: [*batch, k].
        vh: [*batch, k, n].
        grad: [*batch, m, n].

    Raises:
        ValueError: if s_k and s_(k+1) are too close, so that no derivative exists.
    """
    v = vh.mH
    on_v, on_u = grad @ v, grad.mH @ u
    core = u.mH @ on_v
    values = s[..., None, :].to(u.dtype)
    x, y = _solve(a, u, s, v, (on_v - u @ core) * values, (on_u - v @ core.mH) * values)
    # If a kept value is zero, both vectors of its pair can move freely.
    none = ~_active(s, a)[..., None, :]
    x = torch.where(none, on_v - u @ core, x)
    y = torch.where(none, on_u - v @ core.mH, y)
    return u @ core @ vh + x @ vh + u @ y.mH


def _active(s: Tensor, a: Tensor) -> Tensor:
    """Which singular values are above the rounding level."""
    return s > _cutoff(s, a) if s.shape[-1] else s > 0


def _cutoff(s: Tensor, a: Tensor) -> Tensor:
    """How far rounding moves a singular value, [*batch, 1]."""
    return max(a.shape[-2:]) * torch.finfo(s.dtype).eps * s[..., :1]


def _core(on_u: Tensor, on_v: Tensor, s: Tensor) -> Tensor:
    """The part of the gradient inside the kept subspaces, in their bases."""
    squares = s.square()
    gaps = squares[..., None, :] - squares[..., :, None]
    size = torch.maximum(squares[..., None, :], squares[..., :, None])
    apart = gaps.abs() > 4 * torch.finfo(s.dtype).eps * size
    inverse = torch.where(apart, 1 / torch.where(apart, gaps, torch.ones_like(gaps)), 0.0)
    x, y = inverse * on_u, inverse * on_v
    values = s.to(on_u.dtype)
    core = (x + x.mH) * values[..., None, :] + values[..., :, None] * (y + y.mH)
    if on_u.is_complex():
        phase = on_u.diagonal(dim1=-2, dim2=-1).imag / torch.where(s > 0, s, torch.ones_like(s))
        core = core + torch.diag_embed(1j * phase)
    return core


def _refuse_equal_values(on_u: Tensor, on_v: Tensor, s: Tensor, a: Tensor) -> None:
    """Raise ValueError for gradients of singular vectors whose values are equal up to rounding."""
    if s.shape[-1] < 2:
        return
    cutoff, active = _cutoff(s, a)[..., None], _active(s, a)
    equal = (s[..., None, :] - s[..., :, None]).abs() <= cutoff
    equal = equal & active[..., None, :] & active[..., :, None]
    equal = equal & ~torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)
    size = torch.maximum(on_u.abs(), on_v.abs())
    limit = torch.finfo(s.dtype).eps ** 0.5 * size.amax((-2, -1), keepdim=True)
    if bool((equal & (size > limit)).any()):
        raise ValueError(
            "Singular vectors of equal singular values have no gradient: use dense(), products with"
            " the whole value, or only the singular values."
        )


def _with_phase(u: Tensor, v: Tensor, grad_u: Tensor, grad_v: Tensor) -> Tensor:
    """Add the gradient of the phases, which keep the largest entry of each left vector real."""
    turned = (u.conj() * grad_u).sum(-2, keepdim=True).imag
    turned = turned + (v.conj() * grad_v).sum(-2, keepdim=True).imag
    where = u.abs().argmax(-2, keepdim=True)
    largest = u.gather(-2, where).real
    return grad_u.scatter_add(-2, where, (-1j * turned / largest).to(u.dtype))


def _solve(
    a: Tensor, u: Tensor, s: Tensor, v: Tensor, p: Tensor, q: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve X S - E Y = P, Y S - E^H X = Q, each column by conjugate gradients.

    Without Y: ``X - E E^H X S^-2 = (P S + E Q) S^-2``; this is positive definite if s_(k+1) < s_k.
    """
    active = _active(s, a)[..., None, :]
    safe = torch.where(active, s[..., None, :], torch.ones_like(s[..., None, :]))
    p, q = torch.where(active, p, 0.0), torch.where(active, q, 0.0)

    def e(y: Tensor) -> Tensor:
        y = a @ (y - v @ (v.mH @ y))
        return y - u @ (u.mH @ y)

    def eh(x: Tensor) -> Tensor:
        x = a.mH @ (x - u @ (u.mH @ x))
        return x - v @ (v.mH @ x)

    def apply(x: Tensor) -> Tensor:
        return torch.where(active, x - e(eh(x)) / safe**2, x)

    x = _conjugate_gradients(apply, torch.where(active, (p * safe + e(q)) / safe**2, 0.0))
    return x, torch.where(active, (q + eh(x)) / safe, 0.0)


def _conjugate_gradients(apply: object, b: Tensor) -> Tensor:
    """Conjugate gradients for all columns at once; every column has its own step size."""
    assert callable(apply)
    eps = torch.finfo(b.dtype).eps
    x, r = torch.zeros_like(b), b
    direction = r
    rho = _dot(r, r)
    wanted = rho * (4 * eps) ** 2
    for _ in range(_MOST_STEPS):
        if bool((rho <= wanted).all()):
            break
        moved = apply(direction)
        curve = _dot(direction, moved)
        step = torch.where(rho > wanted, rho / torch.where(curve == 0, 1.0, curve), 0.0)
        x = x + step * direction
        r = r - step * moved
        after = _dot(r, r)
        grown = torch.where(rho > 0, after / torch.where(rho == 0, 1.0, rho), 0.0)
        direction = r + grown * direction
        rho = after
    # If s_k and s_(k+1) are close, the solution grows like s_k^2 / (s_k^2 - s_(k+1)^2).
    is_solved = _dot(b - apply(x), b - apply(x)) <= eps * _dot(b, b)
    if bool((is_solved & (_dot(x, x) <= _dot(b, b) / eps)).all()):
        return x
    raise ValueError(
        "The truncated decomposition has no gradient here, because the last kept singular value "
        "and the first dropped one are too close: choose a rank with a gap after it."
    )


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x.conj() * y).real.sum(-2, keepdim=True)
