"""Shares of classes: a lost class is found, chance is no fault, confusion is corrected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise.quality.class_shares import ClassShares, _shares, class_shares

Draw = Callable[..., tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ten(counts: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of ten classes that overlap: a bright spot whose place has an error."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    angle = labels * 2 * torch.pi / 10 + 0.18 * normal(len(labels), seed=seed)
    line = torch.linspace(-1, 1, 16)
    x, y = 0.6 * angle.cos()[:, None, None], 0.6 * angle.sin()[:, None, None]
    spot = (-((line[:, None] - y) ** 2 + (line - x) ** 2) / 0.05).exp()
    return 2 * spot[:, None] - 1, labels


def verdicts(found: ClassShares) -> dict[str, str]:
    return {one.name: one.verdict for one in found.classes if one.verdict != "as real"}


def test_the_real_shares_are_as_real() -> None:
    real, labels = ten([60] * 10, seed=0)
    made, _ = ten([30] * 10, seed=1)
    found = class_shares(made, real, labels)
    assert verdicts(found) == {}
    assert 0.8 < found.accuracy < 0.97
    assert sum(one.low <= 0.1 <= one.high for one in found.classes) >= 9
    assert sum(one.share for one in found.classes) == pytest.approx(1)


def test_one_missing_class_of_ten() -> None:
    real, labels = ten([60] * 10, seed=0)
    made, _ = ten([60] * 3 + [0] + [60] * 6, seed=1)
    found = class_shares(made, real, labels)
    lost = found.classes[3]
    assert verdicts(found)["3"] == "missing"
    # the neighbours are named 3 now and then: the plain count does not see that the class is lost
    assert lost.counted > 0.01 > lost.share


def test_one_doubled_class_of_ten() -> None:
    real, labels = ten([60] * 10, seed=0)
    made, _ = ten([120] + [60] * 9, seed=1)
    found = class_shares(made, real, labels, names=list("abcdefghij"))
    assert verdicts(found) == {"a": "too frequent"}
    assert found.classes[0].share == pytest.approx(120 / 660, abs=0.05)


def test_one_of_three_kinds_nearly_lost(drawn: Draw) -> None:
    images, labels = drawn(600, seed=0)
    made, shapes = drawn(600, seed=1)
    images, labels = images[labels < 3], labels[labels < 3]
    made = torch.cat([made[shapes == 0][:120], made[shapes == 1][:120], made[shapes == 2][:6]])
    found = class_shares(made, images, labels)
    assert verdicts(found)["2"] == "missing"
    assert found.classes[2].low <= 6 / 246 <= found.classes[2].high
    assert found.classes[0].low <= 120 / 246 <= found.classes[0].high


def test_chance_is_seldom_called_a_fault() -> None:
    real, labels = ten([60] * 10, seed=0)
    alarms = 0
    for seed in range(12):
        draws = torch.randint(10, (200,), generator=torch.Generator().manual_seed(seed))
        made, _ = ten(torch.bincount(draws, minlength=10).tolist(), seed=100 + seed)
        alarms += bool(verdicts(class_shares(made, real, labels)))
    assert alarms <= 2  # 2 of 40 were, in a longer run


def test_the_most_likely_shares_invert_the_confusion() -> None:
    confusion = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]]).double()
    shares = torch.tensor([0.5, 0.2, 0.3]).double()
    assert torch.allclose(_shares(1000 * shares @ confusion, confusion), shares, atol=1e-4)
    # where the inverse is below 0, the likelihood stops at 0
    named = torch.tensor([0.9, 0.0, 0.1]).double()
    found = _shares(named, confusion)
    assert torch.linalg.solve(confusion.T, named).min() < 0
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)


def test_what_does_not_fit_is_refused() -> None:
    images = torch.zeros(4, 1, 8, 8)
    with pytest.raises(ValueError, match="one label a picture"):
        class_shares(images, images, torch.arange(3))
    with pytest.raises(ValueError, match="two classes or more"):
        class_shares(images, images, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="a name for each"):
        class_shares(images, images, torch.arange(4), names=["a"])
