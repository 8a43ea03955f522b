"""Flats are what fills areas; generated pictures get them where they are meant, only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.flats import (
    FlatValue,
    exact_flat_share,
    flat_area,
    flat_values,
    snap_levels,
    snapped,
)

Draw = Callable[..., tuple[Tensor, Tensor]]
BLACK, WHITE = FlatValue((0,), 0.5, 1.0), FlatValue((255,), 0.4, 1.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_flat(picture: Tensor) -> Tensor:
    """For each pixel of uint8 [h, w, c], whether its neighbourhood has one value."""
    height, width = picture.shape[:2]
    flat = torch.zeros(height, width, dtype=torch.bool)
    for i in range(height):
        for j in range(width):
            around = picture[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].flatten(0, 1)
            flat[i, j] = len(around.unique(dim=0)) == 1
    return flat


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_flat_area_is_its_definition(channels: int) -> None:
    coarse = torch.randint(0, 2, (3, 4, 5, channels), generator=torch.Generator().manual_seed(1))
    images = (coarse * 200 + 9).repeat_interleave(3, 1).repeat_interleave(4, 2).to(torch.uint8)
    wanted = torch.stack([naive_flat(picture) for picture in images]).double().mean()
    assert 0 < wanted < 1
    assert flat_area(images) == pytest.approx(float(wanted))
    assert flat_area(images.permute(0, 3, 1, 2).float() / 127.5 - 1) == pytest.approx(float(wanted))


def test_the_values_that_fill_areas_are_found_with_their_shares() -> None:
    images = torch.randint(0, 256, (10, 20, 30, 3), dtype=torch.uint8)
    images[:, :10, :15] = torch.tensor([255, 0, 255], dtype=torch.uint8)  # a key colour
    images[:5, 10:, :6] = 255
    images[0, 12:, 20:] = 7  # in one picture of ten, and 1.3 % of the pixels
    found = flat_values(images)
    assert [(one.value, one.share, one.pictures) for one in found] == [
        ((255, 0, 255), pytest.approx(0.25), 1.0),
        ((255, 255, 255), pytest.approx(0.05), 0.5),
    ]
    assert len(flat_values(images, max_values=1)) == 1


def test_transparent_is_one_value_whatever_its_hidden_colour() -> None:
    images = torch.randint(1, 255, (4, 16, 16, 4), dtype=torch.uint8)
    images[:, :8, :, 3] = 0
    assert [one.value for one in flat_values(images)] == [(0, 0, 0, 0)]


def test_photographs_have_none() -> None:
    """Smooth pictures with grain, whose lights and shadows are clipped here and there."""
    smooth = F.interpolate(normal(30, 3, 5, 5), size=(64, 64), mode="bicubic")
    images = (0.45 * smooth + 0.02 * normal(30, 3, 64, 64, seed=1)).clamp(-1, 1)
    assert flat_values(images) == []
    assert snap_levels(images, images) == []


def test_one_pixel_of_a_value_is_no_area() -> None:
    images = torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    images[:, ::2, ::2] = 255
    assert exact_flat_share(images, [WHITE, BLACK]) == 0


def test_pixels_near_a_value_take_it_and_others_stay() -> None:
    images = torch.full((1, 9, 9, 1), 40, dtype=torch.uint8)
    images[:, :, 5:] = 3
    images[0, 4, 4] = 250
    found = snapped(images, [BLACK, WHITE], level=6)
    assert found[0, :, 6:].max() == 0
    assert found[0, 4, 4] == 255
    assert (found[0, :, :4] == 40).all()
    as_floats = snapped(images.permute(0, 3, 1, 2).float() / 127.5 - 1, [BLACK, WHITE], level=6)
    assert torch.equal(((as_floats + 1) * 127.5).round().to(torch.uint8)[:, 0], found[..., 0])


def test_speckle_in_a_ground_is_filled_and_a_bright_detail_is_not() -> None:
    images = torch.full((1, 9, 9, 1), 3, dtype=torch.uint8)
    images[0, 2, 2], images[0, 6, 6], images[0, 0, 8] = 15, 60, 12
    found = snapped(images, [BLACK], level=6)
    assert found[0, 2, 2] == found[0, 0, 8] == 0
    assert found[0, 6, 6] == 60


def test_real_pictures_keep_what_is_farther_than_the_level(drawn: Draw) -> None:
    images, _ = drawn(50, seed=0, size=32, channels=3)
    values = flat_values(images)
    assert values[0].value == (0, 0, 0)
    change = (snapped(images, values, level=2) - images).abs().max()
    assert float(change) <= 2 * 3 / 127.5 + 0.5 / 127.5


def test_soft_opacity_survives() -> None:
    opacity = torch.linspace(0, 255, 24).round().to(torch.uint8).expand(2, 24, 24)
    images = torch.cat([torch.full((2, 24, 24, 3), 90, dtype=torch.uint8), opacity[..., None]], 3)
    clear = FlatValue((0, 0, 0, 0), 0.3, 1.0)
    found = snapped(images, [clear], level=8)
    assert (found[..., 0, :] == 0).all()
    assert torch.equal(found[:, :, 3:], images[:, :, 3:])


def test_every_pixel_of_a_bad_silhouette_can_be_cleaned() -> None:
    real = torch.where(
        F.interpolate(normal(40, 1, 5, 5), size=(48, 48), mode="bicubic") > 0, 1.0, -1.0
    )
    values = flat_values(real)
    assert {one.value for one in values} == {(0,), (255,)}
    made = F.avg_pool2d(F.pad(real, (1,) * 4, mode="replicate"), 3, 1)
    made = 0.7 * made + 0.2 * normal(40, 1, 48, 48, seed=1)
    clean = snapped(made, values, level=128)
    assert set(clean.unique().tolist()) == {-1.0, 1.0}
    assert (clean != real).float().mean() < 0.03
    assert exact_flat_share(clean, values) > 0.95 > 0.1 > exact_flat_share(made, values)


def test_the_level_with_the_real_share_gives_the_ground_back(drawn: Draw) -> None:
    images, _ = drawn(80, seed=0, size=32)
    made = images[:40] + 0.01 * normal(40, 1, 32, 32)
    found = snap_levels(made, images[40:])
    best = min(found, key=lambda one: one.miss)
    assert best.level in {2, 4, 6}
    assert best.miss < 0.03 < found[0].miss
    assert [one.share for one in found] == sorted(one.share for one in found)


def test_what_does_not_fit_is_refused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="1 channels"):
        snapped(images, [BLACK], level=2)
    with pytest.raises(ValueError, match="0 to 255"):
        snapped(images, [], level=300)
    with pytest.raises(ValueError, match="1 to 4 channels"):
        flat_area(torch.zeros(1, 5, 8, 8))
