"""The Wiener filter against its closed form, and against any other linear filter."""

from __future__ import annotations

import pytest
import torch

from noisewise.quality.wiener_filter import WienerFilter, cosines


def gaussian(n: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    """Gaussian pictures whose spectrum falls as 1 / (1 + u + v)."""
    generator = torch.Generator().manual_seed(0)
    u = torch.arange(side)
    sd = 2 / (1 + u + u[:, None])
    spectrum = sd * torch.randn(n, channels, side, side, generator=generator)
    return cosines(side).mT @ spectrum @ cosines(side) + 0.3


def test_the_error_on_gaussian_pictures_is_the_closed_form() -> None:
    fitted = WienerFilter(gaussian(20000))
    x0 = gaussian(2000)
    generator = torch.Generator().manual_seed(1)
    variance = (2 / (1 + torch.arange(8) + torch.arange(8)[:, None])).square()
    for level in (0.1, 0.5, 2.0):
        x = x0 + level * torch.randn(x0.shape, generator=generator)
        error = (fitted(x, torch.full((len(x),), level)) - x0).square().mean().item()
        exact = (variance * level**2 / (variance + level**2)).mean().item()
        assert error == pytest.approx(exact, rel=0.02)


def test_colours_that_go_together_help_each_other() -> None:
    """Three equal channels have three looks at one picture: a third of the noise."""
    grey = gaussian(4000)
    colour = grey.expand(-1, 3, -1, -1)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(colour.shape, generator=generator)
    sigma = torch.full((4000,), 0.5)
    together = WienerFilter(colour)(colour + 0.5 * noise, sigma) - colour
    alone = WienerFilter(grey)(grey + 0.5 * noise[:, :1], sigma) - grey
    as_one = WienerFilter(grey)(grey + 0.5 / 3**0.5 * noise[:, :1], sigma / 3**0.5) - grey
    assert together.square().mean() < 0.7 * alone.square().mean()
    assert together.square().mean().item() == pytest.approx(as_one.square().mean().item(), rel=0.03)


def test_no_size_and_no_shape_is_special() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 6, 10, generator=generator)
    found = WienerFilter(images)
    sigma = torch.tensor([1e-4, 1e4])
    out = found(images[:2], sigma)
    torch.testing.assert_close(out[0], images[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(out[1], images.mean(0), rtol=0, atol=1e-3)  # noise alone: the mean
    with pytest.raises(ValueError, match="at least 2 pictures"):
        WienerFilter(images[:1])
