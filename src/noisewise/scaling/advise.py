"""From a measurement to a learning rate for another batch size: band, rule, reasons, warnings.

Papers: McCandlish et al. 2018 (the noise scale); Malladi et al. 2022 (the same trajectory: square
root for Adam, with beta2 and epsilon); Marek et al. 2025, "Small batch size training for language
models" (beta2's half-life in examples); Li et al. 2024 (the surge).

The best learning rate depends on what stays the same, so the user says it (`hold`). "examples": the
same number of examples, each step as good as possible: the measured law, below the edge of
stability (`choice` says why). "trajectory": the same path through the weights, example by example:
linear for SGD, square root for Adam. "steps": the same number of steps, so a larger batch sees more
data; the noise that remains at the end decides, and on exact quadratics the exponent is about half
of the law's.

The main answer is a ratio, applied to the learning rate that the user has tuned. The one-step
optimum is also reported, as an order of magnitude: in our sweeps over many steps the best rate was
up to nine times of it early in training, and a third to once late, so it is no target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from noisewise.scaling.advice import Advice, Curve, Hold, short
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
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["advise"]

_FAR = 16.0  # factor between two batches above which the advice warns


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
        batch: the new number of examples per step, above 0.
        hold: what stays the same: "examples", "steps" or "trajectory"; see the module.
        lr: tuned learning rate at batch0; None: the optimiser's at the time of the measurement.
        batch0: batch that lr was tuned at; None: the batch of the measurement.

    Raises:
        ValueError: for a batch or learning rate that is not positive, an unknown hold, or a
            measurement that does not know its own batch.

    Source: see the module; the choice of the law follows from benchmarks/learning_rate/laws.py.

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
        raise ValueError("The measurement does not know its batch: give batch0= (examples/step).")
    batch0 = checked_batch(batch0)
    lr0 = measurement.optimizer.lr if lr is None else lr
    if not (lr0 > 0 and math.isfinite(lr0)):
        raise ValueError(f"A learning rate of {lr0} cannot be scaled: give a positive lr.")
    rules = factors(measurement, batch, batch0, lr0)
    chosen = choose(measurement, rules, batch, batch0, hold)
    factor = chosen.factor
    beta2, epsilon = _adam_settings(measurement, batch / batch0, hold)
    bound = measurement.preconditioned()
    units = measurement.optimizer.lr_per_effective
    steps, examples = _cost(measurement, batch, batch0)
    warnings = (
        *_edge_warnings(measurement, lr0, lr0 * factor.value),
        *_warnings(measurement, batch, batch0, lr0, hold),
    )
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
        warnings=tuple(text for _, text in warnings),
        warning_codes=tuple(code for code, _ in warnings),
        curves=tuple(_curves(measurement, batch, batch0, lr0, hold)),
    )


def _adam_settings(m: Measurement, times: float, hold: Hold) -> tuple[float, float]:
    """beta2 and epsilon at `times` the batch.

    beta2^times keeps the half-life of v in examples. To first order it is Malladi's
    1 - times (1 - beta2), and it is never negative. On the same trajectory epsilon scales like
    sqrt(v) ~ 1 / sqrt(B); the measured law leaves it unchanged.
    """
    beta2, epsilon = m.optimizer.beta2, m.optimizer.epsilon
    if hold != "steps" and beta2 > 0:
        beta2 = beta2**times
    return beta2, epsilon / math.sqrt(times) if hold == "trajectory" else epsilon


def _cost(m: Measurement, batch: float, batch0: float) -> tuple[float, float]:
    """Steps and examples to the same loss, relative to batch0; nan if not known."""
    scale = m.b_noise if m.b_noise.bounded else m.b_simple
    if not (scale.bounded and scale.value > 0):
        return math.nan, math.nan
    frontier = Frontier(scale.value)
    return (
        frontier.steps(batch) / frontier.steps(batch0),
        frontier.examples(batch) / frontier.examples(batch0),
    )


def _others(m: Measurement, rules: dict[str, Estimate], chosen: str, hold: Hold) -> dict[str, str]:
    """Each law that was not used: its factor and why it was not used."""
    uncertain = "too uncertain: its band is wider than a factor of four"
    why = {
        CONSTANT: "holds only far above the noise scale",
        LINEAR: "holds for SGD far below the noise scale",
        ROOT: "holds for Adam far below the noise scale",
        VARIANCE: "keeps the noise of one update and ignores the curvature",
        MEASURED: uncertain,
        NOISE: "a law for SGD: ignores that Adam divides by sqrt(v)",
        SIMPLE: "assumes the same curvature in all directions",
        ALPHA: "knows the noise of Adam's update, but not its curvature",
        EDGE: uncertain,
        BOUND: "the smallest change that the measured noise allows",
        DIRECT: "one step, at the batches with enough data; a check of the law",
        MUON: uncertain,
        CLOSED: "assumes independent coordinates, which failed on real nets",
        SIGN: "the closed form without epsilon",
        EXACT: "the closed form with exact moments of a Gaussian",
    }
    if m.optimizer.family == "sgd":
        why |= {NOISE: uncertain, ALPHA: "an approximation for Adam, for comparison"}
    if hold != "examples":
        why[EDGE] = "holds for the same number of examples"
    elif chosen == EDGE:
        why |= dict.fromkeys((MEASURED, NOISE, SIMPLE), "for one step: ignores the edge")
    if hold == "trajectory":
        why |= dict.fromkeys((MEASURED, NOISE), "gives the best single step, not the same path")
    return {
        name: f"{_factor(factor)}; {why[name]}" for name, factor in rules.items() if name != chosen
    }


def _factor(factor: Estimate) -> str:
    if factor.low == factor.high:
        return f"times {short(factor.value)}"
    return f"times {short(factor.value)} ({short(factor.low)} to {short(factor.high)})"


def _warnings(
    m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold
) -> Iterator[CodedWarning]:
    """What a user must know, most important first."""
    yield from m.coded_warnings()
    if not m.noise.identifiable and "noise_not_known" not in m.warning_codes:
        more = m.noise.more_needed() * m.noise.num_micro
        yield (
            "noise_not_known",
            f"{m.noise.why_not_known()}; collect about {more:,} more micro-batches.",
        )
    times = max(batch / batch0, batch0 / batch)
    if times > _FAR:
        yield (
            "far_batch",
            f"The batch changes by a factor of {short(times)}: measure again at one in between.",
        )
    yield from _range_warnings(m, batch, batch0)
    scale = m.b_noise if m.b_noise.bounded else m.b_simple
    if scale.bounded and batch > 4 * scale.value:
        yield (
            "above_noise_scale",
            f"The new batch is far above the noise scale of {scale.value:.3g} examples: a batch "
            "this large hardly reduces the number of steps any more.",
        )
    if hold == "trajectory" and scale.bounded and max(batch, batch0) > scale.value:
        yield (
            "no_same_path",
            "Above the noise scale, no learning rate keeps the same path through the weights.",
        )
    yield from _bound_warnings(m, batch0, lr0)
    yield from _surge_warnings(m, batch)
    if m.clipped_share > 0.05:
        yield (
            "clipped",
            f"{100 * m.clipped_share:.0f} % of the steps were clipped: clipping fixes the length "
            "of a step, so the learning rate matters less than stated here; scale the clipping "
            "threshold as well.",
        )
    if m.optimizer.weight_decay > 0:
        yield (
            "weight_decay",
            "Each step applies lr times weight decay: its effect changes with the learning rate "
            "and with the number of steps.",
        )
    yield (
        "whole_schedule",
        "Scale the whole schedule (warm-up and decay, counted in examples), not only its peak.",
    )


def _edge_warnings(m: Measurement, lr0: float, lr: float) -> Iterator[CodedWarning]:
    """A law that ignores the edge, such as the lower bound, may advise a rate above it."""
    if m.edge.bounded and lr0 > 0.9 * m.edge.value:
        yield (
            "at_edge",
            f"The present learning rate {lr0:.3g} is at the edge of stability, {m.edge}: the "
            "sharpest direction of the loss limits it at every batch, so this measurement cannot "
            "tell the rate for a smaller batch.",
        )
    elif m.edge.bounded and lr > m.edge.value:
        yield (
            "beyond_edge",
            f"The advised learning rate {lr:.3g} is above the edge of stability, {m.edge}: many "
            "steps at this rate are likely to be unstable.",
        )


def _range_warnings(m: Measurement, batch: float, batch0: float) -> Iterator[CodedWarning]:
    """SGD's curve is exact at every batch; Adam's is extrapolated outside the measured batches."""
    law = m.preconditioned()
    if law is None or m.optimizer.family != "adam":
        return
    outside = [f"{at:g}" for at in sorted({batch, batch0}) if not law.covers(at)]
    if outside:
        yield (
            "extrapolated",
            f"The law was measured from batch {law.batches[0]:g} to {law.batches[-1]:g} and is "
            f"extrapolated to {' and '.join(outside)}: there its band reaches from no further "
            "change to the square root; measure again at a batch closer to it.",
        )


def _bound_warnings(m: Measurement, batch0: float, lr0: float) -> Iterator[CodedWarning]:
    law = m.preconditioned()
    if law is None:
        return
    bound = law.lr(batch0) * m.optimizer.lr_per_effective
    if bound > 0 and lr0 > 8 * bound:
        yield (
            "above_one_step_optimum",
            f"The present learning rate {lr0:.3g} is far above the one-step optimum {bound:.3g}: "
            "the weights bounce along the sharpest directions of the loss; a lower rate may work "
            "better.",
        )


def _surge_warnings(m: Measurement, batch: float) -> Iterator[CodedWarning]:
    """Warn of a surge: the best learning rate falls again at large batches.

    It needs the curvature of the signal's sign to be clearly twice that of the noise's sign.
    """
    noise = m.curvature.get("sign_noise", Estimate.unknown())
    signal = m.curvature.get("sign_curvature", Estimate.unknown())
    closed = m.soft_sign()
    if closed is None or not noise.value > 0:
        return
    # The closed form with the measured curvature of the noise instead of tr H.
    corrected = replace(closed, diagonal=noise.value)
    supported = signal.low > 2 * noise.high
    if supported and batch > corrected.batch_peak:
        yield (
            "surge",
            "Surge: with less noise the curvature of an update doubles, so the best learning rate "
            f"may fall again above a batch of about {corrected.batch_peak:.3g}.",
        )
    elif closed.surges and not supported and batch > closed.batch_peak / 4:
        yield (
            "surge_not_supported",
            "The closed form predicts that the best learning rate falls again above a batch of "
            f"about {closed.batch_peak:.3g} (surge); the measured curvature of the noise "
            f"({noise.value:.3g}, tr H {closed.diagonal:.3g}) does not support this.",
        )


def _curves(m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold) -> Iterator[Curve]:
    """The advice at every batch, every law through the user's rate, then the absolute curves."""
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
