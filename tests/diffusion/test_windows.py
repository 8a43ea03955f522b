"""Larger pictures from windows, against a texture whose denoiser is exact at any size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from noisewise.diffusion import (
    DPMPP_2M,
    SAMPLERS,
    Sampler,
    guided,
    karras_sigmas,
    sample,
    windowed,
)
from noisewise.diffusion.windows import _axis

SIDE = 16  # of a window
SPREAD = 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Texture:
    """A stationary Gaussian texture, cut to any size, and its exact denoiser.

    Pixels at a distance d along an axis have the correlation kernel(d), so the covariance of a
    picture is a Kronecker product of two Toeplitz matrices and D(x) = C (C + sigma^2)^-1 x.
    """

    kernel: str = "rough"
    known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def correlation(self, distance: Tensor) -> Tensor:
        d = distance.double()
        return (-d / 2).exp() if self.kernel == "rough" else (-((d / 2) ** 2) / 2).exp()

    def axis(self, length: int) -> tuple[Tensor, Tensor]:
        """Variances and directions of one axis."""
        if length not in self.known:
            at = torch.arange(length)
            variances, directions = torch.linalg.eigh(self.correlation((at[:, None] - at).abs()))
            self.known[length] = variances.clamp_min(0), directions
        return self.known[length]

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        (down, u), (across, v) = self.axis(x.shape[-2]), self.axis(x.shape[-1])
        power = SPREAD**2 * down[:, None] * across
        kept = power / (power + sigma.view(-1, 1, 1, 1) ** 2)
        return u @ (kept * (u.T @ x @ v)) @ v.T


def drawn(
    denoiser: Texture | object, shape: tuple[int, ...], sampler: Sampler = DPMPP_2M, seed: int = 0
) -> Tensor:
    noise = torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)
    sigmas = karras_sigmas(16, 0.02, 20.0).double()
    fresh = seeded(seed + 1)
    normal = lambda: torch.randn(*shape, generator=fresh, dtype=torch.float64)  # noqa: E731
    return sample(sampler.states(denoiser, noise, sigmas, None, normal))  # pyrefly: ignore


def jumps(images: Tensor) -> Tensor:
    """Mean square difference across each border between two columns, [width - 1]."""
    return images.diff(dim=-1).square().mean((0, 1, 2))


def spectrum(images: Tensor) -> Tensor:
    """Power in six rings of frequencies, from coarse to fine."""
    height, width = images.shape[-2:]
    power = torch.fft.rfft2(images).abs().square().mean((0, 1))
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    edges = (0.0, 0.05, 0.1, 0.15, 0.25, 0.35, 0.8)
    inside = [(radius >= low) & (radius < high) for low, high in pairwise(edges)]
    return torch.stack([power[ring].sum() for ring in inside])


# ------------------------------------------------------------------------- the law of no seams
@pytest.mark.parametrize("kernel", ["rough", "smooth"])
def test_a_large_texture_is_that_of_the_exact_denoiser_of_the_whole(kernel: str) -> None:
    """The same noise, drawn whole by the exact denoiser and in windows: hardly any difference."""
    texture, shape = Texture(kernel), (6, 1, 53, 45)
    whole = drawn(texture, shape)
    large = drawn(windowed(texture, (SIDE, SIDE), seeded(7)), shape)
    assert (large.std() / whole.std()).item() == pytest.approx(1, abs=0.02)
    assert ((large - whole).square().mean().sqrt() / SPREAD).item() < 0.03
    torch.testing.assert_close(spectrum(large) / spectrum(whole), torch.ones(6).double(),
                               atol=0.04, rtol=0)  # fmt: skip
    for turned in (False, True):
        a, b = (x.mT if turned else x for x in (large, whole))
        ratio = jumps(a) / jumps(b)
        assert ratio.max() < 1.04, "a seam"
        assert ratio.min() > 0.96, "a blur"


@pytest.mark.parametrize("kernel", ["rough", "smooth"])
def test_windows_that_are_drawn_apart_fail_the_same_test_by_far(kernel: str) -> None:
    texture = Texture(kernel)
    tiles = drawn(texture, (16 * 9, 1, SIDE, SIDE)).view(16, 1, 3, 3, SIDE, SIDE)
    tiled = tiles.transpose(3, 4).reshape(16, 1, 3 * SIDE, 3 * SIDE)
    found, seams = jumps(tiled), [SIDE - 1, 2 * SIDE - 1]
    inside = [at for at in range(len(found)) if at not in seams]
    assert found[seams].min() > 1.5 * found[inside].max()


def test_the_noise_of_a_stochastic_sampler_keeps_its_variance() -> None:
    """Blending noisy pictures would take some away; x0 alone is blended."""
    from noisewise.diffusion import DDPM

    texture, shape = Texture(), (6, 1, 48, 40)
    large = drawn(windowed(texture, (SIDE, SIDE), seeded(7)), shape, DDPM)
    whole = drawn(texture, shape, DDPM)
    assert (large.std() / whole.std()).item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(spectrum(large) / spectrum(whole), torch.ones(6).double(),
                               atol=0.05, rtol=0)  # fmt: skip


# ------------------------------------------------------------------------------- exact identities
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("shape", [(2, 3, 29, 50), (1, 1, 16, 17), (3, 2, 40, 16), (2, 1, 16, 16)])
def test_a_denoiser_of_single_pixels_draws_what_it_draws_without_windows(
    sampler: Sampler, shape: tuple[int, ...]
) -> None:
    def per_pixel(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return (x / (1 + sigma.view(-1, 1, 1, 1) ** 2)).tanh()

    expected = drawn(per_pixel, shape, sampler)
    found = drawn(windowed(per_pixel, (SIDE, SIDE), seeded(3), most=5), shape, sampler)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_picture_of_the_trained_size_is_one_window() -> None:
    texture, x, sigma = Texture(), torch.randn(3, 1, SIDE, SIDE).double(), torch.ones(3).double()
    found = windowed(texture, (SIDE, SIDE), seeded())(x, sigma)
    torch.testing.assert_close(found, texture(x, sigma))


@pytest.mark.parametrize("length", [16, 17, 23, 24, 31, 32, 33, 64, 101])
@pytest.mark.parametrize("side", [8, 15, 16])
def test_weights_sum_to_one_and_windows_stay_inside(length: int, side: int) -> None:
    for shift in (0.0, 0.1, 0.5, 0.77, 0.999):
        total = torch.zeros(length).double()
        begins = []
        for begin, weights in _axis(length, side, shift):
            assert weights.min() > 0
            total[begin : begin + side] += weights
            begins.append(begin)
        torch.testing.assert_close(total, torch.ones(length).double())
        assert (begins[0], begins[-1]) == (0, length - side)
        assert all(b - a <= side // 2 for a, b in pairwise(begins))


def test_the_grid_moves_from_call_to_call_and_repeats_with_the_seed() -> None:
    def edges(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Tells where each window begins."""
        seen.append(x[:, 0, 0, 0].tolist())
        return torch.zeros_like(x)

    x, runs = torch.arange(64.0).expand(1, 1, 64, 64), []
    for seed in (0, 0, 1):
        seen: list[list[float]] = []
        denoiser = windowed(edges, (SIDE, SIDE), seeded(seed))
        for _ in range(12):
            denoiser(x, torch.ones(1))
        runs.append(seen)
    assert runs[0] == runs[1] != runs[2]
    inner = {begin for begins in runs[0] for begin in begins} - {0.0, 48.0}
    assert len(inner) > 24, "borders of windows lie nearly everywhere"


