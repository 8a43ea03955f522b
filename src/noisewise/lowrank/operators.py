"""Matrices by what they can do: A x and A^H y, and columns, rows and norm where they are known.

Dense tensors, torch's sparse ones, products that are never formed and operators given by functions
are all a `Matrix` to the algorithms; `inputs.as_matrix` makes one from what a user has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.lowrank.dtypes import COMPUTED, SINGLE, dtype_name
from noisewise.lowrank.magnitude import (
    careful_norm,
    frobenius_norm,
    is_plain,
    power_of_two,
)

Product = Callable[[Tensor], Tensor]


class Matrix(ABC):
    """A matrix [*batch, m, n] known by its products.

    Attributes:
        shape: [*batch, m, n].
        dtype: of the computation: float32, float64, complex64 or complex128.
        device: where its products are computed.
        notes: what a user should know about how it was read.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Raises ValueError for fewer than two dimensions."""
        self.shape = torch.Size(shape)
        if len(self.shape) < 2 or any(size < 0 for size in self.shape):
            raise ValueError(f"A matrix needs a shape [..., m, n], got {list(self.shape)}.")
        self.dtype, self.device, self.notes = dtype, device, notes

    @property
    def entries(self) -> Tensor | None:
        """The tensor itself where there is one."""
        return None

    @property
    def precision(self) -> torch.dtype:
        """The highest real dtype that its products can be had in; its own, without entries."""
        return torch.float32 if self.dtype in SINGLE else torch.float64

    @property
    def batch(self) -> torch.Size:
        """Shape of the batch, empty for one matrix."""
        return self.shape[:-2]

    @property
    def m(self) -> int:
        """Rows."""
        return self.shape[-2]

    @property
    def n(self) -> int:
        """Columns."""
        return self.shape[-1]

    @abstractmethod
    def matmat(self, x: Tensor) -> Tensor:
        """A x, x [..., n, c]."""

    @abstractmethod
    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y, y [*batch, m, c]."""

    def frobenius(self) -> Tensor | None:
        """|A|_F of each of the batch, float64; None where only products are known."""
        return None

    def columns(self, index: Tensor) -> Tensor:
        """A[:, index] for an index [..., k], by products with unit vectors."""
        return self.matmat(self._units(index, self.n))

    def rows(self, index: Tensor) -> Tensor:
        """A[index, :]."""
        return self.rmatmat(self._units(index, self.m)).mH

    def _units(self, index: Tensor, size: int) -> Tensor:
        units = torch.zeros(
            *self.batch, size, index.shape[-1], dtype=self.dtype, device=self.device
        )
        where = index.expand(*self.batch, index.shape[-1])[..., None, :]
        return units.scatter_(
            -2, where, torch.ones((), dtype=self.dtype, device=self.device).expand(where.shape)
        )

    def converted(self, dtype: torch.dtype) -> Matrix:
        """The same in a dtype of `common_dtype`, which drops no imaginary part."""
        return self if dtype == self.dtype else Converted(self, dtype)

    def gaussian(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal [*batch, n, count]; complex ones have unit variance in all."""
        return gaussian((*self.batch, self.n, count), self.dtype, self.device, generator)


class Dense(Matrix):
    """A tensor with entries."""

    def __init__(self, entries: Tensor, notes: tuple[str, ...] = ()) -> None:
        """Raises ValueError for NaN or Inf, and for fewer than two dimensions.

        `largest` is |A|_max where squares of the entries may leave the range of the dtype.
        """
        super().__init__(entries.shape, entries.dtype, entries.device, notes)
        self.tensor = entries
        self._norm = frobenius_norm(entries)
        self.largest: Tensor | None = None
        if not is_plain(self._norm, entries.dtype):
            self._norm, self.largest = careful_norm(entries)

    @property
    def entries(self) -> Tensor:
        """The tensor."""
        return self.tensor

    @property
    def precision(self) -> torch.dtype:
        """Entries can be taken to any."""
        return torch.float64

    def converted(self, dtype: torch.dtype) -> Dense:
        """The entries in another dtype; a gradient flows on."""
        return self if dtype == self.dtype else Dense(self.tensor.to(dtype), self.notes)

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self.tensor @ x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return (y.mH @ self.tensor).mH  # A is then read along its rows

    def frobenius(self) -> Tensor:
        """|A|_F."""
        return self._norm

    def columns(self, index: Tensor) -> Tensor:
        """A[:, index]."""
        where = index.expand(*self.batch, index.shape[-1])[..., None, :]
        return self.tensor.gather(-1, where.expand(*self.batch, self.m, index.shape[-1]))

    def rows(self, index: Tensor) -> Tensor:
        """A[index, :]."""
        where = index.expand(*self.batch, index.shape[-1])[..., :, None]
        return self.tensor.gather(-2, where.expand(*self.batch, index.shape[-1], self.n))


class Sparse(Matrix):
    """A sparse tensor of torch, in two dimensions."""

    def __init__(self, entries: Tensor, notes: tuple[str, ...] = ()) -> None:
        """Raises ValueError for NaN or Inf, and for a batch."""
        super().__init__(entries.shape, entries.dtype, entries.device, notes)
        if entries.layout != torch.sparse_coo:
            entries = entries.to_sparse_coo()
        if entries.dim() != 2 or entries.dense_dim():
            raise ValueError(
                f"A sparse matrix must have two sparse dimensions, got {list(entries.shape)} with "
                f"{entries.dense_dim()} dense ones: take one matrix at a time, or make it dense."
            )
        self._sparse = entries.coalesce()
        self._adjoint = self._sparse.mH.coalesce()
        if not bool(torch.isfinite(self._sparse.values()).all()):
            raise ValueError("The sparse matrix holds NaN or Inf: mend it first.")

    @property
    def precision(self) -> torch.dtype:
        """Entries can be taken to any."""
        return torch.float64

    def converted(self, dtype: torch.dtype) -> Sparse:
        """The entries in another dtype."""
        return self if dtype == self.dtype else Sparse(self._sparse.to(dtype), self.notes)

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._sparse @ x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._adjoint @ y

    def frobenius(self) -> Tensor:
        """|A|_F, from the stored values."""
        return frobenius_norm(self._sparse.values()[None, :])


class Operator(Matrix):
    """A matrix given by two functions; see `operator`."""

    def __init__(
        self,
        shape: Sequence[int],
        matmat: Product,
        rmatmat: Product,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Raises ValueError for a dtype that nothing is computed in."""
        if dtype not in COMPUTED:
            raise ValueError(
                f"An operator of dtype {dtype_name(dtype)} cannot be factorised: let it take and "
                "give float32, float64, complex64 or complex128."
            )
        super().__init__(shape, dtype, device)
        self._matmat, self._rmatmat = matmat, rmatmat

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._checked(self._matmat(x), self.m, x, "matmat")

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._checked(self._rmatmat(y), self.n, y, "rmatmat")

    def _checked(self, result: Tensor, rows: int, given: Tensor, name: str) -> Tensor:
        wanted = (*self.batch, rows, given.shape[-1])
        if tuple(result.shape) != wanted:
            raise ValueError(
                f"{name} made {list(result.shape)} of {list(given.shape)}, but the operator "
                f"{list(self.shape)} must make {list(wanted)} of it."
            )
        return result.detach().to(self.dtype)


class Adjoint(Matrix):
    """A^H of a matrix without entries; see `adjoint`."""

    def __init__(self, of: Matrix) -> None:
        """Never raises."""
        super().__init__((*of.batch, of.n, of.m), of.dtype, of.device, of.notes)
        self.of = of

    def matmat(self, x: Tensor) -> Tensor:
        """A^H x."""
        return self.of.rmatmat(x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """A y."""
        return self.of.matmat(y)

    @property
    def precision(self) -> torch.dtype:
        """That of the matrix."""
        return self.of.precision

    def converted(self, dtype: torch.dtype) -> Adjoint:
        """The adjoint in another dtype."""
        return self if dtype == self.dtype else Adjoint(self.of.converted(dtype))

    def frobenius(self) -> Tensor | None:
        """|A|_F."""
        return self.of.frobenius()


def adjoint(a: Matrix) -> Matrix:
    """Return A^H."""
    return Dense(a.tensor.mH, a.notes) if isinstance(a, Dense) else Adjoint(a)


class Converted(Matrix):
    """A matrix without entries in another dtype; see `Matrix.converted`."""

    def __init__(self, of: Matrix, dtype: torch.dtype) -> None:
        """Never raises; the dtype is complex where that of the matrix is."""
        assert dtype.is_complex or not of.dtype.is_complex
        super().__init__(of.shape, dtype, of.device, of.notes)
        self.of = of

    @property
    def precision(self) -> torch.dtype:
        """That of the matrix."""
        return self.of.precision

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._apart(self.of.matmat, x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._apart(self.of.rmatmat, y)

    def _apart(self, multiply: Product, x: Tensor) -> Tensor:
        """A real matrix takes the real and the imaginary part side by side."""
        if not x.is_complex() or self.of.dtype.is_complex:
            return multiply(x.to(self.of.dtype)).to(self.dtype)
        both = multiply(torch.cat([x.real, x.imag], -1).to(self.of.dtype))
        return torch.complex(*both.tensor_split(2, -1)).to(self.dtype)

    def frobenius(self) -> Tensor | None:
        """|A|_F."""
        return self.of.frobenius()


class Chain(Matrix):
    """A product of matrices that is never formed; see `product`."""

    def __init__(self, parts: Sequence[Matrix]) -> None:
        """Raises ValueError where the parts do not multiply."""
        for first, second in pairwise(parts):
            if first.n != second.m or first.batch != second.batch:
                raise ValueError(
                    f"A product of {list(first.shape)} and {list(second.shape)} is not defined."
                )
        notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        shape = (*parts[0].batch, parts[0].m, parts[-1].n)
        dtype = common_dtype(parts)
        if dtype != promoted(parts):
            notes += (f"computed in {dtype_name(dtype)}, the precision of an operator in it",)
        super().__init__(shape, dtype, parts[0].device, notes)
        self.parts = tuple(part.converted(dtype) for part in parts)

    def matmat(self, x: Tensor) -> Tensor:
        """A x, from the right."""
        for part in reversed(self.parts):
            x = part.matmat(x)
        return x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y, from the left."""
        for part in self.parts:
            y = part.rmatmat(y)
        return y

    @property
    def precision(self) -> torch.dtype:
        """The lowest of the parts'."""
        is_double = all(part.precision == torch.float64 for part in self.parts)
        return torch.float64 if is_double else torch.float32

    def converted(self, dtype: torch.dtype) -> Matrix:
        """Each part in another dtype."""
        if dtype == self.dtype:
            return self
        return Chain([part.converted(dtype) for part in self.parts])

    def frobenius(self) -> Tensor | None:
        """Known where two dense parts meet in a small dimension: |X Y|^2 = <X^H X, Y Y^H>."""
        known = [part.entries for part in self.parts if part.entries is not None]
        if len(self.parts) != 2 or len(known) != 2:
            return None
        x, y = known
        if x.shape[-1] > min(x.shape[-2], y.shape[-1]):
            return None
        return frobenius_norm(torch.linalg.qr(x, mode="r").R @ y)


def to_unit(a: Matrix) -> tuple[Matrix, Tensor | None]:
    """Return A over a power of two near |A|_max, and that number, [*batch] in double precision.

    The numbers are None, and A itself returned, but for entries whose squares leave the range.
    """
    if not isinstance(a, Dense) or a.largest is None or a.largest.numel() == 0:
        return a, None
    unit = power_of_two(a.largest, a.dtype)
    return Dense(a.tensor / unit[..., None, None].to(a.dtype), a.notes), unit


def gaussian(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Tensor:
    """Standard normal numbers, drawn where the generator lives."""
    return torch.randn(tuple(shape), dtype=dtype, device=generator.device, generator=generator).to(
        device
    )


def promoted(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """The dtype that holds all numbers of all."""
    return reduce(torch.promote_types, (*(matrix.dtype for matrix in matrices), *others))


def common_dtype(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """Return the dtype in which matrices and tensors can meet.

    Complex where one is; double only where all can be had in it, as errors are counted in its eps.
    """
    dtype = promoted(matrices, *others)
    if all(matrix.precision == torch.float64 for matrix in matrices):
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32
