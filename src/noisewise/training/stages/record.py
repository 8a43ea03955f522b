"""The record of one training step, for the caller and the log: numbers, and what happened.

`kind` says what happened for programs, `event` says it in words for people. No program reads the
words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "step",
    "begun",
    "resumed",
    "slowed",
    "went_back",
    "stopped",
    "failed",
    "finished",
    "already_finished",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
TROUBLE: tuple[Kind, ...] = ("slowed", "went_back", "failed")
"""Kinds of record that people should notice."""


@dataclass(frozen=True)
class Record:
    """One training step; a value is None if it was not measured at this step.

    Attributes:
        stage: "teacher" or "generator".
        step: number of steps so far.
        images: number of images seen so far.
        seconds: time used by this stage so far, including evaluations.
        loss: loss of this batch; for a generator it says nothing about quality.
        heldout_loss: lowest loss of the weight averages on the held-out pictures.
        lr: learning rate of the main optimiser.
        grad_norm: norm of the gradient before clipping.
        noise_scale: gradient noise scale, in images.
        distance: distance to real pictures (teacher) or to the teacher's own pictures (generator),
            in frozen features: comparable between runs.
        floors: the same by the judge, in units of what real pictures have between each other (for a
            generator: pictures of the teacher), at 500 pictures; it decides.
        event: what happened, in words, for people only.
        fake_loss: denoising loss of the fake score (generator only).
        fisher: mean |teacher - fake score|^2 (generator only); it falls as the two agree.
        variety: how much the generator's pictures differ from their nearest other, over the same of
            the teacher's pictures (generator only); near 0: it draws the same few pictures.
        teacher_steps: how far the teacher's pictures in few steps are from its own (generator only,
            once, before training): rows of steps, floors, and milliseconds a picture.
        milliseconds: that a picture of the generator takes, in batches (with the above, and with
            the last distance).
        kind: what happened: "step" (only a step), "begun" or "resumed" (first record of a call),
            "slowed" (training is much slower than possible, said once), "went_back" (training went
            back to its last good state), "stopped" (on request), "failed" (training gave up),
            "finished" (the budget is used up, the final weights are chosen), "already_finished"
            (there was nothing to do).
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
    floors: float | None = None
    event: str | None = None
    fake_loss: float | None = None
    fisher: float | None = None
    variety: float | None = None
    teacher_steps: Sequence[Sequence[float]] | None = None
    milliseconds: float | None = None
    kind: Kind = "step"
