"""From a measurement to a learning rate for another batch size, with a band, a rule and reasons.

Papers: McCandlish et al. 2018 (the noise scale); Malladi et al. 2022 (the same trajectory: square
root for Adam, with beta2 and epsilon); Marek et al. 2025, "Small batch size training for language
models" (beta2's half-life in examples); Li et al. 2024 (the surge).

The best learning rate depends on what is held fixed, so it is asked for. "examples": as many
examples in all, each step doing its best: the measured law, below the edge of stability (`choice`
says why). "trajectory": the same path through the weights, example for example: linear for SGD,
square root for Adam. "steps": as many steps, so that a larger batch sees more data; there the noise
that is left at the end decides, and on exact quadratics the exponent is about half of the law's.

The main answer is a ratio times the learning rate that the user has tuned. The one-step optimum is
reported beside it as an order of magnitude: over many steps up to nine times of it was best in our
sweeps early in training, and a third to once late, so it is no target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from noisewise.scaling.advice import Advice, Curve, Hold
from noisewise.scaling.choice import choose
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import Frontier, checked_batch
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.rules import (
    ALPHA,
    BOUND,
    CLOSED,
    CONSTANT,
    DIRECT,
    EDGE,
    EXACT,
    LINEAR,
    MEASURED,
    MUON,
    NOISE,
    ROOT,
    SIGN,
    SIMPLE,
    VARIANCE,
    factors,
)

__all__ = ["advise"]

SCHEDULE = "Scale the whole schedule (warm-up and decay in examples), not its peak alone."
_FAR = 16.0  # factor between batches above which an extrapolation earns a warning


def advise(
    measurement: Measurement,
    *,
    batch: float,
    hold: Hold = "examples",
    lr: float | None = None,
    batch0: float | None = None,
) -> Advice:
    """Return the learning rate for another batch size.

    Args:
        measurement: from `calibrate`, or from a watched loop.
        batch: the new number of examples a step.
        hold: "examples", "steps" or "trajectory", see the module.
        lr: tuned learning rate at batch0; None: the optimiser's when it was measured.
        batch0: its batch; None: the measurement's.

    Raises:
        ValueError: for a batch or learning rate that is not positive, an unknown hold, or a
            measurement that does not know its own batch.

    Source: see the module; which law decides follows from benchmarks/learning_rate/laws.py.

    Example:
        >>> from noisewise.scaling.noise import Noise
        >>> from noisewise.scaling.updates import OptimizerFacts
        >>> one = Estimate(1.0, 0.9, 1.1, 0.05, 100)
        >>> noise = Noise(one, one.scaled(256.0), Estimate(256.0, 200.0, 320.0), 6400)
        >>> facts = OptimizerFacts("SGD", "sgd", 0.1)
        >>> found = Measurement(noise, Estimate.unknown(), facts, 64.0, 8.0, 1000)
        >>> advice = advise(found, batch=256)
        >>> round(advice.lr, 6), advice.rule
        (0.25, 'noise scale (B_simple)')
    """
    if hold not in get_args(Hold):
        raise ValueError(f"hold is {hold!r}: use 'examples', 'steps' or 'trajectory'.")
    batch = checked_batch(batch)
    batch0 = batch0 if batch0 is not None else measurement.batch
    if batch0 is None:
        raise ValueError("The measurement does not know its batch: say batch0=, examples a step.")
    batch0 = checked_batch(batch0)
    lr0 = measurement.optimizer.lr if lr is None else lr
    if not (lr0 > 0 and math.isfinite(lr0)):
        raise ValueError(f"A learning rate of {lr0} cannot be scaled: give a positive one.")
    rules = factors(measurement, batch, batch0, lr0)
    chosen = choose(measurement, rules, batch, batch0, hold)
    factor = chosen.factor
    beta2, epsilon = _adam_settings(measurement, batch / batch0, hold)
    bound = measurement.preconditioned()
    units = measurement.optimizer.lr_per_effective
    steps, examples = _price(measurement, batch, batch0)
    return Advice(
        batch=batch,
        batch0=batch0,
        hold=hold,
        lr0=lr0,
        lr=lr0 * factor.value,
        low=lr0 * factor.low,
        high=lr0 * factor.high,
        rule=chosen.rule,
        reason=chosen.reason,
        others=_others(measurement, rules, chosen.law, hold),
        beta1=measurement.optimizer.beta1,
        beta2=beta2,
        epsilon=epsilon,
        lr_one_step=units * bound.lr(batch) if bound is not None else math.inf,
        steps=steps,
        examples=examples,
        warnings=(
            *_edge_warnings(measurement, lr0, lr0 * factor.value),
            *_warnings(measurement, batch, batch0, lr0, hold),
        ),
        curves=tuple(_curves(measurement, batch, batch0, lr0, hold)),
    )


def _adam_settings(m: Measurement, times: float, hold: Hold) -> tuple[float, float]:
    """beta2 and epsilon at `times` the batch.

    beta2^times keeps the half-life of v in examples; it is Malladi's 1 - times (1 - beta2) to first
    order and never negative. Epsilon keeps its place beside sqrt(v) ~ 1 / sqrt(B) on the same
    trajectory; the measured law takes it as it is.
    """
    beta2, epsilon = m.optimizer.beta2, m.optimizer.epsilon
    if hold != "steps" and beta2 > 0:
        beta2 = beta2**times
    return beta2, epsilon / math.sqrt(times) if hold == "trajectory" else epsilon


def _price(m: Measurement, batch: float, batch0: float) -> tuple[float, float]:
    scale = m.b_noise if m.b_noise.bounded else m.b_simple
    if not (scale.bounded and scale.value > 0):
        return math.nan, math.nan
    frontier = Frontier(scale.value)
    return (
        frontier.steps(batch) / frontier.steps(batch0),
        frontier.examples(batch) / frontier.examples(batch0),
    )


def _others(m: Measurement, rules: dict[str, Estimate], chosen: str, hold: Hold) -> dict[str, str]:
    not_resolved = "not resolved: its band is wider than a factor of four"
    why = {
        CONSTANT: "right only far above the noise scale",
        LINEAR: "right for SGD far below the noise scale",
        ROOT: "right for Adam far below the noise scale",
        VARIANCE: "holds the noise of one update and knows no curvature",
        MEASURED: not_resolved,
        NOISE: "a law of plain descent, without Adam's preconditioner",
        SIMPLE: "takes the curvature as the same in all directions",
        ALPHA: "knows the noise of Adam's update and not its curvature",
        EDGE: not_resolved,
        BOUND: "what the lower end of the noise scale allows at least",
        DIRECT: "one step at the batches that the data sufficed for; a check of the law",
        MUON: not_resolved,
        CLOSED: "assumes independent coordinates, which failed on real nets",
        SIGN: "the same without epsilon",
        EXACT: "the same with exact moments in place of the mean field",
    }
    if m.optimizer.family == "sgd":
        why |= {NOISE: not_resolved, ALPHA: "a guess for Adam, to compare with"}
    if hold != "examples":
        why[EDGE] = "for as many examples"
    elif chosen == EDGE:
        why |= dict.fromkeys((MEASURED, NOISE, SIMPLE), "of one step: does not know the edge")
    if hold == "trajectory":
        why |= dict.fromkeys((MEASURED, NOISE), "does each step's best, not the same path")
    return {
        name: f"{_factor(factor)}; {why[name]}" for name, factor in rules.items() if name != chosen
    }


def _factor(factor: Estimate) -> str:
    if factor.low == factor.high:
        return f"times {factor.value:.3g}"
    return f"times {factor.value:.3g} ({factor.low:.3g} to {factor.high:.3g})"


def _warnings(m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold) -> Iterator[str]:
    """Sentences that a user must know, most important first."""
    yield from m.warnings
    if not m.noise.identifiable and not any(w.startswith("Not identifiable") for w in m.warnings):
        more = m.noise.more_needed() * m.noise.num_micro
        yield (
            f"Not identifiable yet: the noise scale is above {m.b_simple.low:.3g} examples and has "
            f"no upper bound; collect about {more:,} more micro-batches."
        )
    times = max(batch / batch0, batch0 / batch)
    if times > _FAR:
        yield f"The batch changes {times:.3g} times: measure again half-way."
    yield from _range_warnings(m, batch, batch0)
    scale = m.b_noise if m.b_noise.bounded else m.b_simple
    if scale.bounded and batch > 4 * scale.value:
        yield (
            f"The batch is far above the noise scale of {scale.value:.3g} examples: more examples "
            "a step hardly buy fewer steps."
        )
    if hold == "trajectory" and scale.bounded and max(batch, batch0) > scale.value:
        yield "Beyond the noise scale no learning rate follows the same trajectory."
    yield from _bound_warnings(m, batch0, lr0)
    yield from _surge_warnings(m, batch)
    if m.clipped_share > 0.05:
        yield (
            f"{100 * m.clipped_share:.0f} % of the steps were clipped: clipping holds the step's "
            "length, so the learning rate matters less than said here; scale the threshold too."
        )
    if m.optimizer.weight_decay > 0:
        yield "Weight decay acts per step as lr times decay: its pull changes with lr and steps."
    yield SCHEDULE


def _edge_warnings(m: Measurement, lr0: float, lr: float) -> Iterator[str]:
    """A law that does not know the edge, as the lower bound, may advise a rate beyond it."""
    if m.edge.bounded and lr0 > 0.9 * m.edge.value:
        yield (
            f"The present learning rate {lr0:.3g} is at the edge of stability ({m.edge}): the "
            "sharpest direction limits it whatever the batch, and what a smaller batch wants "
            "cannot be told from here."
        )
    elif m.edge.bounded and lr > m.edge.value:
        yield (
            f"The advised learning rate {lr:.3g} is beyond the edge of stability ({m.edge}): many "
            "steps hardly bear it."
        )


def _range_warnings(m: Measurement, batch: float, batch0: float) -> Iterator[str]:
    """SGD's curve is exact at every batch; Adam's is carried on where it was not measured."""
    law = m.preconditioned()
    if law is None or m.optimizer.family != "adam":
        return
    outside = [f"{at:g}" for at in sorted({batch, batch0}) if not law.covers(at)]
    if outside:
        yield (
            f"The law was measured from batch {law.batches[0]:g} to {law.batches[-1]:g} and is "
            f"carried on to {' and '.join(outside)}: there its band reaches from no further change "
            "to the square root; measure again at a batch nearer to it."
        )


def _bound_warnings(m: Measurement, batch0: float, lr0: float) -> Iterator[str]:
    law = m.preconditioned()
    if law is None:
        return
    bound = law.lr(batch0) * m.optimizer.lr_per_effective
    if bound > 0 and lr0 > 8 * bound:
        yield (
            f"The present learning rate {lr0:.3g} is far above the one-step optimum {bound:.3g}: "
            "the weights bounce in the sharpest directions, and a lower one may do better."
        )


def _surge_warnings(m: Measurement, batch: float) -> Iterator[str]:
    """A surge needs the curvature of the signal's sign to be surely twice that of the noise's."""
    noise = m.curvature.get("sign_noise", Estimate.unknown())
    signal = m.curvature.get("sign_curvature", Estimate.unknown())
    closed = m.soft_sign()
    if closed is None or not noise.value > 0:
        return
    # The closed form with the measured curvature of the noise in place of tr H.
    honest = replace(closed, diagonal=noise.value)
    supported = signal.low > 2 * noise.high
    if supported and batch > honest.batch_peak:
        yield (
            "Surge: the update's curvature doubles as its noise falls, so the best learning rate "
            f"may fall again above a batch of about {honest.batch_peak:.3g}."
        )
    elif closed.surges and not supported and batch > closed.batch_peak / 4:
        yield (
            f"The closed form expects a surge near {closed.batch_peak:.3g}; the measured curvature "
            f"of the noise ({noise.value:.3g}, tr H {closed.diagonal:.3g}) does not support it."
        )


def _curves(m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold) -> Iterator[Curve]:
    """The advice at every batch, every law through the user's point, then what is absolute."""
    low, high = min(batch, batch0) / 16, max(batch, batch0) * 16
    num = 41
    grid = tuple(low * (high / low) ** (i / (num - 1)) for i in range(num))
    tables = [factors(m, b, batch0, lr0) for b in grid]
    chosen = [choose(m, t, b, batch0, hold) for b, t in zip(grid, tables, strict=True)]
    yield Curve(
        "advice",
        grid,
        tuple(lr0 * c.factor.value for c in chosen),
        tuple(lr0 * c.factor.low for c in chosen),
        tuple(lr0 * c.factor.high for c in chosen),
        kind="advice",
    )
    for name in factors(m, batch, batch0, lr0):
        if name == DIRECT:
            continue
        found = [(b, t[name]) for b, t in zip(grid, tables, strict=True) if name in t]
        banded = name in (MEASURED, NOISE, SIMPLE, EDGE, ALPHA, BOUND, MUON)
        yield Curve(
            name,
            tuple(b for b, _ in found),
            tuple(lr0 * f.value for _, f in found),
            tuple(lr0 * f.low for _, f in found) if banded else (),
            tuple(lr0 * f.high for _, f in found) if banded else (),
        )
    law, units = m.preconditioned(), m.optimizer.lr_per_effective
    if law is not None:
        yield Curve("one-step optimum", grid, tuple(units * law.lr(b) for b in grid), kind="bound")
    if m.edge.known:
        edge = m.edge
        ends = [(end,) * num for end in (edge.value, edge.low, edge.high)]
        yield Curve("edge of stability", grid, *ends, kind="bound")
    if m.direct:
        yield Curve(
            DIRECT,
            tuple(p.batch for p in m.direct),
            tuple(units * p.lr.value for p in m.direct),
            tuple(units * p.lr.low for p in m.direct),
            tuple(units * p.lr.high for p in m.direct),
            kind="points",
        )
