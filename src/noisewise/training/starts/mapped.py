"""All weights of a teacher trained on pictures of another size, other channels or other classes.

This is `adapt --start full` where the new pictures do not have the form of the teacher: the same
mapping as `train --from`, with the optimiser and learning rate of adapt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from noisewise.sizes import written
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import Build
from noisewise.training.settings.config import AdaptConfig
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.starts.base import Base
from noisewise.training.starts.candidates import Candidate, planned_from, shared

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures


def fits_as_it_is(teacher: ModelConfig, pictures: Pictures) -> bool:
    """Whether pictures have the size, channels and classes of a teacher.

    A teacher without classes takes any: theirs are not used.
    """
    same = (teacher.size, teacher.channels) == (pictures.size, pictures.channels)
    return same and (not teacher.classes or tuple(pictures.classes) == teacher.classes)


def start_of(
    base: Base, plan: TeacherPlan, pictures: Pictures, build: Build | None = None
) -> Candidate:
    """The start of an adaptation: a teacher that fits this plan, or that is mapped to it."""
    same_kinds = bool(pictures.kinds) and pictures.channels == base.teacher.config.channels
    if plan.net == base.net:
        return Candidate(base, plan, 1.0, same_kinds)
    return Candidate(base, plan, shared(base, plan, build), same_kinds)


def mapped_plan(
    base: Base, pictures: Pictures, config: AdaptConfig, build: Build | None = None
) -> TeacherPlan:
    """Derive the plan of a full training from a teacher for pictures of another form.

    Args:
        base: the teacher.
        pictures: the new pictures; if they have classes and the teacher has some, they are learnt.
        config: the settings; its start is "full".
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if nothing of the teacher fits.
    """
    described = base.teacher.config
    named = len(pictures.classes) > 1 and pictures.labels is not None and not pictures.kinds
    training = replace(
        config.training(bool(described.classes) and named),
        size=written(pictures.size),
        channels=pictures.channels,
    )
    engine = Engine.choose(config.device, config.precision, config.threads)
    cold = plan_teacher(training, pictures, engine)
    return planned_from(base, training, cold, pictures, engine, build).plan
