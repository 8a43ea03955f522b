"""Variety: nearest others against an exact law, and collapses that a distance sees late."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noisewise.quality import variety


def normal(count: int, seed: int, size: int = 8) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) / 3


def test_pictures_of_one_law_are_as_varied_as_each_other() -> None:
    assert variety(normal(400, 0), normal(400, 1)).value == pytest.approx(1, abs=0.05)


def test_variety_is_the_scale_of_what_differs() -> None:
    assert variety(0.3 * normal(400, 0), normal(400, 1)).value == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("modes", [1, 2, 20])
def test_few_pictures_for_every_noise_are_no_variety_also_under_noise(modes: int) -> None:
    few = normal(modes, 0, 32)[torch.arange(400) % modes]
    real = torch.nn.functional.interpolate(normal(400, 1), scale_factor=4)
    assert variety(few, real).value == 0
    assert variety(few + 0.05 * normal(400, 2, 32), real).value < 0.1


def test_of_a_set_with_every_second_picture_the_same_the_median_falls() -> None:
    half = normal(400, 0)
    half[::2] = half[0]
    half[1] = half[0]
    assert variety(half, normal(400, 1)).value == 0


def test_one_class_that_collapses_is_found_and_named() -> None:
    labels = torch.arange(400) % 4
    pictures = normal(400, 0)
    pictures[labels == 2] = pictures[2].clone()
    found = variety(pictures, normal(400, 1), labels, labels)
    assert found.value == found.classes[2] == 0
    assert found.lowest == 2
    assert found.overall > 0.9
    assert set(found.classes) == {0, 1, 2, 3}


def test_a_picture_of_each_class_is_no_variety_though_the_whole_set_differs() -> None:
    labels = torch.arange(400) % 20
    pictures = normal(20, 0)[labels]
    assert variety(pictures, normal(400, 1), labels, labels).value == 0


def test_more_pictures_have_nearer_neighbours_and_that_is_taken_out() -> None:
    """In d dimensions the distance to the nearest of n falls as n ** (-1/d)."""
    flat = torch.rand(2, 4000, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    few, many = flat[0, :1000], flat[1]
    assert variety(few, many[:1000]).value == pytest.approx(1, abs=0.1)
    assert variety(few, many).value == pytest.approx(1, abs=0.1)
    alone = [
        float(torch.cdist(x, x).fill_diagonal_(math.inf).amin(1).median())
        for x in (few.flatten(1), many.flatten(1))
    ]
    assert alone[0] / alone[1] == pytest.approx(2, rel=0.15)


def test_small_classes_and_references_of_one_picture_have_no_number_of_their_own() -> None:
    labels = torch.arange(40) % 10
    found = variety(normal(40, 0), normal(40, 1), labels, labels)
    assert found.classes == {}
    assert found.lowest is None
    alone = torch.arange(10)
    assert variety(normal(10, 0), normal(10, 1), alone, alone).value == 1
    assert variety(normal(10, 0), normal(1, 1).repeat(10, 1, 1, 1)).value == 1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        variety(normal(1, 0), normal(10, 1))
    with pytest.raises(ValueError, match="same size"):
        variety(normal(10, 0), normal(10, 1, 16))
    with pytest.raises(ValueError, match="Only one of the sets"):
        variety(normal(10, 0), normal(10, 1), torch.zeros(10))
    with pytest.raises(ValueError, match="9 labels for 10"):
        variety(normal(10, 0), normal(10, 1), torch.zeros(9), torch.zeros(10))
