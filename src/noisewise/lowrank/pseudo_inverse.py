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
from torch.autograd.function import FunctionCtx, once_differentiable

from noisewise.lowrank.certificate import Error, rounding
from noisewise.lowrank.factors import LowRank
from noisewise.lowrank.gradients import truncation_adjoint
from noisewise.lowrank.inputs import as_matrix
from noisewise.lowrank.inversion import inverted
from noisewise.lowrank.magnitude import frobenius_norm, power_of_two
from noisewise.lowrank.operators import Dense
from noisewise.lowrank.penrose import Penrose, largest_of, penrose

Route = Literal["auto", "svd", "qr", "cholesky", "limit"]
_TAKEN = Literal["svd", "qr", "cholesky", "limit"]

NEAR = 2.0  # the rank is uncertain if a singular value lies within this factor of the cutoff


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
    route: _TAKEN
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


def pinv(
    matrix: Tensor | LowRank,
    *,
    rtol: float | None = None,
    route: Route = "auto",
    epsilon: float | None = None,
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

    Returns:
        A value that multiplies like A^+. Gradients flow to A at constant rank.

    Raises:
        ValueError: for NaN or Inf, a route that needs full rank if A does not have it, or arguments
            out of range. The backward pass raises it if a singular value lies within a factor 2 of
            the cutoff: there the pseudo-inverse jumps and has no derivative.

    Source: Penrose 1955; Golub and Pereyra 1973, equation 4.12.

    Example:
        >>> a = torch.tensor([[1.0, 0.0], [0.0, 1e-9], [0.0, 0.0]])
        >>> x = pinv(a)
        >>> x.rank, x.dense().shape, bool(x.penrose().worst < 1e-6)
        (1, torch.Size([2, 3]), True)
    """
    return inverse_of(entries_of(matrix), rtol, route, epsilon)


def entries_of(matrix: Tensor | LowRank) -> Dense:
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
    read: Dense, rtol: float | None, route: Route, epsilon: float | None
) -> PseudoInverse:
    """As `pinv`, for a matrix that has been converted by `entries_of`."""
    if rtol is not None and not 0 <= rtol < 1:
        raise ValueError(f"rtol is {rtol}: give a number from 0 to less than 1.")
    if epsilon is not None and (route != "limit" or not epsilon > 0):
        raise ValueError("epsilon must be positive, and it needs route='limit'.")
    if route not in ("auto", "svd", "qr", "cholesky", "limit"):
        raise ValueError(f"route is {route!r}: give 'auto', 'svd', 'qr', 'cholesky' or 'limit'.")
    a = read.tensor
    with torch.no_grad():
        found = inverted(a.detach(), rtol, route, epsilon)
        x = found.left @ found.right
        is_tall = a.shape[-2] >= a.shape[-1]
        product = (a @ (x @ a) if is_tall else (a @ x) @ a) - a
        size, lost = read.frobenius(), _norm_of(product, read)
        error = Error(
            "frobenius",
            "exact",
            lost,
            lost + rounding(read, size),
            0.0,
            size,
            torch.zeros_like(lost),
        )
    value = None
    if a.requires_grad and found.route == "limit":  # all steps are differentiable
        smooth = inverted(a, rtol, route, epsilon)
        value = smooth.left @ smooth.right
    elif a.requires_grad:
        value = _Inverse.apply(a, x, *found.for_gradient)
    return PseudoInverse(
        left=found.left,
        right=found.right,
        error=error,
        notes=(*read.notes, *found.notes),
        matrix=a.detach(),
        ranks=found.ranks,
        gap=found.gap,
        margin=found.margin,
        condition=found.condition,
        route=found.route,
        value=value,
    )


def _norm_of(product: Tensor, read: Dense) -> Tensor:
    """|product|_F, also if the squares of the entries leave the range of the dtype."""
    if read.largest is None:
        return frobenius_norm(product)
    unit = power_of_two(read.largest, read.dtype)
    return frobenius_norm(product / unit[..., None, None].to(product.dtype)) * unit


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


def limit_path(matrix: Tensor, epsilons: Iterable[float], rtol: float | None = None) -> list[Step]:
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
    """dX = -X dA X + X X^H dA^H (1 - A X) + (1 - X A) dA^H X^H X."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        a: Tensor,
        x: Tensor,
        u: Tensor,
        s: Tensor,
        vh: Tensor,
        margin: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(a, x, u, s, vh, margin)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override] (once_differentiable hides the names)
        ctx: Any,  # noqa: ANN401 (torch's own type)
        *grad_outputs: Any,  # noqa: ANN401
    ) -> tuple[Tensor | None, ...]:
        a, x, u, s, vh, margin = ctx.saved_tensors
        if bool((margin < NEAR).any()):
            raise ValueError(
                "The pseudo-inverse has no derivative here: a singular value lies within a factor "
                f"{NEAR:g} of the cutoff, where the rank jumps. Choose an rtol inside a gap "
                "between singular values."
            )
        grad = grad_outputs[0]
        kept = (u * s[..., None, :].to(u.dtype)) @ vh if s.shape[-1] else a
        xh, gh = x.mH, grad.mH
        if a.shape[-2] >= a.shape[-1]:  # no product is larger than A or X
            inner, outer = gh @ (x @ xh), xh @ (x @ gh)
            result = inner - kept @ (x @ inner) + outer - outer @ (x @ kept) - xh @ (grad @ xh)
        else:
            inner, outer = (gh @ x) @ xh, (xh @ x) @ gh
            result = inner - (kept @ x) @ inner + outer - (outer @ x) @ kept - (xh @ grad) @ xh
        if s.shape[-1]:  # the part that was cut off also moves the kept subspaces
            result = truncation_adjoint(a, u, s, vh, result)
        return result, None, None, None, None, None
