"""Pictures with more than 8 bits per value: find their range, and convert them to uint8.

One picture alone does not tell which value is white: 12-bit values are stored in 16-bit files, and
floats may end at 1 or at 255 or start at -1. So the darkest and the brightest value of all pictures
of the set decide, and bright pictures stay brighter than dark ones. 16-bit, 32-bit and float
pictures each have their own range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

_BLOCK_PIXELS = 2**20  # converted at a time
NEARLY = 1e-3
"""Share of the range by which floats may exceed it, after resizing or compression."""

SIXTEEN, LONG, FLOAT = "16-bit", "32-bit", "float"
KINDS = (SIXTEEN, LONG, FLOAT)


class NotFiniteError(ValueError):
    """A picture holds NaN or infinite values."""


@dataclass(frozen=True)
class Range:
    """The values that become black and white; values outside are clipped."""

    low: float
    high: float


_USUAL = {SIXTEEN: Range(0, 65535), LONG: Range(0, 65535), FLOAT: Range(0, 1)}


@dataclass(frozen=True)
class Ranges:
    """The range of each depth (16-bit, 32-bit, float) in a set; the usual one if none was measured.

    Example:
        >>> Ranges().of("F")
        Range(low=0, high=1)
    """

    known: Mapping[str, Range] = field(default_factory=dict)

    def of(self, mode: str) -> Range:
        """Return the range for pictures of one of Pillow's modes."""
        kind = kind_of(mode)
        return self.known.get(kind, _USUAL[kind])


@dataclass(frozen=True)
class Extent:
    """The lowest and the highest value of one picture, and its depth (one of `KINDS`)."""

    kind: str
    low: float
    high: float


def is_deep(mode: str) -> bool:
    """Whether pictures of this mode have more than 8 bits per value."""
    return mode[0] in "IF"


def kind_of(mode: str) -> str:
    """Return the depth of one of Pillow's modes with more than 8 bits: one of `KINDS`.

    Example:
        >>> kind_of("I;16B"), kind_of("I"), kind_of("F")
        ('16-bit', '32-bit', 'float')
    """
    return FLOAT if mode[0] == "F" else SIXTEEN if mode.startswith("I;16") else LONG


def extent(image: Image.Image) -> Extent:
    """Measure the lowest and the highest value of one picture with more than 8 bits.

    Raises:
        NotFiniteError: if a value is NaN or infinite.
    """
    low, high = np.inf, -np.inf
    for _, values in _bands(image):
        if not np.isfinite(values).all():
            raise NotFiniteError("the picture holds NaN or infinite values")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return Extent(kind_of(image.mode), low, high)


def ranges(extents: Iterable[Extent]) -> Ranges:
    """Find one range for all pictures of a depth.

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
    if kind == FLOAT and is_signed(low, high):
        return Range(-1.0, 1.0)
    nearly = NEARLY if kind == FLOAT else 0.0
    scale = declared_range(high, nearly)
    if low >= 0 or (low >= -nearly * scale and (scale == 1 or high >= scale / 2)):
        return Range(0.0, scale)
    return Range(low, high if high > low else low + max(1.0, abs(low)))


def is_signed(low: float, high: float) -> bool:
    """Whether floats from low to high go from -1 to 1, and not from 0 to 1.

    Example:
        >>> is_signed(-0.9, 0.5), is_signed(-0.0008, 1.0008), is_signed(0.0, 1.0)
        (True, False, False)
    """
    return -1 - NEARLY <= low < -NEARLY and high <= 1 + NEARLY


def declared_range(largest: float, nearly: float = 0.0) -> float:
    """Return the value of white, given the brightest value of a set: 1 or 2^k - 1.

    Args:
        largest: the brightest value.
        nearly: share by which it may exceed white.

    Example:
        >>> declared_range(3987.0), declared_range(65000.0), declared_range(0.7)
        (4095.0, 65535.0, 1.0)
    """
    whites = (2.0**k - 1 for k in (1, 8, 10, 12, 14, 16))
    return next((white for white in whites if largest <= white * (1 + nearly)), largest)


def to_eight_bits(image: Image.Image, scale: Range) -> Image.Image:
    """Scale a picture to 8 bits, some rows at a time, so that no large copy of it is needed.

    Returns:
        A picture of mode L: 255 (x - low) / (high - low), rounded and clipped to 0 ... 255.

    Raises:
        NotFiniteError: if a value is NaN or infinite.
    """
    pixels = np.empty((image.height, image.width), np.uint8)
    factor = np.float32(255.0 / (scale.high - scale.low))
    for top, values in _bands(image):
        level = values.astype(np.float32)
        if not np.isfinite(level).all():
            raise NotFiniteError("the picture holds NaN or infinite values")
        level -= np.float32(scale.low)
        level *= factor
        np.rint(np.clip(level, 0.0, 255.0, out=level), out=level)
        pixels[top : top + len(level)] = level
    return Image.fromarray(pixels)


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Yield some rows at a time: the number of the first row, and the values."""
    rows = max(1, _BLOCK_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield top, np.asarray(image.crop(box))
