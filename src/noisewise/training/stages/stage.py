"""The seam between the loop and what it trains: a stage, its pace, and how it judges itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Judgement:
    """What a stage found out about itself; `trouble` says why it should go back, if it should."""

    heldout_loss: float | None = None
    distance: float | None = None
    event: str | None = None
    trouble: str | None = None


class Stage(Protocol):
    """What the loop drives."""

    name: str
    batch: int
    lr: float
    check_every: int
    measures: tuple[str, ...]
    finish_cost: float

    def begin(self, seconds: float | None) -> Judgement:
        """Prepare (again after a resume), in about `seconds`; None: as long as it takes."""
        ...

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Step with `images` seen before and lr times factor; returns values of `measures`.

        progress is the share of the budget used.
        """
        ...

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say what is wrong with finite values, or None."""
        ...

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Measure the held-out loss and, if full, the distance."""
        ...

    def finish(self, seconds: float | None) -> Judgement:
        """Choose the weights to keep."""
        ...

    def retreat(self) -> str:
        """Become more careful after going back; returns what changed, or ''."""
        ...

    def noise_scale(self) -> float | None:
        """Noise of the gradient, in pictures; None where it is not measured."""
        ...

    def learned(self) -> dict[str, Any]:
        """Weights, optimisers and averages: what going back restores."""
        ...

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore what `learned` gave."""
        ...

    def rest(self) -> dict[str, Any]:
        """Return everything else that a resume needs: random states, best weights so far."""
        ...

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore what `rest` gave."""
        ...


@dataclass(frozen=True)
class Pace:
    """Shares of the budget at which things happen.

    Attributes:
        warmup: over which the learning rate rises.
        decay_from: after which it falls to 0.
        heldout_every: between held-out losses.
        distance_every: between distances.
        evaluation_share: the most that judgements may cost of a time budget.
        tries: how often the loop goes back before it gives up; a tenth of the budget without
            trouble begins the count anew.
    """

    warmup: float
    decay_from: float
    heldout_every: float
    distance_every: float
    evaluation_share: float
    tries: int
