"""Which law decides, why, and how far the truth may be from it.

The band of a choice is wider than the interval of what was measured wherever the law itself is in
doubt: a law made from the noise alone reaches to the plain square root, one that is not resolved
to the rule that would hold if there were no upper bound of the noise at all.

Which law is used where follows from benchmarks/learning_rate/laws.py: over many steps the laws of
one step ask
for too much at large batches, since the sharpest direction decides there. Where its curvature was
measured, the edge of stability bends the law (`stability`); else SGD's law is followed up to the
noise scale and no further. Adam with a small epsilon adapts to the sharpest direction, so that its
measured law is used as it is; where no curvature is known, (1 + B_simple / B)^(-1/2), which far
below the noise scale is a square root.
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

_WIDEST = 4.0  # high / low of a factor above which a measured law is not used


@dataclass(frozen=True)
class Choice:
    """The law that decides.

    Attributes:
        law: its name among the `rules.factors`.
        rule: what to call it, the law's name if it is used as it is.
        reason: why it decides.
        factor: of the learning rate, with its band.
    """

    law: str
    rule: str
    reason: str
    factor: Estimate


def choose(
    m: Measurement, rules: dict[str, Estimate], batch: float, batch0: float, hold: Hold
) -> Choice:
    """Return the law that decides.

    Args:
        m: what was measured.
        rules: `factors(m, batch, batch0)`.
        batch: the new batch, examples.
        batch0: the old one.
        hold: what is held fixed.

    Source: benchmarks/learning_rate/laws.py and the module's head.

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
            why = "SGD follows the same path when each example moves the weights alike"
            return Choice(LINEAR, LINEAR, why, rules[LINEAR])
        why = "a normalised update follows the same path when its noise keeps its size"
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
    """The same value with a band that reaches to others."""
    return Estimate(factor.value, min(factor.low, *others), max(factor.high, *others))


def _sgd(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    for name in (NOISE, SIMPLE):
        if _narrow(rules.get(name)):
            return Choice(name, name, "one step does best there by the noise measured", rules[name])
    return _bound(rules) or Choice(
        CONSTANT,
        CONSTANT,
        "the noise is not measured yet, so nothing supports a change; the band reaches to linear, "
        "which holds far below the noise scale",
        _reaching(rules[CONSTANT], rules[LINEAR].value),
    )


def _adam(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    if _narrow(rules.get(MEASURED)):
        why = (
            "slope and curvature of Adam's update, measured with its own second moment carried "
            "over to the new batch"
        )
        return Choice(MEASURED, MEASURED, why, rules[MEASURED])
    known = (
        "the measured law is not resolved here" if MEASURED in rules else "no curvature is known"
    )
    if _narrow(rules.get(ALPHA)):
        why = (
            f"{known}; by the noise alone a normalised update follows the square root below the "
            "noise scale and nothing beyond, and the band reaches to the plain square root"
        )
        return Choice(ALPHA, ALPHA, why, _reaching(rules[ALPHA], rules[ROOT].value))
    return _bound(rules, rules[ROOT].value) or _root(rules, f"{known}, nor is the noise scale")


def _muon(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    del m
    if _narrow(rules.get(MUON)):
        why = (
            "orthogonalised updates: a square root below the measured noise scale, none above it; "
            "untested on other curvature, so the band reaches to the plain square root"
        )
        return Choice(MUON, MUON, why, _reaching(rules[MUON], rules[ROOT].value))
    if _narrow(rules.get(DIRECT)):
        why = "the updates of Muon themselves, measured at both batches"
        return Choice(DIRECT, DIRECT, why, rules[DIRECT])
    return _bound(rules, rules[ROOT].value) or _root(
        rules, "the noise scale that Muon's law needs is not resolved yet"
    )


def _other(m: Measurement, rules: dict[str, Estimate]) -> Choice:
    name = m.optimizer.name
    if _narrow(rules.get(DIRECT)):
        why = f"the updates of {name} themselves, measured at both batches"
        return Choice(DIRECT, DIRECT, why, rules[DIRECT])
    return _root(rules, f"{name} has no law here, and normalised updates mostly follow it")


_BY_FAMILY = {"sgd": _sgd, "adam": _adam, "muon": _muon, "other": _other}


def _bound(rules: dict[str, Estimate], *reach: float) -> Choice | None:
    """What the lower end of the noise scale allows, and nothing if that is 0."""
    if BOUND not in rules:
        return None
    why = (
        "the noise scale is known from below, hardly from above: the least change that it allows, "
        "with a band up to the largest"
    )
    factor = _reaching(rules[BOUND], *reach) if reach else rules[BOUND]
    return Choice(BOUND, BOUND, why, factor)


def _root(rules: dict[str, Estimate], because: str) -> Choice:
    why = f"{because}; right far below the noise scale, so the band goes down to no change at all"
    return Choice(ROOT, ROOT, why, _reaching(rules[ROOT], 1.0))


def _below_the_edge(chosen: Choice, factor: Estimate) -> Choice:
    why = (
        f"{chosen.reason}; over many steps the sharpest direction sets a limit, which was measured "
        "and bends the law; the band reaches to the law without it"
    )
    return Choice(EDGE, EDGE, why, _reaching(factor, chosen.factor.value))


def _no_further(chosen: Choice, scale: Estimate, batch: float, batch0: float) -> Choice:
    """SGD's law up to the noise scale and level beyond; the band holds the law and the root."""
    law = chosen.factor

    def level(noise: float) -> float:
        new, old = min(batch, noise), min(batch0, noise)
        return (1 + noise / old) / (1 + noise / new) if noise > 0 else 1.0

    root = math.sqrt(batch / batch0)
    nearer = root if abs(math.log(root)) < abs(math.log(law.value)) else law.value
    ends = (level(scale.low), level(scale.high), law.low, law.high, nearer)
    factor = Estimate(level(max(0.0, scale.value)), min(ends), max(ends))
    why = (
        f"{chosen.reason}, up to the noise scale and no further, since over many steps the law "
        "asked for too much beyond it, as the square root did; the band holds the law, and the "
        "square root where that asks for less"
    )
    return Choice(chosen.law, chosen.rule, why, factor)


def _for_steps(chosen: Choice) -> Choice:
    """As many steps as before: the root of the factor; the band is all from 1 to the factor."""
    factor = chosen.factor
    root = Estimate(math.sqrt(max(factor.value, 0.0)), factor.low, factor.high)
    why = "with as many steps the noise left at the end decides; between no change and the law"
    return Choice(chosen.law, f"half the exponent of {chosen.law}", why, _reaching(root, 1.0))
