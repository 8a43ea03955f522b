"""Orthonormal frames of the dominant subspaces of A as functions of A, to every order.

Let A = U K V^H + E with orthonormal frames U, V and E orthogonal to both. A change dA moves them by

    dU = X,   dV = Y,   dK = U^H dA V   with
    X K - E Y = (1 - U U^H) dA V,        Y K^H - E^H X = (1 - V V^H) dA^H U.

This rule does not turn the frames inside their subspaces. It is therefore not the derivative of one
choice of U; but what does not depend on the choice (U K V^H, U U^H, K up to rotations) has its true
derivatives of every order, because every curve A(t) has a curve of such frames. The rule needs no
gap between kept values. Derivatives of its solution are solutions of the same equations, so
backward, forward and repeated differentiation need one solver. Its adjoint has K^H in place of K.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_MOST_STEPS = 500


def cutoff(s: Tensor, shape: torch.Size) -> Tensor:
    """How far rounding moves a singular value of a matrix of this shape, [*batch, 1]."""
    return max(shape[-2:]) * torch.finfo(s.dtype).eps * s[..., :1]


def active(s: Tensor, shape: torch.Size) -> Tensor:
    """Which singular values are above the rounding level, [*batch, k]."""
    return s > cutoff(s, shape) if s.shape[-1] else s > 0


def frames(
    a: Tensor, u: Tensor, s: Tensor, v: Tensor, moving: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, K and V as functions of A.

    Args:
        a: [*batch, m, n].
        u: the value of U, [*batch, m, k].
        s: the diagonal of K, [*batch, k]; largest first.
        v: the value of V, [*batch, n, k].
        moving: bool [*batch, k], which columns move; s must be positive there.

    Raises:
        ValueError: when it is differentiated, if s_k and s_(k+1) are too close.
    """
    return _Frames.apply(a, u.detach(), s.detach(), v.detach(), moving)


class _Frames(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        a: Tensor, u: Tensor, s: Tensor, v: Tensor, moving: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return u.clone(), torch.diag_embed(s).to(u.dtype), v.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        a, _, _, _, moving = inputs
        ctx.save_for_backward(a, *output, moving)
        ctx.save_for_forward(a, *output, moving)

    @staticmethod
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any,  # noqa: ANN401 (torch's own type)
        grad_u: Tensor,
        grad_k: Tensor,
        grad_v: Tensor,
    ) -> tuple[Tensor | None, ...]:
        a, u, k, v, moving = ctx.saved_tensors
        x, y = _solve(a, u, k.mH, v, _outside(u, grad_u), _outside(v, grad_v), moving)
        return u @ grad_k @ v.mH + x @ v.mH + u @ y.mH, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        a, u, k, v, moving = ctx.saved_tensors
        da = tangents[0]
        on_v, on_u = da @ v, da.mH @ u
        x, y = _solve(a, u, k, v, _outside(u, on_v), _outside(v, on_u), moving)
        return x, u.mH @ on_v, y


def _outside(u: Tensor, x: Tensor) -> Tensor:
    """(1 - U U^H) x."""
    return x - u @ (u.mH @ x)


