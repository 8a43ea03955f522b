"""The colour of the gaps on a sheet of pictures: one that the pictures' own edges do not have."""

from __future__ import annotations

import numpy as np

_LEVELS = (255, 128, 0)  # the first one is taken if it serves as well as the others
_NEAR = 40  # levels: an edge this near to the gap cannot be told from it


def gap_level(images: np.ndarray) -> int:
    """Return the grey level that the fewest pixels at the edges of these pictures are near to.

    Args:
        images: uint8 [n, height, width, channels], 1, 3 or 4 channels, n >= 1.

    Example:
        >>> white, dark = np.full((4, 8, 8, 3), 250, np.uint8), np.zeros((4, 8, 8, 1), np.uint8)
        >>> gap_level(white), gap_level(dark), gap_level(np.concatenate([white[..., :1], dark]))
        (128, 255, 128)
    """
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    pixels = np.concatenate([e.reshape(-1, e.shape[-1]) for e in edges]).astype(np.float32)
    if pixels.shape[1] == 4:  # transparent pixels show a white page
        alpha = pixels[:, 3:] / 255
        pixels = pixels[:, :3] * alpha + 255 * (1 - alpha)
    near = [(np.abs(pixels - level).max(axis=1) <= _NEAR).mean() for level in _LEVELS]
    return _LEVELS[int(np.argmin(near))]
