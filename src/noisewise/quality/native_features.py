"""Random features of pictures at their own size, so that fine detail of large pictures counts.

Papers: as `random_features`, whose filters these are, continued to as many scales as a picture has.

"noisewise-2" never changes; a different net gets a new version name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.features import check_images
from noisewise.quality.premultiplied import premultiplied
from noisewise.quality.random_features import computed, convolved, layers, opponent

VERSION = "noisewise-2"

_LARGEST = 128  # sides up to this are read as they are
_CROP = 64  # side of the parts that are read of larger pictures, in their own pixels
_CROPS = 4
_SMALLEST = 7  # pixels; the side of the last scale is at least this
_GRID, _LAST_GRID, _ENERGY_GRID = 4, 2, 2  # cells per side for means and energies
_BATCH, _PIXELS = 64, 2**22  # pictures, and pixels, in memory at once


class NativeFeatures:
    """Features of pictures in frozen random filters at their own size, "noisewise-2".

    Pictures are converted to luminance, two colour differences and opacity, and read at every scale
    (1, 1/2, 1/4, ...) down to a side of 7 to 13 pixels. At each scale two layers
    ``h1 = w1 * x`` (5x5) and ``h2 = w2 * relu(h1)`` (3x3) give for each filter ``mean(relu(h))``
    over 4 x 4 cells and ``sqrt(mean(h^2))`` over 2 x 2 cells. A picture with a side above 128 is
    reduced until its longer side is 128, and four parts of 64 x 64 of its own pixels are read
    beside it: the cost does not grow with the size. Grey is read as colour without colour. Colour
    counts by its opacity, so the colour of transparent pixels does not.

    Attributes:
        name: version of the net.

    Source: Lee et al. 2022, section 3 (random features); Portilla and Simoncelli 2000 (energies).

    Example:
        >>> features = NativeFeatures()
        >>> features(torch.zeros(2, 3, 28, 28)).shape, features(torch.zeros(2, 1, 64, 64)).shape
        (torch.Size([2, 1920]), torch.Size([2, 2720]))
    """

    name = VERSION

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures, without gradient.

        Args:
            images: float [n, c, h, w] in [-1, 1], c 1 (grey), 3 (RGB) or 4 (RGBA), h and w >= 8.

        Returns:
            float32 [n, d] on the device of the pictures; d depends on h and w alone.

        Raises:
            ValueError: if shape, dtype or number of channels do not fit.

        Example:
            >>> clear = torch.cat([torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), -1.0)], 1)
            >>> other = torch.cat([torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), -1.0)], 1)
            >>> torch.equal(NativeFeatures()(clear), NativeFeatures()(other))
            True
        """
        check_images(images, "images")
        batch = max(1, min(_BATCH, _PIXELS // (images.shape[2] * images.shape[3])))
        return computed(images, _features, batch)

    def __repr__(self) -> str:
        """Return a text with the name that results show."""
        return f"NativeFeatures({self.name!r})"


def _features(images: Tensor) -> Tensor:
    """Features [n, d] of one batch."""
    x = _shown(images)
    longer = max(x.shape[2:])
    if longer <= _LARGEST:
        return _of_whole(x)
    sides = [max(8, round(side * _LARGEST / longer)) for side in x.shape[2:]]
    whole = F.interpolate(x, size=sides, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([_of_whole(whole), *(_of_part(part) for part in _parts(x))], 1)


def _shown(images: Tensor) -> Tensor:
    """Luminance alone of grey pictures, else also two colour differences and opacity.

    Colour counts times opacity: what is transparent has no colour.
    """
    if images.shape[1] == 1:
        return images
    if images.shape[1] == 3:
        return opponent(images)[:, :3]
    return opponent(premultiplied(images))


def _parts(x: Tensor) -> list[Tensor]:
    """Parts in their own pixels, centred in the four quarters of the picture."""
    height, width = x.shape[2:]
    rows, columns = min(_CROP, height), min(_CROP, width)
    tops = [round((height - rows) * share) for share in (0.25, 0.75)]
    lefts = [round((width - columns) * share) for share in (0.25, 0.75)]
    return [x[:, :, t : t + rows, left : left + columns] for t in tops for left in lefts]


def _octaves(x: Tensor) -> int:
    side, octaves = min(x.shape[2:]), 1
    while side // 2 >= _SMALLEST:
        side //= 2
        octaves += 1
    return octaves


def _of_whole(x: Tensor) -> Tensor:
    """Means and energies at every scale, by place."""
    octaves = _octaves(x)
    grids = [_GRID] * (octaves - 1) + [_LAST_GRID]
    return _responses(x, grids, _ENERGY_GRID)


def _of_part(x: Tensor) -> Tensor:
    """Means and energies of the finest scales, for a part as a whole."""
    return _responses(x, [1] * min(3, _octaves(x)), 1)


def _responses(x: Tensor, grids: list[int], energy_grid: int) -> Tensor:
    found: list[Tensor] = []
    for octave, ((first, second), grid) in enumerate(zip(layers(len(grids)), grids, strict=True)):
        if octave:
            x = F.avg_pool2d(x, 2)
        h1 = _first(x, first.to(x.device))
        h2 = convolved(h1.relu(), second.to(x.device), stride=2 if octave == 0 else 1)
        for h in (h1, h2):
            energy = F.adaptive_avg_pool2d(h * h, energy_grid)
            means = F.adaptive_avg_pool2d(h.relu_(), grid)
            found += [means.flatten(1), energy.flatten(1).clamp_min(0).sqrt()]
    return torch.cat(found, 1)


def _first(x: Tensor, weight: Tensor) -> Tensor:
    """The first layer. A channel that x lacks is constant (colour 0, opacity 1), so it is free."""
    h = convolved(x, weight[:, : x.shape[1]].contiguous())
    return h if x.shape[1] == 4 else h + weight[:, 3].sum((1, 2)).view(1, -1, 1, 1)
