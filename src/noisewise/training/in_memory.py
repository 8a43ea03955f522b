"""Train and distil in memory: Python generators that yield records and write no files.

Use them in a notebook or in your own loop; `noisewise.train` and `noisewise.distill` write a run.
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
    """Train a denoiser on pictures, in place; yield a Record after each step.

    At the end the denoiser has the weights of the best weight average; after a stop, those of the
    last step. No files are written.

    Args:
        pictures: pictures to learn.
        denoiser: a net with preconditioning, any architecture.
        config: budget, seed and recipe; `net`, `widths` and `start_from` are ignored.
        stop: called before every step; true stops training.

    Raises:
        ValueError: if there are too few pictures, or all their pixels are equal.
        TrainingFailed: if training failed more often than the recipe allows (`tries`).

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
    """Distil a teacher into one network call, in place; yield a Record after each step.

    At the end the teacher's denoiser has the weights of the generator; call it at sigma_init. To
    keep the teacher as well, use `noisewise.distill`, or `StudentStage` with `Loop`. No pictures
    are read.

    Args:
        teacher: a trained teacher, as from `load_model`.
        config: budget, seed and recipe.
        stop: called before every step; true stops training.

    Raises:
        TrainingFailed: if training failed more often than the recipe allows (`tries`).

    Source: Zhou et al. 2024 (SiD), algorithm 1.
    """
    engine = Engine.choose(config.device, config.precision, config.threads)
    stage = StudentStage(teacher, config, engine)
    loop = Loop(stage, config.amount, student_pace(config.recipe))
    yield from loop.records(stop)
    if loop.finished:
        teacher.denoiser.load_state_dict(stage.best().state_dict())
