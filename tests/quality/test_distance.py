"""The distance orders known damages, its interval covers, its floor is what real pictures score."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality import distance, floor
from noisewise.quality.distance import Distance, Reference

Draw = Callable[..., tuple[Tensor, Tensor]]
NUM = 300


def noise(like: Tensor, seed: int = 9) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def blurred(x: Tensor, passes: int) -> Tensor:
    for _ in range(passes):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x


def speckled(x: Tensor, share: float) -> Tensor:
    g = torch.Generator().manual_seed(3)
    hit = torch.rand(x.shape, generator=g) < share
    return torch.where(hit, torch.sign(torch.randn(x.shape, generator=g)), x)


def means_of_cells(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 4).flatten(1)


@pytest.fixture(scope="module")
def colour(drawn: Draw) -> tuple[Reference, Tensor, Tensor]:
    """A reference, other pictures of the same law, and their shapes."""
    real, _ = drawn(NUM, 0, channels=3)
    more, label = drawn(4 * NUM, 1, channels=3)
    return Reference(real), more, label


GRADES: dict[str, list[Callable[[Tensor, Tensor], Tensor]]] = {
    "blur": [lambda x, _, p=p: blurred(x, p) for p in (1, 2, 4)],
    "noise": [lambda x, _, s=s: x + s * noise(x) for s in (0.1, 0.2, 0.5)],
    "colour": [
        lambda x, _, s=s: x + s * torch.tensor([1.0, 0, -1]).view(3, 1, 1) for s in (0.1, 0.2, 0.4)
    ],
    "contrast": [lambda x, _, s=s: x * s for s in (0.8, 0.6, 0.3)],
    "speckle": [lambda x, _, s=s: speckled(x, s) for s in (0.01, 0.04, 0.2)],
    "shift": [lambda x, _, s=s: x.roll(s, 3) for s in (1, 2, 4)],
    "few copies": [lambda x, _, k=k: x[torch.arange(len(x)) % k] for k in (16, 6, 2)],
}


@pytest.mark.parametrize("damage", GRADES)
def test_damage_is_seen_and_ordered_by_strength(
    damage: str, colour: tuple[Reference, Tensor, Tensor]
) -> None:
    reference, more, label = colour
    found = [reference.distance(spoil(more[:NUM], label[:NUM])) for spoil in GRADES[damage]]
    values = [one.value for one in found]
    assert values == sorted(values)
    assert found[0].value > 2 * found[0].floor, found[0]
    assert all(weak.high < strong.low for weak, strong in pairwise(found))


def test_missing_shapes_are_seen_and_ordered(colour: tuple[Reference, Tensor, Tensor]) -> None:
    reference, more, label = colour
    found = [reference.distance(more[label < kept][:NUM]) for kept in (3, 2, 1)]
    values = [one.value for one in found]
    assert values == sorted(values)
    assert values[0] > 2 * found[0].floor


def test_plain_means_are_blind_to_the_noise_that_these_features_see(drawn: Draw) -> None:
    real, more = drawn(NUM, 0)[0], drawn(NUM, 1)[0]
    for spoilt in (more + 0.15 * noise(more), speckled(more, 0.03)):
        ours, naive = distance(spoilt, real), distance(spoilt, real, means_of_cells)
        assert naive.ratio < 1 < 2 < ours.ratio


def test_real_pictures_score_below_the_floor_nineteen_times_in_twenty(drawn: Draw) -> None:
    reference = Reference(drawn(400, 0)[0], means_of_cells)
    ratios = torch.tensor([reference.distance(drawn(80, 10 + i)[0]).ratio for i in range(60)])
    # the reference is one draw, so its own luck is in all sixty
    assert float((ratios < 1).double().mean()) > 0.8
    assert abs(float(ratios.mean())) < 0.6


def test_the_floor_shrinks_with_the_number_of_pictures(drawn: Draw) -> None:
    real = drawn(200, 0)[0]
    reference = Reference(real)
    assert reference.floor(10) > reference.floor(100) > reference.floor(10_000) > 0
    assert floor(real, 100) == reference.floor(100)
    small = Reference(drawn(100, 2)[0])
    assert small.floor(100) == pytest.approx(2 * reference.floor(200), rel=0.6)
    assert reference.floor_between(100, 100) == pytest.approx(2 * reference.floor(200))


@pytest.mark.parametrize(("shift", "least"), [(0.0, 0.93), (0.3, 0.85)])
def test_the_interval_covers(shift: float, least: float) -> None:
    def pixels(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :6]

    def draw(num_images: int, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        return torch.randn(num_images, 1, 8, 8, generator=g)

    found = [distance(draw(60, seed) + shift, draw(90, 1000 + seed), pixels) for seed in range(120)]
    large = distance(draw(4000, 5000) + shift, draw(2000, 5001), pixels)
    truth = large.value if shift else 0.0
    covered = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert covered >= least
    assert all(one.low <= one.value <= one.high for one in found)


def test_the_value_does_not_depend_on_how_many_are_judged(drawn: Draw) -> None:
    reference = Reference(drawn(NUM, 0)[0])
    spoilt = blurred(drawn(NUM, 1)[0], 2)
    whole = reference.distance(spoilt)
    parts = [reference.distance(part).value for part in spoilt.split(30)]
    assert sum(parts) / len(parts) == pytest.approx(whole.value, rel=0.1)


def test_same_seed_same_result_and_value_free_of_the_seed(drawn: Draw) -> None:
    real, more = drawn(80, 0)[0], drawn(80, 1)[0]
    reference = Reference(real)
    one, two, other = (
        reference.distance(more, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert one == two
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)
    assert reference.distance(more) == distance(more, real)


def test_state_carries_the_reference_without_pictures(drawn: Draw) -> None:
    real, more = drawn(80, 0)[0], drawn(60, 1)[0]
    reference = Reference(real)
    state = reference.state()
    assert Reference.from_state(state).distance(more) == reference.distance(more)
    fewer = Reference.from_state(reference.state(num_images=40))
    assert len(fewer) == 40
    assert fewer.distance(more).num_b == 40
    with pytest.raises(ValueError, match="was made with the extractor noisewise-2"):
        Reference.from_state(state, means_of_cells)
    with pytest.raises(ValueError, match="lacks features"):
        Reference.from_state({"extractor": state["extractor"]})


def test_a_large_reference_is_thinned(drawn: Draw) -> None:
    real = drawn(50, 0)[0]
    reference = Reference(real, means_of_cells, max_images=20)
    again = Reference(real, means_of_cells, torch.Generator().manual_seed(0), max_images=20)
    assert len(reference) == 20
    assert reference.distance(real) == again.distance(real)


def test_pictures_that_are_all_alike_give_a_finite_distance() -> None:
    alike = torch.zeros(8, 1, 8, 8)
    found = distance(alike, alike)
    assert (found.value, found.floor) == pytest.approx((0, 0), abs=1e-9)
    assert found.ratio == float("inf")
    assert distance(alike + 0.5, alike).value < float("inf")


def test_a_distance_says_everything(drawn: Draw) -> None:
    found = distance(drawn(10, 0)[0], drawn(12, 1)[0], means_of_cells)
    assert isinstance(found, Distance)
    assert (found.num_a, found.num_b, found.extractor) == (10, 12, "means_of_cells")
    assert set(found.to_dict()) == {
        "value", "low", "high", "floor", "num_a", "num_b", "extractor"
    }  # fmt: skip


def test_too_little_is_refused(drawn: Draw) -> None:
    real = drawn(8, 0)[0]
    with pytest.raises(ValueError, match="at least 8"):
        Reference(real[:3])
    with pytest.raises(ValueError, match="at least 8"):
        Reference(real, max_images=3)
    reference = Reference(real, means_of_cells)
    with pytest.raises(ValueError, match="at least 2"):
        reference.distance(real[:1])
    with pytest.raises(ValueError, match="at least 2"):
        reference.floor(1)
    with pytest.raises(ValueError, match="at least 8"):
        reference.state(num_images=3)
    with pytest.raises(ValueError, match="same size and number of channels"):
        reference.distance(real.expand(-1, 2, -1, -1))


@pytest.mark.slow
def test_a_thousand_pictures_cost_seconds_not_minutes(drawn: Draw) -> None:
    real, more = drawn(1000, 0, size=28)[0], drawn(1000, 1, size=28)[0]
    reference = Reference(real)
    start = time.process_time()
    reference.distance(more)
    assert time.process_time() - start < 6
