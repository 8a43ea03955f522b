"""Which files are smaller than the pictures wanted of them: by how much, and what size fits.

Enlarging adds no detail, but a larger picture costs more to train on. A little of it is said in one
sentence; where the middle one of the files is enlarged 4 times, training refuses the size.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from noisewise.pictures.framing import MIN_SIDE, Frame
from noisewise.pictures.headers import MIN_SIZE, usable

REFUSED = 4  # times the median side


@dataclass(frozen=True)
class Sides:
    """Sides of the files before they are resized.

    Attributes:
        size: side of the pictures that they become, in pixels.
        counts: number of files of each side.
    """

    size: int
    counts: Counter[int]

    @classmethod
    def of(cls, sizes: Counter[tuple[int, int]], block: int, frame: Frame) -> Sides:
        """Take the side that becomes the picture's: the short one, or with "pad" the long one.

        Args:
            sizes: number of files of each (width, height).
            block: how many times pixel art is enlarged; its original pixels count.
            frame: what the files become.

        Example:
            >>> Sides.of(Counter({(32, 48): 20}), 1, Frame(64)).median
            32
        """
        measure = max if frame.crop == "pad" else min
        counts: Counter[int] = Counter()
        for size, count in sizes.items():
            # What has the size already stays as it is, and art of 2 pixels is none: see `fit`.
            reduced = min(size) != frame.size and min(size) // block >= MIN_SIDE
            counts[measure(size) // block if reduced else measure(size)] += count
        return cls(frame.size, counts)

    @property
    def median(self) -> int:
        """The side of the middle one."""
        return int(statistics.median(self.counts.elements()))

    def enlarged(self, count: int, total: int) -> str:
        """How many pictures were enlarged, by how much, and what size needs none; one sentence.

        Args:
            count: pictures that were enlarged.
            total: all pictures.

        Example:
            >>> print(Sides(64, Counter({16: 1, 48: 1, 64: 8})).enlarged(2, 10)[:77])
            2 of 10 pictures are enlarged, 1.3 to 4 times, which adds no detail; size 16
        """
        small = [side for side in self.counts if side < self.size]
        if not small:  # the files say another thing than their headers
            return f"{count:,} of {total:,} pictures are enlarged, which adds no detail"
        low, high = (f"{self.size / side:.2g}" for side in (max(small), min(small)))
        times = low if low == high else f"{low} to {high}"
        way = f"size {usable(min(small))} enlarges none"
        if min(small) < MIN_SIZE:
            way = f"every size enlarges files below {MIN_SIZE} pixels"
        return (
            f"{count:,} of {total:,} pictures are enlarged, {times} times, which adds no detail; "
            f"{way}"
        )


def too_large(size: int, side: int) -> str:
    """Why a size is refused for files of this median side, and what to do; "" if it is not.

    Example:
        >>> too_large(1024, 256)[:56]
        'size 1024 is 4 times the median side of the files, 256 p'
        >>> too_large(128, 64)
        ''
    """
    if not side or size < REFUSED * side or size <= MIN_SIZE:
        return ""
    return (
        f"size {size} is {size / side:.3g} times the median side of the files, {side} pixels: "
        "enlarging them so much adds no detail, and costs as much as if it did; use --size "
        f"{usable(side)}, or add --allow-enlarging"
    )
