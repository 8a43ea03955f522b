"""Matrices in `.npy` files that are larger than memory, and the memory that reading them takes.

Each block is read, multiplied, and let go, so that the file is never in memory whole.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from noisewise.lowrank.arrays import tensor_of
from noisewise.lowrank.dtypes import computable
from noisewise.lowrank.operators import Matrix, adjoint
from noisewise.lowrank.range_finder import FIRST_BLOCK, LARGEST_BLOCK
from noisewise.lowrank.row_blocks import BLOCK_BYTES, row_blocks

GIB = 2**30
_MMAP_THRESHOLD = -3  # of malloc.h
DEFAULT_MEMORY = 1.0  # GiB, if none is given
_COPIES = 4  # a matrix in memory, and what the search by tolerance makes of it
_FACTORS = 4  # bases and products of m and n rows that are in memory at the same time
_TEMPORARY = 6  # the same for a new block of directions
_PROBES = 20
_OVERSAMPLE = 10
_ROUND_UP = 1.005  # so that three digits of what is needed suffice
_BLOCKS = 5  # two that are read, and what is made of them
_SEARCH = 4  # more of them by tolerance, as measured
_KRYLOV = 3  # columns of a Krylov space for each unit of rank


@dataclass(frozen=True)
class MappedArray:
    """A matrix in a `.npy` file.

    Attributes:
        file: the file.
        stored: dtype as it is stored.
        shape: [m, n].
        offset: bytes before the first entry.
        is_transposed: whether columns follow each other in the file (Fortran's order).
    """

    file: Path
    stored: np.dtype
    shape: tuple[int, int]
    offset: int
    is_transposed: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of the entries."""
        return tensor_of(np.zeros(0, self.stored)).dtype

    @property
    def itemsize(self) -> int:
        """Bytes of an entry in the dtype of the computation."""
        return computable(torch.zeros(0, dtype=self.dtype))[0].dtype.itemsize

    @property
    def like(self) -> torch.Tensor:
        """A tensor of this shape and dtype without entries."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def read(self, seen: Callable[[int, int, int], None]) -> Matrix:
        """Return the matrix; it is read once now.

        Args:
            seen: called with the pass, the rows read in it, and all rows.

        Raises:
            ValueError: for NaN or Inf.
        """
        m, n = self.shape[::-1] if self.is_transposed else self.shape
        done = 0
        # One for all blocks: pages of a map, or blocks that come and go, may stay in memory.
        buffer = bytearray()

        def rows(start: int, stop: int) -> np.ndarray:
            nonlocal buffer
            length = (stop - start) * n * self.stored.itemsize
            if len(buffer) < length:
                buffer = bytearray(length)
            with self.file.open("rb", 0) as file:
                file.seek(self.offset + start * n * self.stored.itemsize)
                _fill(file, memoryview(buffer)[:length])
            return np.frombuffer(buffer, self.stored, (stop - start) * n).reshape(-1, n)

        def count(number: int) -> None:
            nonlocal done
            done += number
            seen((done - 1) // m + 1, (done - 1) % m + 1, m)

        a = row_blocks(
            (m, n), rows, conjugate=self.is_transposed, block_bytes=BLOCK_BYTES, seen=count
        )
        return adjoint(a) if self.is_transposed else a

    def peak(self, columns: int, by_tolerance: bool) -> int:
        """Bytes of memory for bases with this many columns, beside the program itself."""
        m, n = self.shape
        block = min(max(FIRST_BLOCK, columns // 2), LARGEST_BLOCK) if by_tolerance else 0
        blocks = _BLOCKS + _SEARCH * by_tolerance
        each = _FACTORS * columns + _TEMPORARY * block + _PROBES
        return (m + n) * self.itemsize * each + blocks * max(BLOCK_BYTES, n * self.itemsize)

    def largest_rank(self, memory: float) -> int:
        """The highest rank by tolerance that fits into bytes of memory; -1 if none does."""
        low, high = -1, min(self.shape)
        while low < high:
            rank = (low + high + 1) // 2
            fits = self.peak(rank + _OVERSAMPLE, True) <= memory
            low, high = (rank, high) if fits else (low, rank - 1)
        return low


def _return_large_pieces() -> None:
    """Let glibc give large pieces of memory back at once; it keeps them between small ones else.

    Without, memory may grow by each block, up to the size of the file (measured).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, GIB >> 10)


def _fill(file: io.FileIO, buffer: memoryview) -> None:
    """Read until the buffer is full: one call may read less, and at most 2 GiB."""
    at = 0
    while at < len(buffer):
        found = file.readinto(buffer[at:])
        if not found:
            raise ValueError(f"{file.name} was cut short while it was read")
        at += found


def mapped(file: Path, memory: float | None) -> MappedArray | None:
    """Return the matrix of a `.npy` file if it is too large to be read whole, else None.

    Args:
        file: ends in .npy.
        memory: GiB that may be used.

    Raises:
        ValueError, OSError: if the file cannot be read.
    """
    allowed = (DEFAULT_MEMORY if memory is None else memory) * GIB
    if file.stat().st_size * 64 < allowed:  # float64 has eight times the bytes of int8
        return None
    whole = np.load(file, mmap_mode="r")
    if whole.ndim != 2 or 0 in whole.shape or whole.dtype.kind not in "biufc":
        return None
    rows, columns = whole.shape
    is_transposed = not whole.flags.c_contiguous
    found = MappedArray(file, whole.dtype, (rows, columns), whole.offset, is_transposed)
    if _COPIES * whole.size * found.itemsize <= allowed:
        return None
    _return_large_pieces()
    return found


def rank_within(
    array: MappedArray, rank: int | None, tol: float | None, memory: float | None, accurate: bool
) -> tuple[int, int]:
    """Return the rank to ask for, and the bytes of memory that are needed for it at most.

    By tolerance the rank is limited to what the memory holds.

    Raises:
        ValueError: if the memory is too small.
    """
    allowed = (DEFAULT_MEMORY if memory is None else memory) * GIB
    columns = _KRYLOV if accurate and tol is None else 1
    if tol is not None:
        fits = array.largest_rank(allowed)
        rank = fits if rank is None else min(rank, fits)
    assert rank is not None
    need = array.peak(columns * max(rank, 0) + _OVERSAMPLE, tol is not None)
    if rank < 0 or (memory is not None and need > allowed):
        raise ValueError(
            f"rank {max(rank, 0)} needs {_ROUND_UP * need / GIB:.3g} GiB of memory: "
            "give a larger --memory, or a lower --rank"
        )
    return rank, need
