"""Rounding to 8 bits is what a file does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noisewise.quality.eight_bits import levels, rounded


def test_every_level_comes_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(levels(every.float() / 127.5 - 1), every)
    assert torch.equal(rounded(rounded(every)), rounded(every))


def test_it_rounds_to_the_nearest_level_and_clamps() -> None:
    x = torch.linspace(-1.2, 1.2, 1001, dtype=torch.float64)
    wanted = np.clip(np.rint((np.clip(x.numpy(), -1, 1) + 1) * 127.5), 0, 255)
    assert np.abs(levels(x).numpy() - wanted).max() == 0
    assert (rounded(x.clamp(-1, 1)) - x.clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.int64"):
        levels(torch.zeros(3, dtype=torch.int64))
