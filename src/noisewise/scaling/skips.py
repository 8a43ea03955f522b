"""Why a measured step was left out: codes for programs, sentences for people."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

from noisewise.scaling.ranks import Step

__all__ = ["Skip", "counter_of", "reason_of", "sentence_of"]

Skip = Literal["one_micro_batch", "not_finite", "unequal", "uncounted", "no_single_examples"]
_REASONS: dict[Skip, str] = {
    "one_micro_batch": "with only one micro-batch",
    "not_finite": "with a gradient that is zero or not finite",
    "unequal": "with micro-batches of unequal size and unknown weight (call micro_batch())",
    "uncounted": "with examples that cannot be counted (give batch=, the examples of a step)",
    "no_single_examples": (
        "whose normalisation layers do not show the gradients of single examples (accumulate two "
        "or more micro-batches, or call monitor.backward(losses))"
    ),
}
_OLDER: dict[str, Skip] = {  # what the states of older versions say
    "one micro-batch only": "one_micro_batch",
    "a gradient that was zero or not finite": "not_finite",
    "unequal micro-batches whose weights are not known (see micro_batch())": "unequal",
    "examples that could not be counted (say size=)": "uncounted",
}


def reason_of(step: Step) -> Skip | None:
    """Return the reason to leave a step out; None: it is recorded."""
    if step.num_micro < 2:
        return "one_micro_batch"
    if not step.batch > 0:
        return "uncounted"
    total = float(step.squares.sum() + step.means.sum())
    if not math.isfinite(total) or not float(step.means.max()) > 0:
        return "not_finite"
    return None if step.known else "unequal"


def sentence_of(skipped: Counter[Skip], recorded: int) -> str:
    """Return how many of the measured steps were left out, and why."""
    reasons = "; ".join(f"{n} {_REASONS[code]}" for code, n in skipped.most_common())
    left = skipped.total()
    return f"{left} of {left + recorded} measured steps were left out: {reasons}."


def counter_of(stored: dict[str, int]) -> Counter[Skip]:
    """Return the counter of a saved state, also of an older version."""
    found: Counter[Skip] = Counter()
    for reason, number in stored.items():
        code = _OLDER.get(reason, reason)
        if code in _REASONS:
            found[code] += number
    return found
