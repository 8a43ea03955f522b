"""Pictures in 8 bits: what is measured is what a file holds, never what a file would round away."""

from __future__ import annotations

import torch
from torch import Tensor


def levels(images: Tensor) -> Tensor:
    """Return the 8-bit levels of pictures: ``round((clamp(x, -1, 1) + 1) 255 / 2)``.

    Args:
        images: float of any shape in [-1, 1]; values outside are clamped. uint8 is returned as is.

    Returns:
        uint8, 0 to 255, of the same shape.

    Raises:
        ValueError: if images is neither float nor uint8.

    Example:
        >>> levels(torch.tensor([-1.0, 0.0, 1.5]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"Pictures have type {images.dtype}: give floats in [-1, 1], or uint8.")
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def rounded(images: Tensor) -> Tensor:
    """Return pictures as their 8-bit files would give them back, in [-1, 1].

    Args:
        images: float of any shape in [-1, 1], or uint8.

    Returns:
        float32 of the same shape, ``levels(x) / 127.5 - 1``.

    Raises:
        ValueError: if images is neither float nor uint8.

    Example:
        >>> rounded(torch.tensor([-1.0, 0.0, 0.001, 1.5]))
        tensor([-1.0000,  0.0039,  0.0039,  1.0000])
    """
    return levels(images).float() / 127.5 - 1
