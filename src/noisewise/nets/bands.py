"""The Haar bands of a set of pictures: how many levels a net needs, and how much each band varies.

Paper: Hoogeboom et al. 2023 (simple diffusion): coarse scales of large pictures need more noise.
Here it is measured: every band has its own standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from noisewise.nets.haar import haar

COARSEST = 32  # pixels: the coarsest band is no larger than this
_LEAST = 1e-3  # a band that does not vary at all still needs a scale


@dataclass(frozen=True)
class Bands:
    """Mean and bands of a set of pictures.

    Attributes:
        detail_sd: root mean square of the details of each level, finest first.
        coarse_sd: root mean square of the coarsest band, without the mean.
        mean: of each channel.
    """

    detail_sd: tuple[float, ...]
    coarse_sd: float
    mean: tuple[float, ...]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.detail_sd)


def levels_for(size: int) -> int:
    """Number of halvings until a picture has at most 32 pixels a side.

    Example:
        >>> levels_for(32), levels_for(96), levels_for(1024)
        (0, 2, 5)
    """
    levels = 0
    while size / 2**levels > COARSEST:
        levels += 1
    return levels


def measured_bands(images: Tensor, levels: int) -> Bands:
    """Measure the bands of pictures.

    Args:
        images: float [n, c, h, w] in [-1, 1]; the sides are multiples of 2^levels.
        levels: number of levels.

    Raises:
        ValueError: if a side cannot be halved so often.

    Example:
        >>> import torch
        >>> images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = measured_bands(images, 2)  # white noise is the same in every band
        >>> [round(sd, 1) for sd in (*found.detail_sd, found.coarse_sd)]
        [1.0, 1.0, 1.0]
    """
    mean = images.mean((0, 2, 3))
    low, found = images - mean.view(1, -1, 1, 1), []
    for _ in range(levels):
        low, details = haar(low)
        found.append(_root_mean_square(details))
    return Bands(tuple(found), _root_mean_square(low), tuple(round(m, 6) for m in mean.tolist()))


def usual_bands(levels: int, channels: int) -> Bands:
    """Bands of pictures that are as photographs are: each band has twice the next finer one.

    Example:
        >>> usual_bands(2, 1)
        Bands(detail_sd=(0.1, 0.2), coarse_sd=2.0, mean=(0.0,))
    """
    details = tuple(0.1 * 2**level for level in range(levels))
    return Bands(details, 0.5 * 2.0**levels, (0.0,) * channels)


def _root_mean_square(values: Tensor) -> float:
    return max(_LEAST, round(values.square().mean().sqrt().item(), 6))
