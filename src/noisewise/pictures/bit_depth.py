"""Pictures with more than 8 bits: the range that a set speaks for, and its values as uint8.

A picture alone does not say what its white is: 12 bits come in files of 16, floats run to 1, to 255
or from -1. The brightest and the darkest value of all pictures of a kind say it, so that pictures
of one set keep their brightness to each other. Whole numbers and floats are on scales of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

_BLOCK_PIXELS = 2**20  # converted at a time
_NEARLY = 1e-3  # what resizing and compression add to -1 and 1

SIXTEEN, LONG, FLOAT = "16-bit", "32-bit", "float"
KINDS = (SIXTEEN, LONG, FLOAT)


class NotFiniteError(ValueError):
    """A picture holds infinities, or values that are no numbers."""


@dataclass(frozen=True)
class Range:
    """Values that become black and white; what lies outside is cut off."""

    low: float
    high: float


_USUAL = {SIXTEEN: Range(0, 65535), LONG: Range(0, 65535), FLOAT: Range(0, 1)}


@dataclass(frozen=True)
class Ranges:
    """The range of each kind of deep picture in a set; the usual one where nothing is known.

    Example:
        >>> Ranges().of("F")
        Range(low=0, high=1)
    """

    known: Mapping[str, Range] = field(default_factory=dict)

    def of(self, mode: str) -> Range:
        """The range for pictures of one of Pillow's modes."""
        kind = kind_of(mode)
        return self.known.get(kind, _USUAL[kind])


@dataclass(frozen=True)
class Extent:
    """The lowest and the highest value of one picture, and its kind."""

    kind: str
    low: float
    high: float


def is_deep(mode: str) -> bool:
    """Whether pictures of this mode hold more than 8 bits a value."""
    return mode[0] in "IF"


def kind_of(mode: str) -> str:
    """Return the kind of deep picture that one of Pillow's modes is.

    Example:
        >>> kind_of("I;16B"), kind_of("I"), kind_of("F")
        ('16-bit', '32-bit', 'float')
    """
    return FLOAT if mode[0] == "F" else SIXTEEN if mode.startswith("I;16") else LONG


def extent(image: Image.Image) -> Extent:
    """Measure one deep picture.

    Raises:
        NotFiniteError: if a value is infinite or no number.
    """
    low, high = np.inf, -np.inf
    for _, values in _bands(image):
        if not np.isfinite(values).all():
            raise NotFiniteError("it holds values that are not finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return Extent(kind_of(image.mode), low, high)


def ranges(extents: Iterable[Extent]) -> Ranges:
    """Find the range that all pictures of a kind speak for together.

    Example:
        >>> found = ranges([Extent("float", -0.9, 0.5), Extent("16-bit", 10.0, 3987.0)])
        >>> found.of("F"), found.of("I;16")
        (Range(low=-1.0, high=1.0), Range(low=0.0, high=4095.0))
    """
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    for found in extents:
        lows[found.kind] = min(found.low, lows.get(found.kind, np.inf))
        highs[found.kind] = max(found.high, highs.get(found.kind, -np.inf))
    return Ranges({kind: _declared(kind, lows[kind], highs[kind]) for kind in lows})


def _declared(kind: str, low: float, high: float) -> Range:
    if kind == FLOAT and low >= -1 - _NEARLY and high <= 1 + _NEARLY:
        return Range(-1.0 if low < 0 else 0.0, 1.0)
    if low >= 0:
        return Range(0.0, declared_range(high))
    return Range(low, high if high > low else low + max(1.0, abs(low)))


def declared_range(largest: float) -> float:
    """Return the full scale that the brightest value of a set speaks for: 1 or 2^k - 1.

    Example:
        >>> declared_range(3987.0), declared_range(65000.0), declared_range(0.7)
        (4095.0, 65535.0, 1.0)
    """
    if largest <= 1.0:
        return 1.0
    return next((2.0**k - 1 for k in (8, 10, 12, 14, 16) if largest <= 2**k - 1), largest)


def to_eight_bits(image: Image.Image, scale: Range) -> Image.Image:
    """Scale a deep picture to 8 bits, some rows at a time: large ones are held once, not thrice.

    Returns:
        A picture of mode L: 255 (x - low) / (high - low), rounded.

    Raises:
        NotFiniteError: if a value is infinite or no number.
    """
    pixels = np.empty((image.height, image.width), np.uint8)
    factor = np.float32(255.0 / (scale.high - scale.low))
    for top, values in _bands(image):
        level = values.astype(np.float32)
        if not np.isfinite(level).all():
            raise NotFiniteError("it holds values that are not finite")
        level -= np.float32(scale.low)
        level *= factor
        np.rint(np.clip(level, 0.0, 255.0, out=level), out=level)
        pixels[top : top + len(level)] = level
    return Image.fromarray(pixels)


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The values of some rows at a time, each with the number of its first row."""
    rows = max(1, _BLOCK_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield top, np.asarray(image.crop(box))
