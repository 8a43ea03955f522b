"""The filter by distance from zero against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from noisewise.nets.haar import haar, low_pass
from noisewise.nets.spectral_filter import RADII, SpectralFilter, measured_power, radii
from noisewise.quality.wiener_filter import cosines
from noisewise.sizes import Size, mean_side


def levels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def falling(size: Size) -> tuple[float, ...]:
    return tuple((4 / (1 + r)).item() for r in radii(size))


@pytest.mark.parametrize("side", [8, 16])
def test_it_is_a_multiplication_in_the_cosine_transform(side: int) -> None:
    """Also for a low-pass band: a frequency has the same number there."""
    own = SpectralFilter(16, (falling(16),), levels=1)
    x = torch.randn(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    matrix = cosines(side)
    u = torch.arange(float(side))
    distance = torch.hypot(u[:, None], u).clamp_min(1)
    known = radii(16).log()
    right = torch.searchsorted(known, distance.log()).clamp(1, RADII - 1)
    share = ((distance.log() - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
    values = torch.tensor(falling(16)).log()
    power = torch.lerp(values[right - 1], values[right], share).exp()
    sigma = levels(0.1, 1.0, 3.0)
    wanted = matrix.mT @ ((power / (power + sigma**2)) * (matrix @ x @ matrix.mT)) @ matrix
    torch.testing.assert_close(own(x, sigma), wanted, rtol=1e-4, atol=1e-5)


def test_measured_power_is_that_of_the_pictures() -> None:
    u = torch.arange(32.0)
    sd = 3 / (1 + torch.hypot(u[:, None], u))
    generator = torch.Generator().manual_seed(0)
    spectrum = sd * torch.randn(2000, 2, 32, 32, generator=generator)
    spectrum[:, 1] *= 0.5
    strong, weak = measured_power(cosines(32).mT @ spectrum @ cosines(32))
    for radius, power in zip(radii(32)[8:-2].tolist(), strong[8:-2], strict=True):
        assert power == pytest.approx(9 / (1 + radius) ** 2, rel=0.2)
    assert sum(weak) / sum(strong) == pytest.approx(0.25, rel=0.05)


def errors_are_what_is_left(
    own: SpectralFilter, x0: torch.Tensor, generator: torch.Generator
) -> None:
    """Compare the stated error of two levels of details with that on pictures, at three levels."""
    for level in (0.1, 0.5, 2.0):
        sigma = torch.full((600, 1, 1, 1), level)
        x = x0 + level * torch.randn(x0.shape, generator=generator)
        low, fine = haar(own(x, sigma) - x0)
        _, middle = haar(low)
        for at, details in ((0, fine), (1, middle)):
            left = own.error(at, sigma[:1]).item()
            assert details.square().mean().sqrt().item() == pytest.approx(left, rel=0.05)


def test_the_error_of_each_level_is_what_the_filter_leaves() -> None:
    """Gaussian pictures of this very spectrum, details of two levels, three noise levels."""
    u = torch.arange(32.0)
    generator = torch.Generator().manual_seed(0)
    sd = (4 / (1 + torch.hypot(u[:, None], u).clamp_min(1))).sqrt()
    spectrum = sd * torch.randn(600, 1, 32, 32, generator=generator)
    x0 = cosines(32).mT @ spectrum @ cosines(32)
    own = SpectralFilter(32, (falling(32),), levels=2)
    errors_are_what_is_left(own, x0, generator)


def test_noise_of_a_band_is_filtered_as_noise_of_the_whole() -> None:
    """Filtering commutes with the low-pass band, but for the highest frequencies of the band."""
    own = SpectralFilter(64, (tuple((100 / r**2).item() for r in radii(64)),), levels=1)
    x = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = own(x, levels(0.3))
    sigma = levels(1.0)
    whole, band = low_pass(own(smooth, sigma), 1), own(low_pass(smooth, 1), sigma)
    assert (whole - band).std() < 0.1 * band.std()


# --------------------------------------------------------------------------- sides that differ


@pytest.mark.parametrize("size", [(16, 24), (8, 32), (32, 8)])
def test_it_commutes_with_turning_a_picture(size: tuple[int, int]) -> None:
    """Filtering a transposed picture is transposing the filtered one, in every band."""
    lying = SpectralFilter(size, (falling(size),), levels=2)
    standing = SpectralFilter(size[::-1], (falling(size[::-1]),), levels=2)
    sigma = levels(0.1, 1.0, 3.0)
    for level in range(3):
        shape = (3, 1, size[0] >> level, size[1] >> level)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(level))
        torch.testing.assert_close(standing(x.mT, sigma), lying(x, sigma).mT, rtol=1e-4, atol=1e-5)
    for level in range(2):
        wanted = lying.error(level, sigma)
        torch.testing.assert_close(standing.error(level, sigma), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_a_wave_is_kept_by_its_length_whatever_its_direction(level: int) -> None:
    """Along 48 pixels or 16: a wave of 8 pixels a period has the power of 8 pixels a period."""
    size = (16, 48)
    own = SpectralFilter(size, (falling(size),), levels=1)
    period = 8 / 2**level  # in pixels of the band
    for axis in (0, 1):
        shape = [side >> level for side in size]
        wave = (2 * torch.pi * (torch.arange(shape[axis]) + 0.5) / period).cos()
        x = (wave[:, None] if axis == 0 else wave).expand(*shape)[None, None]
        kept = (own(x, levels(1.0)) / x).mean()
        radius = 2 * mean_side(size) / 8  # half waves across the mean side
        power = 4 / (1 + radius)
        assert kept.item() == pytest.approx(power / (power + 1), rel=0.01)


def test_power_of_a_field_does_not_depend_on_the_shape_that_is_cut_from_it() -> None:
    """An isotropic field on a large torus, cut into squares and strips with as many pixels."""
    f = torch.fft.fftfreq(128)
    sd = 1 / (0.03 + torch.hypot(f[:, None], f))
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(200, 1, 128, 128, generator=generator)
    field = torch.fft.ifft2(torch.fft.fft2(white) * sd).real
    square = torch.tensor(measured_power(field[..., :32, :32])[0])
    for rows, columns in ((16, 64), (64, 16)):
        strip = torch.tensor(measured_power(field[..., :rows, :columns])[0])
        wanted = torch.tensor([_at(radii(32), square, r) for r in radii((rows, columns)).tolist()])
        assert (strip / wanted).log()[10:-1].abs().max() < 0.35


def _at(known: torch.Tensor, values: torch.Tensor, radius: float) -> float:
    return values[(known - radius).abs().argmin()].item()


def test_the_error_is_what_the_filter_leaves_in_other_shapes_too() -> None:
    size = (16, 48)
    u, v = (torch.arange(float(side)) * mean_side(size) / side for side in size)
    radius = torch.hypot(u[:, None], v).clamp_min(radii(size)[0])
    generator = torch.Generator().manual_seed(0)
    spectrum = (4 / (1 + radius)).sqrt() * torch.randn(600, 1, *size, generator=generator)
    x0 = cosines(16).mT @ spectrum @ cosines(48)
    own = SpectralFilter(size, (falling(size),), levels=2)
    errors_are_what_is_left(own, x0, generator)


@pytest.mark.parametrize("size", [8, 28, 72])
def test_squares_are_filtered_bit_for_bit_as_before_there_were_other_shapes(size: int) -> None:
    """The power at every frequency by the formula for squares alone."""
    own = SpectralFilter(size, (falling(size),), levels=1)
    known = torch.logspace(0, math.log10(size * math.sqrt(2)), RADII).log()
    assert torch.equal(radii(size).log(), known)
    values = torch.tensor(falling(size)).log()
    for side in (size, size // 2):
        along = torch.fft.fftfreq(2 * side, 1 / (2 * side)).abs()
        at = torch.hypot(along[:, None], torch.arange(side + 1.0)).clamp_min(1).log()
        right = torch.searchsorted(known, at.contiguous()).clamp(1, RADII - 1)
        share = ((at - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
        wanted = torch.lerp(values[right - 1], values[right], share).exp()
        assert torch.equal(getattr(own, f"power_{side}")[0], wanted)
