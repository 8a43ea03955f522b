"""The factor by which each law changes the learning rate between two batch sizes.

All laws of this package are here, those that the advice uses and those only for comparison. The
intervals come from the measurement alone; `choice` adds the uncertainty of the laws themselves.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from noisewise.scaling.exact_laws import gaussian_law
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import Constant, Law, Linear, SquareRoot, VarianceRule
from noisewise.scaling.measurement import LawPoint, Measurement
from noisewise.scaling.preconditioned import Preconditioned
from noisewise.scaling.rule import Factors, Question, Rule
from noisewise.scaling.sign_laws import SignDescent
from noisewise.scaling.stability import bent

__all__ = ["factors"]

LINEAR, ROOT, CONSTANT, VARIANCE = "linear", "square root", "constant", "variance rule"
MEASURED, NOISE, SIMPLE = "preconditioned", "noise scale (B_noise)", "noise scale (B_simple)"
BOUND, DIRECT = "lower bound of the noise scale", "direct measurement"
ALPHA = "noise scale, alpha 1/2"
EDGE = "noise and the edge of stability"
CLOSED, SIGN, EXACT = "closed form", "sign descent", "exact Gaussian moments"
MUON = "Muon"


def factors(
    m: Measurement, batch: float, batch0: float, lr0: float | None = None
) -> dict[str, Estimate]:
    """Return lr(batch) / lr(batch0) of every law that the measurement allows, by name.

    Args:
        m: the measurement.
        batch: the new batch.
        batch0: the old batch.
        lr0: learning rate tuned at batch0, for the edge of stability; None: the optimiser's.
    """
    asked = Question(m, batch, batch0, lr0)
    found: dict[str, Estimate] = {}
    for rule in RULES:
        found |= rule(asked, found)
    return found


def _plain(asked: Question, _: Factors) -> Factors:
    """Laws without an interval; each is 1 at batch0."""
    m, batch0 = asked.m, asked.batch0
    laws: dict[str, Law] = {
        LINEAR: Linear(1.0, batch0),
        ROOT: SquareRoot(1.0, batch0),
        CONSTANT: Constant(1.0),
    }
    signal = m.g2.value + m.num_parameters * m.optimizer.epsilon**2
    if m.optimizer.family == "sgd":
        laws[VARIANCE] = VarianceRule(1.0, batch0)
    elif m.optimizer.family == "adam" and signal > 0 and m.trace_sigma.value > 0:
        laws[VARIANCE] = VarianceRule(1.0, batch0, m.trace_sigma.value / signal)
    return {name: _change(law, asked) for name, law in laws.items()}


def _measured(asked: Question, _: Factors) -> Factors:
    """The preconditioned law of Adam, through what was measured at several batches."""
    measured = _measured_ratio(asked.m, asked.batch, asked.batch0)
    if measured is None or asked.m.optimizer.family != "adam":
        return {}
    return {MEASURED: measured}


def _noise(asked: Question, _: Factors) -> Factors:
    """The laws of one noise scale; and what its lower end allows at least."""
    m, batch, batch0 = asked.m, asked.batch, asked.batch0
    family, found = m.optimizer.family, {}
    for name, scale in ((NOISE, m.b_noise), (SIMPLE, m.b_simple)):
        if scale.bounded:
            found[name] = _noise_ratio(scale, batch, batch0)
    alpha = 1.0 if family == "sgd" else 0.5  # 0.5 also for orthogonalised updates
    if m.b_simple.bounded:
        found[MUON if family == "muon" else ALPHA] = _noise_ratio(m.b_simple, batch, batch0, 0.5)
    if 0 < m.b_simple.low < math.inf:
        low, high = m.b_simple.low, m.b_simple.high
        found[BOUND] = _noise_ratio(Estimate(low, low, high), batch, batch0, alpha)
    return found


def _edge(asked: Question, found: Factors) -> Factors:
    """The law of the noise, bent at the edge of stability."""
    m = asked.m
    base = found.get(NOISE, found.get(SIMPLE))
    if m.optimizer.family == "adam":
        base = found.get(MEASURED)
    if base is None or not m.edge.known or m.optimizer.family not in ("adam", "sgd"):
        return {}
    return {EDGE: _edge_ratio(base, asked.lr0 or m.optimizer.lr, m.edge)}


def _direct(asked: Question, _: Factors) -> Factors:
    """Two batches whose best learning rates were measured directly."""
    direct = _direct_ratio(asked.m, asked.batch, asked.batch0)
    return {} if direct is None else {DIRECT: direct}


def _closed(asked: Question, _: Factors) -> Factors:
    """Adam as soft sign, for comparison: mean field, without epsilon, and with exact moments."""
    m = asked.m
    laws: dict[str, Law] = {}
    soft, exact = m.soft_sign(), gaussian_law(m.curvature)
    if soft is not None:
        laws[CLOSED] = soft
        rest = soft.quadratic - soft.diagonal
        negligible = m.num_parameters * m.optimizer.epsilon**2 < 0.01 * m.g2.value
        if negligible and min(rest, soft.slope) > 0:  # otherwise the sums are not those of signs
            laws[SIGN] = SignDescent.from_sums(soft.slope, soft.diagonal, rest, soft.noise_batch)
    if exact is not None:
        laws[EXACT] = exact
    return {name: _change(law, asked) for name, law in laws.items()}


RULES: tuple[Rule, ...] = (_plain, _measured, _noise, _edge, _direct, _closed)
"""Every rule, in the order in which the advice lists its laws. A new law is one more line here."""


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _change(law: Law, asked: Question) -> Estimate:
    return _exactly(law.lr(asked.batch) / law.lr(asked.batch0))


def _noise_ratio(scale: Estimate, batch: float, batch0: float, alpha: float = 1.0) -> Estimate:
    """((1 + B_n / B0) / (1 + B_n / B))^alpha; monotone in B_n, so B_n's ends give its ends."""

    def factor(noise: float) -> float:
        if math.isinf(noise):
            return (batch / batch0) ** alpha
        return ((1 + noise / batch0) / (1 + noise / batch)) ** alpha

    ends = sorted(factor(max(0.0, noise)) for noise in (scale.low, scale.high))
    return Estimate(factor(max(0.0, scale.value)), ends[0], ends[1])