def _solve(
    a: Tensor, u: Tensor, k: Tensor, v: Tensor, p: Tensor, q: Tensor, moving: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve X K - E Y = P, Y K^H - E^H X = Q with E = (1 - U U^H) A (1 - V V^H); K is diagonal.

    Columns that do not move are 0 in the solution.
    """
    return _Solution.apply(a, u, k, v, p, q, moving)


class _Solution(torch.autograd.Function):
    """`_solve`; its derivatives are solutions for other right sides."""

    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        a: Tensor, u: Tensor, k: Tensor, v: Tensor, p: Tensor, q: Tensor, moving: Tensor
    ) -> tuple[Tensor, Tensor]:
        return _solved(a, u, k.diagonal(dim1=-2, dim2=-1).real, v, p, q, moving)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        a, u, k, v, _, _, moving = inputs
        ctx.save_for_backward(a, u, k, v, *output, moving)
        ctx.save_for_forward(a, u, k, v, *output, moving)

    @staticmethod
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any,  # noqa: ANN401 (torch's own type)
        grad_x: Tensor,
        grad_y: Tensor,
    ) -> tuple[Tensor | None, ...]:
        a, u, k, v, x, y, moving = ctx.saved_tensors
        w, z = _solve(a, u, k.mH, v, grad_x, grad_y, moving)
        grad_a, grad_u, grad_v = _of_remainder(a, u, v, (w, x), (y, z))
        return grad_a, grad_u, -(x.mH @ w + z.mH @ y), grad_v, w, z, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        a, u, k, v, x, y, moving = ctx.saved_tensors
        da, du, dk, dv, dp, dq = (
            torch.zeros_like(of) if given is None else given
            for of, given in zip((a, u, k, v, x, y), tangents[:6], strict=True)
        )
        p = dp - x @ dk + _remainder_change(a, u, v, (da, du, dv), y)
        q = dq - y @ dk.mH + _remainder_change(a.mH, v, u, (da.mH, dv, du), x)
        return _solve(a, u, k, v, p, q, moving)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Tensor) -> tuple[Any, Any]:  # noqa: ANN401
        """The new dimension comes first, before the batch, so the solver sees a larger batch."""
        del info
        sizes = [x.dim() - (d is not None) for x, d in zip(given, in_dims, strict=True)]
        most = max(sizes[:6])
        first = []
        for x, d, size, wanted in zip(given, in_dims, sizes, [most] * 6 + [most - 1], strict=True):
            x = x[None] if d is None else x.movedim(d, 0)
            first.append(x.reshape(x.shape[0], *[1] * (wanted - size), *x.shape[1:]))
        return _Solution.apply(*first), (0, 0)


def _of_remainder(
    a: Tensor, u: Tensor, v: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <D, (1 - U U^H) A (1 - V V^H)> for D = w y^H + x z^H, to A, U and V."""
    (w, x), (y, z) = left, right
    grad_a = _outside(u, w) @ _outside(v, y).mH + _outside(u, x) @ _outside(v, z).mH
    beyond_v, beyond_u = _outside(v, a.mH @ u), _outside(u, a @ v)
    grad_u = w @ (y.mH @ beyond_v) + x @ (z.mH @ beyond_v)
    grad_u = grad_u + a @ _outside(v, y @ (w.mH @ u) + z @ (x.mH @ u))
    grad_v = y @ (w.mH @ beyond_u) + z @ (x.mH @ beyond_u)
    grad_v = grad_v + a.mH @ _outside(u, w @ (y.mH @ v) + x @ (z.mH @ v))
    return grad_a, -grad_u, -grad_v


def _remainder_change(
    a: Tensor, u: Tensor, v: Tensor, change: tuple[Tensor, Tensor, Tensor], y: Tensor
) -> Tensor:
    """d((1 - U U^H) A (1 - V V^H)) y."""
    da, du, dv = change
    inner = _outside(v, y)
    moved = a @ inner
    result = _outside(u, da @ inner - a @ (dv @ (v.mH @ y) + v @ (dv.mH @ y)))
    return result - du @ (u.mH @ moved) - u @ (du.mH @ moved)


def _solved(
    a: Tensor, u: Tensor, s: Tensor, v: Tensor, p: Tensor, q: Tensor, moving: Tensor
) -> tuple[Tensor, Tensor]:
    """The solution of `_solve` for K = diag(s), each column by conjugate gradients.

    Without Y: ``X - E E^H X S^-2 = (P S + E Q) S^-2``; this is positive definite if s_(k+1) < s_k.
    """
    moving = moving[..., None, :]
    safe = torch.where(moving, s[..., None, :], torch.ones_like(s[..., None, :]))
    p, q = torch.where(moving, p, 0.0), torch.where(moving, q, 0.0)
    # Columns of size 1: squares of very large or small gradients leave the range of the dtype.
    size = torch.maximum(_largest(p), _largest(q))
    size = torch.where(size > 0, size, torch.ones_like(size))
    p, q = p / size, q / size

    # Formed once: projecting in every step adds rounding of the size of s_1, which is not small
    # against a small s_k, and the steps would never agree on one operator.
    rest = a - u @ (u.mH @ a)
    rest = rest - (rest @ v) @ v.mH

    def apply(x: Tensor) -> Tensor:
        return torch.where(moving, x - rest @ ((rest.mH @ x) / safe) / safe, x)

    x = _conjugate_gradients(apply, torch.where(moving, p / safe + rest @ (q / safe) / safe, 0.0))
    y = torch.where(moving, (q + rest.mH @ x) / safe, 0.0)
    return x * size, y * size


def _largest(x: Tensor) -> Tensor:
    """The largest entry of each column, [..., 1, k]."""
    if x.shape[-2] == 0:
        return x.real.new_ones(*x.shape[:-2], 1, x.shape[-1])
    return x.abs().amax(-2, keepdim=True)


def _conjugate_gradients(apply: object, b: Tensor) -> Tensor:
    """Conjugate gradients for all columns at once; every column has its own step size."""
    assert callable(apply)
    size = _largest(b)
    size = torch.where(size > 0, size, torch.ones_like(size))
    b = b / size
    eps = torch.finfo(b.dtype).eps
    x, r = torch.zeros_like(b), b
    direction = r
    rho = _dot(r, r)
    wanted = rho * (4 * eps) ** 2
    for taken in range(_MOST_STEPS):
        done = known((rho <= wanted).all())
        if done or (done is None and taken > 3 * b.shape[-2] + 10):
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
    is_solved = is_solved & (_dot(x, x) <= _dot(b, b) / eps)
    found = known(is_solved.all())
    if found is None:
        return torch.where(is_solved, x * size, torch.nan)
    if found:
        return x * size
    if not bool(torch.isfinite(b).all()):
        raise ValueError("A gradient that flows to the factors holds NaN or Inf.")
    raise ValueError(
        "The truncated decomposition has no gradient here, because the last kept singular value "
        "and the first dropped one are too close: choose a rank with a gap after it."
    )


def known(condition: Tensor) -> bool | None:
    """The condition, or None inside `torch.autograd.grad(is_grads_batched=True)`, which hides it.

    torch.func.vmap hides nothing from a Function that has a rule for it.
    """
    try:
        return bool(condition)
    except RuntimeError:
        return None


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x.conj() * y).real.sum(-2, keepdim=True)
