"""How much of the pictures remains after averaging blocks, and how much their mean colours vary.

White noise keeps 1 / s^2 of its variance when s x s blocks are averaged; pictures keep nearly all.
So averaging raises the signal-to-noise ratio, and large pictures need more noise than small ones.
"""

from __future__ import annotations

import math

import numpy as np

from noisewise.pictures.alpha import premultiplied
from noisewise.pictures.cache import in_blocks

_VALUES = 2**23  # pixel values in memory as floats at once
_EXACT = (
    4  # blocks of up to so many pixels a side are averaged in whole numbers: many times as fast
)


def noise_curve(images: np.ndarray) -> dict[int, float]:
    """Measure v(s) / v(1): the share of the variance that remains after averaging s x s blocks.

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        One value for each s = 1, 2, 4, ... that leaves at least two blocks a side; the variance is
        about the mean of each channel. Pixels beside the last whole block are left out.

    Raises:
        ValueError: if all pixels are equal.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1), dtype=np.uint8)
        >>> {s: round(value, 2) for s, value in noise_curve(noise).items()}
        {1: 1.0, 2: 0.25, 4: 0.06, 8: 0.02}
    """
    n, *shape, channels = images.shape
    size = min(shape)
    scales = [2**k for k in range(size.bit_length()) if size // 2**k >= 2] or [1]
    total = {s: np.zeros(channels) for s in scales}
    square = {s: np.zeros(channels) for s in scales}
    for block in in_blocks(images, _rows(images)):
        level = premultiplied(block)
        for s in scales:
            if s > 1:
                level = _halved(level)
            share = 1 / (n * level.shape[1] * level.shape[2])
            if s <= _EXACT:  # sums of s x s pixels
                sums, squares = _moments(level)
                sums, squares = sums / s**2, squares / s**4
            else:  # their means
                level = level * np.float32(1 / 4 if s > 2 * _EXACT else 1 / s**2)
                sums, squares = _float_moments(level)
            total[s] += sums * share
            square[s] += squares * share
    variance = {s: float((square[s] - total[s] ** 2).sum()) for s in scales}
    if variance[1] <= 0:
        raise ValueError("all pixels are equal: give pictures with different pixels.")
    return {s: max(value, 0.0) / variance[1] for s, value in variance.items()}


def mean_colour_sd(images: np.ndarray) -> float:
    """Standard deviation of the pictures' mean colours, along the colour where it is largest.

    With channel means m, it is the root of the largest eigenvalue of Cov(m). Where channels vary
    together, as in dark and light pictures, it is larger than that of each channel.

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        The deviation on the scale [-1, 1] of the pixels; 0 for a single picture.

    Example:
        >>> both = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
        >>> round(mean_colour_sd(both), 4)  # -1 and 1, in three channels
        1.7321
    """
    sums = [
        premultiplied(block).sum(axis=1, dtype=np.uint32).sum(axis=1, dtype=np.float64)
        for block in in_blocks(images, _rows(images))
    ]
    colours = np.concatenate(sums) / math.prod(images.shape[1:3]) / 127.5
    apart = colours - colours.mean(axis=0)
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(apart.T @ apart / len(apart))[-1])))


def _halved(level: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 values, [n, h / 2, w / 2, c]; whole numbers get room for the sum."""
    height, width = (side // 2 * 2 for side in level.shape[1:3])
    level = level[:, :height, :width]
    if level.dtype == np.uint8:  # sums of 64 pixels have 14 bits
        level = level.astype(np.uint16)
    rows = level[:, 0::2] + level[:, 1::2]
    return rows[:, :, 0::2] + rows[:, :, 1::2]


def _moments(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of squares of whole numbers in each channel, exactly."""
    values = np.arange(256 * _EXACT**2)
    channels = [level[..., c].reshape(-1) for c in range(level.shape[3])]
    counts = [np.bincount(channel, minlength=len(values)) for channel in channels]
    return (
        np.array([count @ values for count in counts], np.float64),
        np.array([count @ values**2 for count in counts], np.float64),
    )


def _float_moments(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (
        level.sum(axis=(0, 1, 2), dtype=np.float64),
        np.square(level).sum(axis=(0, 1, 2), dtype=np.float64),
    )


def _rows(images: np.ndarray) -> int:
    return max(1, _VALUES // math.prod(images.shape[1:]))
