"""Planted copies differ from their source, a little, and each kind as its name says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise.quality.planted_copies import planted_copies

Draw = Callable[..., tuple[Tensor, Tensor]]


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3), (32, 4), (80, 3)])
def test_copies_are_pictures_of_8_bits_that_changed_a_little(
    drawn: Draw, size: int, channels: int
) -> None:
    images = drawn(12, seed=0, size=size, channels=channels)[0]
    for kind, copies in planted_copies(images, flips=True).items():
        assert copies.shape == images.shape, kind
        levels = (copies + 1) * 127.5
        assert torch.allclose(levels, levels.round(), atol=1e-3), kind
        assert copies.abs().max() <= 1, kind
        source = images.flip(3) if kind == "mirrored" else images
        away = (copies - source).square().flatten(1).mean(1).sqrt()
        others = (images[:, None] - images[None]).square().flatten(2).mean(2).sqrt()
        assert 0.005 < away.median() < others[others > 0].median(), kind


def test_the_same_generator_gives_the_same_copies(drawn: Draw) -> None:
    images = drawn(4, seed=0)[0]
    one, two = planted_copies(images), planted_copies(images)
    other = planted_copies(images, generator=torch.Generator().manual_seed(1))
    assert "mirrored" not in one
    for kind, copies in one.items():
        assert torch.equal(copies, two[kind])
    assert not torch.equal(one["noisy"], other["noisy"])


def test_a_shift_is_of_whole_pixels() -> None:
    images = 2 * torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    images = ((images + 1) * 127.5).round() / 127.5 - 1
    moved = planted_copies(images)["shifted"]
    middle = images[:, :, 6:26, 6:26]
    for i in range(len(images)):
        found = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.allclose(moved[i, :, 6 + dy : 26 + dy, 6 + dx : 26 + dx], middle[i], atol=1e-6)
        ]
        assert len(found) == 1, i
        assert found != [(0, 0)], i


def test_only_the_ground_or_only_the_drawing_changes(drawn: Draw) -> None:
    images, shape = drawn(20, seed=0, size=32, channels=3)
    images = images[shape < 2]  # discs and squares: the corner is ground
    corner = (slice(None), slice(None), slice(0, 2), slice(0, 2))
    copies = planted_copies(images)
    assert torch.allclose(copies["recoloured"][corner], images[corner], atol=1 / 255)
    assert not torch.allclose(copies["ground"][corner], images[corner], atol=0.05)


def test_opacity_keeps_its_values(drawn: Draw) -> None:
    images = drawn(8, seed=0, size=32, channels=4)[0]
    images[:, 3] = 1
    copies = planted_copies(images)
    for kind in ("hue", "recoloured", "stained", "ground"):
        assert torch.equal(copies[kind][:, 3], images[:, 3]), kind
