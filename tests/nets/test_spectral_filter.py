"""The filter by distance from zero against closed forms."""

from __future__ import annotations

import pytest
import torch

from noisewise.nets.haar import haar, low_pass
from noisewise.nets.spectral_filter import RADII, SpectralFilter, measured_power, radii
from noisewise.quality.wiener_filter import cosines


def levels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def falling(size: int) -> tuple[float, ...]:
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


def test_the_error_of_each_level_is_what_the_filter_leaves() -> None:
    """Gaussian pictures of this very spectrum, details of two levels, three noise levels."""
    u = torch.arange(32.0)
    generator = torch.Generator().manual_seed(0)
    sd = (4 / (1 + torch.hypot(u[:, None], u).clamp_min(1))).sqrt()
    spectrum = sd * torch.randn(600, 1, 32, 32, generator=generator)
    x0 = cosines(32).mT @ spectrum @ cosines(32)
    own = SpectralFilter(32, (falling(32),), levels=2)
    for level in (0.1, 0.5, 2.0):
        sigma = torch.full((600, 1, 1, 1), level)
        x = x0 + level * torch.randn(x0.shape, generator=generator)
        low, fine = haar(own(x, sigma) - x0)
        _, middle = haar(low)
        for at, details in ((0, fine), (1, middle)):
            left = own.error(at, sigma[:1]).item()
            assert details.square().mean().sqrt().item() == pytest.approx(left, rel=0.05)


def test_noise_of_a_band_is_filtered_as_noise_of_the_whole() -> None:
    """Filtering commutes with the low-pass band, but for the highest frequencies of the band."""
    own = SpectralFilter(64, (tuple((100 / r**2).item() for r in radii(64)),), levels=1)
    x = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = own(x, levels(0.3))
    sigma = levels(1.0)
    whole, band = low_pass(own(smooth, sigma), 1), own(low_pass(smooth, 1), sigma)
    assert (whole - band).std() < 0.1 * band.std()
