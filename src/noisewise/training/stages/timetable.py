"""Decides when a loop evaluates and how long that may take, from budget, pace and earlier costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from noisewise.training.stages.stage import Pace

if TYPE_CHECKING:
    from noisewise.training.settings.budget import Budget

_LARGEST_RESERVE = 0.3  # largest share of a time budget for the final evaluation
_LARGEST_LAST = 0.6  # share for a held-out loss alone, without which no weights can be chosen
LONGEST = 1.1  # of a time budget: later than this, the final evaluation chooses nothing more
_FIRST = (
    0.1  # of a time budget: the first evaluation of a kind may take so much, ahead of its share
)
_PARTS = 4  # evaluations of the final one that are as long as they are: no allowance shortens them
_SLACK = 0.05  # of a time budget: a step may end so much later

Judging = Literal["heldout", "distance"]


@dataclass
class Counters:
    """The progress of a loop; JSON values only."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    tries: int = 0
    tried_at: float = 0.0  # progress at the last try
    lr_scale: float = 1.0
    next_heldout: float = 0.0
    next_distance: float = 0.0
    judging: float = 0.0
    costs: dict[str, float] = field(default_factory=lambda: {"heldout": 0.0, "distance": 0.0})
    finished: bool = False
    budget: str = ""
    good_step: int = 0  # step of the good state that training goes back to


class Timetable:
    """The progress of a training, and the times of its evaluations.

    Args:
        budget: how long to train.
        pace: the schedule.
        finish_cost: duration of the final evaluation, relative to one held-out loss plus one
            distance.
    """

    def __init__(self, budget: Budget, pace: Pace, finish_cost: float) -> None:
        """Start at step 0."""
        self.budget, self.pace = budget, pace
        self._finish_cost = finish_cost
        self._expected: Mapping[str, float] = {}
        self.at = Counters(
            next_heldout=pace.heldout_every,
            next_distance=pace.distance_every,
            budget=str(budget),
        )

    @property
    def progress(self) -> float:
        """Share of the budget used, 1 at the end; time for the final evaluation is reserved."""
        at = self.at
        if self.budget.seconds is None:
            return self.budget.progress(at.seconds, at.images)
        return at.seconds / (self.budget.seconds - self._reserve())

    def resume(self, at: Counters) -> None:
        """Continue from saved counters; with a larger budget a finished loop continues."""
        self.at = at
        if at.budget != str(self.budget):
            at.budget = str(self.budget)
            at.finished = at.finished and self.progress >= 1
            at.tried_at = min(at.tried_at, self.progress)
            at.next_heldout = _after(self.progress, self.pace.heldout_every)
            at.next_distance = _after(self.progress, self.pace.distance_every)

    def due(self) -> Judging | None:
        """Return the evaluation that is due now, if the budget allows it, and set its next time."""
        at, progress = self.at, self.progress
        full = progress >= at.next_distance
        if progress >= 1 or not (full or progress >= at.next_heldout):
            return None
        at.next_heldout = _after(progress, self.pace.heldout_every)
        if full:
            at.next_distance = _after(progress, self.pace.distance_every)
        kind: Judging = "distance" if full else "heldout"
        return kind if self._affordable(kind) else None

    def expect(self, expected: Mapping[str, float] | None) -> None:
        """Note what evaluations will take in seconds, by kind; it counts until one was timed."""
        self._expected = expected or {}

    def has_room(self, step: float) -> bool:
        """Whether a step of so many seconds ends in time, before the final evaluation."""
        if self.budget.seconds is None:
            return True
        end = (1 + _SLACK) * self.budget.seconds - self._reserve()
        return self.at.seconds + step <= end

    def spent(self, kind: Judging, seconds: float) -> None:
        """Note the duration of an evaluation."""
        self.at.costs[kind] = seconds
        self.at.judging += seconds

    def allowance(self, begin: bool = False) -> float | None:
        """Seconds that one evaluation may take; None with a budget of images."""
        if self.budget.seconds is None:
            return None
        share = self.pace.evaluation_share * self.budget.seconds
        return share / 2 if begin else share * self.pace.distance_every / 2

    def left(self) -> float | None:
        """Seconds until the budget is overrun; None with a budget of images."""
        if self.budget.seconds is None:
            return None
        return max(0.0, LONGEST * self.budget.seconds - self.at.seconds)

    def _affordable(self, kind: Judging) -> bool:
        if self.budget.seconds is None:
            return True
        allowed = self.pace.evaluation_share * self.at.seconds
        if not self.at.costs[kind] and kind in self._expected:
            return self._expected[kind] <= max(allowed, _FIRST * self.budget.seconds)
        return self.at.judging + self.at.costs[kind] <= allowed

    def _cost(self, kind: str) -> float:
        """Seconds of an evaluation: as it was timed, else as expected."""
        return self.at.costs[kind] or self._expected.get(kind, 0.0)

    def _reserve(self) -> float:
        """Seconds reserved for the final evaluation."""
        budget = self.budget.seconds
        assert budget is not None
        last = self._cost("heldout")
        both = last + self._cost("distance")
        # The choices of the final evaluation end by the allowance, not by the length of a distance.
        choices = min(both, self.allowance() or 0.0)
        whole = self._finish_cost * choices + min(self._finish_cost, _PARTS) * (both - choices)
        return max(min(_LARGEST_RESERVE * budget, whole), min(_LARGEST_LAST * budget, last))


def _after(progress: float, every: float) -> float:
    """The next multiple of `every` above `progress`."""
    return (math.floor(progress / every + 1e-9) + 1) * every
