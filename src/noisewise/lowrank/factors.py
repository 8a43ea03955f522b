"""The value that every factorisation returns: factors, rank, error, and their algebra."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noisewise.lowrank.arrays import array_of, numpy_home, tensor_of
from noisewise.lowrank.certificate import ROUNDING, Error, Norm
from noisewise.lowrank.dtypes import times
from noisewise.lowrank.error_sums import added, rescaled
from noisewise.lowrank.gradients import needs_gradient, truncation, with_gradient
from noisewise.lowrank.magnitude import frobenius_norm, is_plain, power_of_two
from noisewise.lowrank.request import positive, whole
from noisewise.lowrank.singular_values import of_projection, smallest_rank, tails


@numpy_home
@dataclass(frozen=True, eq=False, repr=False)
class LowRank:
    """A ~ left @ right, with the error of this approximation.

    It multiplies like a matrix, and iterates over its factors: ``U, S, Vh = svd(A, 3)``. A value
    made of arrays of numpy holds arrays in place of tensors, and its answers are arrays.

    Attributes:
        left: [*batch, m, rank].
        right: [*batch, rank, n].
        error: the error of the approximation, see `Error`.
        converged: False if a tolerance was given and not reached.
        notes: remarks for the user, such as a changed dtype or a tolerance that was not reached.

    Example:
        >>> from noisewise import lowrank
        >>> a = torch.ones(6, 4)
        >>> r = lowrank.svd(a, tol=1e-5)
        >>> r.rank, bool(torch.allclose(r @ torch.ones(4), a @ torch.ones(4)))
        (1, True)
    """

    left: Tensor
    right: Tensor
    error: Error
    converged: bool = True
    notes: tuple[str, ...] = ()

    __array_ufunc__ = None  # arrays leave products with this value to it

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.factors)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ANN401
        if copy is False:
            raise ValueError("The matrix of a low-rank value is computed: it is always a copy.")
        whole = self.dense()
        return np.asarray(array_of(whole) if isinstance(whole, Tensor) else whole, dtype)

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """(left, right); in subclasses (U, S, Vh), (C, Z) or (C, core, R)."""
        return self.left, self.right

    @property
    def columns(self) -> Tensor | None:
        """Which columns of A are in the left factor, int64 [*batch, k]; None if there are none."""
        return None

    @property
    def rows(self) -> Tensor | None:
        """Which rows of A are in the right factor, int64 [*batch, k]; None if there are none."""
        return None

    @property
    def rank(self) -> int:
        """Number of columns of the left factor; the same for the whole batch."""
        return self.left.shape[-1]

    @property
    def shape(self) -> torch.Size:
        """[*batch, m, n]."""
        return torch.Size((*self.left.shape[:-1], self.right.shape[-1]))

    @property
    def ndim(self) -> int:
        """Number of dimensions: 2 for one matrix."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the factors."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """The device of the factors."""
        return self.left.device

    @property
    def num_values(self) -> int:
        """How many numbers the two factors of one matrix hold."""
        return self.rank * (self.shape[-2] + self.shape[-1])

    @property
    def compression(self) -> float:
        """Entries of the matrix / numbers in the factors; below 1 if the factors are larger."""
        return math.inf if not self.num_values else math.prod(self.shape[-2:]) / self.num_values

    @property
    def attached(self) -> Tensor | None:
        """The dense matrix if its gradient does not flow through the factors; else None."""
        return None

    def dense(self) -> Tensor:
        """The matrix left @ right, [*batch, m, n]."""
        whole = self.attached
        return self.left @ self.right if whole is None else whole

    def matmat(self, x: Tensor) -> Tensor:
        """(left right) x for x [n] or [..., n, c], without forming the matrix.

        Dtypes combine as in numpy: single with double gives double, real with complex complex.
        """
        if x.dim() == 1:
            return self.matmat(x[..., None])[..., 0]
        whole = self.attached
        if whole is not None:
            return times(whole, x)
        return times(self.left, times(self.right, x))

    def norm(self, norm: Norm = "frobenius") -> Tensor:
        """|left right| of each matrix of the batch, float64, without forming the matrix.

        It is a measurement: no gradient flows.
        """
        if 0 in (self.rank, *self.shape):
            return torch.zeros(self.shape[:-2], dtype=torch.float64, device=self.device)
        core = torch.linalg.qr(self.left.detach(), mode="r").R @ self.right.detach()
        if norm == "frobenius":
            return frobenius_norm(core)
        return torch.linalg.svdvals(torch.linalg.qr(core.mH, mode="r").R)[..., 0].double()

    @property
    def T(self) -> LowRank:
        """The transpose of one matrix; for a batch use `mT`."""
        if len(self.shape) != 2:
            raise ValueError(f".T of a batch of shape {list(self.shape)} is not clear: use .mT.")
        return self.mT

    @property
    def mT(self) -> LowRank:
        """The transpose, with the same error."""
        whole = self.attached
        whole = None if whole is None else whole.mT
        return self._with(self.right.mT, self.left.mT, self.error, whole)

    @property
    def mH(self) -> LowRank:
        """The conjugate transpose, with the same error."""
        whole = self.attached
        whole = None if whole is None else whole.mH
        return self._with(self.right.mH, self.left.mH, self.error, whole)

    def _with(self, left: Tensor, right: Tensor, error: Error, whole: Tensor | None) -> LowRank:
        if whole is None:
            return LowRank(left, right, error, self.converged, self.notes)
        return Attached(left, right, error, self.converged, self.notes, whole=whole)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self.matmat(other) if isinstance(other, Tensor) else NotImplemented

    def __rmatmul__(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor):
            return NotImplemented
        if other.dim() == 1:
            return (other[None] @ self)[..., 0, :]
        whole = self.attached
        if whole is not None:
            return times(other, whole)
        return times(times(other, self.left), self.right)

    def __add__(self, other: LowRank) -> LowRank:
        """The sum: factors side by side, ranks and errors added. `compress` reduces the rank."""
        if not isinstance(other, LowRank):
            return NotImplemented
        if self.shape != other.shape:
            raise ValueError(
                f"Matrices of shape {list(self.shape)} and {list(other.shape)} cannot be added."
            )
        is_attached = self.attached is not None or other.attached is not None
        joined = self._with(
            torch.cat([self.left, other.left], -1),
            torch.cat([self.right, other.right], -2),
            added(self.error, other.error),
            self.dense() + other.dense() if is_attached else None,
        )
        return replace(
            joined,
            error=rescaled(joined.error, joined.norm(joined.error.norm)),
            converged=self.converged and other.converged,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )

    def __sub__(self, other: LowRank) -> LowRank:
        return NotImplemented if not isinstance(other, LowRank) else self + (-other)

    def __neg__(self) -> LowRank:
        return self * -1.0

    def __mul__(self, number: complex) -> LowRank:
        if not isinstance(number, int | float | complex):
            return NotImplemented
        left, whole = self.left * number, self.attached
        right = self.right.to(left.dtype)  # a complex number makes both complex
        whole = None if whole is None else whole * number
        return self._with(left, right, self.error.scaled(number), whole)

    __rmul__ = __mul__

    def __truediv__(self, number: complex) -> LowRank:
        return self * (1 / number)

    def compress(self, rank: int | None = None, *, tol: float | None = None) -> SVD:
        """Return the best approximation of this value with a smaller rank.

        Computed by a QR of both factors and an SVD of the core. The new error is at most the old
        error plus the part that is cut off (triangle inequality).

        Args:
            rank: the rank of the result, at most the rank of this value; or
            tol: the largest part to cut off, relative to |left right|_F; the result has the
                smallest rank that fits.

        Raises:
            ValueError: unless exactly one of the two is given, within its range.
        """
        return compressed(self, rank, tol)

    def to(self, target: torch.dtype | torch.device | str | np.dtype | type) -> LowRank:
        """Return the value in another dtype or on another device, with everything it holds.

        Rounding to another dtype is added to the error.

        Args:
            target: a dtype of torch or numpy, or a device.

        Raises:
            ValueError: for a real dtype if the factors are complex.
        """
        if isinstance(target, np.dtype | type):
            target = tensor_of(np.zeros(0, target)).dtype
        if not isinstance(target, torch.dtype):
            device = torch.device(target)
            given = {field.name: getattr(self, field.name) for field in fields(self)}
            moved = {k: v.to(device) for k, v in given.items() if isinstance(v, Tensor)}
            return replace(self, error=self.error.on(device), **moved)
        if target == self.dtype:
            return self
        if self.dtype.is_complex and not target.is_complex:
            raise ValueError(
                f"The factors are complex, and {target} would drop their imaginary parts: give a "
                "complex dtype."
            )
        # Each factor is rounded once: |dL R| + |L dR| <= 2 eps |L|_F |R|_F.
        lost = 2 * torch.finfo(target).eps * frobenius_norm(self.left) * frobenius_norm(self.right)
        error = self.error
        error = replace(error, estimate=error.estimate + lost, upper=error.upper + lost)
        whole = self.attached
        if whole is not None:
            return self._with(self.left.to(target), self.right.to(target), error, whole.to(target))
        return replace(self, error=error, **self._rounded(target))

    def _rounded(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The factors in another dtype; the keys are the names of their fields."""
        return {"left": self.left.to(dtype), "right": self.right.to(dtype)}

    def detach(self) -> LowRank:
        """Return the value without its gradient."""
        return replace(self, left=self.left.detach(), right=self.right.detach())

    def linear(self, bias: Tensor | None = None) -> nn.Sequential:
        """Return two linear layers that together replace a linear layer with this weight.

        ``x -> x (L R)^T + b``: the first layer holds R [rank, n], the second holds L [m, rank].

        Args:
            bias: the bias [m] of the second layer, or None.

        Raises:
            ValueError: for a batch.
        """
        if len(self.shape) != 2:
            raise ValueError(f"A layer needs one matrix, not a batch of shape {list(self.shape)}.")
        first = nn.Linear(self.shape[1], self.rank, bias=False, device="meta")
        second = nn.Linear(self.rank, self.shape[0], bias=bias is not None, device="meta")
        first.weight = nn.Parameter(self.right.detach().clone())
        second.weight = nn.Parameter(self.left.detach().clone())
        if bias is not None:
            second.bias = nn.Parameter(bias.detach().clone())
        return nn.Sequential(first, second)

    def state(self, name: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return tensors and metadata for `safetensors.torch.save_file`.

        Complex factors are saved as pairs of real numbers [..., 2], which every reader of the
        format knows. The state of a value made of arrays is for `safetensors.numpy.save_file`.

        Args:
            name: the name of the value; needed if one file holds several values.

        Example:
            >>> from noisewise import lowrank
            >>> r = lowrank.svd(torch.eye(4), rank=2)
            >>> lowrank.from_state(*r.state()).rank
            2
        """
        tensors = {"left": self.left, "right": self.right}
        tensors |= {f"error.{name}": getattr(self.error, name) for name in MEASURED}
        tensors |= {
            name: index
            for name, index in (("columns", self.columns), ("rows", self.rows))
            if index is not None
        }
        described = {
            "norm": self.error.norm,
            "kind": self.error.kind,
            "failure_probability": self.error.failure_probability,
            "converged": self.converged,
            "notes": list(self.notes),
        }
        if self.dtype.is_complex:
            described["complex"] = list(_FACTORS)
            tensors |= {key: torch.view_as_real(tensors[key].resolve_conj()) for key in _FACTORS}
        start = f"{name}." if name else ""
        plain = {start + key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        return plain, {KEY + name: json.dumps(described)}

    def __repr__(self) -> str:
        size = "x".join(str(length) for length in self.shape[-2:])
        batch = f" (batch {'x'.join(str(n) for n in self.shape[:-2])})" if self.shape[:-2] else ""
        parts = [f"LowRank {size}{batch}, rank {self.rank}, {self.error}"]
        parts += [] if self.converged else ["not converged"]
        return "; ".join([*parts, *self.notes])


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Attached(LowRank):
    """A value computed from values whose gradient flows through the dense matrix.

    Attributes:
        whole: left @ right, with its gradient.
    """

    whole: Tensor

    @property
    def attached(self) -> Tensor:
        """The dense matrix with its gradient."""
        return self.whole

    def detach(self) -> LowRank:
        """Return the value without its gradient."""
        left, right = self.left.detach(), self.right.detach()
        return LowRank(left, right, self.error, self.converged, self.notes)


KEY = "noisewise.lowrank:"  # followed by the name: a key in the metadata of a file
_FACTORS = ("left", "right")
MEASURED = ("estimate", "upper", "scale", "optimal_lower")


@numpy_home
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SVD(LowRank):
    """A ~ U diag(S) Vh, with left = U diag(S) and right = Vh.

    Attributes:
        U: orthonormal columns [*batch, m, rank]; the largest entry of each is real and positive.
        S: the singular values [*batch, rank], largest first.
        Vh: orthonormal rows [*batch, rank, n].
        source: the matrix that gradients flow to, divided by `unit`; or None.
        unit: a power of two [*batch] near the size of the matrix if squares of its entries leave
            the range of the dtype; else None.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor
    source: Tensor | None = None
    unit: Tensor | None = None

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, Vh."""
        return self.U, self.S, self.Vh

    @property
    def attached(self) -> Tensor | None:
        """U diag(S) Vh; its gradient needs only s_k > s_(k+1); kept values may be equal."""
        if self.source is None:
            return None
        if self.unit is None:
            return truncation(self.source, self.U, self.S, self.Vh)
        s = self.S.detach() / self.unit[..., None]
        whole = truncation(self.source, self.U, s, self.Vh)
        return whole * self.unit[..., None, None]

    def _rounded(self, dtype: torch.dtype) -> dict[str, Tensor]:
        u = self.U.to(dtype)
        parts = {"U": u, "S": self.S.to(u.real.dtype), "Vh": self.Vh.to(dtype)}
        return {**super()._rounded(dtype), **parts}

    def detach(self) -> SVD:
        """Return the value without its gradient."""
        u, s, vh = (part.detach() for part in self.factors)
        return make(u, s, vh, self.error, self.converged, self.notes)


def make(
    u: Tensor,
    s: Tensor,
    vh: Tensor,
    error: Error,
    converged: bool = True,
    notes: tuple[str, ...] = (),
    source: Tensor | None = None,
) -> SVD:
    """Return the SVD value of three factors; gradients flow to `source` if it is given."""
    unit = None
    if source is not None:
        size = frobenius_norm(s[..., None, :])
        if is_plain(size, s.dtype) or s.numel() == 0:
            u, s, vh = with_gradient(source, u, s, vh)
        else:
            unit = power_of_two(s.detach().amax(-1).double(), s.dtype).to(s.dtype)
            source = source / unit[..., None, None]
            u, s, vh = with_gradient(source, u, s.detach() / unit[..., None], vh)
            s = s * unit[..., None]
    left = u * s[..., None, :].to(u.dtype)
    return SVD(
        left=left,
        right=vh,
        error=error,
        converged=converged,
        notes=notes,
        U=u,
        S=s,
        Vh=vh,
        source=source,
        unit=unit,
    )


def compressed(value: LowRank, rank: int | None, tol: float | None) -> SVD:
    """The best approximation of a low-rank value, see `LowRank.compress`."""
    if (rank is None) == (tol is None):
        raise ValueError("Give either a rank or a relative tolerance tol to compress to.")
    if rank is not None and (rank := whole("rank", rank)) > value.rank:
        raise ValueError(
            f"rank is {rank}: give a rank from 0 to {value.rank}, the rank of the value."
        )
    tol = None if tol is None else positive("tol", tol)
    source = value.attached
    left, right = value.left, value.right
    if source is None and (needs_gradient(left) or needs_gradient(right)):
        source = value.dense()
    if source is not None:
        left, right = left.detach(), right.detach()
    q, r = torch.linalg.qr(left)
    u, s, vh = of_projection(q, (r @ right).mH)
    losses = tails(s.detach(), value.error.norm)
    if rank is None:
        assert tol is not None
        rank = smallest_rank(losses, tol * losses[..., 0])
    rank = min(rank, s.shape[-1])
    lost = losses[..., rank] + ROUNDING * torch.finfo(value.dtype).eps * losses[..., 0]
    cut = replace(value.error, kind="exact", estimate=losses[..., rank], upper=lost)
    cut = replace(cut, failure_probability=0.0)
    error = added(value.error, cut)
    if bool((value.error.upper == 0).all()):
        error = replace(error, kind="exact")
    error = rescaled(error, losses[..., 0])
    parts = u[..., :rank], s[..., :rank], vh[..., :rank, :]
    return make(*parts, error, value.converged, value.notes, source)
