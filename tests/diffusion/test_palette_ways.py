"""Ways onto a palette: the lean is the posterior mean it says, and exact denoisers lose nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisewise.diffusion.palette_ways import drawn_again, softened
from noisewise.quality.premultiplied import premultiplied

SIGMA_DATA = 0.5
INKS = torch.tensor([[-1.0, -1.0, -1.0], [0.2, -0.4, 0.9], [1.0, 1.0, 1.0]])


def same(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
    return x


def pictures(channels: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(4, channels, 6, 5, generator=g) - 1


def test_the_lean_is_the_posterior_mean() -> None:
    x, sigma, soft = pictures(), torch.tensor([0.1, 0.2, 0.7, 3.0]), 1.0
    found = softened(same, INKS, SIGMA_DATA, soft)(x, sigma, None)
    for i in range(4):
        s = float(sigma[i])
        known = SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2)
        width = soft * s * math.sqrt(known)
        pixel = x[i, :, 2, 3].double()
        weight = torch.exp(-(pixel - INKS.double()).square().sum(1) / (2 * width**2))
        mean = (weight[:, None] * INKS.double()).sum(0) / weight.sum()
        expected = (1 - known) * pixel + known * mean
        assert torch.allclose(found[i, :, 2, 3].double(), expected, atol=1e-5)


def test_little_noise_gives_the_nearest_colour_and_much_leaves_x0() -> None:
    x = pictures()
    leaning = softened(same, INKS, SIGMA_DATA)
    low = leaning(x, torch.full((4,), 1e-4), None)
    apart = (x.permute(0, 2, 3, 1)[..., None, :] - INKS).square().sum(-1)
    assert torch.allclose(low, INKS[apart.argmin(-1)].permute(0, 3, 1, 2), atol=1e-5)
    high = leaning(x, torch.full((4,), 500.0), None)
    assert torch.allclose(high, x, atol=1e-5)


def test_alpha_and_grey() -> None:
    x, sigma = pictures(4), torch.full((4,), 0.1)
    found = softened(same, INKS, SIGMA_DATA)(x, sigma, None)
    assert torch.equal(found[:, 3], x[:, 3])
    x[:, 3] = 1  # opaque
    found = softened(same, INKS, SIGMA_DATA)(x, sigma, None)
    expected = softened(same, INKS, SIGMA_DATA)(x[:, :3], sigma, None)
    assert torch.allclose(found[:, :3], expected, atol=1e-6)
    grey = softened(same, torch.tensor([[-1.0], [1.0]]), SIGMA_DATA)(x[:, :1], sigma, None)
    assert grey.shape == (4, 1, 6, 5)
    assert grey.abs().min() > 0.3


def test_premultiplied_pixels_lean_towards_colours_times_their_opacity() -> None:
    """The posterior mean over a c, where a is a pixel's own opacity, computed as it is written."""
    x, level, soft = premultiplied(pictures(4)), 0.3, 0.8
    found = softened(same, INKS, SIGMA_DATA, soft)(x, torch.full((4,), level), None)
    known = SIGMA_DATA**2 / (level**2 + SIGMA_DATA**2)
    width = soft * level * math.sqrt(known)
    for pixel, got in zip(x[..., 2, 3].double(), found[..., 2, 3].double(), strict=True):
        inks = (INKS.double() + 1) * (pixel[3] + 1) / 2 - 1
        weight = torch.exp(-(pixel[:3] - inks).square().sum(1) / (2 * width**2))
        mean = (weight[:, None] * inks).sum(0) / weight.sum()
        assert torch.allclose(got[:3], (1 - known) * pixel[:3] + known * mean, atol=1e-5)
    clear = torch.full((4, 4, 6, 5), -1.0)
    assert torch.allclose(softened(same, INKS, SIGMA_DATA)(clear, torch.ones(4), None), clear,
                          atol=0.01)  # fmt: skip


def test_an_exact_denoiser_of_two_colours_keeps_a_picture_that_is_drawn_again() -> None:
    """Pixels are -1 or 1 with equal chance: E[x0 | x] = tanh(x / sigma^2)."""

    def exact(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.tanh(x / sigma.view(-1, 1, 1, 1).square())

    g = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 2, (4, 1, 16, 16), generator=g).float() * 2 - 1
    levels: list[float] = []

    def noted(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        levels.append(float(sigma[0]))
        return exact(x, sigma, condition)

    found = drawn_again(noted, x0, SIGMA_DATA, lambda: torch.randn(x0.shape, generator=g))
    assert torch.allclose(found, x0, atol=1e-4)
    assert levels == sorted(levels, reverse=True)
    assert len(levels) == 2
