"""The interface of a stage: what the loop calls to train it, and the run to save it.

A stage owns its state. Loop and run use only the methods below, so a new stage is one class with
these methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import Tensor, nn

from noisewise.training.models.model_config import ModelConfig

if TYPE_CHECKING:  # drawing pictures does not wait for it
    from noisewise.scaling import Measurement

StageName = Literal["teacher", "generator"]


@dataclass(frozen=True)
class Judgement:
    """The result of an evaluation; `trouble` says why training must go back (None: all is well).

    `expected` is what a held-out loss and a distance will take in seconds, from `begin` with a
    budget of time; None: unknown. `teacher_steps` and `milliseconds` are those of `Record`.
    """

    heldout_loss: float | None = None
    distance: float | None = None
    floors: float | None = None
    variety: float | None = None
    event: str | None = None
    trouble: str | None = None
    expected: dict[str, float] | None = None
    teacher_steps: Sequence[Sequence[float]] | None = None
    milliseconds: float | None = None


class Stage(Protocol):
    """One model in training.

    Attributes:
        name: "teacher" or "generator"; the model is saved under this name.
        batch: images per step.
        lr: highest learning rate of the main optimiser.
        check_every: the loop reads the numbers that `step` returns every `check_every` steps.
        measures: names of these numbers; names with a leading underscore are not logged.
        speed: images/s of a step as measured before training; 0: not measured.
        finish_cost: duration of `finish`, relative to one held-out loss plus one distance.
        at_full_size: whether the last step was on whole pictures, whose speed `speed` is about.
    """

    name: StageName
    batch: int
    lr: float
    check_every: int
    measures: tuple[str, ...]
    speed: float
    finish_cost: float

    @property
    def at_full_size(self) -> bool:
        """See the class."""
        ...

    # ------------------------------------------------------------------ for the loop
    def begin(self, seconds: float | None) -> Judgement:
        """Prepare training, also after a resume. Take about `seconds`; None: no limit."""
        ...

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Update the weights once; return the values of `measures`.

        Args:
            step: number of steps before this one.
            images: number of images seen before this step.
            factor: factor on the learning rate.
            progress: share of the budget used.
        """
        ...

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say what is wrong with these values (all finite); None if nothing is."""
        ...

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Measure the held-out loss and, if full, the distance."""
        ...

    def finish(self, seconds: float | None, left: float | None = None) -> Judgement:
        """Choose the final weights and measure them.

        Args:
            seconds: about how long one evaluation may take; None: no limit.
            left: seconds after which nothing more is chosen; None: no limit.
        """
        ...

    def retreat(self) -> str:
        """Train more carefully after going back; return what changed in words, or ""."""
        ...

    def noise_scale(self) -> float | None:
        """Gradient noise scale, in pictures; None if it is not measured."""
        ...

    # ------------------------------------------------------------------ for checkpoints
    def learned(self) -> dict[str, Any]:
        """Weights, optimisers and weight averages: the state that going back restores."""
        ...

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore the result of `learned`."""
        ...

    def rest(self) -> dict[str, Any]:
        """Everything else that a resume needs: random state, best weights so far."""
        ...

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore the result of `rest`."""
        ...

    # ------------------------------------------------------------------ for the run
    def best(self) -> nn.Module:
        """The denoiser with the best weights so far, in eval mode; later calls may reuse it."""
        ...

    def best_so_far(self) -> dict[str, Any] | None:
        """JSON values that change whenever `best` changes; None before the first evaluation."""
        ...

    def model_config(self) -> ModelConfig:
        """The content of config.json in the model folder."""
        ...

    def stats(self) -> dict[str, Any]:
        """The measurements of the finished stage for run.json, as JSON values."""
        ...

    def preview(self) -> Tensor | None:
        """Pictures for a sample sheet, float [n, c, h, w]; None if there are none."""
        ...

    def measured_noise(self) -> Measurement | None:
        """The gradient noise with its interval; None if it is not measured yet, or never."""
        ...


@dataclass(frozen=True)
class Pace:
    """The schedule of a stage; all values but `tries` are shares of the budget.

    Attributes:
        warmup: the learning rate rises until here.
        decay_from: the learning rate falls to 0 from here on.
        heldout_every: interval between held-out losses.
        distance_every: interval between distances.
        evaluation_share: evaluations use at most this share of a time budget.
        tries: how often training goes back before it gives up; a tenth of the budget without
            trouble resets the count.
        begins: used before the first step, by what was compared then.
    """

    warmup: float
    decay_from: float
    heldout_every: float
    distance_every: float
    evaluation_share: float
    tries: int
    begins: float = 0.0
