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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from noisewise.scaling.advice import Advice, Curve, Hold, short
from noisewise.scaling.band import NORM_LAYERS, pooled, reaching, widened
from noisewise.scaling.cautions import edge_warnings, warnings_of, when_measured, when_warnings
from noisewise.scaling.choice import Choice, choose
from noisewise.scaling.epsilon import factor_between, share_below
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import Frontier, checked_batch
from noisewise.scaling.measurement import Measurement, Unit
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
from noisewise.scaling.settings import Settings, settings_for
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["advise", "unwidened"]


def advise(
    measurement: Measurement | Sequence[Measurement],
    *,
    batch: float,
    hold: Hold = "examples",
    lr: float | None = None,
    batch0: float | None = None,
    unit: Unit | None = None,
    epsilon: float | None = None,
    ema: float | None = None,
) -> Advice:
    """Return the learning rate for another batch size.

    Args:
        measurement: from `calibrate`, or from a watched loop; several of one training, in the
            order of time, give one answer with a band over all of them.
        batch: the new number of examples per step, above 0.
        hold: what stays the same: "examples", "steps" or "trajectory"; see the module.
        lr: tuned learning rate at batch0; None: the optimiser's, at the top of its schedule.
        batch0: batch that lr was tuned at; None: the batch of the measurement.
        unit: what batch and batch0 count; needed if the measurement counts labels.
        epsilon: Adam's epsilon in the new run, if it is another one.
        ema: decay of an average of the weights at batch0, to be changed with the batch.

    Raises:
        ValueError: for a batch or learning rate that is not positive, an unknown hold or unit, a
            measurement that does not know its own batch, measurements of different optimisers, or
            an epsilon without a second moment.

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
    ms = _measurements(measurement, unit)
    m = ms[-1]
    notes = list(_counted(m, batch0))
    batch0 = batch0 if batch0 is not None else m.batch
    if batch0 is None:
        raise ValueError("The measurement does not know its batch: give batch0= (examples/step).")
    batch0 = checked_batch(batch0)
    lr0 = m.optimizer.lr if lr is None else lr
    facts = m.optimizer.with_lr(lr0)
    chosen = _chosen(ms, batch, batch0, lr0, hold)
    factor, about_epsilon = _with_epsilon(chosen.factor, m, epsilon)
    settings = settings_for(facts, batch / batch0, factor.value, hold, ema, epsilon)
    bound = m.preconditioned()
    steps, examples = _cost(m, batch, batch0)
    warnings = (
        *edge_warnings(m, lr0, lr0 * factor.value),
        *settings.notes,
        *when_warnings(ms),
        *about_epsilon,
        *warnings_of(m, batch, batch0, lr0, hold),
        *notes,
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
        others=_others(m, factors(m, batch, batch0, lr0), chosen.law, hold),
        rates=tuple(rate * factor.value for rate in facts.rates),
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        weight_decay=settings.weight_decay,
        ema=settings.ema,
        changed=tuple(_changed(settings, m, ema)),
        measured=when_measured(ms),
        counted=m.counted,
        lr_one_step=m.optimizer.lr_per_effective * bound.lr(batch) if bound else math.inf,
        steps=steps,
        examples=examples,
        warnings=tuple(text for _, text in warnings),
        warning_codes=tuple(code for code, _ in warnings),
        curves=tuple(_curves(ms, batch, batch0, lr0, hold)),
    )


def _measurements(
    given: Measurement | Sequence[Measurement], unit: Unit | None
) -> tuple[Measurement, ...]:
    """The measurements in the unit that the user counts in."""
    ms = (given,) if isinstance(given, Measurement) else tuple(given)
    if not ms:
        raise ValueError("There is no measurement: give one or more.")
    if unit not in (None, *get_args(Unit)):
        raise ValueError(f"unit is {unit!r}: use 'examples' or 'labels'.")
    if len({(m.optimizer.family, m.optimizer.name) for m in ms}) > 1:
        names = ", ".join(dict.fromkeys(m.optimizer.name for m in ms))
        raise ValueError(
            f"These measurements are of different optimisers ({names}): give several checkpoints "
            "of one training."
        )
    for m in ms:
        if m.unit == "labels" and unit is None:
            each = f", {m.labels_per_example:.3g} for each example" if m.labels_per_example else ""
            raise ValueError(
                f"This measurement counts labels ({m.batch or 0:.6g} in a step{each}): say what "
                "the new batch counts, unit='labels' or unit='examples' (--unit)."
            )
        if m.unit == "examples" and unit == "labels":
            raise ValueError(
                "This measurement counts examples, not labels: give the batch in examples."
            )
    if not any(math.isnan(m.ended) for m in ms):
        ms = tuple(sorted(ms, key=lambda m: m.ended))  # files may be named in any order
    return tuple(_of_whole_net(m.in_examples() if unit != "labels" else m) for m in ms)


def _of_whole_net(m: Measurement) -> Measurement:
    """Normalisation layers only stand for the net: its noise scale may lie further away."""
    if m.source == "all" or not m.b_simple.known:
        return m
    scale = m.b_simple
    wide = replace(scale, low=scale.low / NORM_LAYERS, high=scale.high * NORM_LAYERS)
    return replace(m, noise=replace(m.noise, b_simple=wide))


def _counted(m: Measurement, batch0: float | None) -> Iterator[CodedWarning]:
    """What the batch was counted from, if nobody gave it."""
    if batch0 is None and m.counted and m.batch is not None:
        yield (
            "counted",
            f"The batch of {m.batch:g} was counted: {m.counted} of each micro-batch; if that is "
            "not your batch, give it to watch(batch=), or as batch0.",
        )


def _chosen(
    ms: Sequence[Measurement], batch: float, batch0: float, lr0: float, hold: Hold
) -> Choice:
    """The law of the last measurement, with the factor and the band of all of them."""
    chosen = unwidened(ms, batch, batch0, lr0, hold)
    if hold == "trajectory":  # names its rule, and has no band
        return chosen
    return replace(chosen, factor=widened(chosen.factor, batch, batch0, _several(ms)))


def unwidened(
    ms: Sequence[Measurement], batch: float, batch0: float, lr0: float, hold: Hold
) -> Choice:
    """Return the law and its factor before the band is widened; the benchmark of the band asks it.

    Args:
        ms: measurements of one training, in order of time.
        batch: the new batch.
        batch0: the old batch.
        lr0: the rate that was tuned at batch0.
        hold: what stays the same.
    """
    found = [_of_one(m, batch, batch0, lr0, hold) for m in ms]
    last = found[-1]
    if hold == "trajectory":
        return last
    reason = last.reason
    if len(ms) > 1:
        reason += (
            f"; the factor is the geometric mean of {len(ms)} measurements, and the band reaches "
            "over all of theirs"
        )
    return replace(last, reason=reason, factor=pooled([choice.factor for choice in found]))


def _several(ms: Sequence[Measurement]) -> bool:
    """Whether the training was seen at several times."""
    return len(ms) > 1 or len(ms[0].scales) > 1


def _of_one(m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold) -> Choice:
    """One measurement's law; its band also holds what its noise scale was at other times."""
    chosen = choose(m, factors(m, batch, batch0, lr0), batch, batch0, hold)
    if hold == "trajectory" or chosen.law not in (SIMPLE, ALPHA, MUON, BOUND):
        return chosen
    others = []
    for scale in m.scales:
        at = replace(m, noise=replace(m.noise, b_simple=Estimate(scale, scale, scale)))
        others.append(choose(at, factors(at, batch, batch0, lr0), batch, batch0, hold).factor.value)
    return replace(chosen, factor=reaching(chosen.factor, others))