def test_windows_come_in_batches_with_their_sigma_and_class() -> None:
    largest = 0

    def labelled(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        nonlocal largest
        assert condition is not None
        largest = max(largest, len(x))
        value = sigma + 10 * (condition if condition.ndim == 1 else condition[:, 1])
        return value.view(-1, 1, 1, 1).expand_as(x)

    x, sigma = torch.zeros(3, 1, 40, 33), torch.tensor([0.5, 1.0, 2.0])
    denoiser = windowed(labelled, (SIDE, SIDE), seeded(), most=7)
    found = denoiser(x, sigma, torch.tensor([2, 0, 1]))
    for image, value in zip(found, (20.5, 1.0, 12.0), strict=True):
        torch.testing.assert_close(image, torch.full_like(image, value))
    assert largest == 6
    shares = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    for image, value in zip(denoiser(x, sigma, shares), (0.5, 6.0, 12.0), strict=True):
        torch.testing.assert_close(image, torch.full_like(image, value))


def test_guidance_inside_the_windows_is_guidance_of_the_whole() -> None:
    """With denoisers of single pixels, where windows change nothing."""

    def strong(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return x / (1 + sigma.view(-1, 1, 1, 1))

    def weak(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return x / (2 + sigma.view(-1, 1, 1, 1))

    both = guided(strong, weak, 1.7, (0.3, 3.0))
    expected = drawn(both, (2, 1, 21, 30))
    torch.testing.assert_close(
        drawn(windowed(both, (SIDE, SIDE), seeded()), (2, 1, 21, 30)), expected
    )
    assert not torch.allclose(drawn(strong, (2, 1, 21, 30)), expected)


def test_windows_need_not_be_square() -> None:
    found = windowed(lambda x, sigma, c=None: x, (8, 12), seeded())(
        torch.ones(1, 1, 19, 31), torch.ones(1)
    )
    torch.testing.assert_close(found, torch.ones(1, 1, 19, 31))


@pytest.mark.parametrize("size", [(15, 40), (40, 15), (1, 1)])
def test_a_smaller_picture_is_refused(size: tuple[int, int]) -> None:
    denoiser = windowed(Texture(), (SIDE, SIDE), seeded())
    with pytest.raises(ValueError, match="fewer than the model draws: use at least 16 x 16"):
        denoiser(torch.zeros(1, 1, *size).double(), torch.ones(1).double())


def test_the_oracle_itself_is_right() -> None:
    """The texture's spread and its correlation of neighbours, from many windows."""
    images = drawn(Texture("smooth"), (600, 1, SIDE, SIDE))
    near = (images[..., 1:] * images[..., :-1]).mean() / images.square().mean()
    assert near.item() == pytest.approx(math.exp(-1 / 8), abs=0.02)
    assert images.std().item() == pytest.approx(SPREAD, rel=0.08)  # 16 steps widen it a little
