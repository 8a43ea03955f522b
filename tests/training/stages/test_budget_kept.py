"""A budget of time is kept at any cost of a network call; a fake clock tells the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from noisewise.training.devices.engine import Engine
from noisewise.training.devices.processes import Ranks
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.evaluation_times import EvaluationTimes
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.record import Record
from noisewise.training.stages.step_plan import check_time
from noisewise.training.stages.teacher import TeacherStage, teacher_pace
from tiny import TinyNet, tiny_pictures

BUDGET = 60.0


class Clock:
    """Seconds that pass when a net is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __deepcopy__(self, memo: object) -> Clock:
        return self  # a copy of a net takes the same time


@dataclass(frozen=True)
class Timed(Ranks):
    """One process with this clock."""

    told: Clock = field(default_factory=Clock)

    def clock(self) -> float:
        return self.told.now


class Slow(TinyNet):
    """A net whose calls take their time: three times as long in training, as backward passes do."""

    def __init__(self, clock: Clock, call: float) -> None:
        super().__init__(width=4)
        self.told, self.call = clock, call

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        times = 3 if torch.is_grad_enabled() else 1
        self.told.now += times * len(x) * self.call
        return super().forward(x, noise_level, condition)


def trained(call: float, batch: int, size: int = 8) -> tuple[list[Record], TeacherStage]:
    """A whole training with a budget of 60 s, of a net with calls of so many seconds."""
    clock = Clock()
    engine = replace(Engine.choose("cpu", "float32", threads=1), ranks=Timed(told=clock))
    recipe = TeacherRecipe(optimizer="adamw", noise_every=0, batch=batch, distance_images=64)
    config = TrainConfig(budget=f"{BUDGET:g}s", kinds=0, precision="float32", recipe=recipe)
    pictures = tiny_pictures(96, size)
    images = replace(config, budget="64images")  # nothing is timed for this plan
    plan = replace(plan_teacher(images, pictures, engine), batch=batch)
    build = lambda _: Slow(clock, call)  # noqa: E731 (a function of one line)
    denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, build)
    stage = TeacherStage(pictures, denoiser, plan, config, engine)
    loop = Loop(stage, config.amount, teacher_pace(recipe), ranks=engine.ranks)
    records = list(loop.records())
    assert loop.finished
    return records, stage


# A training step takes 0.04 s, 0.5 s, 6 s and 12 s of the 60.
@pytest.mark.parametrize(("call", "batch"), [(1e-3, 13), (0.02, 8), (0.25, 8), (0.5, 8)])
def test_it_ends_within_a_tenth_whatever_a_call_costs(call: float, batch: int) -> None:
    records, stage = trained(call, batch)
    assert records[-1].kind == "finished"
    assert records[-1].seconds <= 1.1 * BUDGET
    assert records[-1].seconds >= 0.6 * BUDGET
    assert records[-1].step >= 2
    assert stage.stats()["heldout_loss"] == records[-1].heldout_loss
    if call < 0.01:
        assert "floors" in stage.stats()
        assert "measured on" in (records[-1].event or "")
    if call > 0.1:
        assert "floors" not in stage.stats()
        assert "the budget left no time to draw pictures" in (records[-1].event or "")
        assert stage.preview() is None


def test_a_dear_held_out_loss_has_fewer_pictures_and_a_cheap_one_all() -> None:
    assert EvaluationTimes(64, 2, BUDGET, lambda: 0.0, call=1e-3).num_held(256) == 256
    assert trained(0.25, 8)[1].rest()["num_held"] == 8


def test_what_a_distance_may_have() -> None:
    def times(call: float, budget: float | None = BUDGET, pixels: int = 256**2) -> EvaluationTimes:
        return EvaluationTimes(pixels, 2, budget, lambda: 0.0, call)

    assert times(0.01, None).num_drawn(15) == 64  # no limit
    assert times(1e-4).num_drawn(15) == 64
    assert times(0.01).num_drawn(15) == 16  # 3 of 60 s
    assert times(1.0).num_drawn(15) == 8
    assert times(1.0).num_drawn(15, seconds=300.0) == 16
    assert times(1.0, pixels=64**2).num_drawn(15) == 64  # small pictures go in groups of 64


def test_a_budget_without_time_for_a_step_is_refused_with_the_time_that_is_needed() -> None:
    config = TrainConfig(budget="60s")
    check_time(config, 1024, 8, 0.5)  # a step of 16 s and an evaluation of 14 s
    check_time(config, 1024, 8, None)
    check_time(replace(config, budget="64images"), 1024, 8, 0.01)
    with pytest.raises(ValueError, match=r"take about 150 s; use --budget 152s") as caught:
        check_time(config, 1024, 8, 0.1)
    assert "\n" not in str(caught.value)
