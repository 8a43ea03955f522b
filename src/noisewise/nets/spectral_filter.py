"""A Wiener filter that knows how power falls with frequency, the same in every direction.

Paper: Wiener 1949. As the skip of a net it is where learning starts: details are at once as good as
the spectrum of the set allows. A filter that knows directions too errs less at first, but leaves
mirror images and weaves in pictures; one number for each distance from zero does not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from noisewise.quality.wiener_filter import cosines

RADII = 32  # frequencies at which the power is noted, from 1 to the corner
_GROUPS = 64  # parts of a band's power that the expected error is summed over


def radii(size: int) -> Tensor:
    """Frequencies at which the power is noted, half waves across the picture, [RADII].

    Example:
        >>> radii(64)[[0, -1]].round().tolist()
        [1.0, 91.0]
    """
    return torch.logspace(0, math.log10(size * math.sqrt(2)), RADII)


def measured_power(images: Tensor) -> tuple[tuple[float, ...], ...]:
    """Mean power of each channel at each of `radii`, [c][RADII] numbers.

    Args:
        images: float [n, c, size, size], without their mean.

    Example:
        >>> noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> abs(sum(measured_power(noise)[0]) / RADII - 1) < 0.1  # white noise of variance 1
        True
    """
    count, channels, size, _ = images.shape
    power, transform = torch.zeros(channels, size, size), cosines(size)
    for part in images.split(32):
        power += (transform @ part @ transform.mT).square().sum(0)
    distance = _distances(size).flatten()
    nearest = (distance.clamp_min(1)[:, None].log() - radii(size).log()).abs().argmin(1)
    return tuple(_by_radius(own / count, nearest) for own in power)


def _by_radius(power: Tensor, nearest: Tensor) -> tuple[float, ...]:
    """Mean of a map [size, size] at each of `radii`; the nearest one of each place is given."""
    power = power.flatten()
    total = torch.zeros(RADII).index_add_(0, nearest, power)
    count = torch.zeros(RADII).index_add_(0, nearest, torch.ones_like(power))
    found = (total / count.clamp_min(1)).tolist()
    for at in range(RADII):  # low frequencies are whole numbers: some radii have none
        if not count[at]:
            found[at] = found[at - 1] if at else float(power[0])
    return tuple(max(1e-8, float(f"{value:.4g}")) for value in found)


class SpectralFilter(nn.Module):
    """``W(x, sigma) = S / (S + sigma^2) x`` at every frequency, with S by distance from zero.

    Args:
        size: side of the whole pictures, in pixels.
        power: S of each channel at each of `radii` of this size.
        levels: low-pass bands of side size / 2^k, k up to this, can be filtered too: in the
            orthonormal Haar transform a frequency keeps its power.

    Example:
        >>> flat = SpectralFilter(8, ((1.0,) * RADII,), levels=1)  # white, of variance 1
        >>> flat(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 1, 1))[0, 0, 0, 0].item()
        0.5
    """

    def __init__(self, size: int, power: tuple[tuple[float, ...], ...], levels: int) -> None:
        """Prepare the power at every frequency of every band."""
        super().__init__()
        known, values = radii(size).log(), [torch.tensor(own).log() for own in power]
        self._names = {}
        for level in range(levels + 1):
            side = size >> level
            # Frequencies of a picture that is continued by its mirror image: 2 side of them.
            along = torch.fft.fftfreq(2 * side, 1 / (2 * side)).abs()
            across = torch.arange(side + 1.0)
            distance = torch.hypot(along[:, None], across)
            found = torch.stack([_between(distance, known, own) for own in values])
            name = f"power_{side}"
            self.register_buffer(name, found, persistent=False)
            self._names[side] = name
        grids = [_between(_distances(size), known, own).flatten() for own in values if levels]
        orders = [grid.argsort() for grid in grids]
        for level in range(levels):
            response = _detail_response(size, level)
            ordered = zip(grids, orders, strict=True)
            groups, weights = zip(*(_grouped(g, o, response) for g, o in ordered), strict=True)
            self.register_buffer(f"groups_{level}", torch.stack(groups), persistent=False)
            self.register_buffer(f"weights_{level}", torch.stack(weights), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Filter x, float32 [n, c, side, side], at sigma [n, 1, 1, 1]."""
        rows, columns = x.shape[-2:]
        power = getattr(self, self._names[max(rows, columns)]).float()
        mirrored = torch.cat([x, x.flip(-1)], -1)
        mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
        spectrum = torch.fft.rfft2(mirrored)
        kept = power / (power + sigma.square())
        return torch.fft.irfft2(spectrum * kept, s=mirrored.shape[-2:])[..., :rows, :columns]

    def error(self, level: int, sigma: Tensor) -> Tensor:
        """Root mean square error that is left in the details of a level, [n, c, 1, 1]."""
        groups = getattr(self, f"groups_{level}").float()
        weights = getattr(self, f"weights_{level}").float()
        square = sigma.square()
        square = square.view(-1, 1, 1)
        left = (weights * groups * square / (groups + square)).sum(-1)
        return left.sqrt()[..., None, None]


def _between(distance: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """The power at any distance, between two known ones on log axes."""
    at = distance.clamp_min(1).log()
    right = torch.searchsorted(known, at.contiguous()).clamp(1, len(known) - 1)
    share = ((at - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share).exp()


def _detail_response(size: int, level: int) -> Tensor:
    """Share of each frequency's power that reaches the details of a level, [size, size]."""
    wave = math.pi * torch.arange(size) / (2 * size)
    passed = torch.ones(size)
    for k in range(level):
        passed = passed * (wave * 2**k).cos().square()
    low = (wave * 2**level).cos().square()
    return torch.outer(passed, passed) * (1 - torch.outer(low, low))


def _grouped(power: Tensor, order: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Power, in this order, in groups of equal response, and the share of each group."""
    power, response = power[order], response.flatten()[order]
    at = (response.cumsum(0) / response.sum() * _GROUPS).long().clamp(max=_GROUPS - 1)
    weights = torch.zeros(_GROUPS).index_add_(0, at, response)
    groups = torch.zeros(_GROUPS).index_add_(0, at, response * power) / weights.clamp_min(1e-12)
    return groups, weights / weights.sum()


def _distances(size: int) -> Tensor:
    index = torch.arange(float(size))
    return torch.hypot(index[:, None], index)
