"""Nearest pictures by brute force; planted copies are found, mirrored ones and twins too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise.quality.copies import CopyReference, copy_test, duplicates, nearest, wilson

Draw = Callable[..., tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("flips", [False, True])
def test_nearest_is_what_brute_force_finds(flips: bool) -> None:
    images, training = normal(20, 3, 8, 8), normal(50, 3, 8, 8, seed=1)

    def rms(x: Tensor) -> Tensor:
        return (x[:, None] - training[None]).double().square().mean((2, 3, 4)).sqrt()

    all_of_them = torch.minimum(rms(images), rms(images.flip(3))) if flips else rms(images)
    expected, index = all_of_them.sort(1)
    found = nearest(images, training, k=4, flips=flips)
    assert torch.equal(found.index, index[:, :4])
    assert torch.allclose(found.distance.double(), expected[:, :4], rtol=1e-5)


def test_blocks_change_nothing() -> None:
    images, training = normal(600, 1, 8, 8), normal(9000, 1, 8, 8, seed=1)
    expected = torch.cdist(images.flatten(1).double(), training.flatten(1).double()).argmin(1)
    assert torch.equal(nearest(images, training, k=1).index[:, 0], expected)


def test_an_exact_copy_has_distance_zero_in_spite_of_rounding() -> None:
    training = 1 - 1e-3 * torch.rand(100, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = nearest(training[40:60], training)
    assert torch.equal(found.index[:, 0], torch.arange(40, 60))
    assert torch.equal(found.distance[:, 0], torch.zeros(20))


@pytest.mark.parametrize("flips", [False, True])
def test_a_reference_finds_what_the_test_finds(flips: bool) -> None:
    """Also with duplicates among the training pictures, and for a second set of pictures."""
    training, held_out = normal(50, 1, 8, 8, seed=1), normal(9, 1, 8, 8, seed=2)
    training = torch.cat([training, training[:5], training[5:10].flip(3)])
    reference = CopyReference(training, held_out, flips=flips)
    assert reference.num_duplicates == (10 if flips else 5)
    for seed in (3, 4):
        images = torch.cat([normal(20, 1, 8, 8, seed=seed), training[:2].flip(3)])
        found = reference.test(images)
        expected = copy_test(images, training, held_out, flips=flips)
        for name, value in vars(expected).items():
            mine = getattr(found, name)
            assert torch.equal(mine, value) if isinstance(value, Tensor) else mine == value, name
        assert found.fraction == (2 / 22 if flips else 0)
        near = nearest(held_out, training, k=1, flips=flips).distance[:, 0]
        assert torch.equal(found.held_out_distance, near)
    assert len(CopyReference(training).test(images).held_out_distance) == 0


def test_planted_copies_are_found_and_new_pictures_are_not(drawn: Draw) -> None:
    training, held_out, new = (drawn(n, s, channels=3)[0] for n, s in ((400, 0), (100, 1), (90, 2)))
    copies = training[7:17] + 0.02 * normal(10, 3, 16, 16)
    found = copy_test(torch.cat([new, copies]), training, held_out)
    assert found.copied[-10:].all()
    assert torch.equal(found.index[-10:], torch.arange(7, 17))
    assert found.held_out_fraction is not None
    assert found.fraction == pytest.approx(0.1 + 0.9 * found.held_out_fraction, abs=0.05)
    assert found.low < found.fraction < found.high
    closest = found.closest(10)
    assert len(closest) == 10
    assert found.copied[closest].all()
    assert found.median_ratio == pytest.approx(1, abs=0.15)


def test_mirrored_copies_are_found_with_flips_only(drawn: Draw) -> None:
    training = normal(60, 1, 8, 8)
    mirrored = training[:12].flip(3) + 0.01
    assert copy_test(mirrored, training).fraction == 0
    found = copy_test(mirrored, training, flips=True)
    assert found.fraction == 1
    assert torch.equal(found.index, torch.arange(12))


@pytest.mark.parametrize("flips", [False, True])
def test_duplicates_among_the_training_pictures_do_not_hide_a_copy(flips: bool) -> None:
    training = normal(30, 1, 8, 8)
    twice = torch.cat([training, training.flip(3) if flips else training])
    copies = training[5:10] + 0.05
    naive = nearest(copies, twice, k=2, flips=flips).distance
    assert (naive[:, 0] / naive[:, 1]).min() > 0.9  # two equal neighbours: no copy to be seen
    found = copy_test(copies, twice, flips=flips)
    assert (found.fraction, found.num_duplicates) == (1, 30)
    assert torch.equal(found.index, torch.arange(5, 10))


def test_an_index_counts_in_the_training_pictures_given() -> None:
    training = normal(10, 1, 8, 8)
    doubled = torch.cat([training[:1], training])
    assert copy_test(training[4:6], doubled).index.tolist() == [5, 6]


def test_the_same_8_bit_picture_is_a_copy_though_its_twin_is_near() -> None:
    training = normal(10, 1, 8, 8).clamp(-1, 1)
    near = training[:1] + 0.005
    found = copy_test(training[:1] + 0.001, torch.cat([training, near]))
    assert found.fraction == 1


def test_memorising_shows_in_the_median_ratio() -> None:
    training, held_out = normal(50, 1, 8, 8), normal(50, 1, 8, 8, seed=1)
    found = copy_test(training + 0.1 * normal(50, 1, 8, 8, seed=2), training, held_out)
    assert found.median_ratio is not None
    assert found.median_ratio < 0.2
    assert copy_test(held_out, training).median_ratio is None


def test_duplicates_are_grouped() -> None:
    images = normal(5, 1, 8, 8)
    assert duplicates(images) == []
    repeated = torch.cat([images, images[3:4], images[1:2], images[3:4]])
    assert duplicates(repeated) == [(1, 6), (3, 5, 7)]
    assert duplicates((repeated * 50).to(torch.uint8)) == [(1, 6), (3, 5, 7)]


def test_the_interval_iswilsons() -> None:
    # Brown, Cai and DasGupta 2001: n = 10, none; and half of 100
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(10, 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(4, 1, 8, 8)
    with pytest.raises(ValueError, match="the same size"):
        nearest(x, torch.zeros(4, 3, 8, 8))
    with pytest.raises(ValueError, match="k is 5"):
        nearest(x, x, k=5)
    with pytest.raises(ValueError, match="threshold"):
        copy_test(x, x, threshold=1.5)
    with pytest.raises(ValueError, match="two different"):
        copy_test(x, x)
