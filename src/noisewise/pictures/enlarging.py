"""Which files are smaller than the pictures wanted of them: by how much, and what size fits.

Enlarging adds no detail, but a larger picture costs more to train on. A little of it is said in one
sentence; where the middle one of the files is enlarged 4 times, training refuses the size.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from noisewise.pictures.framing import MIN_SIDE, Frame, inside
from noisewise.pictures.headers import MIN_SIZE, usable
from noisewise.sizes import Size, size_of, written
from noisewise.sizes import sides as sides_of

REFUSED = 4  # times the median side


@dataclass(frozen=True)
class Sides:
    """Sides of the files before they are resized.

    A file's side is that of the part that becomes the picture; where pictures are not square, the
    short one. The picture's own short side divided by it is how many times the file is enlarged.

    Attributes:
        size: of the pictures that they become.
        counts: number of files of each side.
    """

    size: Size
    counts: Counter[int]

    @classmethod
    def of(cls, sizes: Counter[tuple[int, int]], block: int, frame: Frame) -> Sides:
        """Take the side that is enlarged most, or with "pad" the one that is enlarged least.

        For squares these are the short side and the long one.

        Args:
            sizes: number of files of each (width, height).
            block: how many times pixel art is enlarged; its original pixels count.
            frame: what the files become.

        Example:
            >>> Sides.of(Counter({(32, 48): 20}), 1, Frame(64)).median
            32
            >>> Sides.of(Counter({(48, 48): 20}), 1, Frame((32, 96))).median
            16
        """
        high, wide = sides_of(frame.size)
        measure, short = max if frame.crop == "pad" else min, min(high, wide)
        counts: Counter[int] = Counter()
        for size, count in sizes.items():
            # What has the size already stays as it is, and art of 2 pixels is none: see `fit`.
            reduced = inside(size, frame) != (wide, high) and min(size) // block >= MIN_SIDE
            width, height = (side // block if reduced else side for side in size)
            side = measure(width * short // wide, height * short // high)
            counts[max(side, short) if frame.own_scale else side] += count
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
            >>> print(Sides(64, Counter({16: 1, 48: 1, 64: 8})).enlarged(2, 10)[:76])
            2 of 10 pictures are enlarged, 1.3 to 4 times, which adds no detail; size 16
        """
        short = min(sides_of(self.size))
        small = [side for side in self.counts if side < short]
        if not small:  # the files say another thing than their headers
            return f"{count:,} of {total:,} pictures are enlarged, which adds no detail"
        low, high = (f"{short / side:.2g}" for side in (max(small), min(small)))
        times = low if low == high else f"{low} to {high}"
        way = f"size {written(fitting(self.size, min(small)))} enlarges none"
        if min(small) < MIN_SIZE:
            way = f"every size enlarges files below {MIN_SIZE} pixels"
        return (
            f"{count:,} of {total:,} pictures are enlarged, {times} times, which adds no detail; "
            f"{way}"
        )


def fitting(size: Size, side: int) -> Size:
    """The largest usable size of about this shape that enlarges no file of this side.

    Args:
        size: has the shape.
        side: of a file, see `Sides`.

    Example:
        >>> fitting(64, 50), fitting((32, 48), 20)
        (48, (20, 28))
    """
    short = min(sides_of(size))
    found = [side * own // short for own in sides_of(size)]
    return size_of(*(usable(own, max(found)) for own in found))


def too_large(size: Size, side: int) -> str:
    """Why a size is refused for files of this median side, and what to do; "" if it is not.

    Args:
        size: of the pictures wanted.
        side: of the files, see `Sides`; 0: unknown.

    Example:
        >>> too_large(1024, 256)[:56]
        'size 1024 is 4 times the median side of the files, 256 p'
        >>> too_large(128, 64)
        ''
        >>> too_large((128, 256), 32)[:61]
        'size 256x128 is 4 times the median side of the files (32 pixe'
    """
    short = min(sides_of(size))
    if not side or short < REFUSED * side or short <= MIN_SIZE:
        return ""
    pixels = f", {side} pixels" if isinstance(size, int) else f" ({side} pixels for its {short})"
    return (
        f"size {written(size)} is {short / side:.3g} times the median side of the files{pixels}: "
        "enlarging them so much adds no detail, and costs as much as if it did; use --size "
        f"{written(fitting(size, side))}, or add --allow-enlarging"
    )
