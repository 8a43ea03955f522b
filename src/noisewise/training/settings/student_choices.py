"""What can be chosen about a generator's training, and the sentences that refuse the rest."""

from __future__ import annotations

import math
from typing import Literal

Student = Literal["full", "lora"]

CALLS = (1, 2, 4)
RANK = 8
"""Rank of a student's adapters where nobody set one."""
MOST_DATA_WEIGHT = 0.5


def check_calls(calls: int) -> None:
    """Refuse a number of calls that no generator is trained for.

    Raises:
        ValueError: if it is not 1, 2 or 4.
    """
    if calls not in CALLS:
        raise ValueError(f"a generator of {calls} calls is not trained; use --calls 1, 2 or 4")


def check_rank(student: Student, rank: int | None) -> None:
    """Refuse a rank below 1, and a rank without adapters.

    Raises:
        ValueError: with the way out.
    """
    if rank is None:
        return
    if student != "lora":
        raise ValueError("a rank is that of adapters; add --student lora, or leave --rank out")
    if rank < 1:
        raise ValueError(f"rank {rank} adapts nothing; use 1 or more, best 4 to 32")


def check_data_weight(weight: float) -> None:
    """Refuse a weight of real pictures that leaves the fake score too little of the generator.

    Raises:
        ValueError: if it is not from 0 to a half.
    """
    if not (math.isfinite(weight) and 0 <= weight <= MOST_DATA_WEIGHT):
        raise ValueError(
            f"a data weight of {weight:g} does not work; use 0 for none, up to "
            f"{MOST_DATA_WEIGHT:g}, best 0.05 to 0.15"
        )
