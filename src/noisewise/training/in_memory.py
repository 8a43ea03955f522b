"""Training and distilling without a run: generators of records, which write nothing.

For a notebook or a loop of one's own; `noisewise.train` and `noisewise.distill` keep a run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from noisewise.diffusion import Preconditioned
from noisewise.training.devices.engine import Engine
from noisewise.training.models.models import Teacher
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.record import Record
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.stages.teacher import TeacherStage, teacher_pace

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import DistillConfig, TrainConfig


def train(
    pictures: Pictures,
    denoiser: Preconditioned,
    config: TrainConfig,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Record]:
    """Train a denoiser on pictures, in place, yielding a Record a step.

    At the end the denoiser holds the best weight average; if stopped, the last step's weights.
    Nothing is written; `Run.follow` does that, and saves.

    Args:
        pictures: what to learn.
        denoiser: a net with preconditioning, any architecture.
        config: budget, seed and recipe; its net and widths are not used.
        stop: asked before every step.

    Raises:
        ValueError: if there is nothing to learn from.
        TrainingFailed: if training broke down more often than the recipe's tries.

    Source: Karras et al. 2022 (EDM), equation 2.
    """
    engine = Engine.choose(config.device, config.precision, config.threads)
    plan = replace(
        plan_teacher(config, pictures, engine),
        sigma_data=denoiser.sigma_data,
        prediction=denoiser.prediction,
    )
    stage = TeacherStage(pictures, denoiser, plan, config, engine)
    loop = Loop(stage, config.amount, teacher_pace(config.recipe))
    yield from loop.records(stop)
    if loop.finished:
        stage.write_best(denoiser)


def distill(
    teacher: Teacher, config: DistillConfig, stop: Callable[[], bool] | None = None
) -> Iterator[Record]:
    """Distil a teacher into one network call, in place: a Record a step.

    At the end the teacher's denoiser holds the generator's weights, to be called at sigma_init; use
    `StudentStage` and `Loop`, or `noisewise.distill`, to keep both. Only the teacher is read.

    Args:
        teacher: a trained teacher, as `load_model` gives it.
        config: budget, seed and recipe.
        stop: asked before every step.

    Raises:
        TrainingFailed: if training broke down more often than the recipe's tries.

    Source: Zhou et al. 2024 (SiD), algorithm 1.
    """
    engine = Engine.choose(config.device, config.precision, config.threads)
    stage = StudentStage(teacher, config, engine)
    loop = Loop(stage, config.amount, student_pace(config.recipe))
    yield from loop.records(stop)
    if loop.finished:
        teacher.denoiser.load_state_dict(stage.best().state_dict())
