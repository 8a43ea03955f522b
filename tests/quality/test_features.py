"""The frozen net is the same net everywhere, and sees what plain means do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noisewise.quality.features import (
    extract,
    extractor_name,
)
from noisewise.quality.frozen_filters import _whole_normals, weights_sha256
from noisewise.quality.random_features import RandomConvFeatures

FROZEN = "ab7ac86ec77300cbf1e11e7ab7c658575860be4c4b263904e018eb7c97630690"
# features 0, 300, 600, ... of `waves`, written down when "noisewise-1" was frozen
KNOWN = [0.08803, 0.51907, 0.0, 0.17954, 0.00668, 0.14592, 0.07089]


def waves(channels: int = 3, size: int = 32) -> Tensor:
    """A picture from a formula."""
    t = torch.linspace(0, 1, size, dtype=torch.float64)
    planes = [
        (2 * math.pi * ((1 + c) * t[:, None] + (3 - c) * t[None, :] ** 2)).cos()
        for c in range(channels)
    ]
    return torch.stack(planes)[None].float()


def test_weights_never_change() -> None:
    assert weights_sha256() == FROZEN


def test_features_never_change() -> None:
    found = RandomConvFeatures()(waves())[0, ::300]
    assert torch.allclose(found, torch.tensor(KNOWN), atol=1e-4, rtol=1e-4), found.tolist()


def test_features_do_not_depend_on_threads_or_batches() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(150, 3, 20, 20, generator=g) * 2 - 1
    features = RandomConvFeatures()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = features(images)
        torch.set_num_threads(2)
        two = features(images)
    finally:
        torch.set_num_threads(threads)
    single = torch.cat([features(image[None]) for image in images[:5]])
    assert torch.allclose(one, two, atol=1e-4)
    assert torch.allclose(one[:5], single, atol=1e-4)


def test_no_random_state_is_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    RandomConvFeatures()(waves())
    assert torch.equal(before, torch.get_rng_state())


def test_the_counter_stream_is_about_normal() -> None:
    values = torch.from_numpy(_whole_normals(0, 200_000)).double()
    values = values / values.square().mean().sqrt()
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.pow(4).mean()) - 2.7) < 0.05  # four uniforms: 3 - 6/5/4
    assert abs(float((values[1:] * values[:-1]).mean())) < 0.01


def test_the_stream_starts_as_splitmix64_does() -> None:
    seed, mask = 0x6E6F697365776973, 2**64 - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    expected = sum((z >> shift) & 4095 for shift in (4, 20, 36, 52)) - 8190
    assert int(_whole_normals(0, 1)[0]) == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (4, 33, 40), (3, 64, 64)])
def test_any_picture_gives_as_many_features(shape: tuple[int, int, int]) -> None:
    features = RandomConvFeatures()
    found = features(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (2, features.num_features)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_grey_is_colour_without_colour_and_three_channels_are_opaque() -> None:
    features = RandomConvFeatures()
    grey = waves(1)
    colour = grey.expand(-1, 3, -1, -1)
    assert torch.equal(features(grey), features(colour))
    opaque = torch.cat([colour, torch.ones_like(grey)], 1)
    assert torch.equal(features(colour), features(opaque))
    assert not torch.allclose(features(colour), features(torch.cat([colour, grey], 1)))


def test_a_bigger_net_sees_detail_that_the_usual_one_averages_away() -> None:
    board = torch.ones(1, 1, 64, 64)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1
    plain = torch.zeros(1, 1, 64, 64)
    usual, fine = RandomConvFeatures(), RandomConvFeatures(64)
    seen = float((fine(board) - fine(plain)).norm())
    assert float((usual(board) - usual(plain)).norm()) < 0.1 * seen
    assert (usual.name, fine.name) == ("noisewise-1", "noisewise-1@64")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 2, 16, 16), "2 channels"),
        (torch.zeros(2, 3, 7, 16), "at least 8"),
        (torch.zeros(3, 16, 16), "shape"),
        (torch.zeros(0, 3, 16, 16), "shape"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "uint8"),
    ],
)
def test_what_is_no_picture_is_refused(images: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RandomConvFeatures()(images)


@pytest.mark.parametrize("size", [8, 30])
def test_a_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        RandomConvFeatures(size)


def test_an_extractor_of_ones_own() -> None:
    def pixels(images: Tensor) -> Tensor:
        return images.flatten(1)

    images = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(extract(images, pixels, batch_size=2), images.flatten(1))
    assert extractor_name(pixels) == "pixels"
    assert extractor_name(RandomConvFeatures()) == "noisewise-1"
    assert extractor_name(torch.nn.Flatten()) == "Flatten"


def test_an_answer_that_is_no_feature_matrix_is_refused() -> None:
    images = torch.zeros(4, 1, 8, 8)
    with pytest.raises(ValueError, match="one row of features per picture"):
        extract(images, lambda x: x)
    with pytest.raises(ValueError, match="without NaN"):
        extract(images * float("nan"), lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="Some features are NaN"):
        extract(images, lambda x: x.flatten(1) / 0)
