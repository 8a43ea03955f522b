"""Says that training is much slower than this machine can be: the plan then no longer holds.

A net is chosen for the number of pictures that a budget lets it see. If another program takes the
processors, it sees far fewer, and nothing else would say so. Threads that wait for each other make
it worse than a fair share: a second program on two cores can cost nine tenths of the speed.
"""

from __future__ import annotations

from dataclasses import dataclass

_SLOW = 0.5  # of the speed that is possible: half and less is said
_SHARE = 0.1  # of a budget of time: the length of a while
_SHORTEST, _LONGEST = 5.0, 30.0  # seconds of a while
_STEPS = 3  # of a while, at least


@dataclass
class Speed:
    """Time and images of all training steps so far; JSON values only.

    Attributes:
        seconds: time in steps, without evaluations and checkpoints.
        images: images of these steps.
        possible: images/s as measured before training, or the best while since; 0: unknown.
    """

    seconds: float = 0.0
    images: int = 0
    possible: float = 0.0

    @property
    def mean(self) -> float:
        """Images/s of all steps; 0 before the first one."""
        return self.images / self.seconds if self.seconds > 0 else 0.0


def is_slow(mean: float, possible: float) -> bool:
    """Whether a speed is so much below what is possible that people should know.

    Example:
        >>> is_slow(6.0, 557.0), is_slow(400.0, 557.0), is_slow(0.0, 0.0)
        (True, False, False)
    """
    return 0 < mean < _SLOW * possible


class SpeedWatch:
    """Watches the speed of a training in whiles of some seconds; says once that it is slow.

    Args:
        speed: counted on here; its `possible` rises with the best while.
        budget: seconds of the budget.

    Example:
        >>> watch = SpeedWatch(Speed(possible=100.0), budget=60.0)
        >>> said = [watch.step(2.0, 64, 1, left=50.0 - 2 * i) for i in range(9)]
        >>> [text[:44] for text in said if text]
        ['slow: 32 images/s, where 100 are possible; a']
    """

    def __init__(self, speed: Speed, budget: float) -> None:
        """Start the first while."""
        self._speed = speed
        self._while = min(max(_SHARE * budget, _SHORTEST), _LONGEST)
        self._begin()
        self._said = False

    def step(self, seconds: float, images: int, steps: int, left: float) -> str:
        """Count some steps; return what to tell people, or "".

        Args:
            seconds: time of these steps.
            images: images of these steps.
            steps: their number.
            left: seconds of the budget after them.
        """
        speed = self._speed
        speed.seconds += seconds
        speed.images += images
        self._seconds += seconds
        self._images += images
        self._steps += steps
        if self._seconds < self._while or self._steps < _STEPS:
            return ""
        now = self._images / self._seconds
        speed.possible = max(speed.possible, now)
        self._begin()
        if self._said or not is_slow(now, speed.possible):
            return ""
        self._said = True
        fewer, planned = (f"{max(0.0, left) * x:,.0f}" for x in (now, speed.possible))
        return (
            f"slow: {now:.3g} images/s, where {speed.possible:.3g} are possible; another program "
            f"probably uses this machine too. The rest of the budget then trains on about {fewer} "
            f"images, not {planned}: stop the other program, stop and resume this training later, "
            "or give a larger budget"
        )

    def _begin(self) -> None:
        self._seconds, self._images, self._steps = 0.0, 0, 0
