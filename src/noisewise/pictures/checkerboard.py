"""Pictures with transparency for the eye: on a checkerboard, as editors of pictures show them."""

from __future__ import annotations

import numpy as np

LIGHT, DARK = 208, 168
"""Grey levels of the squares: white and black are both told from them."""
_SMALL, _LARGE = 4, 8  # pixels of a square; in pictures of 48 pixels and more it is larger
_FROM = 48


def on_checkerboard(images: np.ndarray) -> np.ndarray:
    """Lay pictures on a checkerboard; those without transparency are returned as they are.

    Args:
        images: straight, uint8 [n, height, width, channels].

    Returns:
        uint8 [n, height, width, 3] of RGBA.

    Example:
        >>> clear = np.zeros((1, 8, 8, 4), np.uint8)
        >>> on_checkerboard(clear)[0, 0, ::4, 0].tolist()
        [208, 168]
    """
    if images.shape[3] != 4:
        return images
    height, width = images.shape[1:3]
    square = _LARGE if max(height, width) >= _FROM else _SMALL
    rows, columns = (np.arange(side) // square for side in (height, width))
    board = np.where((rows[:, None] + columns) % 2, DARK, LIGHT)[None, :, :, None]
    opacity = images[..., 3:].astype(np.float32) / 255
    return np.rint(images[..., :3] * opacity + board * (1 - opacity)).astype(np.uint8)
