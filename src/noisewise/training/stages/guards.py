"""Guards: numbers that say that training runs off before anything is infinite.

Of a generator its loss says nothing; of a teacher it does.

Measured on small runs: where distillation exploded or collapsed, the loss looked as always, while
pixels, their spread or the gap between the two scores left their range within a few steps.
"""

from __future__ import annotations

import math

from noisewise.training.settings.recipes import StudentRecipe

_ARMED_AFTER = 0.05  # share of the budget after which the score gap is watched: it starts at 0
_ARMED_STEPS = 50
_SLOW, _FAST = 0.98, 0.5  # running means: what is ordinary, and what is now
_LOSS_JUMP, _EARLY_JUMP = 10.0, 100.0  # the mean of few steps is uncertain itself
_CLIMB = 3.0  # of the held-out loss over the best one
_BY_HEART = 0.5  # share of the held-out loss; a training loss below it is that of known pictures


class LossGuard:
    """Watches a teacher's loss: one that is trained too fast climbs long before it is infinite.

    The loss of EDM's weight is 1 at the start and falls; a mean of the last steps of ten times what
    is ordinary (a hundred times in the first 50 steps) is a net that runs off, not a hard batch.

    Example:
        >>> guard = LossGuard()
        >>> [guard.trouble(loss) for loss in 100 * [0.5]] == 100 * [None]
        True
        >>> guard.trouble(60.0)
        'the loss jumped to 30.2 from 0.5'
    """

    def __init__(self) -> None:
        self.state: dict[str, float] = {"slow": 0.0, "fast": 0.0, "steps": 0}

    def forget(self) -> None:
        """Learn anew what is ordinary."""
        self.state = {"slow": 0.0, "fast": 0.0, "steps": 0}

    def trouble(self, loss: float) -> str | None:
        """Take in the loss of a step; say if it runs off, or None."""
        before, state = self.state["slow"], self.state
        _follow(state, loss)
        jump = _LOSS_JUMP if state["steps"] > _ARMED_STEPS else _EARLY_JUMP
        if state["steps"] > 1 and state["fast"] > jump * before:
            return f"the loss jumped to {state['fast']:.3g} from {before:.3g}"
        return None

    def climbed(self, heldout: float, best: float) -> str | None:
        """Say that pictures are denoised far worse than before, or None.

        A net that learns its pictures by heart is ever worse at the held-out ones and good at its
        own. That is no breakdown: the best weights are kept, and training again would end alike.

        Args:
            heldout: held-out loss now.
            best: the lowest one before; inf for none.

        Example:
            >>> guard = LossGuard()
            >>> guard.trouble(0.8), guard.climbed(0.9, best=0.25), guard.climbed(0.7, best=0.25)
            (None, 'the held-out loss climbed to 0.9 from 0.25', None)
            >>> guard.climbed(float("nan"), best=0.25), guard.climbed(1.7, best=0.25)
            ('the held-out loss is nan', None)
        """
        if not math.isfinite(heldout):
            return f"the held-out loss is {heldout}"
        seen = self.state["slow"] if self.state["steps"] else math.inf
        if heldout > _CLIMB * best and seen > _BY_HEART * heldout:
            return f"the held-out loss climbed to {heldout:.3g} from {best:.3g}"
        return None


class Guard:
    """Watches a generator's pictures and the gap between teacher and fake score.

    Args:
        recipe: with the ranges.
        sigma_data: standard deviation of the data.

    Example:
        >>> guard = Guard(StudentRecipe(), sigma_data=0.5)
        >>> guard.trouble({"_max": 7.0, "_std": 0.5, "fisher": 0.1}, progress=0.5)
        'a generated pixel reached 7'
    """

    def __init__(self, recipe: StudentRecipe, sigma_data: float) -> None:
        self._recipe = recipe
        self._sigma_data = sigma_data
        self.state: dict[str, float] = {"lowest_spread": recipe.spread[0]}
        self.forget()

    def begin(self, std: float) -> None:
        """Take in the spread before the first step: one call of a teacher is duller than data."""
        start = std / self._sigma_data
        self.state["lowest_spread"] = min(self._recipe.spread[0], start / 2)

    def forget(self) -> None:
        """Learn anew what an ordinary score gap is."""
        self.state |= {"slow": 0.0, "fast": 0.0, "steps": 0}

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say what left its range at this step, or None.

        Args:
            measured: "_max", the largest |pixel|; "_std" of all pixels; "fisher", the score gap.
            progress: share of the budget used.
        """
        recipe, state = self._recipe, self.state
        if measured["_max"] > recipe.max_pixel:
            return f"a generated pixel reached {measured['_max']:.3g}"
        spread = measured["_std"] / self._sigma_data
        if not state["lowest_spread"] <= spread <= recipe.spread[1]:
            return f"the generated pictures' spread is {spread:.2g} times that of the data"
        before = state["slow"] if state["steps"] else measured["fisher"]
        _follow(state, measured["fisher"])
        armed = progress > _ARMED_AFTER and state["steps"] > _ARMED_STEPS
        if armed and state["fast"] > recipe.fisher_jump * before:
            return f"the gap of the scores jumped to {state['fast']:.3g} from {before:.3g}"
        return None


def _follow(state: dict[str, float], value: float) -> None:
    """Take a value into both running means."""
    first = state["steps"] == 0
    for name, keep in (("slow", _SLOW), ("fast", _FAST)):
        state[name] = value if first else keep * state[name] + (1 - keep) * value
    state["steps"] += 1
