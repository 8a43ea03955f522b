"""A matrix that is larger than memory, read from its place in blocks of rows.

Every product reads the matrix once. Nothing of it is kept but one block, its norm, and what the
algorithm makes of it: a few times (m + n) * rank numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from noisewise.lowrank.arrays import tensor_of
from noisewise.lowrank.dtypes import COMPUTED, computable
from noisewise.lowrank.magnitude import careful_norm, frobenius_norm, is_plain
from noisewise.lowrank.operators import Matrix

BLOCK_BYTES = 8 << 20  # of one block, in the dtype of the computation
Read = Callable[[int, int], Any]
Seen = Callable[[int], None]


class RowBlocks(Matrix):
    """A matrix of which a function reads rows; see `row_blocks`."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        read: Callable[[int, int], Tensor],
        step: int,
        norm: Tensor,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`read` gives rows in this dtype, `step` is how many at once, `norm` is |A|_F."""
        super().__init__(shape, dtype, torch.device("cpu"), notes)
        self._read, self._step, self._norm = read, step, norm
        if not is_plain(norm, dtype) and bool(norm > 0):
            self.largest = norm

    @property
    def precision(self) -> torch.dtype:
        """float64: entries can be converted to any dtype."""
        return torch.float64

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The entries, from the first row to the last."""
        return _blocks(self.m, self._step, self._read)

    def matmat(self, x: Tensor) -> Tensor:
        """A x."""
        y = torch.zeros(self.m, x.shape[-1], dtype=self.dtype)
        if y.numel():
            for rows, block in self.row_blocks():
                torch.mm(block, x, out=y[rows])
        return y

    def rmatmat(self, y: Tensor) -> Tensor:
        """A^H y."""
        x = torch.zeros(y.shape[-1], self.n, dtype=self.dtype)
        if x.numel():
            for rows, block in self.row_blocks():
                x.addmm_(y[rows].mH, block)
        return x.mH

    def frobenius(self) -> Tensor:
        """|A|_F."""
        return self._norm

    def columns(self, index: Tensor) -> Tensor:
        """A[:, index]."""
        found = torch.empty(self.m, len(index), dtype=self.dtype)
        if found.numel():
            for rows, block in self.row_blocks():
                found[rows] = block[:, index]
        return found

    def rows(self, index: Tensor) -> Tensor:
        """A[index, :], read one by one."""
        found = torch.empty(len(index), self.n, dtype=self.dtype)
        for place, row in enumerate(index.tolist()):
            found[place] = self._read(row, row + 1)[0]
        return found

    def converted(self, dtype: torch.dtype) -> RowBlocks:
        """The matrix in another dtype, converted block by block."""
        if dtype == self.dtype:
            return self
        read = self._read
        return RowBlocks(
            self.shape,
            dtype,
            lambda start, stop: read(start, stop).to(dtype),
            self._step,
            self._norm,
            self.notes,
        )

    def divided(self, unit: Tensor) -> RowBlocks:
        """A / unit, divided block by block."""
        read, by = self._read, unit.to(self.dtype)
        return RowBlocks(
            self.shape,
            self.dtype,
            lambda start, stop: read(start, stop) / by,
            self._step,
            self._norm / unit,
            self.notes,
        )


def row_blocks(
    shape: Sequence[int],
    read: Read,
    *,
    conjugate: bool = False,
    block_bytes: int = BLOCK_BYTES,
    seen: Seen | None = None,
) -> RowBlocks:
    """Return a matrix larger than memory; it is read once now, for its norm and for NaN and Inf.

    Args:
        shape: [m, n], both at least 1.
        read: a function from (start, stop) to the rows A[start:stop], an array or a tensor.
        conjugate: use the conjugate of what is read.
        block_bytes: the size of a block of rows in the dtype of the computation; at least one row.
        seen: called with the number of rows after every block that is read, for progress.

    Raises:
        ValueError: for NaN or Inf, with the rows, and for entries that are no numbers.

    Example:
        >>> a = torch.ones(1000, 3)
        >>> r = row_blocks(a.shape, lambda start, stop: a[start:stop], block_bytes=1200)
        >>> r.matmat(torch.ones(3, 1)).shape, round(float(r.frobenius()), 3)
        (torch.Size([1000, 1]), 54.772)
    """
    m, n = shape
    first, notes = computable(_tensor(read(0, 1)))
    dtype = first.dtype

    def through(start: int, stop: int) -> Tensor:
        block = _tensor(read(start, stop)).to(dtype)
        if seen is not None:
            seen(stop - start)
        return block.conj().resolve_conj() if conjugate else block

    step = max(1, block_bytes // (n * dtype.itemsize))
    norm = _norm(_blocks(m, step, through), dtype)
    assert dtype in COMPUTED
    return RowBlocks((m, n), dtype, through, step, norm, notes)


def _tensor(given: object) -> Tensor:
    return given if isinstance(given, Tensor) else tensor_of(given)


def _blocks(
    m: int, step: int, read: Callable[[int, int], Tensor]
) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, m, step):
        stop = min(start + step, m)
        yield slice(start, stop), read(start, stop)


def _norm(blocks: Iterator[tuple[slice, Tensor]], dtype: torch.dtype) -> Tensor:
    """|A|_F for entries of any size."""
    norms = []
    for rows, block in blocks:
        norm = frobenius_norm(block)
        if not is_plain(norm, dtype):
            try:
                norm, _ = careful_norm(block)
            except ValueError as error:
                raise ValueError(
                    f"The matrix holds NaN or Inf in rows {rows.start} to {rows.stop - 1}: "
                    "replace these values first."
                ) from error
        norms.append(norm)
    largest = torch.stack(norms).amax()
    size = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.linalg.vector_norm(torch.stack(norms) / size) * size
