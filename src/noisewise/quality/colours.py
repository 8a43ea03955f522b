"""Colours of a set of pictures: how many, how flat, and whether the set has a palette.

Pixel art has few colours in all, or few in a picture. Icons have flat areas: neighbours that are
exactly equal, also off the ground. Photographs have neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

ColourVerdict = Literal["one palette", "few a picture", "flat areas", "neither"]

MOST_IN_PALETTE = 256
_FEW, _FEW_GREYS = 64, 16  # colours a picture, at the median
_PIXELS_A_COLOUR = 8  # a picture of few pixels has few colours without being drawn with few
_USES = 16  # of each colour of a palette, on average: else a few tiny pictures have one by chance
_MOST_GREYS = 32  # of a palette of greys: any grey photograph has at most 256 levels
_FLAT = 0.08  # share of equal neighbours off the ground, from which areas are flat
_PIXELS = 20_000_000  # in which colours a picture and flat areas are counted
_BLOCK = 2**22  # pixels at once
_TRANSPARENT = 1 << 24  # the code of a pixel that is transparent


@dataclass(frozen=True)
class ColourCounts:
    """What was counted.

    Attributes:
        in_all: different colours of all pictures; what is transparent is none.
        median: different colours of a picture, at the median.
        low, high: the same for the 10 % with the fewest and the most.
        flat: share of neighbours (beside and below) that have exactly equal colours.
        flat_off_ground: the same without pairs of a picture's most frequent colour.
        transparent: whether any pixel has alpha 0.
        verdict: "one palette", "few a picture", "flat areas" or "neither".
    """

    in_all: int
    median: int
    low: int
    high: int
    flat: float
    flat_off_ground: float
    transparent: bool
    verdict: ColourVerdict

    @property
    def has_palette(self) -> bool:
        """Whether pictures are drawn with few colours: with one palette, or each with its own."""
        return self.verdict in ("one palette", "few a picture")

    def text(self) -> str:
        """One line for people.

        Example:
            >>> ColourCounts(54, 12, 6, 17, 0.71, 0.3, False, "one palette").text()
            '54 in all, 12 a picture (90 %: up to 17), 71 % of neighbours equal: one palette'
        """
        means = {
            "one palette": "one palette",
            "few a picture": "each picture has a palette of its own",
            "flat areas": "flat areas and no palette",
            "neither": "neither a palette nor flat areas",
        }
        return (
            f"{self.in_all:,} in all, {self.median:,} a picture (90 %: up to {self.high:,}), "
            f"{100 * self.flat:.0f} % of neighbours equal: {means[self.verdict]}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def count_colours(images: np.ndarray, blocks: Iterable[np.ndarray] | None = None) -> ColourCounts:
    """Count the colours of pictures, and say whether they have a palette.

    Colours in all are counted in every pixel; the rest in evenly spaced pictures, if there are
    many.

    Args:
        images: uint8 [n, height, width, channels] with 1, 3 or 4 channels, at least one picture.
        blocks: the same pictures in parts, where they are in a file and should not fill the memory.

    Raises:
        ValueError: if shape or type do not fit.

    Example:
        >>> sprites = np.zeros((40, 16, 16, 3), np.uint8)
        >>> sprites[:, 4:12, 4:12] = (200, 30, 30)
        >>> found = count_colours(sprites)
        >>> found.in_all, found.median, found.verdict
        (2, 2, 'one palette')
    """
    check_pictures(images)
    used = used_colours(images if blocks is None else blocks)
    pixels = images.shape[1] * images.shape[2]
    step = max(1, -(-len(images) * pixels // _PIXELS))
    counts, flat, off = [], [], []
    for picture in images[::step]:
        here = codes(picture)
        values, uses = np.unique(here, return_counts=True)
        counts.append(int((values != _TRANSPARENT).sum()))
        beside, without = _equal_neighbours(here, values[uses.argmax()])
        flat.append(beside)
        off.append(without)
    low, median, high = (int(x) for x in np.percentile(counts, (10, 50, 90)).round())
    few = min(_FEW if images.shape[3] > 1 else _FEW_GREYS, pixels // _PIXELS_A_COLOUR)
    most = MOST_IN_PALETTE if images.shape[3] > 1 else _MOST_GREYS
    in_all = int(used[:_TRANSPARENT].sum())
    off_ground = float(np.mean(off))
    verdict: ColourVerdict = "flat areas" if off_ground >= _FLAT else "neither"
    if in_all <= min(most, len(images) * pixels // _USES):
        verdict = "one palette"
    elif median <= few:
        verdict = "few a picture"
    transparent = bool(used[_TRANSPARENT])
    return ColourCounts(
        in_all, median, low, high, float(np.mean(flat)), off_ground, transparent, verdict
    )


def used_colours(images: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Which codes occur in any pixel, bool [2^24 + 1]; the last one is the transparent pixel.

    Args:
        images: as for `count_colours`, or the blocks.
    """
    used = np.zeros(_TRANSPARENT + 1, bool)
    for block in images if not isinstance(images, np.ndarray) else [images]:
        at_once = max(1, _BLOCK // (block.shape[1] * block.shape[2]))
        for start in range(0, len(block), at_once):
            used[codes(block[start : start + at_once])] = True
    return used


def codes(pixels: np.ndarray) -> np.ndarray:
    """One whole number a pixel, int64 [...]: 65536 red + 256 green + blue; alpha 0 is 2^24.

    Args:
        pixels: uint8 [..., channels] with 1, 3 or 4 channels.

    Example:
        >>> codes(np.array([[1, 2, 3, 9], [1, 2, 3, 0]], np.uint8)).tolist()
        [66051, 16777216]
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels[..., 0].astype(np.int64) * 0x010101
    red, green, blue = (pixels[..., at].astype(np.int64) for at in range(3))
    found = (red << 16) | (green << 8) | blue
    return found if channels == 3 else np.where(pixels[..., 3] == 0, _TRANSPARENT, found)


def colours_of_codes(found: np.ndarray) -> np.ndarray:
    """The colours of codes below 2^24, uint8 [n, 3].

    Example:
        >>> colours_of_codes(np.array([66051])).tolist()
        [[1, 2, 3]]
    """
    return np.stack([found >> 16, found >> 8 & 255, found & 255], 1).astype(np.uint8)


def check_pictures(images: np.ndarray) -> None:
    """Refuse what is not an array of pictures.

    Raises:
        ValueError: with the shape that is needed.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"Pictures are {images.dtype} {list(images.shape)}: give uint8 "
            "[n, height, width, channels] with 1, 3 or 4 channels."
        )
    if not images.size:
        raise ValueError("There is no picture to count colours in: give at least one.")


def _equal_neighbours(here: np.ndarray, ground: np.int64) -> tuple[float, float]:
    """Share of equal neighbours of a picture, codes [h, w]: of all pairs, and off the ground."""
    equal, pairs, of_ground = 0, 0, 0
    for first, second in ((here[:, 1:], here[:, :-1]), (here[1:], here[:-1])):
        same = first == second
        equal += int(same.sum())
        pairs += same.size
        of_ground += int((same & (first == ground)).sum())
    rest = pairs - of_ground
    return equal / max(pairs, 1), (equal - of_ground) / max(rest, 1)
