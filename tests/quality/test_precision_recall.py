"""Precision and recall equal their definition, and the toy cases of the paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.precision_recall import precision_recall

Draw = Callable[..., tuple[Tensor, Tensor]]


def corner(images: Tensor) -> Tensor:
    """Two features: the first two pixels."""
    return images[:, 0, 0, :2]


def pictures_of(points: Tensor) -> Tensor:
    images = torch.zeros(len(points), 1, 8, 8)
    images[:, 0, 0, :2] = points
    return images


def normal(n: int, spread: float, centre: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return centre + spread * torch.randn(n, 2, generator=g)


def naive(queries: Tensor, points: Tensor, k: int) -> float:
    """Equation 1 of the paper, one picture after the other."""
    inside = 0
    for query in queries:
        for i, point in enumerate(points):
            others = torch.cat([points[:i], points[i + 1 :]])
            radius = (others - point).norm(dim=1).sort().values[k - 1]
            if (query - point).norm() <= radius:
                inside += 1
                break
    return inside / len(queries)


def test_it_is_the_definition(drawn: Draw) -> None:
    images, _ = drawn(50, seed=0)
    made, real = images[:20] * 0.9, images[20:]
    found = precision_recall(made, real, k=3)
    a, b = NativeFeatures()(made).double(), NativeFeatures()(real).double()
    scale = b.std(0)
    scale = (scale**2 + (0.05 * scale.mean()) ** 2).sqrt()
    assert found.precision == naive(a / scale, b / scale, 3)
    assert found.recall == naive(b / scale, a / scale, 3)
    assert found.real_like.double().mean() == pytest.approx(found.precision)


def test_a_lost_half_costs_recall_and_not_precision() -> None:
    real = torch.cat([normal(200, 0.05, -0.5, 0), normal(200, 0.05, 0.5, 1)])
    found = precision_recall(
        pictures_of(normal(400, 0.05, 0.5, 2)), pictures_of(real), extractor=corner
    )
    assert found.precision > 0.95
    assert found.recall == pytest.approx(0.5, abs=0.03)


def test_too_wide_a_set_costs_precision_and_not_recall() -> None:
    real, wide = normal(400, 0.05, 0, 0), normal(400, 0.3, 0, 1)
    found = precision_recall(pictures_of(wide), pictures_of(real), extractor=corner)
    assert found.precision < 0.3
    assert found.recall > 0.9


def test_copies_count_even_where_a_ball_has_no_size() -> None:
    same = pictures_of(torch.full((10, 2), 0.25))
    assert precision_recall(same, same, extractor=corner).precision == 1


def test_what_does_not_fit_is_refused(drawn: Draw) -> None:
    images, _ = drawn(12, seed=0)
    with pytest.raises(ValueError, match="more than k pictures"):
        precision_recall(images[:5], images, k=5)
    with pytest.raises(ValueError, match="same size"):
        precision_recall(images, images[:, :, :8, :8], extractor=lambda x: x.flatten(1))
