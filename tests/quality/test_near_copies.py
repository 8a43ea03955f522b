"""Near copies are found where the rule of exact pixels is blind, and real pictures set the rule."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from noisewise.quality.copies import copy_test
from noisewise.quality.near_copies import NearCopyReference, NearCopyTest
from noisewise.quality.place_features import NativePlaces
from noisewise.quality.planted_copies import planted_copies


def scenes(num_images: int, seed: int, size: int = 16, channels: int = 3) -> Tensor:
    """Smooth random patterns on a dark ground: no two resemble each other."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_images, channels, 6, 6, generator=g)
    fine = torch.randn(num_images, channels, 12, 12, generator=g)
    images = [
        torch.nn.functional.interpolate(part, size=(size, size), mode="bicubic")
        for part in (coarse, 0.7 * fine)
    ]
    line = torch.linspace(-1, 1, size)
    inside = (line[:, None].square() + line.square()).sqrt() < 0.8
    mixed = torch.where(inside, torch.tanh(images[0] + images[1]), torch.tensor(-1.0))
    return ((mixed + 1) * 127.5).round() / 127.5 - 1


def same(one: NearCopyTest, two: NearCopyTest) -> bool:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if not (torch.equal(a, b) if isinstance(a, Tensor) else a == b):
            return False
    return True


def test_shifted_recoloured_and_stained_copies_are_found_and_matched() -> None:
    """The rule d_1 < d_2 / 3 misses most of them."""
    training = scenes(120, seed=0, size=32)
    reference = NearCopyReference(training)
    old, new = [], []
    made = planted_copies(training[50:90], generator=torch.Generator().manual_seed(9))
    for kind in ("shifted", "recoloured", "stained", "warped", "several"):
        found = reference.test(made[kind])
        old.append(copy_test(made[kind], training).fraction)
        new.append(found.fraction)
        matched = (found.index == torch.arange(50, 90)).double().mean()
        assert matched > 0.9, kind
    assert min(new) > 0.7, new
    assert sum(old) < 0.6 * sum(new), (old, new)


def test_the_stated_power_is_what_other_planted_copies_show() -> None:
    training = scenes(150, seed=0)
    reference = NearCopyReference(training)
    made = planted_copies(training[100:], generator=torch.Generator().manual_seed(5))
    shares = [reference.test(copies).fraction for copies in made.values()]
    stated = reference.test(training[:1])
    assert abs(sum(shares) / len(shares) - stated.power) < 0.1
    assert set(stated.power_by_change) == set(made)
    assert stated.can_tell
    assert "It finds" in stated.verdict


def test_new_pictures_are_called_copies_no_more_often_than_stated() -> None:
    training, new = scenes(300, seed=0), scenes(400, seed=1)
    found = NearCopyReference(training, new[:100]).test(new)
    assert found.allowed == pytest.approx(3 / 301)
    assert found.fraction < 0.03
    assert found.held_out_fraction is not None
    assert found.held_out_fraction < 0.05
    assert found.low <= found.fraction <= found.high


def test_enough_held_out_pictures_set_the_rule() -> None:
    training, unseen = scenes(60, seed=0, channels=1), scenes(520, seed=1, channels=1)
    found = NearCopyReference(training, unseen).test(unseen[:10])
    assert found.num_real == 520
    assert found.allowed == pytest.approx(5 / 521)
    assert found.held_out_fraction is not None
    assert 0 < found.held_out_fraction <= 5 / 520


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 16), (3, 32), (4, 28), (3, 30), (3, 100), (1, 256)]
)
def test_exact_copies_are_always_found(channels: int, size: int) -> None:
    """With duplicates, near duplicates and mirror images among the training pictures."""
    training = scenes(30, seed=0, size=size, channels=channels)
    faint = training[5:15] + 0.03 * scenes(10, seed=3, size=size, channels=channels)
    training = torch.cat([training, training[:5], faint.clamp(-1, 1), training[20:22].flip(3)])
    found = NearCopyReference(training).test(training)
    assert found.fraction == 1
    assert found.exact.all()
    mirrored = NearCopyReference(training, flips=True).test(training[:8].flip(3))
    assert mirrored.fraction == 1
    assert torch.equal(mirrored.index, torch.arange(8))


