"""Masks that look like pictures: 8-bit values from 0 to 1, or to a few class numbers."""

from __future__ import annotations

import numpy as np

from noisewise.pictures import cache

BLACK = 7
"""Pictures without a value above this are black to the eye (values go to 255)."""
_DARK = 31


def brightest(images: np.ndarray) -> int:
    """The brightest value of uint8 pictures; it stops at the first block that is no mask.

    Example:
        >>> brightest(np.array([[0, 1], [1, 0]], np.uint8))
        1
    """
    found = 0
    for block in cache.in_blocks(images):
        found = max(found, int(block.max()))
        if found > _DARK:
            break
    return found


def about_dim(images: np.ndarray) -> str:
    """A note if all pictures are black or nearly so, and how to scale them; else "".

    Example:
        >>> about_dim(np.array([[0, 255]], np.uint8)), about_dim(np.array([[0, 9]], np.uint8))[:35]
        ('', 'no value is above 9 of 255, so all ')
    """
    highest = brightest(images)
    if not 0 < highest <= _DARK:
        return ""
    factor = 255 // highest
    what = "black: such values are masks or class numbers" if highest <= BLACK else "dark"
    return (
        f"no value is above {highest} of 255, so all pictures are {what}; multiply them by "
        f"{factor}, in files with Image.open(file).point(lambda v: v * {factor}).save(file) of "
        f"Pillow, in arrays with images * {factor}"
    )


def is_black(images: np.ndarray) -> bool:
    """Whether pictures are masks that are black to the eye; pictures that are all 0 are none."""
    return 0 < brightest(images) <= BLACK


def refuse_black(images: np.ndarray, source: str) -> None:
    """Refuse to train on masks that are black to the eye.

    Raises:
        ValueError: if no value is above `BLACK`, but not all are 0; it says how to scale.
    """
    if is_black(images):
        raise ValueError(f"{source}: {about_dim(images)}")
