"""Guards watch numbers that show that training diverges, before any of them is infinite.

For a teacher the loss shows it; for a generator the loss says nothing.

Measured on small runs: when distillation exploded or collapsed, the loss looked normal, but the
pixels, their spread or the gap between the two scores left their range within a few steps.
"""

from __future__ import annotations

import math

from noisewise.training.settings.recipes import StudentRecipe

_ARMED_AFTER = 0.05  # share of the budget after which the score gap is watched: it starts at 0
_ARMED_STEPS = 50  # steps after which the usual value is known
_SLOW, _FAST = 0.98, 0.5  # decay of two running means: the usual value, and the current one
_LOSS_JUMP, _EARLY_JUMP = 10.0, 100.0  # larger at first: the mean of few steps is uncertain
_CLIMB = 3.0  # largest ratio of the held-out loss to the best one
_MEMORISED = 0.5  # below this share of the held-out loss, the training loss shows memorising


class LossGuard:
    """Watches a teacher's loss: at too high a learning rate it rises long before it is infinite.

    With EDM's weight the loss is 1 at the start and falls. If the mean of the last steps is ten
    times the usual loss (a hundred times in the first 50 steps), training diverges; a difficult
    batch does not cause such a jump.

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
        """Forget the usual loss, and measure it again from the next step on."""
        self.state = {"slow": 0.0, "fast": 0.0, "steps": 0}

    def trouble(self, loss: float) -> str | None:
        """Take the loss of a step; say that it diverges, or None."""
        before, state = self.state["slow"], self.state
        _follow(state, loss)
        jump = _LOSS_JUMP if state["steps"] > _ARMED_STEPS else _EARLY_JUMP
        if state["steps"] > 1 and state["fast"] > jump * before:
            return f"the loss jumped to {state['fast']:.3g} from {before:.3g}"
        return None

    def climbed(self, heldout: float, best: float) -> str | None:
        """Say that the held-out loss is far above its best value, or None.

        A net that memorises its training pictures has a rising held-out loss but a low training
        loss. That is not reported: the best weights are kept, and going back would not help.

        Args:
            heldout: current held-out loss.
            best: lowest held-out loss before; inf if there is none.

        Example:
            >>> guard = LossGuard()
            >>> guard.trouble(0.8), guard.climbed(0.9, best=0.25), guard.climbed(0.7, best=0.25)
            (None, 'the held-out loss rose to 0.9 from 0.25', None)
            >>> guard.climbed(float("nan"), best=0.25), guard.climbed(1.7, best=0.25)
            ('the held-out loss is nan', None)
        """
        if not math.isfinite(heldout):
            return f"the held-out loss is {heldout}"
        seen = self.state["slow"] if self.state["steps"] else math.inf
        if heldout > _CLIMB * best and seen > _MEMORISED * heldout:
            return f"the held-out loss rose to {heldout:.3g} from {best:.3g}"
        return None


class GeneratorGuard:
    """Watches a generator's pictures, and the gap between teacher and fake score.

    Args:
        recipe: holds the allowed ranges.
        sigma_data: standard deviation of the training pixels.

    Example:
        >>> guard = GeneratorGuard(StudentRecipe(), sigma_data=0.5)
        >>> guard.trouble({"_max": 7.0, "_std": 0.5, "fisher": 0.1}, progress=0.5)
        'a generated pixel reached 7'
    """

    def __init__(self, recipe: StudentRecipe, sigma_data: float) -> None:
        self._recipe = recipe
        self._sigma_data = sigma_data
        self.state: dict[str, float] = {"lowest_spread": recipe.spread[0]}
        self.forget()

    def begin(self, std: float) -> None:
        """Take the spread before the first step: one call of a teacher gives low contrast."""
        start = std / self._sigma_data
        self.state["lowest_spread"] = min(self._recipe.spread[0], start / 2)

    def forget(self) -> None:
        """Forget the usual score gap, and measure it again from the next step on."""
        self.state |= {"slow": 0.0, "fast": 0.0, "steps": 0}

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say which value left its range at this step, or None.

        Args:
            measured: "_max": largest |pixel|; "_std": of all pixels; "fisher": the score gap.
            progress: share of the budget used.
        """
        recipe, state = self._recipe, self.state
        if measured["_max"] > recipe.max_pixel:
            return f"a generated pixel reached {measured['_max']:.3g}"
        spread = measured["_std"] / self._sigma_data
        if not state["lowest_spread"] <= spread <= recipe.spread[1]:
            return (
                f"the standard deviation of the generated pixels is {spread:.2g} times that of the "
                "training pixels"
            )
        before = state["slow"] if state["steps"] else measured["fisher"]
        _follow(state, measured["fisher"])
        armed = progress > _ARMED_AFTER and state["steps"] > _ARMED_STEPS
        if armed and state["fast"] > recipe.fisher_jump * before:
            return f"the score gap (fisher) jumped to {state['fast']:.3g} from {before:.3g}"
        return None


def _follow(state: dict[str, float], value: float) -> None:
    """Update both running means with a value."""
    first = state["steps"] == 0
    for name, keep in (("slow", _SLOW), ("fast", _FAST)):
        state[name] = value if first else keep * state[name] + (1 - keep) * value
    state["steps"] += 1
