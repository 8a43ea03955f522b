"""The spectrum follows its laws, and sees noise that leakage would hide."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noisewise.quality.spectrum import power_spectrum, spectrum_error


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48), (47, 21), (8, 9)])
def test_white_noise_has_its_variance_everywhere(height: int, width: int) -> None:
    frequency, power = power_spectrum(0.2 * normal(600, 1, height, width))
    assert len(frequency) == min(height, width) // 2
    assert float(frequency[-1]) <= 0.5
    # the lowest frequency loses what the mean takes away
    assert torch.allclose(power[1:], torch.full_like(power[1:], 0.04), rtol=0.1)
    assert 0.02 < float(power[0]) < 0.045


def test_a_wave_is_found_at_its_frequency() -> None:
    line = torch.arange(32)
    wave = 0.5 * torch.sin(2 * math.pi * line * 6 / 32).expand(2, 1, 20, 32)
    frequency, power = power_spectrum(wave)
    assert float(frequency[power.argmax()]) == pytest.approx(6 / 32, abs=0.03)


def test_half_the_contrast_is_six_decibels() -> None:
    real = 0.3 * normal(50, 3, 16, 24)
    found = spectrum_error(real / 2, real)
    assert found.error == pytest.approx(20 * math.log10(2), abs=0.05)
    assert torch.allclose(found.difference, torch.tensor(-6.02).double(), atol=0.1)
    assert spectrum_error(real, real).error == 0


def test_constant_pictures_have_a_spectrum_too() -> None:
    flat, noise = torch.full((3, 1, 16, 16), 0.3), 0.2 * normal(3, 1, 16, 16)
    assert spectrum_error(flat, -flat).error < 1e-6
    assert 20 < spectrum_error(flat, noise).error < 60


def periodogram(images: Tensor) -> Tensor:
    """Without a window: power in the same rings."""
    n = images.shape[3]
    power = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    axis = torch.fft.fftfreq(n)
    ring = ((axis[:, None] ** 2 + axis**2).sqrt() * n).round().long().flatten()
    total = torch.bincount(ring, weights=power.flatten()) / torch.bincount(ring)
    return total[1 : n // 2 + 1]


def test_noise_under_a_slope_is_seen_and_leakage_hides_it() -> None:
    slopes = normal(200, 1, 1, 2, seed=1) / 3
    line = torch.linspace(-1, 1, 32)
    real = (slopes[..., :1] * line[:, None] + slopes[..., 1:] * line).clamp(-1, 1)
    made = real + 0.01 * normal(200, 1, 32, 32)
    naive = 10 * (periodogram(made) / periodogram(real)).log10()
    assert spectrum_error(made, real).difference[-4:].min() > 8
    assert naive[-4:].max() < 4


def test_the_colour_of_transparent_pixels_does_not_count() -> None:
    opacity = torch.where(normal(4, 1, 16, 16) > 0, 1.0, -1.0)
    first, second = (
        torch.where(
            opacity > 0, torch.full((4, 3, 16, 16), -1.0), 0.3 * normal(4, 3, 16, 16, seed=s)
        )
        for s in (1, 2)
    )
    a, b = (torch.cat([colour, opacity], 1) for colour in (first, second))
    assert spectrum_error(a, b).error == 0
    # black on transparent has a shape all the same
    assert spectrum_error(a, torch.cat([first, torch.ones_like(opacity)], 1)).error > 3


def test_large_pictures_go_in_batches() -> None:
    images = 0.2 * normal(3, 1, 1024, 600)
    assert len(power_spectrum(images)[0]) == 300


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="same size"):
        spectrum_error(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match="2 channels"):
        power_spectrum(torch.zeros(1, 2, 8, 8))
