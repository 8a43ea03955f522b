"""Small moves and changes of colour count little, other pictures much."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from noisewise.quality.picture_pairs import (
    described,
    moved,
    moved_patterns,
    reduced,
    residuals,
    thumbnails,
    unlikeness,
)


def noise(n: int, seed: int = 0, channels: int = 3, size: int = 16) -> Tensor:
    return (
        2 * torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) - 1
    )


def compared(one: Tensor, two: Tensor) -> Tensor:
    a, b = described(one), described(two)
    residual = residuals(moved_patterns(one), b.patterns[:, None])
    return unlikeness(residual, a.contrast, b.contrast[:, None])[:, 0]


@pytest.mark.parametrize(
    ("shape", "side"), [((28, 28), [28, 28]), ((30, 30), [32, 32]), ((256, 200), [32, 24])]
)
def test_sides_are_at_most_32_and_can_be_cut_in_four(
    shape: tuple[int, int], side: list[int]
) -> None:
    assert list(reduced(torch.zeros(2, 3, *shape)).shape[2:]) == side


def test_colour_of_transparent_pixels_does_not_count() -> None:
    one, two = noise(2, 0, 4), noise(2, 1, 4)
    one[:, 3] = two[:, 3] = -1
    assert torch.equal(reduced(one), reduced(two))


def test_the_picture_moves_first_and_then_each_place() -> None:
    """By plain loops."""
    one, two = noise(1, 0), noise(1, 1)
    a, b = moved_patterns(one)[0], described(two).patterns[0]
    square = (a - b[:, None]).square().sum(2)  # [places, moves]
    steps = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    best = None
    for whole in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        near = [i for i, (y, x) in enumerate(steps) if abs(y - whole[0]) + abs(x - whole[1]) <= 1]
        here = square[:, near].amin(1)
        if best is None or here.sum() < best.sum():
            best = here
    found = residuals(moved_patterns(one), described(two).patterns[:, None])[0, 0]
    assert best is not None
    assert torch.allclose(found, best, atol=1e-5)


def test_a_picture_moved_or_in_another_colour_is_like_itself() -> None:
    one, other = noise(6), noise(6, 1)
    far = compared(one, other)
    assert compared(one, one).max() < 0.01
    assert compared(one, one + 0.1).max() < 0.15
    inner = moved(one, 1, 1)  # only the edges differ after moving back
    assert (compared(inner, one)[:, 0] < 0.6 * far[:, 0]).all()
    naive = (inner - one).square().mean((1, 2, 3)).sqrt()
    assert (naive > 0.9 * (other - one).square().mean((1, 2, 3)).sqrt()).all()


def test_the_worst_place_sees_what_the_whole_hides() -> None:
    one = noise(6)
    two = one.clone()
    two[:, :, 4:8, 4:8] = noise(6, 1)[:, :, 4:8, 4:8]
    whole, worst = compared(one, two).unbind(1)
    assert (worst > 1.5 * whole).all()


def test_flat_pictures_are_compared_without_dividing_by_zero() -> None:
    flat = torch.stack([torch.full((3, 16, 16), value) for value in (-1.0, 0.0, 1.0)])
    found = compared(flat, flat.roll(1, 0))
    assert found.isfinite().all()
    assert (found > 1).all()
    assert all(view.isfinite().all() for view in thumbnails(flat))
