"""What is measured of a teacher of large pictures: its denoising, and its pictures.

* `over_wiener`: held-out error over that of a Wiener filter, at every noise level, of all bands and
  of the finest one. Above 1 a net knows less than the spectrum of the set.
* `pictures`: spread of the finest details, noise in flat corners, spread of mean colours, and the
  sliced Wasserstein distance of patches, coarse and fine, in units of that between real pictures.

The error alone misleads: nets that blur or weave a tartan can have a low one. Look at the grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shared import harness
from noisewise.nets.haar import haar
from noisewise.quality.wiener_filter import WienerFilter

LEVELS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)  # ln sigma
_CHUNK = 32
_PATCH, _DIRECTIONS, _PATCHES = 7, 128, 20_000
_CORNER = 8  # pixels: side of a corner


def over_wiener(
    denoiser: Callable[[Tensor, Tensor, slice], Tensor], train: Tensor, held_out: Tensor
) -> harness.Values:
    """Held-out squared error over the Wiener filter's, for each of `LEVELS`.

    Args:
        denoiser: ``D(x, sigma, at) -> x0``; at: which of the held-out pictures these are.
        train: pictures that the filter is fitted to, float [n, c, h, w].
        held_out: pictures that neither has seen.
    """
    linear = WienerFilter(train)
    generator = torch.Generator().manual_seed(5)
    whole, finest = [], []
    for level in LEVELS:
        sums = torch.zeros(4, dtype=torch.float64)
        for start in range(0, len(held_out), _CHUNK):
            at = slice(start, start + _CHUNK)
            x0 = held_out[at]
            sigma = torch.full((len(x0),), math.exp(level))
            x = x0 + math.exp(level) * torch.randn(x0.shape, generator=generator)
            with torch.no_grad():
                errors = [denoiser(x, sigma, at) - x0, linear(x, sigma) - x0]
            squares = [e.square().sum() for e in errors]
            squares += [haar(e)[1].square().sum() for e in errors]
            sums += torch.stack(squares).double()
        whole.append(round((sums[0] / sums[1]).item(), 4))
        finest.append(round((sums[2] / sums[3]).item(), 4))
    return {"over_wiener": whole, "finest_over_wiener": finest}


def pictures(drawn: Tensor, real: Tensor) -> harness.Values:
    """Compare drawn pictures with real ones, both float [n, c, h, w] in [-1, 1].

    Half of the real pictures is the reference, the other half tells how far real ones are.
    """
    count = min(len(drawn), len(real) // 2)
    drawn, first, second = drawn[:count], real[:count], real[count : 2 * count]
    found: harness.Values = {
        "finest_spread": _finest(drawn).std().item() / _finest(real).std().item(),
        "corner_sd": _corners(drawn).std((1, 2, 3)).median().item(),
        "corner_sd_real": _corners(real).std((1, 2, 3)).median().item(),
        "mean_colour_spread": _mean_spread(drawn) / _mean_spread(real),
    }
    for name, octave in (("coarse", 3), ("middle", 1), ("finest", 0)):
        own = _sliced(second, first, octave)
        found[f"sliced_{name}"] = _sliced(drawn, first, octave) / own
    return found


def _finest(images: Tensor) -> Tensor:
    """The finest band of a Laplacian pyramid."""
    return images - F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)


def _corners(images: Tensor) -> Tensor:
    return images[:, :, :_CORNER, :_CORNER]


def _mean_spread(images: Tensor) -> float:
    return images.mean((2, 3)).var(0).sum().sqrt().item()


def _sliced(a: Tensor, b: Tensor, octave: int) -> float:
    """Sliced Wasserstein distance of patches in one octave; the third and above: all below it."""
    for _ in range(octave):
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    if octave < 3:
        a, b = _finest(a), _finest(b)
    patches = [_patches(x) for x in (a, b)]
    count = min(len(p) for p in patches)
    generator = torch.Generator().manual_seed(0)
    shape = (patches[0].shape[1], _DIRECTIONS)
    directions = F.normalize(torch.randn(shape, generator=generator), dim=0)
    rows = [p[torch.randperm(len(p), generator=generator)[:count]] @ directions for p in patches]
    return (rows[0].sort(0)[0] - rows[1].sort(0)[0]).abs().mean().item()


def _patches(images: Tensor) -> Tensor:
    found = F.unfold(images, _PATCH, stride=_PATCH // 2).mT.flatten(0, 1)
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(1))
    return found[chosen[:_PATCHES]]
