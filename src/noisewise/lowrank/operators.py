"""The matrix classes: each gives the products A x and A^H y, and columns, rows and norm if known.

Dense tensors, sparse tensors, products that are never formed, and operators given by functions are
all a `Matrix` for the algorithms. `inputs.as_matrix` converts the input of a user to a `Matrix`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, tensor_of
from noisewise.lowrank.dtypes import COMPUTED, SINGLE, dtype_name
from noisewise.lowrank.magnitude import (
    careful_norm,
    frobenius_norm,
    is_plain,
    power_of_two,
)

Product = Callable[[Tensor], Array]


class Matrix(ABC):
    """A matrix [*batch, m, n] given by its products.

    Attributes:
        shape: [*batch, m, n].
        dtype: the dtype of the computation: float32, float64, complex64 or complex128.
        device: the device that computes the products.
        notes: remarks for the user, such as a changed dtype.
        is_numpy: it was made of arrays, so its factors will be arrays.
        largest: |A|_max, or a number near it, if squares of the entries can leave the range of the
            dtype and `divided` can help; else None.
    """

    is_numpy: bool = False
    largest: Tensor | None = None

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
            raise ValueError(
                f"The shape is {list(self.shape)}: a matrix needs a shape [..., m, n]."
            )
        self.dtype, self.device, self.notes = dtype, device, notes

    @property
    def entries(self) -> Tensor | None:
        """The dense tensor, or None if there is none."""
        return None

    @property
    def precision(self) -> torch.dtype:
        """The highest real dtype in which its products can be computed."""
        return torch.float32 if self.dtype in SINGLE else torch.float64

    @property
    def batch(self) -> torch.Size:
        """The shape of the batch; empty for one matrix."""
        return self.shape[:-2]

    @property
    def m(self) -> int:
        """Number of rows."""
        return self.shape[-2]

    @property
    def n(self) -> int:
        """Number of columns."""
        return self.shape[-1]

    def divided(self, unit: Tensor) -> Matrix:
        """A / unit, for powers of two [*batch]; only a matrix with a `largest` can do this."""
        raise NotImplementedError

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]] | None:
        """The entries in blocks of rows, if they can be read but are not in memory; else None."""
        return None

    @abstractmethod
    def matmat(self, x: Tensor) -> Tensor:
        """A x, x [..., n, c]."""

    @abstractmethod
    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y, y [*batch, m, c]."""

    def frobenius(self) -> Tensor | None:
        """|A|_F of each matrix of the batch, float64; None if only products are known."""
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
        """The same matrix in a dtype from `common_dtype`, which keeps imaginary parts."""
        return self if dtype == self.dtype else Converted(self, dtype)

    def gaussian(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal numbers [*batch, n, count]; complex numbers have variance 1 in total."""
        return gaussian((*self.batch, self.n, count), self.dtype, self.device, generator)


class Dense(Matrix):
    """A dense tensor."""

    def __init__(self, entries: Tensor, notes: tuple[str, ...] = ()) -> None:
        """Raises ValueError for NaN or Inf, and for fewer than two dimensions."""
        super().__init__(entries.shape, entries.dtype, entries.device, notes)
        self.tensor = entries
        self._norm = frobenius_norm(entries)
        if not is_plain(self._norm, entries.dtype):
            self._norm, self.largest = careful_norm(entries)

    @property
    def entries(self) -> Tensor:
        """The tensor."""
        return self.tensor

    @property
    def precision(self) -> torch.dtype:
        """float64: entries can be converted to any dtype."""
        return torch.float64

    def divided(self, unit: Tensor) -> Dense:
        """A / unit."""
        return Dense(self.tensor / unit[..., None, None].to(self.dtype), self.notes)

    def converted(self, dtype: torch.dtype) -> Dense:
        """The matrix in another dtype; gradients flow through the conversion."""
        return self if dtype == self.dtype else Dense(self.tensor.to(dtype), self.notes)

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self.tensor @ x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return (y.mH @ self.tensor).mH  # reads A along its rows

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
    """A sparse torch tensor with two dimensions."""

    def __init__(self, entries: Tensor, notes: tuple[str, ...] = ()) -> None:
        """Raises ValueError for NaN or Inf, and for a batch."""
        super().__init__(entries.shape, entries.dtype, entries.device, notes)
        if entries.layout != torch.sparse_coo:
            entries = entries.to_sparse_coo()
        if entries.dim() != 2 or entries.dense_dim():
            raise ValueError(
                f"A sparse matrix must have two sparse dimensions, but the tensor has the shape "
                f"{list(entries.shape)} with {entries.dense_dim()} dense dimensions: give one "
                "matrix at a time, or make it dense."
            )
        self._sparse = entries.coalesce()
        self._adjoint = self._sparse.mH.coalesce()
        if not bool(torch.isfinite(self._sparse.values()).all()):
            raise ValueError("The sparse matrix holds NaN or Inf: replace these values first.")
        stored = self._sparse.values()[None, :].detach()
        self._norm = frobenius_norm(stored)
        if not is_plain(self._norm, self.dtype):
            self._norm, self.largest = careful_norm(stored)

    @property
    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column of each stored value, and the values; no place occurs twice."""
        row, column = self._sparse.indices()
        return row, column, self._sparse.values()

    @property
    def precision(self) -> torch.dtype:
        """float64: entries can be converted to any dtype."""
        return torch.float64

    def converted(self, dtype: torch.dtype) -> Sparse:
        """The matrix in another dtype."""
        return self if dtype == self.dtype else Sparse(self._sparse.to(dtype), self.notes)

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._sparse @ x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._adjoint @ y

    def frobenius(self) -> Tensor:
        """|A|_F from the stored values."""
        return self._norm

    def divided(self, unit: Tensor) -> Sparse:
        """A / unit."""
        return Sparse(self._sparse / unit.to(self.dtype), self.notes)


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
        """Raises ValueError for a dtype without factorisations."""
        if dtype not in COMPUTED:
            raise ValueError(
                f"An operator of dtype {dtype_name(dtype)} cannot be factorised: use float32, "
                "float64, complex64 or complex128."
            )
        super().__init__(shape, dtype, device)
        self._matmat, self._rmatmat = matmat, rmatmat

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._checked(self._matmat(x), self.m, x, "matmat")

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._checked(self._rmatmat(y), self.n, y, "rmatmat")

    def _checked(self, result: object, rows: int, given: Tensor, name: str) -> Tensor:
        if not isinstance(result, Tensor):
            result = tensor_of(result)
        wanted = (*self.batch, rows, given.shape[-1])
        if tuple(result.shape) != wanted:
            raise ValueError(
                f"{name} returned the shape {list(result.shape)} for an input of shape "
                f"{list(given.shape)}: an operator of shape {list(self.shape)} must return "
                f"{list(wanted)}."
            )
        return result.detach().to(self.dtype)


class Adjoint(Matrix):
    """A^H of a matrix without entries; see `adjoint`."""

    def __init__(self, of: Matrix) -> None:
        """Never raises."""
        super().__init__((*of.batch, of.n, of.m), of.dtype, of.device, of.notes)
        self.of, self.largest = of, of.largest

    def divided(self, unit: Tensor) -> Adjoint:
        """A^H / unit."""
        return Adjoint(self.of.divided(unit))

    def columns(self, index: Tensor) -> Tensor:
        """Columns of A^H: rows of A."""
        return self.of.rows(index).mH

    def rows(self, index: Tensor) -> Tensor:
        """Rows of A^H: columns of A."""
        return self.of.columns(index).mH

    def matmat(self, x: Tensor) -> Tensor:
        """A^H x."""
        return self.of.rmatmat(x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """A y."""
        return self.of.matmat(y)

    @property
    def precision(self) -> torch.dtype:
        """The precision of the matrix."""
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
        """Never raises. The dtype must be complex if the matrix is complex."""
        assert dtype.is_complex or not of.dtype.is_complex
        super().__init__(of.shape, dtype, of.device, of.notes)
        self.of, self.largest = of, of.largest

    def divided(self, unit: Tensor) -> Converted:
        """A / unit."""
        return Converted(self.of.divided(unit), self.dtype)

    @property
    def precision(self) -> torch.dtype:
        """The precision of the matrix."""
        return self.of.precision

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._apart(self.of.matmat, x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._apart(self.of.rmatmat, y)

    def _apart(self, multiply: Product, x: Tensor) -> Tensor:
        """Multiply; a real matrix multiplies real and imaginary parts side by side."""
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
        """Raises ValueError if the parts cannot be multiplied."""
        for first, second in pairwise(parts):
            if first.n != second.m or first.batch != second.batch:
                raise ValueError(
                    f"Matrices of shape {list(first.shape)} and {list(second.shape)} cannot be "
                    "multiplied."
                )
        notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        shape = (*parts[0].batch, parts[0].m, parts[-1].n)
        dtype = common_dtype(parts)
        if dtype != promoted(parts):
            notes += (
                f"computed in {dtype_name(dtype)}, the precision of an operator in the product",
            )
        super().__init__(shape, dtype, parts[0].device, notes)
        self.parts = tuple(part.converted(dtype) for part in parts)
        units = [unit for part in self.parts if (unit := to_unit(part)[1]) is not None]
        if units:
            whole = reduce(torch.mul, units)
            is_held = torch.equal(power_of_two(whole, dtype), whole)
            self.largest = whole if is_held else None  # else its size cannot be held anyway

    def divided(self, unit: Tensor) -> Chain:
        """The product with each part near 1; `unit` is what that divides by."""
        assert self.largest is not None
        assert torch.equal(unit, self.largest)
        return Chain([to_unit(part)[0] for part in self.parts])

    def matmat(self, x: Tensor) -> Tensor:
        """A x, computed from the right."""
        for part in reversed(self.parts):
            x = part.matmat(x)
        return x

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y, computed from the left."""
        for part in self.parts:
            y = part.rmatmat(y)
        return y

    @property
    def precision(self) -> torch.dtype:
        """The lowest precision of the parts."""
        is_double = all(part.precision == torch.float64 for part in self.parts)
        return torch.float64 if is_double else torch.float32

    def converted(self, dtype: torch.dtype) -> Matrix:
        """The product with each part in another dtype."""
        if dtype == self.dtype:
            return self
        return Chain([part.converted(dtype) for part in self.parts])

    def frobenius(self) -> Tensor | None:
        """|A|_F if A is a product of two dense parts with a small inner dimension; else None."""
        known = [part.entries for part in self.parts if part.entries is not None]
        if len(self.parts) != 2 or len(known) != 2:
            return None
        x, y = known
        if x.shape[-1] > min(x.shape[-2], y.shape[-1]):
            return None
        return frobenius_norm(torch.linalg.qr(x, mode="r").R @ y)


def to_unit(a: Matrix) -> tuple[Matrix, Tensor | None]:
    """Return A divided by a power of two near |A|_max, and this power, float64 [*batch].

    If the squares of the entries stay in the range of the dtype, A itself and None are returned.
    """
    if a.largest is None or a.largest.numel() == 0:
        return a, None
    unit = power_of_two(a.largest, a.dtype)
    return a.divided(unit), unit


def gaussian(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Tensor:
    """Standard normal numbers, drawn on the device of the generator."""
    return torch.randn(tuple(shape), dtype=dtype, device=generator.device, generator=generator).to(
        device
    )


def promoted(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """The dtype that can hold the numbers of all matrices."""
    return reduce(torch.promote_types, (*(matrix.dtype for matrix in matrices), *others))


def common_dtype(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """Return the dtype in which matrices and tensors are multiplied.

    It is complex if one of them is. It is double only if all products can be computed in double
    precision, because errors are measured in units of its eps.
    """
    dtype = promoted(matrices, *others)
    if all(matrix.precision == torch.float64 for matrix in matrices):
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32
