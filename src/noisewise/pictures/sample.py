"""Which pictures a plan is derived from, where there are too many to read for a look."""

from __future__ import annotations

import numpy as np

from noisewise.sizes import Size, num_pixels

_VALUES = 2**27  # pixels times channels: two or three seconds to read and measure
_FEWEST = 32


def sampled(count: int, size: Size) -> np.ndarray:
    """Indices of evenly spaced pictures; all of them where they are few or small.

    Args:
        count: number of pictures.
        size: of the pictures.

    Example:
        >>> len(sampled(6000, 28)), len(sampled(1500, 128)), sampled(90, 1024)[:3].tolist()
        (6000, 1500, [0, 2, 4])
    """
    most = max(_FEWEST, _VALUES // (3 * num_pixels(size)))
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)
