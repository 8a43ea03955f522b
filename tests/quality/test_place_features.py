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
