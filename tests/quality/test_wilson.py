"""The interval of a counted share agrees with published values."""

from __future__ import annotations

import pytest

from noisewise.quality.wilson import wilson


def test_the_interval_is_wilsons() -> None:
    # Brown, Cai and DasGupta 2001: n = 10, none; and half of 100
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(10, 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)
