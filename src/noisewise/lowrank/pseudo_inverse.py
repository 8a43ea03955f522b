"""Pseudo-inverses that report how certain their numerical rank is.

Moore 1920; Penrose 1955 (the four conditions); Golub and Pereyra 1973 (the derivative at constant
rank); Wedin 1973 (the jump where the rank changes); Golub and Van Loan, sections 5.3 to 5.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_home, numpy_too
from noisewise.lowrank.certificate import Error, rounding
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.gradients import kept_part, needs_gradient
from noisewise.lowrank.inputs import as_matrix, check_hermitian, new_generator
from noisewise.lowrank.inversion import Inverted, Taken, inverted
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import Dense, to_unit
from noisewise.lowrank.penrose import Penrose, largest_of, penrose

Route = Literal["auto", "svd", "qr", "cholesky", "limit"]

NEAR = 2.0  # the rank is uncertain if a singular value lies within this factor of the cutoff


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PseudoInverse(LowRank):
    """A^+ ~ left @ right, [*batch, n, m]; `error` is |A X A - A|_F, exact.

    Attributes:
        matrix: A, without gradient.
        ranks: numerical rank of each matrix of the batch, int64 [*batch].
        gap: s_r / s_(r+1) [*batch]; the larger the gap, the more certain the rank. Infinite at full
            rank, and if all values that were cut off are exactly zero.
        margin: the smallest factor between a singular value and the cutoff [*batch]; infinite if no
            singular value was compared with the cutoff (Cholesky, QR and limit).
        condition: s_1 / s_r, or an upper bound of it from the norms of R and its inverse.
        route: the route that computed it.
        value: the dense pseudo-inverse with its gradient; None without a gradient.
    """

    matrix: Tensor
    ranks: Tensor
    gap: Tensor
    margin: Tensor
    condition: Tensor
    route: Taken
    value: Tensor | None = None

    @property
    def rank(self) -> int:
        """Numerical rank; the largest one of a batch."""
        return int(self.ranks.max()) if self.ranks.numel() else 0

    @property
    def attached(self) -> Tensor | None:
        """The dense A^+ if a gradient flows to A, else None."""
        return self.value

    def detach(self) -> PseudoInverse:
        """Return the value without its gradient."""
        return replace(self, value=None)

    def penrose(self) -> Penrose:
        """How well the value meets the four Penrose conditions."""
        x = self.dense()
        dtype = torch.promote_types(self.matrix.dtype, x.dtype)
        return penrose(self.matrix.to(dtype), x.to(dtype))

    def __repr__(self) -> str:
        size = "x".join(str(length) for length in self.shape[-2:])
        parts = [f"PseudoInverse {size}, rank {self.rank} by {self.route}"]
        gap = float(self.gap.min()) if self.gap.numel() else math.inf
        parts += [f"s_r / s_(r+1) = {gap:.2g}"] if math.isfinite(gap) else []
        parts += [f"||AXA-A||_F <= {largest_of(self.error.relative_upper):.1e} ||A||_F"]
        return "; ".join([*parts, *self.notes])


@numpy_too
def pinv(
    matrix: object,
    *,
    rtol: float | None = None,
    route: Route = "auto",
    epsilon: float | None = None,
    hermitian: bool = False,
) -> PseudoInverse:
    """Return the pseudo-inverse with its numerical rank and the gap after the last kept value.

    The routes are

    * "svd": ``V_r S_r^-1 U_r^H``, where r is the number of singular values above rtol s_1;
    * "qr" and "cholesky": only for full rank;
    * "limit": ``(A^H A + e)^-1 A^H`` for a small e; its error is at most ``e / (s_r (s_r^2 + e))``
      in the spectral norm;
    * "auto": the fastest safe route of the first three. The condition of the triangular factor R
      decides: Cholesky up to 0.2 eps^-1/3, QR up to 0.01 / (max(m, n) eps), the SVD above.

    Args:
        matrix: A [*batch, m, n], dense, any dtype; or a LowRank.
        rtol: singular values up to rtol s_1 count as zero; max(m, n) eps by default.
        route: see above.
        epsilon: the e of route "limit", relative to s_1^2; sqrt(eps) by default.
        hermitian: A equals its conjugate transpose: eigenvalues replace singular values, as in
            numpy (`route` of the result is "eigh"), and the gradient is that of (A + A^H) / 2.

    Returns:
        A value that multiplies like A^+. Derivatives of every order flow to A at constant rank,
        backward and forward.

    Raises:
        ValueError: for NaN or Inf, a route that needs full rank if A does not have it, `hermitian`
            for a matrix that is not, or arguments out of range. The backward pass raises it if a
            singular value lies within a factor 2 of the cutoff: there the pseudo-inverse jumps and
            has no derivative.

    Source: Penrose 1955; Golub and Pereyra 1973, equation 4.12.

    Example:
        >>> a = torch.tensor([[1.0, 0.0], [0.0, 1e-9], [0.0, 0.0]])
        >>> x = pinv(a)
        >>> x.rank, x.dense().shape, bool(x.penrose().worst < 1e-6)
        (1, torch.Size([2, 3]), True)
    """
    return inverse_of(entries_of(matrix), rtol, route, epsilon, hermitian)


def entries_of(matrix: object) -> Dense:
    """The matrix with its entries, which a pseudo-inverse needs.

    Raises:
        ValueError: if the entries are not known, and for NaN or Inf.
    """
    read = as_matrix(matrix.dense() if isinstance(matrix, LowRank) else matrix)
    if not isinstance(read, Dense):
        raise ValueError(
            "A pseudo-inverse needs the entries of the matrix: give a dense matrix or a LowRank."
        )
    return read


def inverse_of(
    read: Dense,
    rtol: float | None,
    route: Route,
    epsilon: float | None,
    hermitian: bool = False,
) -> PseudoInverse:
    """As `pinv`, for a matrix that has been converted by `entries_of`."""
    if rtol is not None and not 0 <= rtol < 1:
        raise ValueError(f"rtol is {rtol}: give a number from 0 to less than 1.")
    if epsilon is not None and (route != "limit" or not epsilon > 0):
        raise ValueError("epsilon must be positive, and it needs route='limit'.")
    if route not in ("auto", "svd", "qr", "cholesky", "limit"):
        raise ValueError(f"route is {route!r}: give 'auto', 'svd', 'qr', 'cholesky' or 'limit'.")
    if hermitian and route != "auto":
        raise ValueError(f"hermitian=True takes no route, but route is {route!r}: leave it out.")
    scaled, unit = to_unit(read)
    assert isinstance(scaled, Dense)
    if hermitian:
        scaled = _hermitian_part(scaled)
    a = scaled.tensor
    with torch.no_grad():
        found = inverted(a.detach(), rtol, route, epsilon, hermitian)
        x = found.left @ found.right
        error = _error(scaled, x)
    value = None
    if needs_gradient(a) and found.route == "limit":  # all steps are differentiable
        smooth = inverted(a, rtol, route, epsilon)
        value = smooth.left @ smooth.right
    elif needs_gradient(a):
        value = _with_gradient(a, x, found)
    right = found.right
    if unit is not None:
        size = unit[..., None, None].to(a.dtype)
        right, value = right / size, None if value is None else value / size
        error = error.scaled(unit)
    return PseudoInverse(
        left=found.left,
        right=right,
        error=error,
        notes=(*read.notes, *found.notes),
        matrix=read.tensor.detach(),
        ranks=found.ranks,
        gap=found.gap,
        margin=found.margin,
        condition=found.condition,
        route=found.route,
        value=value,
    )


def _hermitian_part(read: Dense) -> Dense:
    """(A + A^H) / 2, if that is A up to rounding."""
    check_hermitian(read, new_generator(None))
    return Dense((read.tensor + read.tensor.mH) / 2, read.notes)


def _error(read: Dense, x: Tensor) -> Error:
    """|A X A - A|_F, exact."""
    a = read.tensor.detach()
    is_tall = a.shape[-2] >= a.shape[-1]
    lost = frobenius_norm((a @ (x @ a) if is_tall else (a @ x) @ a) - a)
    size = read.frobenius()
    upper = lost + rounding(read, size)
    return Error("frobenius", "exact", lost, upper, 0.0, size, torch.zeros_like(lost))


def _with_gradient(a: Tensor, x: Tensor, found: Inverted) -> Tensor:
    """X with its derivatives: X depends on the part of A that was not cut off."""
    u, s, vh, margin = found.for_gradient
    is_whole = bool((found.ranks == min(a.shape[-2:])).all())
    kept = a if is_whole else kept_part(a, u, s, vh)
    return _Inverse.apply(kept, x, bool((margin < NEAR).any()))


@dataclass(frozen=True)
class Step:
    """One point on the path to the pseudo-inverse.

    Attributes:
        epsilon: relative to s_1^2.
        inverse: X_e = (A^H A + epsilon s_1^2)^-1 A^H.
        change: |X_e - A^+|_F / |A^+|_F, measured.
        predicted: the same by the formula sqrt(sum (e / (s (s^2 + e)))^2) / |A^+|_F, summed over
            the kept values; the measured value agrees with it until rounding dominates.
    """

    epsilon: float
    inverse: PseudoInverse
    change: Tensor
    predicted: Tensor


@numpy_too
def limit_path(matrix: Array, epsilons: Iterable[float], rtol: float | None = None) -> list[Step]:
    """Return the regularised inverses for given values of epsilon, and their distance to A^+.

    ``A^+ = lim_(e -> 0+) (A^H A + e)^-1 A^H``; the distance is ``1/s - s/(s^2 + e)`` in each
    direction. If A does not have full rank, the error first falls with e and then rises again,
    because rounding errors in the missing directions grow with 1/e. The smallest error is about
    sqrt(eps).

    Args:
        matrix: A [*batch, m, n].
        epsilons: positive numbers, relative to s_1^2.
        rtol: the cutoff of the pseudo-inverse for the comparison; see `pinv`.

    Raises:
        ValueError: as `pinv`.

    Example:
        >>> steps = limit_path(torch.eye(2, dtype=torch.float64), [0.1, 0.01])
        >>> [round(float(step.change), 4) for step in steps]
        [0.0909, 0.0099]
    """
    exact = pinv(matrix.detach(), rtol=rtol, route="svd")
    a = exact.matrix
    s = torch.linalg.svdvals(a).double()
    kept = torch.arange(s.shape[-1], device=s.device) < exact.ranks[..., None]
    size = frobenius_norm(exact.dense())
    steps = []
    for epsilon in epsilons:
        inverse = pinv(a, route="limit", epsilon=epsilon)
        e = epsilon * s[..., :1].square()
        missing = torch.where(kept, e / (s * (s.square() + e)), 0.0)
        steps.append(
            Step(
                epsilon,
                inverse,
                frobenius_norm(inverse.dense() - exact.dense()) / size,
                torch.linalg.vector_norm(missing, dim=-1) / size,
            )
        )
    return steps


class _Inverse(torch.autograd.Function):
    """dX = -X dA X + X X^H dA^H (1 - A X) + (1 - X A) dA^H X^H X, at constant rank."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, x: Tensor, near: bool) -> Tensor:  # pyrefly: ignore[bad-override]
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        a, _, ctx.near = inputs
        ctx.save_for_backward(a, output)
        ctx.save_for_forward(a, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyrefly: ignore[bad-override]
        _refuse_jump(ctx.near)
        a, x = ctx.saved_tensors
        xh, gh = x.mH, grad.mH
        if a.shape[-2] >= a.shape[-1]:  # no product is larger than A or X
            inner, outer = gh @ (x @ xh), xh @ (x @ gh)
            result = inner - a @ (x @ inner) + outer - outer @ (x @ a) - xh @ (grad @ xh)
        else:
            inner, outer = (gh @ x) @ xh, (xh @ x) @ gh
            result = inner - (a @ x) @ inner + outer - (outer @ x) @ a - (xh @ grad) @ xh
        return result, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:  # noqa: ANN401
        _refuse_jump(ctx.near)
        a, x = ctx.saved_tensors
        da = tangents[0]
        first, second = x @ (x.mH @ da.mH), (da.mH @ x.mH) @ x
        return first - (first @ a) @ x + second - x @ (a @ second) - x @ (da @ x)


def _refuse_jump(near: bool) -> None:
    if near:
        raise ValueError(
            "The pseudo-inverse has no derivative here: a singular value lies within a factor "
            f"{NEAR:g} of the cutoff, where the rank jumps. Choose an rtol inside a gap between "
            "singular values."
        )
