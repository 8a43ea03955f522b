"""The Haar bands of a set of pictures: how many levels a net needs, and how much each band varies.

Paper: Hoogeboom et al. 2023 (simple diffusion): coarse scales of large pictures need more noise.
Here it is measured: every band has its own standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.nets.haar import haar
from noisewise.nets.spectral_filter import measured_power, radii
from noisewise.sizes import Size, mean_side

COARSEST = 32  # pixels: the coarsest band has no more of them than a square of this side
_LEAST = 1e-3  # a band that does not vary at all still needs a scale


@dataclass(frozen=True)
class Bands:
    """Mean, axes of colour and bands of a set of pictures.

    Attributes:
        detail_sd: root mean square of the details of each level, finest first, in each colour.
        coarse_sd: root mean square of the coarsest band, without the mean, in each colour.
        power: of each colour at each of `noisewise.nets.spectral_filter.radii`.
        colours: the axes: of fine details, from the colour that varies most to the least.
        mean: of each channel.
    """

    detail_sd: tuple[tuple[float, ...], ...]
    coarse_sd: tuple[float, ...]
    power: tuple[tuple[float, ...], ...]
    colours: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.detail_sd)


def levels_for(size: Size) -> int:
    """Number of halvings until a picture has at most as many pixels as a square of 32.

    Example:
        >>> levels_for(32), levels_for(96), levels_for(1024), levels_for((64, 96))
        (0, 2, 5, 2)
    """
    levels = 0
    while mean_side(size) / 2**levels > COARSEST:
        levels += 1
    return levels


def overall(deviations: Sequence[float]) -> float:
    """One standard deviation for all colours: the root of the mean square.

    Example:
        >>> overall([3.0, 4.0, 0.0])
        2.886751345948129
    """
    return math.sqrt(sum(sd * sd for sd in deviations) / len(deviations))


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
        >>> [round(sd[0], 1) for sd in (*found.detail_sd, found.coarse_sd)]
        [1.0, 1.0, 1.0]
    """
    mean = images.mean((0, 2, 3))
    centred = images - mean.view(1, -1, 1, 1)
    axes = _colours(haar(centred)[1] if levels else centred, len(mean))
    centred = torch.einsum("dc,nchw->ndhw", axes, centred)
    low, found = centred, []
    for _ in range(levels):
        low, details = haar(low)
        found.append(_root_mean_squares(details.unflatten(1, (3, len(mean)))))
    return Bands(
        tuple(found),
        _root_mean_squares(low[:, None]),
        measured_power(centred),
        tuple(tuple(round(v, 6) for v in row) for row in axes.tolist()),
        tuple(round(m, 6) for m in mean.tolist()),
    )


def _colours(details: Tensor, channels: int) -> Tensor:
    """Principal axes of the colours of details, rows from strong to weak."""
    values = details.unflatten(1, (-1, channels)).transpose(1, 2).transpose(0, 1).flatten(1)
    return torch.linalg.eigh(values @ values.mT).eigenvectors.flip(1).mT


def usual_bands(size: Size, levels: int, channels: int) -> Bands:
    """Bands of pictures that are as photographs are: each band has twice the next finer one.

    Example:
        >>> usual_bands(128, 2, 1).detail_sd
        ((0.1,), (0.2,))
    """
    details = tuple((0.1 * 2**level,) * channels for level in range(levels))
    # A power of 1 / radius^2 doubles the deviation from band to band; 0.1 in the finest.
    power = tuple((0.075 * mean_side(size) / radius) ** 2 for radius in radii(size).tolist())
    axes = tuple(tuple(row) for row in torch.eye(channels).tolist())
    coarse = (0.5 * 2.0**levels,) * channels
    return Bands(details, coarse, (power,) * channels, axes, (0.0,) * channels)


def _root_mean_squares(values: Tensor) -> tuple[float, ...]:
    """Of each colour of bands [n, bands, c, h, w]."""
    found = values.square().mean((0, 1, 3, 4)).sqrt().tolist()
    return tuple(max(_LEAST, round(value, 6)) for value in found)
