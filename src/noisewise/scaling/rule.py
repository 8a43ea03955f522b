"""What a rule is: from a measurement and two batch sizes to factors on the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measurement import Measurement

__all__ = ["Factors", "Question", "Rule"]


@dataclass(frozen=True)
class Question:
    """By which factor must the learning rate change between two batch sizes?

    Attributes:
        m: what was measured.
        batch: the new batch, examples.
        batch0: the old batch, examples.
        lr0: learning rate tuned at batch0; None: the optimiser's.
    """

    m: Measurement
    batch: float
    batch0: float
    lr0: float | None = None


Factors = Mapping[str, Estimate]
"""lr(batch) / lr(batch0) by the name of the law, with an interval."""

Rule = Callable[[Question, Factors], Factors]
"""From a question, and the factors of the rules before this one, to factors of one or more laws.

A rule whose law the measurement does not allow returns an empty mapping.
"""
