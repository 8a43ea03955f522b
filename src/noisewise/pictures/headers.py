"""Read the header of every file, so that size and range are known before decoding."""

from __future__ import annotations

import os
import statistics
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image

from noisewise.pictures import bit_depth, decode
from noisewise.pictures.bit_depth import Extent, Ranges
from noisewise.pictures.changed import refuse_changed
from noisewise.pictures.decode import Header, UnusableError
from noisewise.pictures.pages import PageView, TooManyPagesError, pages_of
from noisewise.pictures.request import Crop
from noisewise.pictures.sources import HARMLESS, OWN, TOO_LARGE, TRUNCATED, Entry, Skipped, Source
from noisewise.plain_text import printable
from noisewise.sizes import MIN_SIZE, SIZE_STEP

DEFAULT_MAX_SIZE = 64
_COARSEST = 32
BYTES_IN_FLIGHT = 2**30
"""Memory for all pictures that are decoded at the same time; a larger picture is decoded alone."""
_BYTES_PER_PIXEL = 16  # Pillow's 4 for the picture, and its rotated, flattened, converted copies
_BATCH = 256
_SAMPLE = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Headers:
    """The result of reading all headers.

    Attributes:
        entries: files with a readable header, to be decoded, and pages of files.
        num_bytes: about how much memory each of them takes while it is decoded.
        skipped: files that cannot be used.
        sides: (width, height) of each of them, not turned upright.
        sizes: number of pictures of each (width, height).
        modes: number of pictures of each of Pillow's modes.
        formats: number of pictures of each file format.
        ranges: the values of black and white in pictures with more than 8 bits.
        block: how many times a set of pixel art is enlarged; 1 for all other sets.
        num_stacks: files with several pages; num_pages: their pages, with the unusable ones.
    """

    entries: tuple[Entry, ...]
    num_bytes: tuple[int, ...]
    skipped: tuple[Skipped, ...]
    sides: tuple[tuple[int, int], ...]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]
    ranges: Ranges
    block: int
    num_stacks: int = 0
    num_pages: int = 0


def read_headers(
    source: Source, entries: tuple[Entry, ...], progress: Callable[[int, int], None] | None = None
) -> Headers:
    """Read all headers, the range of pictures with more than 8 bits, and the block of pixel art.

    Args:
        source: the folder or zip.
        entries: its files that may be pictures.
        progress: called with (files done, files in all).
    """
    kept: list[tuple[Entry, Header]] = []
    skipped = list(source.skipped)
    stacks: list[int] = []
    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        results = in_order(pool, lambda e: _headers(source, e), entries, source.open_bytes)
        for count, (_, pages) in enumerate(results, start=1):
            if progress is not None:
                progress(count, len(entries))
            stacks += [len(pages)] if len(pages) > 1 else []
            for entry, found in pages:
                if isinstance(found, Skipped):
                    skipped.append(found)
                else:
                    kept.append((entry, found))
        costs = {e.name: source.open_bytes(e) + _decoding_bytes(header) for e, header in kept}
        deep = [entry for entry, header in kept if bit_depth.is_deep(header.mode)]
        measured = in_order(pool, lambda e: _extent(source, e), deep, lambda e: costs[e.name])
        ranges = bit_depth.ranges(found for _, found in measured if found is not None)
        lossy = sum(header.format in decode.LOSSY for _, header in kept)
        block = 1 if lossy else _common_block(source, [entry for entry, _ in kept])
    headers = [header for _, header in kept]
    return Headers(
        tuple(entry for entry, _ in kept),
        tuple(costs[entry.name] for entry, _ in kept),
        tuple(sorted(skipped, key=lambda item: item.name)),
        tuple((h.width, h.height) for h in headers),
        Counter((h.width, h.height) for h in headers),
        Counter(h.mode for h in headers),
        Counter(h.format for h in headers),
        ranges,
        block,
        len(stacks),
        sum(stacks),
    )


