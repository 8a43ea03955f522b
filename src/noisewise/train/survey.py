"""A first look at every file: headers only, so that size and range are decided before decoding."""

from __future__ import annotations

import os
import statistics
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

from noisewise.train import decode
from noisewise.train.config import Crop
from noisewise.train.decode import Header, UnusableError
from noisewise.train.sources import Entry, Skipped, Source, printable

MIN_SIZE = 8
SIZE_STEP = 4
DEFAULT_MAX_SIZE = 64
_BATCH = 256
_SAMPLE = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Survey:
    """What the headers say: pictures to try, those left out, and the range of deep ones.

    `sizes` counts (width, height), `modes` Pillow's modes, `formats` file formats; `block` is how
    many times enlarged a set of pixel art is stored (1 for everything else).
    """

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]
    full_scale: float
    block: int


def survey(
    source: Source, entries: tuple[Entry, ...], progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every header, the brightest value of deep pictures, and the block of pixel art.

    Args:
        source: the folder or zip.
        entries: those of its files that may be pictures.
        progress: called with (files looked at, files in all).
    """
    kept: list[tuple[Entry, Header]] = []
    skipped = list(source.skipped)
    with quiet_pillow(), ThreadPoolExecutor(num_threads()) as pool:
        looked_at = in_order(pool, lambda e: _header(source, e), entries)
        for count, (entry, found) in enumerate(looked_at, start=1):
            if progress is not None:
                progress(count, len(entries))
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                kept.append((entry, found))
        deep = [entry for entry, header in kept if header.mode[0] in "IF"]
        brightest = [value for _, value in in_order(pool, lambda e: _brightest(source, e), deep)]
        full_scale = decode.declared_range(max(brightest, default=65535.0))
        lossy = sum(header.format in decode.LOSSY for _, header in kept)
        block = 1 if lossy else _common_block(source, [entry for entry, _ in kept])
    headers = [header for _, header in kept]
    return Survey(
        tuple(entry for entry, _ in kept),
        tuple(sorted(skipped, key=lambda item: item.name)),
        Counter((h.width, h.height) for h in headers),
        Counter(h.mode for h in headers),
        Counter(h.format for h in headers),
        full_scale,
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
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[tuple[T, R]]:
    """Map over threads, in order, with a bounded number of results in flight."""
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield from zip(batch, pool.map(function, batch), strict=True)


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


def _brightest(source: Source, entry: Entry) -> float:
    try:
        with opened(source, entry) as file:
            return decode.brightest(file, entry.name)
    except UnusableError:
        return 0.0  # decoding it again will say why


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
