"""A plain word for generated pictures, never kinder than a person who looks at them.

The limits were set on blind looks: people who did not know which pictures were real sorted sheets
of both (`benchmarks.pictures.judge_panel`, docs/judge.md). Where a measure and the eye disagreed,
the limit was moved until the word was not kinder than the eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noisewise.quality.judge import Floors
from noisewise.quality.told_apart import ToldApart

Word = Literal["as real", "close", "visibly different", "poor", "cannot tell"]
WORDS: tuple[Word, ...] = ("as real", "close", "visibly different", "poor")

_FEWEST = 64  # pictures on either side
_FLOORS = (0.6, 1.3, 12.0)  # at 500 pictures: largest number for "as real", "close", "visibly ..."
_TOLD = (0.54, 0.58, 0.90)  # largest share told apart by a classifier, for the same words
_EVEN = (0.1, 0.2)  # largest share of even areas lost or added, for "as real" and "close"
_FEW_EVEN = 0.05  # share of real pixels; with less, even areas say nothing


@dataclass(frozen=True)
class Verdict:
    """A word and the reason for it.

    Attributes:
        word: "as real" (no difference was found), "close" (a careful look may find a difference),
            "visibly different", "poor" (a glance is enough), or "cannot tell" (too few pictures).
        reason: one sentence for people.
    """

    word: Word
    reason: str

    def __str__(self) -> str:
        """The word and its reason."""
        return f"{self.word}: {self.reason}"


def verdict(
    floors: Floors,
    told: ToldApart | None = None,
    even: tuple[float, float] | None = None,
) -> Verdict:
    """Return the worst of what the judge, a classifier and even areas say.

    Args:
        floors: what `Judge.measure` returned; its number for 500 pictures counts.
        told: what `told_apart` returned, if it was measured.
        even: `even_area` of the generated and of the real pictures: people see faint speckle on a
            ground at once, and the other two hardly do.

    Example:
        >>> import torch
        >>> from noisewise.quality import Judge
        >>> real = torch.rand(160, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> verdict(Judge(real[:80]).measure(0.3 * real[80:])).word
        'poor'
    """
    fewest = min(floors.num_a, floors.num_b)
    if fewest < _FEWEST:
        return Verdict(
            "cannot tell",
            f"{fewest} pictures are too few to tell anything; {_FEWEST} generated and {_FEWEST} "
            "real ones are the least",
        )
    by_floors = _rank(floors.at_standard, _FLOORS)
    # A classifier that learns from few pictures is often wrong: only what is sure counts.
    by_class = 0 if told is None else min(_rank(told.accuracy, _TOLD), 1 + _rank(told.low, _TOLD))
    by_even = _by_even(even)
    times = max(floors.at_standard, 0.0)
    shown = f"{times:.1f}" if times < 9.95 else f"{times:,.0f}"
    reason = f"{shown} times as far as real pictures from each other"
    if told is not None:
        reason += f", a classifier tells them apart in {100 * told.accuracy:.0f}%"
    if even is not None and by_even:
        reason += f", {100 * even[0]:.0f}% of the area is even and {100 * even[1]:.0f}% should be"
    if by_floors > 1 and floors.value <= 1:  # so few pictures: real ones may reach this number
        if max(by_class, by_even) < 2:
            return Verdict("cannot tell", f"{reason}; so few real pictures may reach that too")
        by_floors = 1
    return Verdict(WORDS[max(by_floors, by_class, by_even)], reason)


def word_by_floors(at_standard: float, fewest: int) -> Word:
    """Return the word for floors that were measured earlier, without a classifier.

    Args:
        at_standard: `Floors.at_standard`.
        fewest: the smaller number of generated and of real pictures.

    Example:
        >>> word_by_floors(0.5, 500), word_by_floors(40.0, 500), word_by_floors(40.0, 20)
        ('as real', 'poor', 'cannot tell')
    """
    return WORDS[_rank(at_standard, _FLOORS)] if fewest >= _FEWEST else "cannot tell"


def _by_even(even: tuple[float, float] | None) -> int:
    if even is None or even[1] < _FEW_EVEN:
        return 0
    return _rank(abs(even[0] / even[1] - 1), _EVEN)


def _rank(value: float, limits: tuple[float, ...]) -> int:
    return sum(value > limit for limit in limits)
