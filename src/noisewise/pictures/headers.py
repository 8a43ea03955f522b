"""A first look at every file: headers only, so that size and range are decided before decoding."""

from __future__ import annotations

import os
import statistics
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from noisewise.pictures import bit_depth, decode
from noisewise.pictures.bit_depth import Extent, Ranges
from noisewise.pictures.decode import Header, UnusableError
from noisewise.pictures.request import Crop
from noisewise.pictures.sources import Entry, Skipped, Source, printable

MIN_SIZE = 8
SIZE_STEP = 4
DEFAULT_MAX_SIZE = 64
BYTES_IN_FLIGHT = 2**30
"""Memory that pictures may take while they are decoded; a larger one is decoded alone."""
_BYTES_A_PIXEL = 16  # Pillow's 4 for a picture, and for what it is turned, laid and converted to
_BATCH = 256
_SAMPLE = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Survey:
    """What the headers say: pictures to try, those left out, and the ranges of deep ones.

    `num_bytes` is about the memory that decoding each entry takes; `sizes` counts (width, height),
    `modes` Pillow's modes, `formats` file formats; `block` is how many times enlarged a set of
    pixel art is stored (1 for everything else).
    """

    entries: tuple[Entry, ...]
    num_bytes: tuple[int, ...]
    skipped: tuple[Skipped, ...]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]
    ranges: Ranges
    block: int


