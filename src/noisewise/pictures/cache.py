"""The cache of uint8 pictures: one .npy and one .json, written to temporary files, then renamed.

Pictures are written with plain writes, not through a memory map: on a full disk a write raises
OSError, but a memory map kills the process. The .json is written last, so if it exists the pair is
complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from noisewise.plain_files import MOST_TEXT, NotPlainError, open_plain, read_plain
from noisewise.sizes import Size, sides
from noisewise.whole_files import replacing, take_lock

_VERSION = 2  # raise it when files are turned into pictures in another way: old caches are not used
_BLOCK_ROWS = 1024
_NEW = ".new-"  # prefix of files that are not complete yet


def cache_key(parts: Iterable[object]) -> str:
    """Return a name for a set of files and the way they are read, the same on every machine.

    Args:
        parts: strings and numbers, for example name, bytes and time of change of each file, then
            the size.

    Example:
        >>> cache_key(["a.png", 10, 5]) == cache_key(["a.png", 10, 6])
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (_VERSION, *parts):
        text = repr(part).encode("utf-8", "backslashreplace")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()


class Rows:
    """Collects pictures one by one: on disk if there is a cache folder, else in memory.

    Use it as a context manager: then no temporary file remains, even after an error.
    """

    def __init__(self, size: Size, channels: int, folder: Path | None) -> None:
        """Start an empty collection of uint8 [height, width, channels] pictures."""
        self._shape = (*sides(size), channels)
        self._folder = folder
        self._count = 0
        self._file: IO[bytes] = io.BytesIO()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".rows-")

    def __enter__(self) -> Rows:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the temporary file."""
        self._file.close()

    def __len__(self) -> int:
        """Return the number of pictures so far."""
        return self._count

    def append(self, pixels: np.ndarray) -> None:
        """Add one uint8 picture [height, width, channels], as grey or colour as the rows."""
        channels = self._shape[2]
        if pixels.shape[2] > channels:
            pixels = to_grey(pixels)
        elif pixels.shape[2] < channels:
            pixels = np.repeat(pixels, channels, axis=2)
        assert pixels.shape == self._shape
        assert pixels.dtype == np.uint8
        self._file.write(pixels.tobytes())
        self._count += 1

    def finish(self, channels: int, key: str) -> np.ndarray:
        """Return uint8 [n, height, width, channels]; with a cache folder a read-only memory map."""
        shape = (self._count, *self._shape[:2], channels)
        if self._folder is None:
            return self._in_memory(shape)
        target = self._folder / f"{key}.npy"
        with replacing(target, _NEW) as new, new.open("wb") as file:
            file.write(_header(shape))
            for block in self._blocks(channels):
                file.write(block.tobytes())
        return np.load(target, mmap_mode="r", allow_pickle=False)

    def _in_memory(self, shape: tuple[int, ...]) -> np.ndarray:
        assert isinstance(self._file, io.BytesIO)
        if shape[3] == self._shape[2]:
            return np.frombuffer(self._file.getvalue(), np.uint8).reshape(shape)
        result = np.empty(shape, np.uint8)
        start = 0
        for block in self._blocks(shape[3]):
            result[start : start + len(block)] = block
            start += len(block)
        return result

    def _blocks(self, channels: int) -> Iterable[np.ndarray]:
        row_bytes = int(np.prod(self._shape))
        self._file.seek(0)
        while data := self._file.read(_BLOCK_ROWS * row_bytes):
            block = np.frombuffer(data, np.uint8).reshape(-1, *self._shape)
            yield block if channels == self._shape[2] else to_grey(block)


def in_blocks(images: np.ndarray, rows: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
    """Yield an array some rows at a time; of a memory map, used pages are released.

    The pages of a memory map count as memory of this process until the system needs them: reading
    200 GB would look like using 200 GB.

    Example:
        >>> [len(block) for block in in_blocks(np.zeros((5, 1, 1, 1)), rows=2)]
        [2, 2, 1]
    """
    for start in range(0, len(images), rows):
        yield images[start : start + rows]
        release_pages(images)


def release_pages(images: np.ndarray) -> None:
    """Give the pages of a memory map back to the system, which may still keep them cached."""
    mapped = getattr(images, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of RGB pixels, uint8 [..., 1] from [..., 3].

    Source: ITU-R BT.601, section 2.5.1: the weights .299, .587, .114 (as in Pillow), rounded.
    """
    weights = np.array([299, 587, 114], dtype=np.int64)
    return ((pixels.astype(np.int64) @ weights + 500) // 1000).astype(np.uint8)[..., None]


def read_cached(folder: Path, key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Return the memory map and the facts, or None if there is no complete pair for this key."""
    try:
        facts = json.loads(read_plain(folder / f"{key}.json", MOST_TEXT).decode("utf-8"))
        match facts:
            case {"shape": [int(), int(), int(), int()] as shape} if min(shape) > 0:
                images = _mapped(folder / f"{key}.npy", tuple(shape))
            case _:
                return None
    except (OSError, ValueError, OverflowError, RecursionError):
        return None
    return None if images is None else (images, facts)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The memory map; None if the file is not exactly what `Rows.finish` writes for this shape.

    The header is compared and not read: NumPy parses what a file says as Python.
    """
    header = _header(shape)
    with open_plain(path) as file:  # refuses a link, a pipe and a device
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes != len(header) + math.prod(shape) or file.read(len(header)) != header:
            return None
    return np.memmap(path, np.uint8, "r", len(header), shape)


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of uint8 pictures."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def write_facts(folder: Path, key: str, facts: dict[str, Any]) -> None:
    """Write the facts of the cached pictures; this completes the pair."""
    with replacing(folder / f"{key}.json", _NEW) as new:
        new.write_bytes(json.dumps(facts).encode("ascii"))


def sweep(folder: Path) -> int:
    """Remove incomplete files of killed processes; files that are being written stay.

    Returns:
        The number of files removed.
    """
    removed = 0
    for path in folder.glob(f"{_NEW}*"):
        try:
            with open_plain(path) as file:
                if take_lock(file.fileno()):
                    path.unlink()
                    removed += 1
        except (OSError, NotPlainError):
            continue  # already removed, of another user, or not a file of ours
    return removed
