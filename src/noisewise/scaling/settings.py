"""What else changes with the batch: Adam's betas, weight decay, the average of the weights.

Papers: Marek et al. 2025, "Small batch size training for language models" (arXiv 2507.07101: hold
beta2's half-life in examples); Malladi et al. 2022 (the same path for Adam: 1 - beta1 and 1 - beta2
scale with the batch, epsilon with its root); Zhang et al. 2022, "Adam can converge without any
modification on update rules" (arXiv 2208.09632: a small beta2 diverges; beta1 < sqrt(beta2));
Brown et al. 2020 (GPT-3: beta2 0.95 at the largest batches in use); Bergsma et al. 2025, "Power
lines" (arXiv 2505.13738: hold B / (lr wd D)); Busbridge et al. 2023, "How to scale your EMA" (arXiv
2307.13813: decay^(B / B0)).

A rule is followed in the range where it was tried, and the advice says where it left that range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from noisewise.scaling.advice import Hold
from noisewise.scaling.optimizer_facts import OptimizerFacts
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["BETA2_CEILING", "BETA2_FLOOR", "Settings", "settings_for"]

BETA2_FLOOR = 0.95  # Brown et al. 2020; below it the held-out loss got worse, then diverged
BETA2_CEILING = 0.9999  # Marek et al. 2025, at batch 1
_LEAST_EMA = 0.9  # an average of ten steps; below it hardly averages anything
_MOST_DECAY = 0.1  # share of the weights that one step may remove


@dataclass(frozen=True)
class Settings:
    """What to set for the new batch, besides the learning rate.

    Attributes:
        beta1: momentum.
        beta2: decay of the second moment; 0 if the optimiser has none.
        epsilon: added to the square root; 0 if the optimiser has none.
        weight_decay: 0 if there is none; nan if no rule is known for it.
        ema: decay of an average of the weights; nan: not asked.
        notes: what the rules do not cover.
    """

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    ema: float
    notes: tuple[CodedWarning, ...]


def settings_for(
    facts: OptimizerFacts,
    times: float,
    ratio: float,
    hold: Hold,
    ema: float | None = None,
    epsilon: float | None = None,
) -> Settings:
    """Return the optimiser's settings at another batch.

    Args:
        facts: the optimiser.
        times: new batch over old batch.
        ratio: new learning rate over the old one.
        hold: what stays the same.
        ema: decay of an average of the weights at the old batch; None: there is none.
        epsilon: the epsilon that the new run will have; None: by the rule.

    Raises:
        ValueError: for a decay that is not between 0 and 1, or a negative epsilon.

    Example:
        >>> adamw = OptimizerFacts("AdamW", "adam", 1e-3, 0.9, beta2=0.95, weight_decay=0.1,
        ...                        decoupled=True)
        >>> found = settings_for(adamw, 16, 4.0, "examples", ema=0.9999)
        >>> found.beta2, round(found.weight_decay, 3), round(found.ema, 4)
        (0.95, 0.4, 0.9984)
    """
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema is {ema}: give the decay of the average, between 0 and 1.")
    if epsilon is not None and not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}: give a number of 0 or above.")
    notes: list[CodedWarning] = []
    beta1 = _beta1(facts, times, hold, notes)
    beta2 = _beta2(facts, times, beta1, hold, notes)
    if epsilon is None:
        root = math.sqrt(times) if hold == "trajectory" else 1.0
        epsilon = facts.epsilon / root
    decay = _weight_decay(facts, times, ratio, hold, notes)
    average = math.nan if ema is None else ema if hold == "steps" else ema**times
    if average < _LEAST_EMA:
        text = (
            f"The average of the weights would keep a decay of {average:.3g}, and so average only "
            f"{1 / (1 - average):.2g} steps: at this batch it does little."
        )
        notes.append(("left_range", text))
    return Settings(beta1, beta2, epsilon, decay, average, tuple(notes))


def _beta1(facts: OptimizerFacts, times: float, hold: Hold, notes: list[CodedWarning]) -> float:
    """On the same path Adam's first moment keeps its half-life in examples, too."""
    beta1 = facts.beta1
    if hold != "trajectory" or facts.family != "adam" or beta1 == 0:
        return beta1
    first_order = 1 - times * (1 - beta1)
    if first_order < 0:
        text = (
            f"The rule for beta1 leaves its range: 1 - beta1 would be {times * (1 - beta1):.3g} at "
            f"{times:.3g} times the batch (Malladi et al. 2022 ask for less than 1); "
            f"{beta1**times:.3g} keeps its half-life in examples, but not the same path."
        )
        notes.append(("left_range", text))
    return beta1**times


def _beta2(
    facts: OptimizerFacts, times: float, beta1: float, hold: Hold, notes: list[CodedWarning]
) -> float:
    """Beta2 keeps its half-life in examples between a floor and a ceiling.

    beta2^times is Malladi's 1 - times (1 - beta2) to first order, and never negative.
    """
    beta2 = facts.beta2
    if hold == "steps" or beta2 <= 0:
        return beta2
    wanted = beta2**times
    floor = min(beta2, max(BETA2_FLOOR, beta1**2))
    ceiling = max(beta2, BETA2_CEILING, beta1**2)  # beta1 may be near 1 on the same path
    if wanted < floor:
        text = (
            f"The rule for beta2 leaves its range: its half-life in examples asks for "
            f"{wanted:.3g}, below {floor:.4g}, under which Adam gets worse and may diverge (Zhang "
            f"et al. 2022; the largest batches in use have 0.95): keep {floor:.4g}."
        )
        notes.append(("left_range", text))
    elif wanted > ceiling:
        text = (
            f"The rule for beta2 leaves its range: its half-life in examples asks for "
            f"{wanted:.8g}, above {ceiling:.6g}, the largest that was tried (Marek et al. 2025): "
            f"take {ceiling:.6g}."
        )
        notes.append(("left_range", text))
    return min(max(wanted, floor), ceiling)


def _weight_decay(
    facts: OptimizerFacts, times: float, ratio: float, hold: Hold, notes: list[CodedWarning]
) -> float:
    """Hold tau = B / (lr wd D), the share of the training over which the weights are averaged."""
    decay = facts.weight_decay
    if decay == 0:
        return 0.0
    if not facts.decoupled:
        text = (
            "Weight decay acts through the gradient here, and no rule is known for that: its "
            "effect changes with the learning rate (AdamW's has a rule)."
        )
        notes.append(("weight_decay", text))
        return math.nan
    data = times if hold == "steps" else 1.0  # examples of the new run over those of the old
    wanted = decay * times / (ratio * data)
    lr = facts.lr * ratio
    if lr * wanted > _MOST_DECAY:
        text = (
            f"The rule for weight decay leaves its range: {wanted:.3g} would remove "
            f"{100 * lr * wanted:.0f} % of the weights in each step; keep "
            f"{_MOST_DECAY / lr:.3g} or less."
        )
        notes.append(("left_range", text))
        return _MOST_DECAY / lr
    return wanted
