"""Features of pictures from a frozen random convolution net; nothing is downloaded.

Papers: Lee et al. 2022, "Demystifying randomly initialized networks for evaluating generative
models" (arXiv 2208.09218): untrained features rank generators much like trained ones; Portilla and
Simoncelli 2000, "A parametric texture model based on joint statistics of complex wavelet
coefficients": mean and energy of filter responses at every scale describe a picture.

The net "noisewise-1" never changes; a different net gets a new version name. It reads thumbnails of
32 pixels: use `native_features` for larger pictures. Means of deep responses hardly react to fine
noise and speckle. The local energies of the first filters do, since most of these filters ignore
constant areas. Therefore both are used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.features import check_images
from noisewise.quality.frozen_filters import NUM_FIRST, NUM_OCTAVES, NUM_SECOND, filters

VERSION = "noisewise-1"

_SIZE = 32
_GRIDS = (4, 4, 2)  # cells per side for the means, finest scale first
_ENERGY_GRID = 2
_BATCH = 128
# luminance, red - blue, green - magenta: grey pictures have only luminance
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))


class RandomConvFeatures:
    """Features of pictures in a frozen random convolution net, "noisewise-1".

    Pictures of any size are resampled to `size` (bicubic, antialiased), converted to luminance, two
    colour differences and opacity, and processed at three scales (`size`, /2, /4). At each scale
    two layers ``h1 = w1 * x`` (5x5) and ``h2 = w2 * relu(h1)`` (3x3) give for each filter:
    ``mean(relu(h))`` over 4x4 cells (2x2 at the last scale), for the layout, and
    ``sqrt(mean(h^2))`` over 2x2 cells, for the amount of detail. Two thirds of the first filters
    give 0 on a constant. Grey pictures are read as colour pictures without colour, and pictures
    with three channels as opaque.

    Attributes:
        name: version of the net, with the size if it is not 32.
        size: side to which pictures are resampled, in pixels.
        num_features: d, the length of a feature vector (1,920).

    Source: Lee et al. 2022, section 3 (random features); Portilla and Simoncelli 2000 (energies).

    Example:
        >>> features = RandomConvFeatures()
        >>> features(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 1920])
    """

    def __init__(self, size: int = _SIZE) -> None:
        """Make the net.

        Args:
            size: side in pixels, a multiple of 8, at least 16. Use 64 or more to include the finest
                detail of large pictures. Distances at different sizes cannot be compared.

        Raises:
            ValueError: if size is below 16 or not a multiple of 8.
        """
        if size < 16 or size % 8:
            raise ValueError(f"size is {size}: give a multiple of 8, at least 16.")
        self.size = size
        self.name = VERSION if size == _SIZE else f"{VERSION}@{size}"
        self._layers = layers(NUM_OCTAVES)
        cells = sum((NUM_FIRST + NUM_SECOND) * (g * g + _ENERGY_GRID**2) for g in _GRIDS)
        self.num_features = cells

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures, without gradient.

        Args:
            images: float [n, c, h, w] in [-1, 1], c 1 (grey), 3 (RGB) or 4 (RGBA), h and w >= 8.

        Returns:
            float32 [n, 1920] on the device of the pictures.

        Raises:
            ValueError: if shape, dtype or number of channels do not fit.

        Example:
            >>> grey = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
            >>> features = RandomConvFeatures()
            >>> torch.equal(features(grey), features(grey.expand(2, 3, 16, 16)))
            True
        """
        here = [(a.to(images.device), b.to(images.device)) for a, b in self._layers]
        return computed(images, lambda part: _batch(part, self.size, here), _BATCH)

    def __repr__(self) -> str:
        """Return a text with the name that results show."""
        return f"RandomConvFeatures({self.name!r})"


def computed(images: Tensor, features: Callable[[Tensor], Tensor], batch: int) -> Tensor:
    """Features of pictures, batch by batch, in full precision and without gradient.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        features: from float32 pictures of a batch to features [n, d].
        batch: pictures at once.

    Raises:
        ValueError: if these are no pictures, or not of 1, 3 or 4 channels.
    """
    check_images(images, "images")
    if images.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"Pictures have {images.shape[1]} channels: give 1 (grey), 3 (RGB) or 4 (RGBA), "
            "or use another extractor."
        )
    with (
        torch.no_grad(),
        torch.autocast(images.device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        return torch.cat([features(part.float()) for part in images.split(batch)])


def _batch(images: Tensor, size: int, banks: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Features [n, d] of one batch."""
    x = opponent(_resampled(images, size))
    found: list[Tensor] = []
    for octave, (first, second) in enumerate(banks):
        if octave:
            x = F.avg_pool2d(x, 2)
        h1 = convolved(x, first)
        h2 = convolved(F.relu(h1), second, stride=2 if octave == 0 else 1)
        for h in (h1, h2):
            found.append(F.adaptive_avg_pool2d(F.relu(h), _GRIDS[octave]).flatten(1))
            energy = F.adaptive_avg_pool2d(h * h, _ENERGY_GRID)
            found.append(energy.flatten(1).clamp_min(0).sqrt())
    return torch.cat(found, 1)


def convolved(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Convolve [n, c, h, w] with weight; pictures are mirrored at their edges."""
    margin = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (margin,) * 4, mode="reflect"), weight, stride=stride)


def _resampled(images: Tensor, size: int) -> Tensor:
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(
        images, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )


def opponent(images: Tensor) -> Tensor:
    """Luminance, two colour differences, opacity: [n, 4, h, w] from 1, 3 or 4 channels."""
    n, channels, height, width = images.shape
    colours = images.expand(-1, 3, -1, -1) if channels == 1 else images[:, :3]
    colour = torch.einsum("oc,nchw->nohw", images.new_tensor(_OPPONENT), colours)
    opacity = images[:, 3:] if channels == 4 else images.new_ones(n, 1, height, width)
    return torch.cat([colour, opacity], 1)


def layers(octaves: int) -> list[tuple[Tensor, Tensor]]:
    """The filters of the first scales, as tensors."""
    found = [filters(octave) for octave in range(octaves)]
    return [(torch.from_numpy(first), torch.from_numpy(second)) for first, second in found]
