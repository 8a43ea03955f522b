"""By which factor each law changes the learning rate between two batch sizes, with its band."""

from __future__ import annotations

import math

from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import Constant, Linear, Muon, SquareRoot
from noisewise.scaling.measurement import Measurement

__all__ = ["factors"]

LINEAR, ROOT, CONSTANT = "linear", "square root", "constant"
MEASURED, NOISE, SIMPLE = "preconditioned", "noise scale (B_noise)", "noise scale (B_simple)"
BOUND, DIRECT = "lower bound of the noise scale", "direct measurement"
CLOSED = "closed form"
MUON = "Muon"


def factors(m: Measurement, batch: float, batch0: float) -> dict[str, Estimate]:
    """Return lr(batch) / lr(batch0) of every law that the measurement can answer."""
    exact = {
        LINEAR: Linear(1.0, batch0),
        ROOT: SquareRoot(1.0, batch0),
        CONSTANT: Constant(1.0),
    }
    found = {name: _exactly(law.lr(batch)) for name, law in exact.items()}
    measured = _measured_ratio(m, batch, batch0)
    if measured is not None and m.optimizer.family == "adam":
        found[MEASURED] = measured
    for name, scale in ((NOISE, m.b_noise), (SIMPLE, m.b_simple)):
        if scale.bounded:
            found[name] = _noise_ratio(scale, batch, batch0)
    if m.optimizer.family == "muon" and m.b_simple.bounded:
        found[MUON] = _muon_ratio(m.b_simple, batch, batch0)
    if not m.b_simple.bounded and m.b_simple.low > 0:
        least = _noise_ratio(Estimate(m.b_simple.low, m.b_simple.low, math.inf), batch, batch0)
        found[BOUND] = least
    direct = _direct_ratio(m, batch, batch0)
    if direct is not None:
        found[DIRECT] = direct
    closed = m.soft_sign()
    if closed is not None:
        found[CLOSED] = _exactly(closed.lr(batch) / closed.lr(batch0))
    return found


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _noise_ratio(scale: Estimate, batch: float, batch0: float) -> Estimate:
    """(1 + B_n / B0) / (1 + B_n / B): monotone in B_n, so its ends are those of B_n."""

    def factor(noise: float) -> float:
        if math.isinf(noise):
            return batch / batch0
        return (1 + noise / batch0) / (1 + noise / batch)

    ends = sorted(factor(max(0.0, noise)) for noise in (scale.low, scale.high))
    return Estimate(factor(max(0.0, scale.value)), ends[0], ends[1])


def _muon_ratio(scale: Estimate, batch: float, batch0: float) -> Estimate:
    """Orthogonalised updates: the square root of descent's factor, with its ends."""

    def factor(noise: float) -> float:
        law = Muon(1.0, max(0.0, noise))
        return law.lr(batch) / law.lr(batch0)

    ends = sorted((factor(scale.low), factor(scale.high)))
    return Estimate(factor(scale.value), ends[0], ends[1])


def _measured_ratio(m: Measurement, batch: float, batch0: float) -> Estimate | None:
    """The preconditioned law's factor; its band is interpolated from the measured batches."""
    law = m.preconditioned()
    if law is None:
        return None
    value = law.lr(batch) / law.lr(batch0)
    if not (math.isfinite(value) and value > 0):
        return None
    nearest = min(m.curve, key=lambda p: abs(math.log(p.batch / batch)))
    ratio = nearest.ratio
    if not ratio.bounded or not ratio.value > 0:
        return Estimate(value, 0.0, math.inf)
    return Estimate(value, value * ratio.low / ratio.value, value * ratio.high / ratio.value)


def _direct_ratio(m: Measurement, batch: float, batch0: float) -> Estimate | None:
    """Ratio of two direct points, if the data sufficed for both batches (within a factor 1.5)."""

    def near(at: float) -> Estimate | None:
        close = [p for p in m.direct if max(p.batch / at, at / p.batch) < 1.5]
        return close[0].lr if close and close[0].lr.bounded and close[0].lr.low > 0 else None

    new, old = near(batch), near(batch0)
    if new is None or old is None:
        return None
    return Estimate(new.value / old.value, new.low / old.high, new.high / old.low)
