"""One step of training as the caller and the log get it: numbers, and what happened.

What happened has a `kind`, for programs, and a text, for people. No program reads the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "step", "begun", "resumed", "went_back", "stopped", "failed", "finished", "already_finished"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
TROUBLE: tuple[Kind, ...] = ("went_back", "failed")
"""Kinds that a reader must not miss."""


@dataclass(frozen=True)
class Record:
    """One step of training as the log has it; None where a value was not measured at this step.

    Attributes:
        stage: "teacher" or "generator".
        step: steps taken.
        images: images seen.
        seconds: time used of this stage, evaluations included.
        loss: of this step's batch; of a generator it says nothing about its quality.
        heldout_loss: of the best weight average, on held-out pictures.
        lr: learning rate of the main optimiser.
        grad_norm: before clipping.
        noise_scale: gradient noise scale, images.
        distance: to real pictures (teacher) or to the teacher's own pictures (generator).
        event: what happened, in words; for people only.
        fake_loss: denoising loss of the fake score (generator only).
        fisher: mean |teacher - fake score|^2 (generator only); falls as they agree.
        kind: what happened: "step" (nothing but a step), "begun" or "resumed" (the first record of
            a call), "went_back" (training went back to its last good state), "stopped" (somebody
            asked for it), "failed" (training gave up), "finished" (the budget is used up and a
            model is chosen), "already_finished" (nothing was left to do).
    """

    stage: str
    step: int
    images: int
    seconds: float
    loss: float | None = None
    heldout_loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    noise_scale: float | None = None
    distance: float | None = None
    event: str | None = None
    fake_loss: float | None = None
    fisher: float | None = None
    kind: Kind = "step"