def test_mirrored_near_copies_count_with_flips_alone() -> None:
    training = scenes(100, seed=0)
    copies = planted_copies(training[:30].flip(3))["noisy"]
    assert NearCopyReference(training).test(copies).fraction < 0.1
    found = NearCopyReference(training, flips=True).test(copies)
    assert found.fraction > 0.9
    assert found.power_by_change["mirrored"] > 0.9


def test_pictures_that_resemble_each_other_lower_the_power_and_words_say_so() -> None:
    """A quarter of the real pictures have a twin that differs in one small place."""
    training = scenes(160, seed=0)
    twins = training[:40].clone()
    twins[:, :, 7:9, 7:9] *= -1
    found = NearCopyReference(torch.cat([training, twins])).test(scenes(20, seed=2))
    assert not found.can_tell
    assert "does not show that there are none" in found.verdict


def test_few_pictures_and_pictures_all_alike() -> None:
    few = NearCopyReference(scenes(20, seed=0)).test(scenes(5, seed=1))
    assert few.allowed == pytest.approx(1 / 21)
    fewer = NearCopyReference(scenes(6, seed=0))
    found = fewer.test(torch.cat([scenes(6, seed=0)[:1], scenes(1, seed=1)]))
    assert found.copied.tolist() == [True, False]
    assert "Only 6 training pictures differ" in found.verdict
    alike = NearCopyReference(torch.zeros(30, 3, 16, 16))
    found = alike.test(torch.cat([torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)]))
    assert found.copied.tolist() == [True, False]
    assert found.power == 0
    assert "cannot be told" in found.verdict


def test_results_depend_on_the_pictures_alone() -> None:
    training, images = scenes(80, seed=0), scenes(70, seed=1)
    images[:10] = planted_copies(training[:10])["warped"]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    reference = NearCopyReference(training)
    whole, again = reference.test(images), NearCopyReference(training).test(images)
    assert torch.equal(state, torch.get_rng_state())
    assert same(whole, again)
    one = torch.cat([reference.test(image[None]).copied for image in images[:12]])
    assert torch.equal(one, whole.copied[:12])
    closest = whole.closest(5)
    assert (whole.score[closest].diff() >= 0).all()


def test_features_are_used_where_they_find_more() -> None:
    training = scenes(60, seed=0)
    plain = NearCopyReference(training).test(training[:1])
    both = NearCopyReference(training, features=NativePlaces()).test(training[:1])
    assert both.compared in {"pixels", "features", "pixels and features"}
    assert both.power >= plain.power


def test_features_that_know_the_source_are_chosen() -> None:
    """Pixels are blind: every picture has twins that differ in few. Made-up features are not."""
    base = scenes(15, seed=0, size=16, channels=1)
    training = base.repeat(4, 1, 1, 1)
    training[:, :, 6:10, 6:10] = scenes(60, seed=1, size=16, channels=1)[:, :, 6:10, 6:10]
    plain = NearCopyReference(training).test(training[:1])
    shown = torch.randn(60, 16, 8, generator=torch.Generator().manual_seed(0))

    def features(images: Tensor) -> Tensor:
        return shown[torch.cdist(images.flatten(1), training.flatten(1)).argmin(1)]

    found = NearCopyReference(training, features=features).test(training[:1])
    assert not plain.can_tell
    assert found.compared != "pixels"
    assert found.power > plain.power + 0.2


def test_what_cannot_be_compared_is_refused() -> None:
    training = scenes(30, seed=0)
    with pytest.raises(ValueError, match="same size"):
        NearCopyReference(training).test(scenes(3, seed=0, size=20))
    with pytest.raises(ValueError, match="at least two"):
        NearCopyReference(training[:1])
    with pytest.raises(ValueError, match="false_alarms is 1"):
        NearCopyReference(training, false_alarms=1)
    with pytest.raises(ValueError, match="places"):
        NearCopyReference(training, features=lambda images: images.flatten(1))
