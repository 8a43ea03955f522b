"""Sliced Wasserstein distance against the exact result on the line, and level by level."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.wasserstein import (
    laplacian_pyramid,
    sliced_wasserstein,
    upsampled,
    wasserstein_1d,
)

Draw = Callable[..., tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 17), (1, 9)])
def test_on_the_line_it_is_the_exact_distance(n: int, m: int) -> None:
    x, y = normal(3, n), 0.5 + 2 * normal(3, m, seed=1)
    expected = [scipy.stats.wasserstein_distance(a, b) for a, b in zip(x, y, strict=True)]
    assert wasserstein_1d(x, y).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_shift_on_the_line_is_its_own_distance_whatever_the_numbers() -> None:
    x = normal(1, 40)
    assert float(wasserstein_1d(x.repeat(1, 3) + 0.7, x)) == pytest.approx(0.7, rel=1e-5)
    assert float(wasserstein_1d(x, x)) == 0


def test_pyramid_levels_add_up_to_the_pictures() -> None:
    images = normal(2, 3, 28, 28)
    coarse, *finer = laplacian_pyramid(images, 3)
    for level in finer:
        coarse = level + upsampled(coarse, level)
    assert torch.allclose(coarse, images, atol=1e-5)


def test_each_level_answers_for_its_scale(drawn: Draw) -> None:
    real, more = drawn(200, 0, size=28)[0], drawn(200, 1, size=28)[0]
    same = sliced_wasserstein(more, real)
    assert len(same) == 3
    soft = F.avg_pool2d(F.pad(more, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = more + 0.1 * normal(*more.shape)
    brighter = more + 0.4
    for spoilt in (soft, noisy):
        coarse, _, fine = sliced_wasserstein(spoilt, real)
        assert coarse < 1.5 * same[0]
        assert fine > 2 * same[2]
    coarse, _, fine = sliced_wasserstein(brighter, real)
    assert coarse > 2 * same[0]
    assert fine == pytest.approx(same[2], abs=1e-4)


def test_distance_grows_with_the_damage(drawn: Draw) -> None:
    real, more = drawn(150, 0, channels=3)[0], drawn(150, 1, channels=3)[0]
    tint = torch.tensor([1.0, 0, -1]).view(3, 1, 1)
    coarse = [sliced_wasserstein(more + s * tint, real)[0] for s in (0.0, 0.2, 0.4)]
    assert coarse == sorted(coarse)


def test_same_seed_same_result() -> None:
    x, y = normal(20, 1, 16, 16), normal(30, 1, 16, 16, seed=1)
    one, two, other = (
        sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert one == two != other
    assert len(sliced_wasserstein(x, y, levels=1)) == 1


def test_pictures_without_contrast_give_finite_numbers() -> None:
    flat = torch.zeros(4, 1, 16, 16)
    assert sliced_wasserstein(flat, flat) == [0, 0]
    assert all(value < float("inf") for value in sliced_wasserstein(flat + 1, flat))


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(4, 1, 16, 16)
    with pytest.raises(ValueError, match="the same size"):
        sliced_wasserstein(x, torch.zeros(4, 1, 8, 8))
    with pytest.raises(ValueError, match="1 to 2"):
        sliced_wasserstein(x, x, levels=3)
    with pytest.raises(ValueError, match="num_projections"):
        sliced_wasserstein(x, x, num_projections=0)
