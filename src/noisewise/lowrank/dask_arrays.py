"""Arrays of dask: the products are dask's own, on whichever of its schedulers is chosen.

Threads, processes and `distributed` work as for any array of dask, and workers need dask and numpy
only. Every product computes the array once. dask is imported only when an array of it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.lowrank.arrays import array_of, tensor_of
from noisewise.lowrank.dtypes import COMPUTED, computable, dtype_name
from noisewise.lowrank.magnitude import is_plain
from noisewise.lowrank.operators import Matrix


class DaskMatrix(Matrix):
    """An array of dask [m, n]; see `of_dask`."""

    is_numpy = True

    def __init__(
        self,
        array: Any,  # noqa: ANN401
        dtype: torch.dtype,
        norm: Tensor,
        notes: tuple[str, ...],
    ) -> None:
        """`array` has this dtype, and `norm` is |A|_F."""
        super().__init__(array.shape, dtype, torch.device("cpu"), notes)
        self._array, self._norm = array, norm
        if not is_plain(norm, dtype) and bool(norm > 0):
            self.largest = norm

    @property
    def precision(self) -> torch.dtype:
        """float64: entries can be converted to any dtype."""
        return torch.float64

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        return self._product(self._array, x)

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        return self._product(self._array.conj().T, y)

    def _product(self, array: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        import dask.array as da

        if 0 in (*array.shape, x.shape[-1]):
            return torch.zeros(array.shape[0], x.shape[-1], dtype=self.dtype)
        columns = da.from_array(array_of(x), chunks=(array.chunks[1], -1))
        return tensor_of(da.dot(array, columns).compute()).to(self.dtype)

    def frobenius(self) -> Tensor:
        """|A|_F."""
        return self._norm

    def columns(self, index: Tensor) -> Tensor:
        """A[:, index]."""
        return tensor_of(self._array[:, index.numpy()].compute())

    def rows(self, index: Tensor) -> Tensor:
        """A[index, :]."""
        return tensor_of(self._array[index.numpy()].compute())

    def converted(self, dtype: torch.dtype) -> DaskMatrix:
        """The matrix in another dtype, converted chunk by chunk."""
        if dtype == self.dtype:
            return self
        array = self._array.astype(dtype_name(dtype))
        return DaskMatrix(array, dtype, self._norm, self.notes)

    def divided(self, unit: Tensor) -> DaskMatrix:
        """A / unit, divided chunk by chunk."""
        array = self._array / np.asarray(unit, dtype=self._array.real.dtype)
        return DaskMatrix(array, self.dtype, self._norm / unit, self.notes)


def of_dask(given: Any) -> DaskMatrix:  # noqa: ANN401 (an array of dask, which is not imported)
    """Return an array of dask as a `Matrix`; it is computed once now, for its norm.

    Raises:
        ValueError: for other collections of dask, for chunks of unknown size or of other kinds than
            numpy's plain arrays, for NaN or Inf, and for other than two dimensions.
    """
    import dask.array as da

    if not isinstance(given, da.Array):
        raise ValueError(
            f"A {type(given).__name__} of dask is not a matrix: give an array of dask, as "
            "frame.to_dask_array(lengths=True) or the .data of a table."
        )
    if given.ndim != 2:
        raise ValueError(
            f"The shape is {list(given.shape)}: an array of dask needs two dimensions; give one "
            "matrix at a time."
        )
    if any(np.isnan(size) for size in given.shape):
        raise ValueError(
            "The chunks have unknown sizes: call compute_chunk_sizes() on the array of dask first."
        )
    if type(given._meta) is not np.ndarray:
        raise ValueError(
            f"The chunks are of type {type(given._meta).__name__}: give an array of dask with "
            "plain arrays of numpy, as array.map_blocks(numpy.asarray) makes it."
        )
    stored, notes = computable(tensor_of(np.zeros(0, given.dtype)))
    array = given.astype(dtype_name(stored.dtype))
    assert stored.dtype in COMPUTED
    return DaskMatrix(array, stored.dtype, _norm(array), notes)


def _norm(array: Any) -> Tensor:  # noqa: ANN401
    """|A|_F for entries of any size."""
    import dask.array as da

    if 0 in array.shape:
        return torch.zeros((), dtype=torch.float64)
    size = abs(array).astype(np.float64)
    largest = float(size.max().compute())
    if not np.isfinite(largest):
        raise ValueError(
            "The array of dask holds NaN or Inf: replace these values first, as with "
            "dask.array.nan_to_num."
        )
    unit = largest or 1.0
    total = float(da.sqrt(((size / unit) ** 2).sum()).compute())
    return torch.tensor(total * unit, dtype=torch.float64)