def choose_size(
    sizes: Counter[tuple[int, int]], block: int = 1, crop: Crop = "centre", crops: bool = False
) -> tuple[int, str]:
    """Choose the side of the square from the pictures' own sizes, and say why.

    Takes the short side if all pictures share one, else the median; rounded down to a multiple of
    4, at least 8 and at most 64 pixels. Larger sizes have to be set with `size`; the reason names
    the one that keeps the detail of the files.

    Args:
        sizes: number of pictures of each (width, height).
        block: how many times pixel art is enlarged; its original pixels count.
        crop: with "pad", the long side counts instead.
        crops: whether pieces of this size are cut, which keep the detail at any size.

    Example:
        >>> choose_size(Counter({(28, 28): 100}))
        (28, 'size 28: the short side of all pictures has 28 pixels')
    """
    measure, which = (max, "long") if crop == "pad" else (min, "short")
    sides = sorted(measure(size) // block for size in sizes.elements())
    shared = sides[0] == sides[-1]
    side = int(statistics.median(sides))
    size = min(max(side // SIZE_STEP * SIZE_STEP, MIN_SIZE), DEFAULT_MAX_SIZE)
    measured = f"the {which} side of all pictures has {side} pixels"
    if not shared:
        measured = f"the median {which} side has {side} pixels"
    if block > 1:
        measured += f" (pixel art, enlarged {block} times)"
    if side > DEFAULT_MAX_SIZE:
        more = (
            f"set size for more than {size}"
            if crops
            else f"--size {usable(side)} keeps their detail"
        )
        return size, f"size {size}: {measured}; {more}"
    if size != side:
        measured += f"; nets need a multiple of {SIZE_STEP}, at least {MIN_SIZE}"
    return size, f"size {size}: {measured}"


def size_for_all(sizes: Counter[tuple[int, int]], block: int = 1) -> tuple[int, str] | None:
    """Choose a square that every sprite fits into with its own pixels; None above 64 pixels.

    Args:
        sizes: number of pictures of each (width, height).
        block: how many times pixel art is enlarged; its original pixels count.

    Example:
        >>> size_for_all(Counter({(16, 24): 10, (30, 20): 2}))
        (32, 'size 32: every picture fits into it with its own pixels, the longest side has 30')
    """
    longest = max(max(size) // block for size in sizes)
    side = max(MIN_SIZE, -(-longest // SIZE_STEP) * SIZE_STEP)
    if side > DEFAULT_MAX_SIZE:
        return None
    fits = f"every picture fits into it with its own pixels, the longest side has {longest}"
    return side, f"size {side}: {fits}"


def usable(side: int, longest: int = 0) -> int:
    """The largest size that nets can use and that is no larger than a side; 8 at least.

    Args:
        side: in pixels.
        longest: the other side, if pictures are not square.

    Example:
        >>> usable(6), usable(50), usable(100), usable(300)
        (8, 48, 100, 288)
    """
    step = SIZE_STEP
    while max(side, longest) > _COARSEST * step:  # halved until they have 32 pixels a side
        step *= 2
    return max(MIN_SIZE, side // step * step)


def num_threads() -> int:
    """Number of threads for decoding; Pillow releases the interpreter lock while it decodes."""
    return min(8, os.cpu_count() or 1)


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[T], R],
    items: Iterable[T],
    num_bytes: Callable[[T], int],
    most_bytes: int = BYTES_IN_FLIGHT,
    batch_size: int = _BATCH,
) -> Iterator[tuple[T, R]]:
    """Map a function over items with threads, in order, with a limit on results and on memory.

    Args:
        pool: the threads.
        function: called with each item.
        items: the items, read in batches.
        num_bytes: memory that the call for an item takes.
        most_bytes: memory for all calls at the same time; a call that takes more runs alone.
        batch_size: most results that wait to be taken.
    """
    budget = _MemoryBudget(most_bytes)

    def call(item: T) -> R:
        with budget.reserved(num_bytes(item)):
            return function(item)

    remaining = iter(items)
    while batch := list(islice(remaining, batch_size)):
        yield from zip(batch, pool.map(call, batch), strict=True)


class _MemoryBudget:
    """Makes threads wait until the memory that they need is free."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, amount: int) -> Generator[None]:
        """Reserve an amount, at most the limit, inside the block; wait until it is free."""
        amount = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


def _decoding_bytes(header: Header) -> int:
    return _BYTES_PER_PIXEL * header.width * header.height


@contextmanager
def quiet_pillow() -> Generator[None]:
    """Hide Pillow's warnings (large, damaged): such files are skipped with a reason instead."""
    with warnings.catch_warnings():
        for kind in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", kind)
        yield


def describe_no_pictures(source: Source, skipped: Iterable[Skipped]) -> str:
    """Say what a source without pictures holds instead."""
    left_out = list(skipped)
    names = [item.name for item in left_out if item.code != OWN]
    endings = Counter(_ending(name) for name in names)
    if left_out and not names:
        return f"{printable(str(source.path))} has no pictures, only what noisewise wrote"
    if not names:
        return f"{printable(str(source.path))} is empty"
    found = ", ".join(f"{count} {printable(ending)}" for ending, count in endings.most_common(4))
    return f"{printable(str(source.path))} has no pictures, only {found}"


def refuse_films(source: Source, entries: tuple[Entry, ...], least: int) -> None:
    """Refuse a few files with many frames, of which only the first would be read.

    Args:
        source: the folder or zip.
        entries: its pictures, fewer than `least`.
        least: number of pictures that is enough.

    Raises:
        ValueError: if all frames together would be enough.
    """
    frames = files = 0
    for entry in entries:
        try:
            with opened(source, entry) as file:
                found = decode.num_frames(file, entry.name)
        except UnusableError:
            continue
        frames, files = frames + found, files + (found > 1)
    if files and frames >= least:
        shown = "1 file" if files == 1 else f"{files} files"
        raise ValueError(
            f"{printable(str(source.path))} has {shown} with several frames, {frames} "
            "pictures in all, and only the first of each file is read: save every frame as a file "
            "of its own (for example: magick film.gif frame-%05d.png)."
        )


def _ending(name: str) -> str:
    base = name.rsplit("/", 1)[-1]
    return "." + base.rsplit(".", 1)[1].lower() if "." in base[1:] else "without a file ending"


def _headers(source: Source, entry: Entry) -> list[tuple[Entry, Header | Skipped]]:
    """The header of a file, or those of its pages."""
    try:
        with opened(source, entry) as file:
            found = pages_of(file)
            if not found.offsets:
                return [(entry, decode.read_header(file, entry.name))]
            pages = entry.pages(found.offsets)
            result = [(page, _header_of_page(file, page)) for page in pages]
    except UnusableError as error:
        return [(entry, Skipped(entry.name, error.code))]
    except TooManyPagesError:
        return [(entry, Skipped(entry.name, TOO_LARGE))]
    if found.cut_off:
        rest = replace(entry, name=f"{entry.name}#{len(pages) + 1}")
        result.append((rest, Skipped(rest.name, TRUNCATED)))
    return result


def _header_of_page(file: BinaryIO, page: Entry) -> Header | Skipped:
    try:
        return decode.read_header(cast(BinaryIO, PageView(file, page.page)), page.file_name)
    except UnusableError as error:
        return Skipped(page.name, error.code)


def _extent(source: Source, entry: Entry) -> Extent | None:
    """The lowest and highest value; None if the file is unusable (decoding gives the reason)."""
    try:
        with opened(source, entry) as file:
            return decode.extent(file, entry.file_name)
    except UnusableError:
        return None


def _common_block(source: Source, entries: list[Entry]) -> int:
    """Return the enlargement that some evenly spaced pictures share; 1 if they share none."""
    step = max(1, len(entries) // _SAMPLE)
    factors = []
    for entry in entries[::step][:_SAMPLE]:
        try:
            with opened(source, entry) as file:
                factors.append(decode.enlargement(file, entry.file_name))
        except UnusableError:
            continue
    factors = [factor for factor in factors if factor]
    return int(np.gcd.reduce(factors)) if factors else 1


@contextmanager
def opened(source: Source, entry: Entry) -> Generator[BinaryIO]:
    """Open an entry, or a view of its page; a failure becomes an UnusableError with its code.

    Raises:
        ChangedError: if a picture of a folder is no longer as it was listed. (Another file may
            change: what a program says often goes to a file beside the pictures.)
    """
    try:
        file = source.open(entry)
    except Exception as error:  # zipfile and the system raise almost anything on damaged input
        raise UnusableError(decode.skip_code(error, entry.file_name)) from error
    with file:
        try:
            yield cast(BinaryIO, PageView(file, entry.page)) if entry.page else file
        except UnusableError as error:
            if not source.in_memory and error.code not in HARMLESS:
                refuse_changed(entry, file)
            raise
        if not source.in_memory:
            refuse_changed(entry, file)
