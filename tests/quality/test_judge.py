"""The judge takes the largest of its parts in floors, is unbiased, and pairs what can be paired."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality import Judge, NativeFeatures
from noisewise.quality.feature_scale import FeatureScale

Draw = Callable[..., tuple[Tensor, Tensor]]


def means(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 4).flatten(1)


def energies(x: Tensor) -> Tensor:
    fine = x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return F.adaptive_avg_pool2d(fine.square(), 4).flatten(1).sqrt()


def noisy(x: Tensor, level: float) -> Tensor:
    return x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(9))


def test_the_part_that_sees_the_fault_decides(drawn: Draw) -> None:
    real, more = drawn(200, 0)[0], drawn(200, 1)[0]
    judge = Judge(real, [means, energies])
    fine, coarse = judge.measure(noisy(more, 0.3)), judge.measure(more + 0.3)
    assert (fine.decided_by, coarse.decided_by) == ("energies", "means")
    assert min(fine.value, coarse.value) > 2
    assert fine.parts[0].ratio < 1.2 < 2 < fine.parts[1].ratio  # the naive part is blind
    assert fine.low <= fine.value <= fine.high


def test_several_parts_have_a_joint_floor(drawn: Draw) -> None:
    real, more = drawn(200, 0)[0], drawn(200, 1)[0]
    found = Judge(real, [means, energies]).measure(noisy(more, 0.3))
    alone = Judge(real, [energies]).measure(noisy(more, 0.3))
    assert alone.value == pytest.approx(alone.parts[0].ratio)
    assert 0.6 * alone.value < found.value <= alone.value


def test_real_pictures_stay_within_a_floor() -> None:
    def pixels(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :32]

    def squares(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :32] ** 2

    values = []
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        pool = torch.randn(120, 1, 8, 8, generator=g) / 3
        values.append(Judge(pool[:60], [pixels, squares]).measure(pool[60:]).value)
    found = torch.tensor(values)
    assert float((found <= 1).double().mean()) >= 0.92
    assert abs(float(torch.stack([found]).mean())) < 0.5


def test_a_scale_fitted_to_the_pictures_it_measures_is_biased() -> None:
    """Why a reference has two folds: in-sample, real pictures look different from each other."""
    g = torch.Generator().manual_seed(0)
    fitted, other = torch.randn(60, 400, generator=g), torch.randn(60, 400, generator=g)
    scale = FeatureScale.fit(fitted, other)
    inside, outside = (scale(x).square().mean() for x in (fitted, other))
    assert float(outside) == pytest.approx(1, rel=1e-3)
    assert float(inside) < 0.8


def test_pictures_from_the_same_noise_are_compared_in_pairs(drawn: Draw) -> None:
    real, more = drawn(150, 0)[0], drawn(100, 1)[0]
    judge = Judge(real)
    one, two = judge.measure(noisy(more, 0.10)), judge.measure(noisy(more, 0.13))
    difference = two.minus(one)
    assert one.high > two.low  # the plain intervals overlap
    assert difference.surely_more
    assert not difference.surely_less
    assert one.minus(two).surely_less
    with pytest.raises(ValueError, match="cannot be paired"):
        one.minus(judge.measure(more[:50]))


def test_the_standard_number_of_pictures_makes_numbers_comparable(drawn: Draw) -> None:
    judge = Judge(drawn(300, 0)[0])
    more = noisy(drawn(300, 1)[0], 0.3)
    many, few = judge.measure(more), judge.measure(more[:100])
    assert many.value > 1.3 * few.value
    assert few.at_standard == pytest.approx(many.at_standard, rel=0.35)


def test_same_pictures_same_number(drawn: Draw) -> None:
    real, more = drawn(60, 0)[0], drawn(40, 1)[0]
    assert Judge(real).measure(more) == Judge(real).measure(more)
    generator = torch.Generator().manual_seed(4)
    other = Judge(real, [means, energies], generator, max_images=40)
    again = Judge(real, [means, energies], torch.Generator().manual_seed(4), max_images=40)
    assert len(other) == 40
    assert other.measure(more) == again.measure(more)
    assert set(other.measure(more).to_dict()["parts"]) == {"means", "energies"}


def test_it_reads_grey_colour_alpha_and_any_size() -> None:
    g = torch.Generator().manual_seed(0)
    for shape in ((1, 16, 16), (3, 28, 36), (4, 40, 40), (3, 200, 160)):
        x = torch.rand(24, *shape, generator=g) * 2 - 1
        found = Judge(x[:12]).measure(0.3 * x[12:])
        assert found.value > 1, shape
        assert found.decided_by == NativeFeatures.name


def test_no_extractor_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Judge(torch.rand(8, 1, 8, 8), [])
