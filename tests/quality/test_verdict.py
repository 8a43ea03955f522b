"""The verdict is never kinder than a person who looks: what was told apart is not "as real".

The floors, shares and even areas below were measured on garments (500 against 500 pictures); the
blind looks told real from made in the share beside them (docs/judge.md).
"""

from __future__ import annotations

import pytest
import torch

from noisewise.quality import Floors, ToldApart
from noisewise.quality.verdict import WORDS, verdict


def floors(value: float, num: int = 500) -> Floors:
    nothing = torch.zeros(200, dtype=torch.float64)
    return Floors(value, value, value, (), "native", 1.0, num, num, 0.0, nothing)


def told(accuracy: float) -> ToldApart:
    low, high = accuracy - 0.035, accuracy + 0.035
    index = torch.arange(4)
    return ToldApart(accuracy, low, high, torch.zeros(4), index, 500, 500, 0.05, "native")


@pytest.mark.parametrize(
    ("what", "value", "share", "made", "real", "at_least", "at_most"),
    [
        ("real against real: 53 % by eye", -0.1, 0.50, 0.417, 0.417, "as real", "as real"),
        ("noise .01: nobody sees it", -0.1, 0.496, 0.410, 0.417, "as real", "as real"),
        ("stains .15: 72 %", 0.95, 0.52, 0.404, 0.417, "close", "close"),
        ("noise .03: 100 %, by its ground", 0.87, 0.55, 0.269, 0.417, "visibly different", "poor"),
        ("warp .7: 98 %", 4.5, 0.70, 0.41, 0.417, "visibly different", "poor"),
        ("9 calls: 94 %", 2.5, 0.593, 0.352, 0.417, "visibly different", "poor"),
        ("a quarter-trained teacher: 100 %", 29.0, 0.83, 0.297, 0.417, "poor", "poor"),
        ("one call: 97 %", 17.6, 0.90, 0.275, 0.417, "poor", "poor"),
        ("pictures known by heart, stained: 100 %", 0.02, 0.46, 0.12, 0.34, "poor", "poor"),
    ],
)
def test_it_is_never_kinder_than_the_eye(
    what: str, value: float, share: float, made: float, real: float, at_least: str, at_most: str
) -> None:
    found = verdict(floors(value), told(share), (made, real))
    ranks = [str(word) for word in WORDS]
    assert ranks.index(at_least) <= ranks.index(found.word) <= ranks.index(at_most), what
    assert found.reason


def test_too_few_pictures_cannot_tell() -> None:
    found = verdict(floors(0.2, num=40))
    assert found.word == "cannot tell"
    assert "40 pictures are too few" in str(found)


def test_few_pictures_that_real_ones_may_equal_are_no_verdict() -> None:
    nothing = torch.zeros(200, dtype=torch.float64)
    few = Floors(0.8, 0, 2, (), "native", 4.0, 128, 128, 0.0, nothing)
    assert verdict(few, told(0.52)).word == "cannot tell"
    assert verdict(few, told(0.95)).word == "poor"  # the classifier is sure
    sure = Floors(1.4, 1.1, 2, (), "native", 4.0, 128, 128, 0.0, nothing)
    assert verdict(sure, told(0.52)).word == "visibly different"


def test_each_measure_alone_can_make_it_worse() -> None:
    good = verdict(floors(0.1), told(0.5), (0.5, 0.5)).word
    assert good == "as real"
    for bad in (
        verdict(floors(30.0), told(0.5), (0.5, 0.5)),
        verdict(floors(0.1), told(0.99), (0.5, 0.5)),
        verdict(floors(0.1), told(0.5), (0.1, 0.5)),
        verdict(floors(0.1), told(0.5), (0.9, 0.5)),
    ):
        assert bad.word in ("visibly different", "poor")
    assert verdict(floors(0.1), told(0.5), (0.001, 0.01)).word == "as real"  # no even areas at all


def test_the_reason_names_what_decided_and_then_what_found_less() -> None:
    stained = verdict(floors(-6.8), told(0.46), (0.12, 0.34)).reason
    first, _, rest = stained.partition(";")
    assert first == "12% of the area looks even and 34% should"
    assert "no farther than real pictures are from each other" in rest
    assert "apart in 46%" in rest
    far = verdict(floors(30.0), told(0.6), (0.5, 0.5)).reason
    assert far.startswith("30 times as far as real pictures")
    assert "found less (a classifier tells them apart in 60%)" in far
    alike = verdict(floors(0.3), told(0.5), (0.5, 0.5)).reason
    assert "found less" not in alike  # all say the same
