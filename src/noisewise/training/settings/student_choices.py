"""What can be chosen about a generator's training, and the sentences that refuse the rest."""

from __future__ import annotations

import math
from typing import Literal

Student = Literal["full", "lora"]

CALLS = (1, 2, 4)
RANK = 8
"""Rank of a student's adapters where nobody set one."""
MOST_DATA_WEIGHT = 0.5
MOST_GUIDANCE = 5.0  # Zhou et al. 2024 go up to 4.5

DataKind = Literal["realuid", "sida"]


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


def check_distilled_guidance(weight: float) -> None:
    """Refuse guidance that no generator was distilled with.

    Raises:
        ValueError: if it is not from 1 to 5.
    """
    if not 1 <= weight <= MOST_GUIDANCE:
        raise ValueError(
            f"guidance of {weight:g} is not distilled; use 1 for none, up to {MOST_GUIDANCE:g}, "
            "best about 1.5"
        )


def check_data(weight: float, kind: DataKind, through: str) -> None:
    """Refuse a weight of real pictures that is too large, and a term that cannot work.

    Args:
        weight: of the real pictures; 0: none are read.
        kind: how they are used.
        through: where gradients flow, "both" nets or "none".

    Raises:
        ValueError: with the way out.
    """
    if not (math.isfinite(weight) and 0 <= weight <= MOST_DATA_WEIGHT):
        raise ValueError(
            f"a data weight of {weight:g} does not work; use 0 for none, up to "
            f"{MOST_DATA_WEIGHT:g}, best 0.05 to 0.15 (0.5 with --data-term sida)"
        )
    if kind == "realuid":
        return
    if not weight:
        raise ValueError(
            f"a data term of {kind} needs a weight; add --data-weight 0.5, or leave --data-term out"
        )
    if through == "none":
        raise ValueError(
            "the adversary of --data-term sida reaches the generator through the fake score; use "
            "--through both"
        )
