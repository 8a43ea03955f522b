"""Oklab: a space of colours in which equal distances look about equally large.

Source: Bjorn Ottosson 2020, "A perceptual color space for image processing", with its corrected
matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def oklab(pixels: Tensor, exact: bool = True) -> Tensor:
    """Return the lightness L, and a and b, of colours.

    Args:
        pixels: uint8 [..., 3], sRGB; or [..., 1], grey.
        exact: compute in float64, where the device has it: then equal colours have equal values
            wherever they stand. In float32 the last bit differs between places of a tensor.

    Returns:
        float32 [..., 3]; L is from 0 to 1, and 0.02 is a difference that is just seen.

    Example:
        >>> white, red = oklab(torch.tensor([[255, 255, 255], [255, 0, 0]], dtype=torch.uint8))
        >>> [round(float(x), 3) + 0.0 for x in (*white, *red)]
        [1.0, 0.0, 0.0, 0.628, 0.225, 0.126]
    """
    if pixels.shape[-1] == 1:
        pixels = pixels.expand(*pixels.shape[:-1], 3)
    dtype = torch.float64 if exact and pixels.device.type != "mps" else torch.float32
    linear = _linear(pixels.device, dtype)[pixels.long()]
    cones = (linear @ linear.new_tensor(_TO_CONES).T).clamp_min(0).pow(1 / 3)
    return (cones @ cones.new_tensor(_TO_LAB).T).float()


def _linear(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Light of each of the 256 levels, from 0 to 1, as sRGB defines it."""
    level = torch.arange(256, device=device, dtype=dtype) / 255
    return torch.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