def _measured_ratio(m: Measurement, batch: float, batch0: float) -> Estimate | None:
    """Factor of the preconditioned law.

    The curve has intervals of lr(B) / lr(own batch). Between measured batches their half-widths are
    interpolated in log-log. If neither batch is the own one, the two half-widths are added, which
    is safe for any correlation of their errors.
    """
    law = m.preconditioned()
    if law is None:
        return None
    if batch == batch0:
        return _exactly(1.0)
    value = law.lr(batch) / law.lr(batch0)
    if not (math.isfinite(value) and value > 0):
        return None
    down, up = _half_widths(m.curve, law, batch)
    up0, down0 = _half_widths(m.curve, law, batch0)  # a denominator: up and down are swapped
    return Estimate(value, value * math.exp(-down - down0), value * _exp(up + up0))


def _exp(power: float) -> float:
    return math.exp(power) if power < 700 else math.inf


def _half_widths(
    curve: tuple[LawPoint, ...], law: Preconditioned, batch: float
) -> tuple[float, float]:
    """How far lr(batch) / lr(own batch) may be below and above its value, in logarithms."""
    i = bisect_left([point.batch for point in curve], batch)
    if i in (0, len(curve)):  # at the first measured batch, or outside: use the nearest one
        edge = curve[min(i, len(curve) - 1)]
        widths, beyond = _widths_of(edge), _beyond(law, edge.batch, batch)
        return widths[0] + beyond[0], widths[1] + beyond[1]
    left, right = curve[i - 1], curve[i]
    share = math.log(batch / left.batch) / math.log(right.batch / left.batch)
    below, above = (
        b if share == 1 else a + share * (b - a) if math.isfinite(a + b) else math.inf
        for a, b in zip(_widths_of(left), _widths_of(right), strict=True)
    )
    return below, above


def _widths_of(point: LawPoint) -> tuple[float, float]:
    ratio = point.ratio
    if not (ratio.bounded and min(ratio.low, ratio.value) > 0):
        return math.inf, math.inf
    return math.log(ratio.value / ratio.low), math.log(ratio.high / ratio.value)


def _beyond(law: Preconditioned, edge: float, batch: float) -> tuple[float, float]:
    """Outside the measured range, anything from no further change to the square root is allowed."""
    if batch == edge:
        return 0.0, 0.0
    extrapolated = law.lr(batch) / law.lr(edge)
    if not (math.isfinite(extrapolated) and extrapolated > 0):
        return math.inf, math.inf
    possible = (1.0, math.sqrt(batch / edge), extrapolated)
    return math.log(extrapolated / min(possible)), math.log(max(possible) / extrapolated)


def _edge_ratio(base: Estimate, lr0: float, edge: Estimate) -> Estimate:
    """`EdgeOfStability` through the tuned rate; monotone in both, so their ends give its ends."""

    def factor(ratio: float, at: float) -> float:
        return bent(ratio, lr0 / at if at > 0 else 1.0)

    ends = [factor(r, at) for r in (base.low, base.high) for at in (edge.low, edge.high)]
    return Estimate(factor(base.value, edge.value), min(ends), max(ends))


def _direct_ratio(m: Measurement, batch: float, batch0: float) -> Estimate | None:
    """Ratio of two direct points, if both batches were measured (within a factor of 1.5)."""

    def near(at: float) -> Estimate | None:
        close = [p for p in m.direct if max(p.batch / at, at / p.batch) < 1.5]
        return close[0].lr if close and close[0].lr.bounded and close[0].lr.low > 0 else None

    new, old = near(batch), near(batch0)
    if new is None or old is None:
        return None
    return Estimate(new.value / old.value, new.low / old.high, new.high / old.low)
