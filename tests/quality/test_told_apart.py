"""The classifier is honest: 50 % where nothing is to be seen; its map points at the damage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.ridge import Scaling, fit
from noisewise.quality.told_apart import ToldApart, evidence_maps, told_apart

Draw = Callable[..., tuple[Tensor, Tensor]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(images: Tensor) -> Tensor:
    """Cheap features: 4 x 4 means."""
    return F.adaptive_avg_pool2d(images, 4).flatten(1)


def blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, 1)


def splits(drawn: Draw, n: int, m: int, count: int) -> list[ToldApart]:
    images, _ = drawn(2000, seed=0)
    found = []
    for seed in range(count):
        order = torch.randperm(len(images), generator=seeded(seed))
        a, b = images[order[:n]], images[order[n : n + m]]
        found.append(told_apart(a, b, extractor=small, generator=seeded(seed)))
    return found


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 160), (160, 40), (13, 11)])
def test_real_against_real_is_fifty(drawn: Draw, n: int, m: int) -> None:
    found = splits(drawn, n, m, 150)
    accuracy = torch.tensor([one.accuracy for one in found])
    error = float(accuracy.std()) / len(found) ** 0.5
    assert abs(float(accuracy.mean()) - 0.5) < 3 * error
    held = [one.low <= 0.5 <= one.high for one in found]
    assert sum(held) >= 0.9 * len(held)


def test_a_classifier_that_judges_what_it_has_seen_is_not_honest(drawn: Draw) -> None:
    images, _ = drawn(80, seed=0)
    x = small(images)
    x = Scaling.of(x)(x)
    side = torch.where(torch.arange(80) < 40, 1.0, -1.0)
    assert (fit(x, side[:, None], penalties=(0.1,))(x)[:, 0] * side > 0).float().mean() > 0.65


def equal_neighbours(images: Tensor) -> Tensor:
    """How many pixels of each row equal the one beside them: an exact ground betrays a net."""
    return (images[..., 1:] == images[..., :-1]).float().mean((1, 3))


def test_a_fault_that_nobody_sees_counts_only_without_the_noise(drawn: Draw) -> None:
    images, _ = drawn(240, seed=1)
    made = images[:120] + 0.01 * torch.randn(images[:120].shape, generator=seeded(2))
    exact = told_apart(made, images[120:], extractor=equal_neighbours, noise=0)
    assert exact.accuracy > 0.95
    found = told_apart(made, images[120:], extractor=equal_neighbours)
    assert found.low <= 0.5 <= found.high


def test_worse_pictures_are_told_apart_more_often(drawn: Draw) -> None:
    images, _ = drawn(200, seed=1)
    noise = torch.randn(images[:100].shape, generator=seeded(2))
    faults = (0.05, 0.1, 0.3)
    found = [told_apart(images[:100] + s * noise, images[100:]).accuracy for s in faults]
    assert found == sorted(found)
    assert found[-1] > 0.9


def test_the_worst_pictures_are_the_damaged_ones(drawn: Draw) -> None:
    images, _ = drawn(200, seed=1)
    made = images[:100].clone()
    made[::3] = blurred(blurred(made[::3]))
    worst = told_apart(made, images[100:]).worst(12)
    assert (worst % 3 == 0).float().mean() > 0.8


def test_copies_of_the_compared_pictures_give_less_than_fifty(drawn: Draw) -> None:
    images, _ = drawn(100, seed=1)
    assert told_apart(images, images).accuracy < 0.5


def test_the_same_seed_gives_the_same_result_and_touches_no_other(drawn: Draw) -> None:
    images, _ = drawn(60, seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (told_apart(images[:30], images[30:]) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.evidence, second.evidence)
    assert (first.num_generated, first.num_real, first.extractor) == (30, 30, "noisewise-2")


def test_only_so_many_pictures_are_used(drawn: Draw) -> None:
    images, _ = drawn(60, seed=1)
    found = told_apart(images[:40], images[40:], extractor=small, max_images=15)
    assert (found.num_generated, found.num_real) == (15, 15)
    assert set(found.worst(3).tolist()) <= set(found.index.tolist())


@pytest.mark.parametrize("shape", [(1, 16, 40), (4, 40, 16), (3, 200, 160)])
def test_any_size_and_number_of_channels(shape: tuple[int, int, int]) -> None:
    images = torch.rand(24, *shape, generator=seeded(0)) * 2 - 1
    assert told_apart(images[:12] * 0.5, images[12:]).accuracy > 0.9
    assert evidence_maps(images[:12], images[12:]).shape == (12, 4, 4)


# ---------------------------------------------------------------------- the map
def planted(images: Tensor, worse: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Damage in one random quarter of each picture, and which one."""
    quarter = torch.randint(4, (len(images),), generator=seeded(seed))
    made, (height, width) = images.clone(), images.shape[2:]
    for i, q in enumerate(quarter.tolist()):
        top, left = q // 2 * (height // 2), q % 2 * (width // 2)
        place = (i, slice(None), slice(top, top + height // 2), slice(left, left + width // 2))
        made[place] = worse[place]
    return made, quarter


def strongest(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps[:, None], 2).flatten(1).argmax(1)


@pytest.mark.parametrize("damage", ["noise", "blur", "stain"])
def test_the_map_points_at_the_damage(drawn: Draw, damage: str) -> None:
    images, _ = drawn(500, seed=3, size=20)
    images = images / 2  # room for stains on both sides
    images = images + 0.3 * F.interpolate(  # texture, so that there is something to blur
        torch.randn(500, 1, 10, 10, generator=seeded(4)), size=(20, 20), mode="bilinear"
    )
    real, made = images[:250], images[250:]
    worse = {
        "noise": made + 0.25 * torch.randn(made.shape, generator=seeded(5)),
        "blur": blurred(blurred(made)),
        "stain": made + 0.5,
    }[damage]
    made, quarter = planted(made, worse, seed=6)
    maps = evidence_maps(made, real)
    found = strongest(maps) == quarter
    assert found.float().mean() > 0.7
    sure = maps.flatten(1).amax(1) > 1
    assert found[sure].float().mean() > 0.85


def test_the_map_of_undamaged_pictures_points_nowhere(drawn: Draw) -> None:
    images, _ = drawn(300, seed=3)
    maps = evidence_maps(images[:150], images[150:])
    assert (maps.flatten(1).amax(1) > 1).float().mean() < 0.02


# ---------------------------------------------------------------------- refusals
def test_what_does_not_fit_is_refused(drawn: Draw) -> None:
    images, _ = drawn(30, seed=1)
    with pytest.raises(ValueError, match="at least 10"):
        told_apart(images[:9], images)
    with pytest.raises(ValueError, match="same size"):
        told_apart(images, images[:, :, :12])
    with pytest.raises(ValueError, match="16 or more"):
        evidence_maps(images[:, :, :12], images[:, :, :12])
