"""Which shapes the pictures of a set have, and a size that keeps the shape of most of them."""

from __future__ import annotations

import math
import statistics
from collections import Counter

from noisewise.pictures.request import Crop
from noisewise.sizes import MIN_SIZE, SIZE_STEP, Size, size_of

_ALIKE = 0.05  # of the logarithm of width / height: shapes nearer than this are the same
_LONGEST = 4.0  # times as long as high, or as high as long: longer strips are not proposed


def count_shapes(sizes: Counter[tuple[int, int]]) -> dict[str, int]:
    """Number of pictures that are square, wide and tall, the most frequent first.

    Args:
        sizes: number of pictures of each (width, height).

    Example:
        >>> count_shapes(Counter({(48, 32): 5, (90, 60): 2, (32, 32): 3}))
        {'wide': 7, 'square': 3}
    """
    found: Counter[str] = Counter()
    for (width, height), count in sizes.items():
        found["square" if width == height else "wide" if width > height else "tall"] += count
    return dict(found.most_common())


def size_in_shape(sizes: Counter[tuple[int, int]], size: Size, crop: Crop) -> Size | None:
    """A size as large as the square, but in the shape of most pictures.

    The short side stays, as what is cut then comes back; with "pad" the long side, as the border
    then goes.

    Args:
        sizes: number of pictures of each (width, height).
        size: that training would use.
        crop: how pictures of another shape are fitted.

    Returns:
        None if the size is not a square, or at most half of the pictures share one shape, or that
        is nearly square or longer than four times its width.

    Example:
        >>> size_in_shape(Counter({(96, 64): 9, (40, 40): 5}), 32, "centre")
        (32, 48)
    """
    if not isinstance(size, int) or not sizes:
        return None
    logs = Counter[float]()
    for (width, height), count in sizes.items():
        logs[math.log(width / height)] += count
    middle = statistics.median_low(logs.elements())
    alike = sum(count for log, count in logs.items() if abs(log - middle) < _ALIKE)
    ratio = math.exp(abs(middle))
    if 2 * alike <= sizes.total() or ratio > _LONGEST:
        return None
    other = size / ratio if crop == "pad" else size * ratio
    other = max(MIN_SIZE, SIZE_STEP * round(other / SIZE_STEP))
    short, long = sorted((size, other))
    found = size_of(short, long) if middle > 0 else size_of(long, short)
    return None if found == size else found
