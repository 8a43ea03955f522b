"""Which law is used, why, and how wide its band is.

Where the law itself is uncertain, the band is wider than the interval of the measurement: a law
from the noise alone reaches to the plain square root; a law that is too uncertain reaches to the
rule that holds if the noise has no upper bound at all.

The choice follows from benchmarks/learning_rate/laws.py. Over many steps the laws of one step ask
for too much at large batches, because the sharpest direction limits the rate there. If its
curvature was measured, the edge of stability bends the law (`stability`); if not, SGD's law is
followed up to the noise scale and no further. Adam with a small epsilon adapts to the sharpest
direction, so its measured law is used unchanged. Without curvature, Adam's law is
(1 + B_simple / B)^(-1/2), which is a square root far below the noise scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from noisewise.scaling.advice import Hold
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.rules import (
    ALPHA,
    BOUND,
    CONSTANT,
    DIRECT,
    EDGE,
    LINEAR,
    MEASURED,
    MUON,
    NOISE,
    ROOT,
    SIMPLE,
)

__all__ = ["Choice", "choose"]

_WIDEST = 4.0  # a measured law is not used if high / low of its factor is above this


@dataclass(frozen=True)
class Choice:
    """The law that is used.

    Attributes:
        law: its name in `rules.factors`.
        rule: name to show; the law's name if the law is used unchanged.
        reason: why it is used.
        factor: new learning rate over the old one, with its band.
    """

    law: str
    rule: str
    reason: str
    factor: Estimate


def choose(
    m: Measurement, rules: dict[str, Estimate], batch: float, batch0: float, hold: Hold
) -> Choice:
    """Return the law to use.

    Args:
        m: the measurement.
        rules: `factors(m, batch, batch0)`.
        batch: the new batch, in examples.
        batch0: the old batch.
        hold: what stays the same.

    Source: benchmarks/learning_rate/laws.py and the head of this module.

    Example:
        >>> from noisewise.scaling.noise import Noise
        >>> from noisewise.scaling.rules import factors
        >>> from noisewise.scaling.updates import OptimizerFacts
        >>> one = Estimate(1.0, 0.9, 1.1)
        >>> noise = Noise(one, one.scaled(256.0), Estimate(256.0, 200.0, 320.0), 6400)
        >>> facts = OptimizerFacts("Adam", "adam", 1e-3)
        >>> m = Measurement(noise, Estimate.unknown(), facts, 64.0, 8.0, 1000)
        >>> found = choose(m, factors(m, 256, 64), 256, 64, "examples")
        >>> found.rule, round(found.factor.value, 2), found.factor.high
        ('noise scale, alpha 1/2', 1.58, 2.0)
    """
    if hold == "trajectory":
        if m.optimizer.family == "sgd":
            why = "SGD follows the same path if each example moves the weights by the same amount"
            return Choice(LINEAR, LINEAR, why, rules[LINEAR])
        why = (
            "a normalised update such as Adam's follows the same path if the size of its noise "
            "does not change"
        )
        return Choice(ROOT, ROOT, why, rules[ROOT])
    chosen = _BY_FAMILY[m.optimizer.family](m, rules)
    if hold == "steps":
        return _for_steps(chosen)
    if chosen.law in (NOISE, SIMPLE, MEASURED) and _narrow(rules.get(EDGE)):
        return _below_the_edge(chosen, rules[EDGE])
    if chosen.law in (NOISE, SIMPLE):
        scale = m.b_noise if chosen.law == NOISE else m.b_simple
        return _no_further(chosen, scale, batch, batch0)
    return chosen


def _narrow(factor: Estimate | None) -> bool:
    return factor is not None and factor.low > 0 and factor.high / factor.low <= _WIDEST


def _reaching(factor: Estimate, *others: float) -> Estimate:
    """The same value with a band that also includes the others."""
    return Estimate(factor.value, min(factor.low, *others), max(factor.high, *others))


def _sgd(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    for name in (NOISE, SIMPLE):
        if _narrow(rules.get(name)):
            why = "the measured noise gives the change that is best for a single step"
            return Choice(name, name, why, rules[name])
    return _bound(rules) or Choice(
        CONSTANT,
        CONSTANT,
        "the noise is not known well enough yet to support a change; the band reaches to the "
        "linear rule, which holds far below the noise scale",
        _reaching(rules[CONSTANT], rules[LINEAR].value),
    )


def _adam(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    if _narrow(rules.get(MEASURED)):
        why = (
            "slope and curvature of Adam's own update were measured, and its second moment was "
            "converted to the new batch"
        )
        return Choice(MEASURED, MEASURED, why, rules[MEASURED])
    known = (
        "the measured law is too uncertain here"
        if MEASURED in rules
        else "the curvature was not measured"
    )
    if _narrow(rules.get(ALPHA)):
        why = (
            f"{known}; by the noise alone, the best rate of a normalised update such as Adam's "
            "grows with the square root of the batch below the noise scale and stays constant "
            "above it; the band reaches to the plain square root"
        )
        return Choice(ALPHA, ALPHA, why, _reaching(rules[ALPHA], rules[ROOT].value))
    return _bound(rules, rules[ROOT].value) or _root(
        rules, f"{known}, and the noise scale is not known well enough"
    )


def _muon(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    if _narrow(rules.get(MUON)):
        why = (
            "the best rate of orthogonalised updates grows with the square root of the batch below "
            "the noise scale and stays constant above it; this assumes a special curvature and is "
            "not tested on others, so the band reaches to the plain square root"
        )
        return Choice(MUON, MUON, why, _reaching(rules[MUON], rules[ROOT].value))
    if _narrow(rules.get(DIRECT)):
        why = "Muon's own updates were measured at both batches"
        return Choice(DIRECT, DIRECT, why, rules[DIRECT])
    return _bound(rules, rules[ROOT].value) or _root(
        rules, "the noise scale, which Muon's law needs, is not known well enough yet"
    )


def _other(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    name = m.optimizer.name
    if _narrow(rules.get(DIRECT)):
        why = f"{name}'s own updates were measured at both batches"
        return Choice(DIRECT, DIRECT, why, rules[DIRECT])
    return _root(rules, f"there is no law for {name}; normalised updates mostly follow this rule")


_BY_FAMILY = {"sgd": _sgd, "adam": _adam, "muon": _muon, "other": _other}


def _bound(rules: dict[str, Estimate], *reach: float) -> Choice | None:
    """What the lower end of the noise scale allows; None if that end is 0."""
    if BOUND not in rules:
        return None
    why = (
        "the lower end of the noise scale is known, but its upper end is unknown or far away; this "
        "is the smallest change that the noise scale allows, and the band reaches to the largest"
    )
    factor = _reaching(rules[BOUND], *reach) if reach else rules[BOUND]
    return Choice(BOUND, BOUND, why, factor)


def _root(rules: dict[str, Estimate], because: str) -> Choice:
    why = f"{because}; it holds far below the noise scale, so the band includes no change at all"
    return Choice(ROOT, ROOT, why, _reaching(rules[ROOT], 1.0))


def _below_the_edge(chosen: Choice, factor: Estimate) -> Choice:
    why = (
        f"{chosen.reason}; over many steps the sharpest direction of the loss sets a limit (the "
        "edge of stability), which was measured and brings the change closer to 1; the band "
        "reaches to the change without this limit"
    )
    return Choice(EDGE, EDGE, why, _reaching(factor, chosen.factor.value))


def _no_further(chosen: Choice, scale: Estimate, batch: float, batch0: float) -> Choice:
    """SGD's law up to the noise scale, constant above it; the band holds the law and the root."""
    law = chosen.factor

    def level(noise: float) -> float:
        new, old = min(batch, noise), min(batch0, noise)
        return (1 + noise / old) / (1 + noise / new) if noise > 0 else 1.0

    root = math.sqrt(batch / batch0)
    nearer = root if abs(math.log(root)) < abs(math.log(law.value)) else law.value
    ends = (level(scale.low), level(scale.high), law.low, law.high, nearer)
    factor = Estimate(level(max(0.0, scale.value)), min(ends), max(ends))
    why = (
        f"{chosen.reason}; it is followed up to the noise scale and no further, because over many "
        "steps this law and the square root asked for too much above it; the band includes the "
        "law, and the square root where that changes less"
    )
    return Choice(chosen.law, chosen.rule, why, factor)


def _for_steps(chosen: Choice) -> Choice:
    """The same number of steps: the root of the factor; the band goes from 1 to the factor."""
    factor = chosen.factor
    root = Estimate(math.sqrt(max(factor.value, 0.0)), factor.low, factor.high)
    why = (
        "with the same number of steps, the noise that remains at the end decides, and the change "
        "is the square root of this law's; the band reaches from no change to the law's"
    )
    return Choice(chosen.law, f"half the exponent of {chosen.law}", why, _reaching(root, 1.0))