def survey(
    source: Source, entries: tuple[Entry, ...], progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every header, the extent of deep pictures, and the block of pixel art.

    Args:
        source: the folder or zip.
        entries: those of its files that may be pictures.
        progress: called with (files looked at, files in all).
    """
    kept: list[tuple[Entry, Header]] = []
    skipped = list(source.skipped)
    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        looked_at = in_order(pool, lambda e: _header(source, e), entries, source.held_bytes)
        for count, (entry, found) in enumerate(looked_at, start=1):
            if progress is not None:
                progress(count, len(entries))
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                kept.append((entry, found))
        costs = {e.name: source.held_bytes(e) + _decoding_bytes(header) for e, header in kept}
        deep = [entry for entry, header in kept if bit_depth.is_deep(header.mode)]
        measured = in_order(pool, lambda e: _extent(source, e), deep, lambda e: costs[e.name])
        ranges = bit_depth.ranges(found for _, found in measured if found is not None)
        lossy = sum(header.format in decode.LOSSY for _, header in kept)
        block = 1 if lossy else _common_block(source, [entry for entry, _ in kept])
    headers = [header for _, header in kept]
    return Survey(
        tuple(entry for entry, _ in kept),
        tuple(costs[entry.name] for entry, _ in kept),
        tuple(sorted(skipped, key=lambda item: item.name)),
        Counter((h.width, h.height) for h in headers),
        Counter(h.mode for h in headers),
        Counter(h.format for h in headers),
        ranges,
        block,
    )


def choose_size(
    sizes: Counter[tuple[int, int]], block: int = 1, crop: Crop = "centre"
) -> tuple[int, str]:
    """Choose the side of the square from the pictures' own sizes, and say why.

    The shared short side when there is one, the median otherwise; rounded down to a multiple of 4,
    at least 8 and at most 64 pixels (larger sizes are asked for by name).

    Args:
        sizes: how many pictures have each (width, height).
        block: pixel art stored enlarged counts by its own pixels.
        crop: with "pad" the long side counts instead.

    Example:
        >>> choose_size(Counter({(28, 28): 100}))
        (28, 'size 28: the pictures are 28 pixels')
    """
    measure, which = (max, "long") if crop == "pad" else (min, "short")
    sides = sorted(measure(size) // block for size in sizes.elements())
    shared = sides[0] == sides[-1]
    side = int(statistics.median(sides))
    size = min(max(side // SIZE_STEP * SIZE_STEP, MIN_SIZE), DEFAULT_MAX_SIZE)
    measured = (
        f"the pictures are {side} pixels" if shared else f"the median {which} side is {side} pixels"
    )
    if block > 1:
        measured += f" of art stored {block} times enlarged"
    if side > DEFAULT_MAX_SIZE:
        return size, f"size {size}: {measured}; more than {size} has to be asked for (size=...)"
    if size != side:
        measured += f", and nets take multiples of {SIZE_STEP} from {MIN_SIZE}"
    return size, f"size {size}: {measured}"


def check_size(size: int) -> None:
    """Refuse a size that the nets cannot take, naming the nearest that they can.

    Example:
        >>> check_size(30)
        Traceback (most recent call last):
        ...
        ValueError: size 30 cannot be used: nets take multiples of 4 from 8; nearest are 28 and 32.
    """
    if size >= MIN_SIZE and size % SIZE_STEP == 0:
        return
    below = size // SIZE_STEP * SIZE_STEP
    near = f"nearest are {below} and {below + SIZE_STEP}" if below >= MIN_SIZE else "nearest is 8"
    raise ValueError(
        f"size {size} cannot be used: nets take multiples of {SIZE_STEP} from {MIN_SIZE}; {near}."
    )


def num_threads() -> int:
    """Threads for decoding; Pillow lets go of the interpreter lock while it decodes."""
    return min(8, os.cpu_count() or 1)


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[T], R],
    items: Iterable[T],
    num_bytes: Callable[[T], int],
    most_bytes: int = BYTES_IN_FLIGHT,
) -> Iterator[tuple[T, R]]:
    """Map over threads, in order, with a bounded number of results and of bytes in flight.

    Args:
        pool: the threads.
        function: is called with each item.
        items: what to map over.
        num_bytes: memory that the call for an item takes.
        most_bytes: memory that all calls at a time may take; one that takes more runs alone.
    """
    gate = _Gate(most_bytes)

    def held(item: T) -> R:
        with gate.passed(num_bytes(item)):
            return function(item)

    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield from zip(batch, pool.map(held, batch), strict=True)


class _Gate:
    """Lets threads through as long as what they hold together is below a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def passed(self, amount: int) -> Generator[None]:
        """Hold so much, at most all there is, inside the block; wait until it is free."""
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
    return _BYTES_A_PIXEL * header.width * header.height


@contextmanager
def quiet_pillow() -> Generator[None]:
    """Silence Pillow's warnings: what they tell (large, damaged) is a skip reason here."""
    with warnings.catch_warnings():
        for kind in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", kind)
        yield


def explain_nothing(source: Source, skipped: Iterable[Skipped]) -> str:
    """Say in a few words what lies in a source instead of pictures."""
    names = [item.name for item in skipped]
    endings = Counter(_ending(name) for name in names)
    if not names:
        return f"{printable(str(source.path))} is empty"
    found = ", ".join(f"{count} {printable(ending)}" for ending, count in endings.most_common(4))
    return f"{printable(str(source.path))} holds no picture, only {found}"


def _ending(name: str) -> str:
    base = name.rsplit("/", 1)[-1]
    return "." + base.rsplit(".", 1)[1].lower() if "." in base[1:] else "without an ending"


def _header(source: Source, entry: Entry) -> Header | Skipped:
    try:
        with opened(source, entry) as file:
            return decode.read_header(file, entry.name)
    except UnusableError as error:
        return Skipped(entry.name, error.reason)


def _extent(source: Source, entry: Entry) -> Extent | None:
    """None for what cannot be used: it says nothing of the others, and decoding will name it."""
    try:
        with opened(source, entry) as file:
            return decode.extent(file, entry.name)
    except UnusableError:
        return None


def _common_block(source: Source, entries: list[Entry]) -> int:
    """Return the enlargement that an even sample of the pictures shares, 1 when it does not."""
    step = max(1, len(entries) // _SAMPLE)
    factors = []
    for entry in entries[::step][:_SAMPLE]:
        try:
            with opened(source, entry) as file:
                factors.append(decode.enlargement(file, entry.name))
        except UnusableError:
            continue
    factors = [factor for factor in factors if factor]
    return int(np.gcd.reduce(factors)) if factors else 1


@contextmanager
def opened(source: Source, entry: Entry) -> Generator[BinaryIO]:
    """Open an entry; what fails becomes an UnusableError with its reason."""
    try:
        file = source.open(entry)
    except Exception as error:  # zipfile and the system raise almost anything on damaged input
        raise UnusableError(decode.reason_of(error, entry.name)) from error
    with file:
        yield file
