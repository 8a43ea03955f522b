"""Features of places see where a picture changed; a basis keeps what differs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noisewise.quality.denoiser_features import DenoiserFeatures
from noisewise.quality.place_features import DenoiserPlaces, NativePlaces, PlaceBasis


class Classed(nn.Module):
    """Two convolutions and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 1, 1)])
        self.classes = nn.Embedding(5, 4)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        h = self.blocks[0](x) + self.classes(condition)[:, :, None, None]
        return self.blocks[1](h)


@pytest.mark.parametrize("kind", ["denoiser", "native"])
def test_a_change_in_one_corner_changes_the_features_there(kind: str) -> None:
    torch.manual_seed(0)
    features = NativePlaces() if kind == "native" else DenoiserPlaces(Classed(), conditioned=True)
    images = torch.zeros(1, 1, 32, 32)
    other = images.clone()
    other[..., :6, :6] = 1
    away = (features(images) - features(other)).norm(dim=2)[0]
    assert away.argmax() == 0
    assert away[15] < 0.05 * away[0]


class Tokens(nn.Module):
    """One block of tokens: the means of 4 x 4 pixels, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Flatten(2)])
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        tokens = nn.functional.avg_pool2d(x, 4).flatten(2).mT
        return self.blocks[0](tokens)


@pytest.mark.parametrize("shape", [(16, 64), (32, 48), (32, 32), (64, 16)])
@pytest.mark.parametrize("corner", [0, 3, 12, 15])
def test_tokens_have_their_place_in_every_shape(shape: tuple[int, int], corner: int) -> None:
    """16 x 64 pixels and 32 x 32 have as many tokens, at other places."""
    rows, columns = shape[0] // 4, shape[1] // 4
    top, left = corner // 4 * rows, corner % 4 * columns
    images = torch.zeros(1, 1, *shape)
    images[..., top : top + rows, left : left + columns] = 1
    found = DenoiserPlaces(Tokens(), sigma=1e-3)(images)[0, :, 0]
    assert found.argmax() == corner
    assert found[corner] > 0.9
    assert found.abs().sum() < 1.1 * found[corner]


def test_places_and_whole_pictures_record_the_same_blocks() -> None:
    """The mean over a quarter of the picture is the mean of its four places."""
    torch.manual_seed(0)
    net = Classed()
    images = torch.rand(3, 1, 32, 32) * 2 - 1
    places = DenoiserPlaces(net, conditioned=True)(images)
    whole = DenoiserFeatures(net, conditioned=True)(images)
    first = places[:, :, :4].mT.reshape(3, 4, 4, 4)
    quarters = nn.functional.avg_pool2d(first, 2).flatten(1)
    assert torch.allclose(quarters, whole[:, :16], atol=1e-5)
    assert DenoiserPlaces(net).name.removeprefix("denoiser-places-") in DenoiserFeatures(net).name


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 28), (4, 64), (3, 200)])
def test_native_places_read_any_picture(channels: int, size: int) -> None:
    found = NativePlaces()(torch.rand(2, channels, size, size))
    assert found.shape[:2] == (2, 16)
    assert found.isfinite().all()


def test_a_basis_keeps_what_differs_and_survives_constant_features() -> None:
    g = torch.Generator().manual_seed(0)
    shown = torch.randn(50, 16, 3, generator=g) @ torch.randn(3, 200, generator=g)
    shown = torch.cat([shown, torch.ones(50, 16, 5)], 2)
    small = PlaceBasis(shown)(shown)
    assert small.shape == (50, 16, 64)
    assert small.isfinite().all()
    pairs = torch.stack([torch.cdist(f[:, 0], f[:, 0]).flatten() for f in (shown, small)])
    assert torch.corrcoef(pairs)[0, 1] > 0.8
    assert PlaceBasis(torch.ones(5, 16, 9))(torch.ones(2, 16, 9)).isfinite().all()
