"""How much wider the band is than the intervals of the measurement: every constant in one place.

A measurement's interval says how well the noise is known at one time. The best rate at another
batch also depends on when in the training it was measured, and the laws are those of one step. The
constants below cover this. They are to be set by benchmarks/learning_rate/band.py (four nets, two
optimisers, three checkpoints, batches 8 to 512: the band must hold the truth in 9 of 10 cases),
which prints them. Until it has run, they come from 24 cases of one small network on scikit-learn's
digits (batch 32 to 8, 128 and 512, AdamW and SGD with momentum): the exponent that covers 9 of 10
of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from noisewise.scaling.intervals import Estimate

__all__ = [
    "NORM_LAYERS",
    "ONE_TIME",
    "SEVERAL_TIMES",
    "needed_power",
    "pooled",
    "reaching",
    "widened",
]

ONE_TIME = 0.5  # measured at one time: both ends by (B / B0)^0.5, from 18 cases
SEVERAL_TIMES = 0.35  # measured over the training, or at several checkpoints: from 6 cases
# Noise scale of a whole net over that of its normalisation layers, either way: 1.3 to 2.1 on a
# transformer of two blocks at six checkpoints, 0.5 on a small net of other layers.
NORM_LAYERS = 2.0


def widened(factor: Estimate, batch: float, batch0: float, several: bool) -> Estimate:
    """Return a factor with a band that allows for when it was measured.

    The linear rule limits the added width: no law changes the rate by more.

    Args:
        factor: new learning rate over the old one.
        batch: the new batch.
        batch0: the old batch.
        several: whether it was measured at several times of the training.

    Example:
        >>> found = widened(Estimate(2.0, 2.0, 3.0), 256, 64, several=False)
        >>> found.low, found.high
        (1.0, 4.0)
    """
    power = SEVERAL_TIMES if several else ONE_TIME
    linear = batch / batch0
    times = max(linear, 1 / linear) ** power
    low, high = factor.low / times, factor.high * times
    if linear > 1:
        high = max(factor.high, min(high, linear))
    else:
        low = min(factor.low, max(low, linear))
    return Estimate(factor.value, low, high)


def needed_power(truth: float, factor: Estimate, batch: float, batch0: float) -> float:
    """Return the power of B / B0 by which a band must be widened to hold the truth; see `widened`.

    0: it holds it as it is; inf: the linear rule ends the widened band before the truth.

    Example:
        >>> band = Estimate(2.0, 1.5, 2.0)
        >>> [needed_power(truth, band, 256, 16) for truth in (4.0, 1.8, 17.0)]
        [0.25, 0.0, inf]
    """
    linear = batch / batch0
    if factor.low <= truth <= factor.high:
        return 0.0
    if (linear > 1 and truth > max(factor.high, linear)) or (
        linear < 1 and truth < min(factor.low, linear)
    ):
        return math.inf
    outside = truth / factor.high if truth > factor.high else factor.low / truth
    return math.log(outside) / abs(math.log(linear)) if linear != 1 else math.inf


def reaching(factor: Estimate, others: Sequence[float]) -> Estimate:
    """Return the same value with a band that also includes the others."""
    known = [x for x in others if math.isfinite(x) and x > 0]
    low, high = min([factor.low, *known]), max([factor.high, *known])
    return Estimate(factor.value, low, high)


def pooled(factors: Sequence[Estimate]) -> Estimate:
    """Return the factor of several checkpoints: geometric mean, and a band over all their bands.

    Raises:
        ValueError: without a factor.

    Example:
        >>> both = pooled([Estimate(1.0, 0.9, 1.1), Estimate(4.0, 3.0, 5.0)])
        >>> both.value, both.low, both.high
        (2.0, 0.9, 5.0)
    """
    if not factors:
        raise ValueError("There is no measurement to pool: give one or more.")
    logs = [math.log(f.value) for f in factors if f.value > 0]
    value = math.exp(sum(logs) / len(logs)) if len(logs) == len(factors) else factors[-1].value
    low, high = min(f.low for f in factors), max(f.high for f in factors)
    return Estimate(value, low, high)
