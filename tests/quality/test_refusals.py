"""Every measure refuses what is no picture, in one sentence, and no value slips through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.quality import (
    CopyReference,
    Judge,
    NearCopyReference,
    class_shares,
    distance,
    even_area,
    flat_area,
    precision_recall,
    spectrum_error,
    told_apart,
)

REAL = torch.rand(24, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(24) % 2
MEASURES: dict[str, Callable[[Tensor], object]] = {
    "judge": lambda x: Judge(REAL).measure(x),
    "distance": lambda x: distance(x, REAL),
    "told apart": lambda x: told_apart(x, REAL),
    "precision": lambda x: precision_recall(x, REAL),
    "spectrum": lambda x: spectrum_error(x, REAL),
    "shares": lambda x: class_shares(x, REAL, LABELS),
    "copies": lambda x: CopyReference(REAL).test(x),
    "near copies": lambda x: NearCopyReference(REAL).test(x),
    "flat": flat_area,
    "even": even_area,
}


def with_value(value: float) -> Tensor:
    spoilt = REAL.clone()
    spoilt[3, 0, 5, 5] = value
    return spoilt


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 255.0])
def test_a_value_that_no_picture_has_is_refused(measure: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"give floats in \[-1, 1\], without NaN"):
        MEASURES[measure](with_value(value))


@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_no_tensor_is_refused(measure: str) -> None:
    with pytest.raises(ValueError, match="ndarray is given"):
        MEASURES[measure](np.zeros((24, 1, 16, 16), np.float32))  # pyrefly: ignore


@pytest.mark.parametrize("measure", [m for m in MEASURES if m not in ("flat", "even", "shares")])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 24, 24), (1, 16, 20)])
def test_other_sizes_and_channels_are_refused(measure: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="same size"):
        MEASURES[measure](torch.zeros(24, *shape))


def test_real_pictures_that_are_all_alike_give_a_finite_number() -> None:
    alike = torch.zeros(16, 1, 16, 16)
    found = Judge(alike).measure(REAL)
    assert 1e3 < found.value <= 1e6
    assert found.high <= 1e6
    assert Judge(alike).measure(alike).value == pytest.approx(0, abs=1e-3)


def test_no_copies_are_exactly_none() -> None:
    """A lower end of 4e-19 raised an alarm: "at least 0.0% are near copies"."""
    from noisewise.quality.wilson import wilson

    for total in (1, 16, 500, 4000, 12345):
        assert wilson(0, total)[0] == 0.0
        assert wilson(total, total)[1] == 1.0
