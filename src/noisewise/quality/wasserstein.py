"""Sliced Wasserstein distance at each level of a Laplacian pyramid: shows which scale is wrong.

Papers: Karras et al. 2018, "Progressive growing of GANs", section 5 (7x7 patches of each pyramid
level, random projections); Rabin et al. 2011, "Wasserstein barycenter and its application to
texture mixing" (slicing); Burt and Adelson 1983 (the pyramid).

Two differences from Karras et al.: both sets are centred and scaled by the statistics of the
reference (scaling each set by its own would hide wrong contrast or colour), and the sets may have
different sizes, because the one-dimensional distance is the exact integral between step functions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.features import check_images
from noisewise.quality.premultiplied import premultiplied

_PATCH = 7
_NUM_PATCHES = 16_384  # at most, per level and set
_PATCHES_PER_PICTURE = 32
_MOST_LEVELS = 4
_BLOCK = 16  # projections sorted at once


def sliced_wasserstein(
    a: Tensor,
    b: Tensor,
    levels: int | None = None,
    num_projections: int = 64,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Return the sliced Wasserstein-1 distance of 7x7 patches at each Laplacian level.

    ``mean_u W1(<u, P_a>, <u, P_b>)`` over random unit vectors u; P are patches in units of the
    reference's standard deviation at this level and channel. It is biased upwards (not 0 for two
    samples of one distribution): compare it with the value of real against real pictures at the
    same numbers.

    Args:
        a: pictures to judge, float [n, c, h, w] in [-1, 1].
        b: reference pictures, float [m, c, h, w], same c, h and w.
        levels: levels of the pyramid; None: at most 4, such that the coarsest has at least 7
            pixels.
        num_projections: number of random directions.
        generator: draws patches and directions; None: seed 0.

    Returns:
        One number per level, from coarse (layout, colour) to fine (edges, noise).

    Raises:
        ValueError: if shapes differ, or there are too many levels for the size.

    Source: Karras et al. 2018, section 5.

    Example:
        >>> real = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> coarse, fine = sliced_wasserstein(real + 0.5, real)
        >>> coarse > 0.5 > fine
        True
    """
    check_images(a, "a")
    check_images(b, "b")
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"Pictures have shapes {list(a.shape[1:])} and {list(b.shape[1:])}: "
            "give both sets the same size and number of channels."
        )
    if num_projections < 1:
        raise ValueError(f"num_projections is {num_projections}: give at least 1.")
    side = min(a.shape[2:])
    possible = _possible_levels(side)
    levels = min(possible, _MOST_LEVELS) if levels is None else levels
    if not 1 <= levels <= possible:
        raise ValueError(
            f"levels is {levels}: give 1 to {possible} for pictures with sides of {side} pixels."
        )
    generator = generator or torch.Generator().manual_seed(0)
    a, b = premultiplied(a), premultiplied(b)  # the colour of what is transparent counts nothing
    pairs = zip(laplacian_pyramid(a, levels), laplacian_pyramid(b, levels), strict=True)
    return [_level(x, y, num_projections, generator) for x, y in pairs]


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return band-pass pictures, coarse to fine; upsampled and added they give the pictures back.

    Args:
        images: float [n, c, h, w].
        levels: number of levels; each halves the side (rounded down).

    Source: Burt and Adelson 1983, with antialiased bilinear resampling.

    Example:
        >>> [tuple(x.shape[2:]) for x in laplacian_pyramid(torch.zeros(1, 1, 28, 28), 3)]
        [(7, 7), (14, 14), (28, 28)]
    """
    found: list[Tensor] = []
    with torch.no_grad():
        here = images.detach().float().cpu()
        for _ in range(levels - 1):
            half = (here.shape[2] // 2, here.shape[3] // 2)
            below = F.interpolate(here, size=half, mode="bilinear", antialias=True)
            found.append(here - upsampled(below, here))
            here = below
    return [here, *reversed(found)]


def upsampled(images: Tensor, like: Tensor) -> Tensor:
    """Resize a coarse level to the size of the next finer one (bilinear)."""
    return F.interpolate(images, size=like.shape[2:], mode="bilinear", align_corners=False)


def wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """Return the exact Wasserstein-1 distance of one-dimensional samples, row by row.

    ``integral |F_x(t) - F_y(t)| dt`` with the two empirical distribution functions.

    Args:
        x: samples of k distributions, [k, n].
        y: samples of k other distributions, [k, m].

    Returns:
        [k] distances, in the units of the samples.

    Source: Vallender 1974.

    Example:
        >>> wasserstein_1d(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 6.0, 5.0, 6.0]]))
        tensor([5.])
    """
    mass = torch.cat([torch.full_like(x, 1 / x.shape[1]), torch.full_like(y, -1 / y.shape[1])], 1)
    values, order = torch.cat([x, y], 1).sort(1)
    gap = mass.double().gather(1, order).cumsum(1)[:, :-1].abs()
    return (gap * values.diff(dim=1)).sum(1).to(x.dtype)


def _possible_levels(side: int) -> int:
    levels = 1
    while side // 2 >= _PATCH:
        side //= 2
        levels += 1
    return levels


def _level(x: Tensor, y: Tensor, num_projections: int, generator: torch.Generator) -> float:
    """Sliced Wasserstein distance of one level."""
    mean = y.mean((0, 2, 3), keepdim=True)
    deviation = (y - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
    deviation = deviation.clamp_min(0.01 * float(deviation.max())).clamp_min(1e-4)
    patches_x = _patches((x - mean) / deviation, generator)
    patches_y = _patches((y - mean) / deviation, generator)
    directions = torch.randn(patches_x.shape[1], num_projections, generator=generator)
    directions /= directions.norm(dim=0, keepdim=True)
    found = [
        wasserstein_1d((patches_x @ part).T.contiguous(), (patches_y @ part).T.contiguous())
        for part in directions.split(_BLOCK, 1)
    ]
    return float(torch.cat(found).mean())


def _patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """Patches at random places, [number of patches, c * 49]."""
    n, channels, height, width = images.shape
    chosen = torch.arange(n)
    if n > _NUM_PATCHES:
        chosen = torch.randperm(n, generator=generator)[:_NUM_PATCHES]
    each = max(1, min(_PATCHES_PER_PICTURE, _NUM_PATCHES // len(chosen)))
    tops = torch.randint(height - _PATCH + 1, (len(chosen), each), generator=generator)
    lefts = torch.randint(width - _PATCH + 1, (len(chosen), each), generator=generator)
    offsets = torch.arange(_PATCH)
    rows = (tops[..., None] + offsets)[..., :, None]
    columns = (lefts[..., None] + offsets)[..., None, :]
    found = images.permute(0, 2, 3, 1)[chosen[:, None, None, None], rows, columns]
    return found.reshape(-1, _PATCH * _PATCH * channels)
