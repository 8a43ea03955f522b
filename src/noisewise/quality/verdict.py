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

MEANINGS: dict[Word, str] = {
    "as real": "no difference was found",
    "close": "a careful look may find a difference",
    "visibly different": "people who look find the difference",
    "poor": "a glance is enough",
    "cannot tell": "too few pictures",
}
"""What each word means, for people."""

_FEWEST = 64  # pictures on either side
_FLOORS = (0.6, 1.3, 12.0)  # at 500 pictures: largest number for "as real", "close", "visibly ..."
_TOLD = (0.54, 0.58, 0.90)  # largest share told apart by a classifier, for the same words
_EVEN = (0.1, 0.2, 0.5)  # largest share of even areas lost or added, for the same words
_SEEN = WORDS.index("visibly different")
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
    # A classifier that learns from few pictures is often wrong: only what is sure counts.
    by_class = 0 if told is None else min(_rank(told.accuracy, _TOLD), 1 + _rank(told.low, _TOLD))
    by_even = _by_even(even)
    scale, fewest = floors.to_standard, min(floors.num_a, floors.num_b)
    ranks = {"floors": _rank(floors.at_standard, _FLOORS), "told": by_class, "even": by_even}
    word = word_by_floors(
        floors.at_standard, floors.low * scale, scale, fewest, max(by_class, by_even)
    )
    reason = _reason(ranks, floors, told, even)
    if fewest >= _FEWEST:
        few = "; so few real pictures may reach that too" if word == "cannot tell" else ""
        return Verdict(word, reason + few)
    if word == "cannot tell":
        are = "picture is" if fewest == 1 else "pictures are"
        reason = (
            f"{fewest} {are} too few to tell anything; {_FEWEST} generated and {_FEWEST} real ones "
            "are the least"
        )
    return Verdict(word, reason)


def word_by_floors(value: float, low: float, chance: float, fewest: int, others: int = 0) -> Word:
    """Return the word for a number of floors.

    Args:
        value: floors for 500 pictures on each side.
        low: lower end of its interval.
        chance: what real pictures alone may reach at the measured numbers of pictures.
        fewest: the smaller number of generated and of real pictures.
        others: the rank in `WORDS` that other measures give; 0: they found nothing.

    Example:
        >>> word_by_floors(0.5, 0.2, 1.0, 500), word_by_floors(40.0, 30.0, 1.0, 500)
        ('as real', 'poor')
        >>> word_by_floors(3.0, -2.0, 5.0, 100), word_by_floors(3.0, -2.0, 9.0, 20)
        ('cannot tell', 'cannot tell')
        >>> word_by_floors(900.0, 800.0, 20.0, 20)  # too few to praise, enough to see that
        'poor'
    """
    by_floors = _rank(value, _FLOORS)
    if fewest < _FEWEST:
        sure = _rank(low / chance, _FLOORS) if low > chance else 0
        return WORDS[sure] if sure >= _SEEN else "cannot tell"
    if by_floors > 1 and value <= chance:  # so few pictures: real ones may reach this number
        if others < _SEEN:
            return "cannot tell"
        by_floors = 1
    return WORDS[max(by_floors, others)]


def _reason(
    ranks: dict[str, int],
    floors: Floors,
    told: ToldApart | None,
    even: tuple[float, float] | None,
) -> str:
    """The measures that found most, in words; then that the others found less."""
    said = {"floors": _in_words(floors.at_standard)}
    if told is not None:
        said["told"] = f"a classifier tells them apart in {100 * told.accuracy:.0f}%"
    if even is not None and ranks["even"]:
        said["even"] = (
            f"{100 * even[0]:.0f}% of the area looks even and {100 * even[1]:.0f}% should"
        )
    most = max(ranks[name] for name in said)
    decided = [text for name, text in said.items() if ranks[name] == most]
    others = [text for name, text in said.items() if ranks[name] < most]
    reason = ", ".join(decided)
    return f"{reason}; other measures found less ({', '.join(others)})" if others else reason


def _in_words(floors: float) -> str:
    if floors <= 0:
        return "no farther than real pictures are from each other"
    shown = f"{floors:.1f}" if floors < 9.95 else f"{floors:,.0f}"
    return f"{shown} times as far as real pictures from each other"


def _by_even(even: tuple[float, float] | None) -> int:
    if even is None or even[1] < _FEW_EVEN:
        return 0
    return _rank(abs(even[0] / even[1] - 1), _EVEN)


def _rank(value: float, limits: tuple[float, ...]) -> int:
    return sum(value > limit for limit in limits)
