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
from noisewise.sizes import Size, halved, mean_side, sides, size_of

RADII = 32  # frequencies at which the power is noted, from 1 to the corner
_GROUPS = 64  # parts of a band's power that the expected error is summed over


def radii(size: Size) -> Tensor:
    """Frequencies at which the power is noted, half waves across the picture, [RADII].

    Of pictures that are not square: half waves across the mean side, so that a distance means the
    same waves in every direction.

    Example:
        >>> radii(64)[[0, -1]].round().tolist(), radii((16, 64))[[0, -1]].mul(2).round().tolist()
        ([1.0, 91.0], [1.0, 91.0])
    """
    lowest = min(_half_waves(size))
    return torch.logspace(math.log10(lowest), math.log10(mean_side(size) * math.sqrt(2)), RADII)


def _half_waves(size: Size) -> tuple[float, float]:
    """Half waves across the mean side that one down, and one across the picture are; 1 in squares.

    A low-pass band has the same: its sides are halved together.
    """
    height, width = sides(size)
    return mean_side(size) / height, mean_side(size) / width


def measured_power(images: Tensor) -> tuple[tuple[float, ...], ...]:
    """Mean power of each channel at each of `radii`, [c][RADII] numbers.

    Args:
        images: float [n, c, h, w], without their mean.

    Example:
        >>> noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> abs(sum(measured_power(noise)[0]) / RADII - 1) < 0.1  # white noise of variance 1
        True
    """
    count, channels, height, width = images.shape
    power, down, right = torch.zeros(channels, height, width), cosines(height), cosines(width)
    for part in images.split(32):
        power += (down @ part @ right.mT).square().sum(0)
    known = radii(size_of(height, width)).log()
    distance = _distances(size_of(height, width)).flatten()
    nearest = (_logarithm(distance, known)[:, None] - known).abs().argmin(1)
    return tuple(_by_radius(own / count, nearest) for own in power)


def _by_radius(power: Tensor, nearest: Tensor) -> tuple[float, ...]:
    """Mean of a map [h, w] at each of `radii`; the nearest one of each place is given."""
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
        size: of the whole pictures, see `noisewise.sizes`.
        power: S of each channel at each of `radii` of this size.
        levels: low-pass bands with sides / 2^k, k up to this, can be filtered too: in the
            orthonormal Haar transform a frequency keeps its power.

    Example:
        >>> flat = SpectralFilter(8, ((1.0,) * RADII,), levels=1)  # white, of variance 1
        >>> flat(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 1, 1))[0, 0, 0, 0].item()
        0.5
    """

    def __init__(self, size: Size, power: tuple[tuple[float, ...], ...], levels: int) -> None:
        """Prepare the power at every frequency of every band."""
        super().__init__()
        if torch.get_default_device().type == "meta":  # see `layers.positions`; no weights are here
            return
        known, values = radii(size).log(), [torch.tensor(own).log() for own in power]
        down, right = _half_waves(size)
        self._names = {}
        for level in range(levels + 1):
            height, width = sides(halved(size, level))
            side = max(height, width)
            # Frequencies of a picture that is continued by its mirror image: twice its sides.
            along = torch.fft.fftfreq(2 * height, 1 / (2 * height)).abs() * down
            across = torch.arange(width + 1.0) * right
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
        """Filter x, float32 [n, c, h, w], whole or a low-pass band, at sigma [n, 1, 1, 1]."""
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
    at = _logarithm(distance, known)
    right = torch.searchsorted(known, at.contiguous()).clamp(1, len(known) - 1)
    share = ((at - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share).exp()


def _logarithm(distance: Tensor, known: Tensor) -> Tensor:
    """Of distances from zero; nearer ones than the first that is known count as the first."""
    return distance.log().clamp_min(known[0])


def _detail_response(size: Size, level: int) -> Tensor:
    """Share of each frequency's power that reaches the details of a level, [h, w]."""
    (down, low_down), (right, low_right) = (_passed(side, level) for side in sides(size))
    return torch.outer(down, right) * (1 - torch.outer(low_down, low_right))


def _passed(side: int, level: int) -> tuple[Tensor, Tensor]:
    """Share of power along one side that comes to a level, and that goes on to the next one."""
    wave = math.pi * torch.arange(side) / (2 * side)
    passed = torch.ones(side)
    for k in range(level):
        passed = passed * (wave * 2**k).cos().square()
    return passed, (wave * 2**level).cos().square()


def _grouped(power: Tensor, order: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Power, in this order, in groups of equal response, and the share of each group."""
    power, response = power[order], response.flatten()[order]
    at = (response.cumsum(0) / response.sum() * _GROUPS).long().clamp(max=_GROUPS - 1)
    weights = torch.zeros(_GROUPS).index_add_(0, at, response)
    groups = torch.zeros(_GROUPS).index_add_(0, at, response * power) / weights.clamp_min(1e-12)
    return groups, weights / weights.sum()


def _distances(size: Size) -> Tensor:
    (height, width), (down, right) = sides(size), _half_waves(size)
    rows, columns = torch.arange(float(height)) * down, torch.arange(float(width)) * right
    return torch.hypot(rows[:, None], columns)
