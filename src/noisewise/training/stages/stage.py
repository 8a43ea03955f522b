"""The contract between a stage (what is trained), the loop that drives it and the run that saves.

A stage owns its state. Loop and run ask for what they need by the methods below and know nothing
else of it, so a new stage is one class with these methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from noisewise.scaling import Measurement
from noisewise.training.models.model_config import ModelConfig

StageName = Literal["teacher", "generator"]


@dataclass(frozen=True)
class Judgement:
    """What a stage found out about itself; `trouble` says why it should go back, if it should."""

    heldout_loss: float | None = None
    distance: float | None = None
    event: str | None = None
    trouble: str | None = None


class Stage(Protocol):
    """What is trained.

    Attributes:
        name: "teacher" or "generator"; the model is saved under this name.
        batch: images a step.
        lr: learning rate of the main optimiser at its highest.
        check_every: steps between looks at the numbers that `step` returns.
        measures: names of these numbers; names with a leading underscore are not logged.
        finish_cost: how many times longer `finish` takes than a held-out loss and a distance.
    """

    name: StageName
    batch: int
    lr: float
    check_every: int
    measures: tuple[str, ...]
    finish_cost: float

    # ------------------------------------------------------------------ for the loop
    def begin(self, seconds: float | None) -> Judgement:
        """Prepare (also after a resume), in about `seconds`; None: as long as it takes."""
        ...

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Update the weights once; return the values of `measures`.

        Args:
            step: steps before this one.
            images: images seen before this step.
            factor: times the learning rate.
            progress: share of the budget used.
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
        """Become more careful after going back; return what changed, or ""."""
        ...

    def noise_scale(self) -> float | None:
        """Noise of the gradient, in pictures; None where it is not measured."""
        ...

    # ------------------------------------------------------------------ for checkpoints
    def learned(self) -> dict[str, Any]:
        """Weights, optimisers and averages: what going back restores."""
        ...

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore what `learned` gave."""
        ...

    def rest(self) -> dict[str, Any]:
        """Everything else that a resume needs: random states, best weights so far."""
        ...

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore what `rest` gave."""
        ...

    # ------------------------------------------------------------------ for the run
    def best(self) -> nn.Module:
        """The denoiser with the best weights so far, in eval mode; later calls may reuse it."""
        ...

    def best_so_far(self) -> dict[str, Any] | None:
        """JSON values that change when `best` does; None before anything was judged."""
        ...

    def model_config(self) -> ModelConfig:
        """What config.json of the model folder shall say."""
        ...

    def stats(self) -> dict[str, Any]:
        """What run.json shall say about the finished stage, as JSON values."""
        ...

    def preview(self) -> Tensor | None:
        """Pictures of the last distance for a sample sheet, float [n, c, h, w]; None for none."""
        ...

    def measured_noise(self) -> Measurement | None:
        """The gradient's noise with its interval; None where it is not measured, or not yet."""
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
            trouble resets the count.
    """

    warmup: float
    decay_from: float
    heldout_every: float
    distance_every: float
    evaluation_share: float
    tries: int
