"""Guards of distillation: numbers that say that a generator runs off, when its loss does not.

Measured on small runs: where distillation exploded or collapsed, the loss looked as always, while
pixels, their spread or the gap between the two scores left their range within a few steps.
"""

from __future__ import annotations

from noisewise.train.recipes import StudentRecipe

_ARMED_AFTER = 0.05  # share of the budget after which the score gap is watched: it starts at 0
_ARMED_STEPS = 50
_SLOW, _FAST = 0.98, 0.5  # running means of the score gap: what is ordinary, and what is now


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
        fisher, first = measured["fisher"], state["steps"] == 0
        before = fisher if first else state["slow"]
        for name, keep in (("slow", _SLOW), ("fast", _FAST)):
            state[name] = fisher if first else keep * state[name] + (1 - keep) * fisher
        state["steps"] += 1
        armed = progress > _ARMED_AFTER and state["steps"] > _ARMED_STEPS
        if armed and state["fast"] > recipe.fisher_jump * before:
            return f"the gap of the scores jumped to {state['fast']:.3g} from {before:.3g}"
        return None
