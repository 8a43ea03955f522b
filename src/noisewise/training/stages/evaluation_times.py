"""What the parts of a teacher's evaluation take, so that each fits into the time that is left.

Nearly all of it is network calls. The time of one follows from the measured speed of training, or
is measured, and every held-out loss corrects it. With a budget of images nothing is limited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from noisewise.quality.enough import LEAST
from noisewise.sizes import num_pixels
from noisewise.training.devices.engine import Engine
from noisewise.training.models.models import Teacher
from noisewise.training.stages.at_once import at_once
from noisewise.training.stages.timetable import LONGEST

FORWARD = 0.45  # of a training step: 0.44 at 256 pixels on two cores
_FEATURES = 2.0  # network calls: what the features of a picture take
_SLOW = 0.05  # seconds of a call that is not worth timing on more than one picture
_HELD_PIXELS, _FEWEST_HELD = 2**25, 32  # held-out pictures in memory, with their noise
_HELD_SHARE, LEAST_HELD = 0.05, 8  # of a time budget, for a held-out loss; and its pictures
_REAL_SHARE = 0.05  # of a time budget, for the features of real pictures
_MARGIN = 1.2  # a drawing takes so much longer than its network calls
FILLED = 0.8  # of the time that is left, for the choice of the sampler and the last distance
_CHOICE = 10.0  # the choice of the sampler may take this many times as long as a distance
_DRAWN_SHARE, _LEAST_DRAWN = 0.05, 8  # of a time budget, for a distance; and its pictures


@torch.no_grad()
def seconds_a_call(model: Teacher, engine: Engine) -> float:
    """Seconds of one network call for one picture.

    Args:
        model: the net in the precision that evaluations have.
        engine: if it knows the speed of training, nothing is timed.
    """
    if engine.speed:
        return FORWARD / engine.speed

    def timed(count: int) -> float:
        noise, labels = model.noise(0, 0, count), model.labels(0, 0, count, None)
        start = engine.ranks.clock()
        model(noise, noise.new_ones(count), labels)
        engine.synchronize()
        return (engine.ranks.clock() - start) / count

    timed(1)  # the first call sets up kernels
    one = timed(1)
    return one if one > _SLOW else timed(at_once(num_pixels(model.size)))


@dataclass
class EvaluationTimes:
    """Seconds of held-out losses and drawings, and how many pictures they may have.

    Attributes:
        pixels: of a picture.
        averages: weight averages that are evaluated.
        budget: seconds of training; None: no limit.
        clock: seconds that only increase.
        call: seconds of a network call for one picture; 0: not timed.
    """

    pixels: int
    averages: int
    budget: float | None
    clock: Callable[[], float]
    call: float = 0.0

    @property
    def group(self) -> int:
        """Pictures in the net at once."""
        return at_once(self.pixels)

    def heldout(self, count: int) -> float:
        """Seconds of a held-out loss of every average, on so many pictures."""
        return count * self.averages * self.call

    def heldout_took(self, count: int, seconds: float) -> None:
        """Correct the time of a call by a held-out loss on so many pictures."""
        if self.budget is not None:
            self.call = seconds / (count * self.averages)

    def features(self, count: int) -> float:
        """Seconds of the features of so many pictures in the net."""
        return _FEATURES * count * self.call

    def drawing(self, count: int, calls: int) -> float:
        """Seconds of drawing so many pictures in so many calls each."""
        return _MARGIN * count * calls * self.call

    def num_held(self, wanted: int) -> int:
        """Held-out pictures that fit into the memory, and whose loss takes little of the time.

        Example:
            >>> EvaluationTimes(1024**2, 2, None, lambda: 0.0).num_held(256)
            32
            >>> EvaluationTimes(256**2, 2, 60.0, lambda: 0.0, call=0.025).num_held(256)
            60
        """
        most = min(wanted, max(_FEWEST_HELD, _HELD_PIXELS // self.pixels))
        if self.budget is None or not self.call:
            return most
        affordable = int(_HELD_SHARE * self.budget / self.heldout(1))
        return min(most, max(LEAST_HELD, affordable))

    def num_drawn(self, calls: int, seconds: float | None = None) -> int:
        """Pictures that a distance has however little time is meant for it: 64 tell something.

        Args:
            calls: network calls of each picture.
            seconds: that drawing them may take; None: a share of the budget.
        """
        if self.budget is None or not self.call:
            return LEAST
        limit = _DRAWN_SHARE * self.budget if seconds is None else seconds
        affordable = int(limit / self.drawing(1, calls))
        return min(LEAST, max(_LEAST_DRAWN, self.group, affordable))

    def choosing(self, seconds: float | None, deadline: Deadline, last: float) -> float | None:
        """Seconds that the choice of a sampler may take; None: no limit.

        Most of the time that was kept back and is left is used, if that is more than a multiple of
        what one evaluation may take.

        Args:
            seconds: about how long one evaluation may take; None: no limit.
            deadline: of the final evaluation, a little after the budget.
            last: seconds of the distance that follows.
        """
        if seconds is None:
            return None
        unused = 0.0
        if self.budget is not None and not math.isinf(deadline.end):
            unused = FILLED * (deadline.left - (LONGEST - 1) * self.budget - last)
        return min(max(_CHOICE * seconds, unused), deadline.left - last)

    def late_for_real(self) -> Callable[[], bool]:
        """Whether the features of real pictures take more than their share, from now on."""
        if self.budget is None:
            return lambda: False
        end = self.clock() + _REAL_SHARE * self.budget
        return lambda: self.clock() > end


@dataclass(frozen=True)
class Deadline:
    """When a final evaluation must end.

    Attributes:
        clock: seconds that only increase.
        end: by this clock; infinite without a limit.
    """

    clock: Callable[[], float]
    end: float

    @property
    def left(self) -> float:
        """Seconds until then; 0 afterwards."""
        return max(0.0, self.end - self.clock())

    def fits(self, seconds: float) -> bool:
        """Whether what takes so long ends in time."""
        return self.clock() + seconds <= self.end

    def late(self) -> bool:
        """Whether it is over."""
        return not self.fits(0.0)
