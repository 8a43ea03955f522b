"""A trial of a start: a training of a few seconds from these weights, and its held-out loss.

It is a whole training on a small part of the budget, with its own schedule: the learning rate rises
and falls to 0, so that its weights are worth measuring. All trials are measured on the same
held-out pictures with the same noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from noisewise.training.devices.engine import Engine
from noisewise.training.settings.budget import Budget
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.teacher import TeacherStage, teacher_pace

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures

MOST_SHARE = 0.05
"""Of the budget, for all trials together."""

_SHARE = 0.04  # of the budget; the rest of MOST_SHARE is for measuring
_LONGEST = 30.0  # seconds of one trial
_LEAST_STEPS = 8  # of a trial: fewer are one step of the highest rate, which tells nothing
_HELD = 128  # pictures that a trial is measured on


def trial_budget(whole: Budget, num_trials: int, batch: int, speed: float | None) -> Budget | None:
    """The budget of each trial; None if the whole is too short for steps that tell something.

    Args:
        whole: of the training.
        num_trials: how many there are.
        batch: pictures in a step.
        speed: training pictures per second; None: unknown.

    Example:
        >>> trial_budget(Budget.parse("5m"), 2, 64, 1000.0)
        Budget(seconds=6.0, images=None)
        >>> trial_budget(Budget.parse("64000images"), 2, 64, None)
        Budget(seconds=None, images=1280)
        >>> trial_budget(Budget.parse("6400images"), 2, 64, None) is None
        True
    """
    share = _SHARE / num_trials
    if whole.images is not None:
        images = int(share * whole.images) // batch * batch
        return Budget(images=images) if images >= _LEAST_STEPS * batch else None
    assert whole.seconds is not None
    seconds = min(_LONGEST, share * whole.seconds)
    if speed and seconds * speed < _LEAST_STEPS * batch:
        return None
    return Budget(seconds=round(seconds, 3))


def trial_loss(
    pictures: Pictures,
    denoiser: nn.Module,
    plan: TeacherPlan,
    config: TrainConfig,
    engine: Engine,
    budget: Budget,
    stop: Callable[[], bool] | None = None,
) -> float | None:
    """Train a copy of a denoiser for a short budget; return its held-out loss.

    Args:
        pictures: all pictures.
        denoiser: with the weights to start from; it is not changed.
        plan: the values derived from the pictures, for this net.
        config: seed and recipe.
        engine: device and precision.
        budget: of the trial.
        stop: called before every step.

    Returns:
        The loss; infinite if training failed; None if `stop` returned true.
    """
    recipe = replace(
        config.recipe, distance_images=0, sampler_images=0, noise_every=0, snap_flats=False
    )
    short = replace(config, budget=str(budget), recipe=recipe)
    stage = TeacherStage(pictures, copy.deepcopy(denoiser), plan, short, engine)
    pace = replace(teacher_pace(recipe), heldout_every=1.0, distance_every=2.0)
    loop = Loop(stage, budget, pace, ranks=engine.ranks)
    try:
        for _ in loop.records(stop):
            pass
    except TrainingFailed:
        return math.inf
    if not loop.finished:
        return None
    best = stage.best()
    loss = _held_out(pictures, plan, config.seed, engine).loss(best)
    return float(engine.ranks.agree(loss if math.isfinite(loss) else math.inf))


def _held_out(pictures: Pictures, plan: TeacherPlan, seed: int, engine: Engine) -> HeldOutBatch:
    """The same for every trial, whatever its net; of too few pictures, some of the training."""
    training, held_out = pictures.split(seed)
    chosen = (held_out if len(held_out) else training)[:_HELD]
    labels = None
    if plan.classes:
        assert pictures.labels is not None
        labels = torch.from_numpy(pictures.labels[chosen].astype(np.int64)).to(engine.device)
    return HeldOutBatch(pictures.tensor(chosen), labels, plan, engine)
