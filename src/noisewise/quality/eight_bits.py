"""Pictures in 8 bits: what is measured is what a file holds, never what a file would round away."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 10.0  # a picture in [-1, 1] with noise on it stays below; one in 0 to 255 does not


def levels(images: Tensor) -> Tensor:
    """Return the 8-bit levels of pictures: ``round((clamp(x, -1, 1) + 1) 255 / 2)``.

    Args:
        images: float of any shape in [-1, 1]; values outside are clamped. uint8 is returned as is.

    Returns:
        uint8, 0 to 255, of the same shape.

    Raises:
        ValueError: if images is neither float nor uint8, has a NaN, or is not in [-1, 1].

    Example:
        >>> levels(torch.tensor([-1.0, 0.0, 1.5]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    check_values(images, "Pictures")
    if images.dtype == torch.uint8:
        return images
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_values(images: Tensor, name: str) -> None:
    """Refuse what cannot be pictures; `name` is its name in the error message.

    Raises:
        ValueError: if images is no tensor, neither float nor uint8, has a NaN or an infinite value,
            or its values are far from [-1, 1].

    Example:
        >>> check_values(torch.zeros(1), "images")
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"{name}: a {type(images).__name__} is given; use torch.from_numpy(...).")
    if images.dtype == torch.uint8 or not images.numel():
        return
    if not images.is_floating_point():
        raise ValueError(
            f"{name}: the type is {images.dtype}; give floats in [-1, 1] (for integers from 0 to "
            "255: x / 127.5 - 1)."
        )
    low, high = (float(value) for value in images.detach().aminmax())
    if not low > -_LARGEST or not high < _LARGEST:  # also where one of them is NaN
        raise ValueError(
            f"{name}: values go from {low:g} to {high:g}; give floats in [-1, 1], without NaN (for "
            "values from 0 to 255: x / 127.5 - 1)."
        )


def rounded(images: Tensor) -> Tensor:
    """Return pictures as their 8-bit files would give them back, in [-1, 1].

    Args:
        images: float of any shape in [-1, 1], or uint8.

    Returns:
        float32 of the same shape, ``levels(x) / 127.5 - 1``.

    Raises:
        ValueError: as `levels`.

    Example:
        >>> rounded(torch.tensor([-1.0, 0.0, 0.001, 1.5]))
        tensor([-1.0000,  0.0039,  0.0039,  1.0000])
    """
    return levels(images).float() / 127.5 - 1