def _with_epsilon(
    factor: Estimate, m: Measurement, epsilon: float | None
) -> tuple[Estimate, tuple[CodedWarning, ...]]:
    """The factor with another epsilon; the band holds the factor without it, too."""
    if epsilon is None:
        return factor, ()
    if not (epsilon >= 0 and math.isfinite(epsilon)):  # settings_for comes later
        raise ValueError(f"epsilon is {epsilon}: give a number of 0 or above.")
    old = m.optimizer.epsilon
    times = factor_between(m.epsilons, old, epsilon)
    low, high = sorted((1.0, times))
    changed = Estimate(factor.value * times, factor.low * low, factor.high * high)
    share = share_below(m.epsilons, epsilon)
    text = (
        f"With an epsilon of {epsilon:g} (now {old:g}), {100 * share:.0f} % of the weights have a "
        f"sqrt(v) below it; updates as long as before need {short(times)} times the rate, which is "
        "included. calibrate(epsilon=) measures it."
    )
    return changed, (("epsilon", text),)


def _changed(
    settings: Settings, m: Measurement, ema: float | None
) -> Iterator[tuple[str, float, float]]:
    """What to set besides the learning rate: name, value, old value."""
    old = m.optimizer
    pairs = [
        ("beta2", settings.beta2, old.beta2),
        ("momentum", settings.beta1, old.beta1),
        ("epsilon", settings.epsilon, old.epsilon),
        ("weight decay", settings.weight_decay, old.weight_decay),
    ]
    if ema is not None:
        pairs.append(("EMA decay", settings.ema, ema))
    for name, new, before in pairs:
        if not math.isnan(new) and not math.isclose(new, before, rel_tol=1e-6):
            yield name, new, before


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


def _curves(
    ms: Sequence[Measurement], batch: float, batch0: float, lr0: float, hold: Hold
) -> Iterator[Curve]:
    """The advice at every batch, every law through the user's rate, then the absolute curves."""
    m = ms[-1]
    low, high = min(batch, batch0) / 16, max(batch, batch0) * 16
    num = 41
    grid = tuple(low * (high / low) ** (i / (num - 1)) for i in range(num))
    tables = [factors(m, b, batch0, lr0) for b in grid]
    chosen = [_chosen(ms, b, batch0, lr0, hold) for b in grid]
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
