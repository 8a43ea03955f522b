from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.diffusion import Preconditioned
from noisewise.quality.distance import Reference
from noisewise.train.config import Budget, TrainConfig
from noisewise.train.engine import Engine
from noisewise.train.generator import Teacher
from noisewise.train.loop import Loop, Record, TrainingFailed
from noisewise.train.order import BatchOrder
from noisewise.train.plan import plan_teacher
from noisewise.train.recipes import TeacherRecipe
from noisewise.train.records import train
from noisewise.train.stage import Judgement, Pace
from noisewise.train.teacher import TeacherStage, teacher_pace
from tiny import TinyNet, tiny_denoiser, tiny_pictures

QUICK = TeacherRecipe(batch=16, distance_images=0, heldout_every=0.25, distance_every=0.5)
ENGINE = Engine.choose("cpu")


def made(config: TrainConfig, num_classes: int = 0) -> Loop:
    pictures = tiny_pictures()
    denoiser = tiny_denoiser(config.seed, num_classes=num_classes)
    plan = replace(plan_teacher(config, pictures, ENGINE), sigma_data=0.5)
    stage = TeacherStage(pictures, denoiser, plan, config, ENGINE)
    return Loop(stage, config.amount, teacher_pace(config.recipe))


def weights(loop: Loop) -> list[Tensor]:
    stage = loop.stage
    assert isinstance(stage, TeacherStage)
    return [p.detach().clone() for p in stage.best().parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------- the real teacher
def test_training_lowers_the_held_out_loss_and_keeps_the_best_average() -> None:
    denoiser = tiny_denoiser(sigma_data=0.9)
    config = TrainConfig(budget="3000images", recipe=QUICK)
    records = list(train(tiny_pictures(), denoiser, config))
    held_out = [r.heldout_loss for r in records if r.heldout_loss is not None]
    assert len(held_out) == 4  # at a quarter, a half, three quarters, and the end
    assert held_out[-1] < 0.8 * held_out[0] < 0.8
    assert records[0].step == 0
    assert records[-1].images == 3008  # whole batches
    assert records[-1].event is not None
    assert "kept the weight average" in records[-1].event
    assert [r.step for r in records[:-1]] == list(range(len(records) - 1))
    assert all(r.loss is not None and r.grad_norm is not None for r in records[1:-1])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    found = []
    for seed in (0, 0, 1):
        loop = made(TrainConfig(budget="320images", seed=seed, recipe=QUICK))
        list(loop.records())
        found.append(weights(loop))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_what_happens_outside_does_not_matter() -> None:
    config = TrainConfig(budget="160images", recipe=replace(QUICK, dropout=0.1))
    loop, other = made(config), made(config)
    list(loop.records())
    for _ in other.records():
        torch.rand(3)  # somebody else draws from torch's own source
    assert equal(weights(loop), weights(other))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("stop_after", [3, 11])
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(
    optimizer: Literal["muon", "adamw"], stop_after: int
) -> None:
    recipe = replace(QUICK, optimizer=optimizer, dropout=0.1)
    config = TrainConfig(budget="320images", flips="on", classes=True, recipe=recipe)
    whole, first, second = (made(config, num_classes=2) for _ in range(3))
    expected = list(whole.records())
    steps = itertools.count()
    before = list(first.records(stop=lambda: next(steps) == stop_after))
    assert not first.finished
    assert before[-1].event == "stopped on request"
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after = list(second.records())
    assert second.finished
    assert equal(weights(second), weights(whole))
    losses = [r.loss for r in expected[1:-1]]
    assert [r.loss for r in before[1:-1]] + [r.loss for r in after[1:-1]] == losses
    assert after[-1].heldout_loss == expected[-1].heldout_loss


def test_weights_from_before_the_set_was_learnt_by_heart_are_kept() -> None:
    """Pure noise has nothing to learn but its pictures: the held-out loss falls, then rises."""
    recipe = TeacherRecipe(
        batch=8,
        adam_lr=0.02,
        lr=0.05,
        decay_from=1.0,
        heldout_every=0.05,
        distance_images=64,
        sampler_images=0,
    )
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
    config = TrainConfig(budget="6000images", flips="off", recipe=recipe)
    plan = replace(plan_teacher(config, tiny_pictures(), ENGINE), sigma_data=0.6)
    pictures = replace(tiny_pictures(), images=noise, labels=None, classes=())
    with ENGINE.seeded(0):
        denoiser = Preconditioned(TinyNet(width=64), 0.6)
    loop = Loop(TeacherStage(pictures, denoiser, plan, config, ENGINE), config.amount,
                teacher_pace(recipe))  # fmt: skip
    records = list(loop.records())
    losses = [r.heldout_loss for r in records if r.heldout_loss is not None]
    stage = loop.stage
    assert isinstance(stage, TeacherStage)
    assert stage.stats["kept_after_images"] < 0.8 * 6000
    assert "what came after made it worse" in (records[-1].event or "")
    assert stage.stats["heldout_loss"] == min(losses) == records[-1].heldout_loss
    assert losses[-2] > 1.01 * losses[-1], "the last average is worse than the kept one"
    drawn = Teacher(stage.best(), stage.model_config()).draw(0, 0, 64)
    assert stage.preview is not None
    torch.testing.assert_close(stage.preview, drawn)  # the last sheet and the distance are its own
    distance = Reference(pictures.tensor(stage._real()[0])).distance(drawn).value
    assert records[-1].distance == stage.stats["distance"] == pytest.approx(distance)


def test_every_round_shows_every_picture_once_in_a_new_order() -> None:
    order = BatchOrder(np.arange(10, 20), seed=3)
    drawn = np.concatenate([order.batch(seen, 4) for seen in range(0, 40, 4)])
    rounds = drawn.reshape(4, 10)
    assert all(sorted(one) == list(range(10, 20)) for one in rounds.tolist())
    assert len({tuple(one) for one in rounds.tolist()}) == 4
    fresh = BatchOrder(np.arange(10, 20), seed=3)
    assert np.array_equal(fresh.batch(28, 4), order.batch(28, 4))  # no memory needed


def test_classes_are_learned() -> None:
    """With its label a picture is easier to denoise than with the other one."""
    config = TrainConfig(budget="4000images", classes=True, flips="off", recipe=QUICK)
    loop = made(config, num_classes=2)
    list(loop.records())
    stage = loop.stage
    assert isinstance(stage, TeacherStage)
    denoiser, pictures = stage.best(), tiny_pictures()
    x0 = pictures.tensor(range(96))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    assert pictures.labels is not None
    labels, sigma = torch.from_numpy(pictures.labels), torch.full((96,), 2.0)
    with torch.no_grad():
        right = (denoiser(x0 + 2 * noise, sigma, labels) - x0).square().mean()
        wrong = (denoiser(x0 + 2 * noise, sigma, 1 - labels) - x0).square().mean()
    assert right < wrong


def trained(images: int = 3000) -> tuple[TeacherStage, float]:
    """A stage that has learnt something, and its lowest held-out loss."""
    loop = made(TrainConfig(budget=f"{images}images", recipe=QUICK))
    list(loop.records())
    assert isinstance(loop.stage, TeacherStage)
    return loop.stage, loop.stage.stats["heldout_loss"]


@torch.no_grad()
def spoil(stage: TeacherStage, factor: float) -> None:
    """Multiply the last layer, of the net and of its averages."""
    for (name, live), *averages in zip(
        stage.denoiser.named_parameters(), *stage._ema.averages, strict=True
    ):
        if name.endswith("out.weight"):
            for weight in (live, *averages):
                weight.mul_(factor)


def test_a_climb_of_the_held_out_loss_is_judged_trouble_and_nothing_of_it_is_kept() -> None:
    stage, lowest = trained()
    assert stage.judge(False, None).trouble is None
    kept = [weight.clone() for weight in stage._kept]
    spoil(stage, 5.0)
    for step in range(200):  # so slow that no step is a jump
        loss = float(stage.step(step, 3000, 0.0, 0.9)[0])
        stage.trouble({"loss": loss}, 0.9)
    found = stage.judge(False, None)
    assert found.heldout_loss is not None
    assert found.heldout_loss > 3 * lowest
    assert f"the held-out loss climbed to {found.heldout_loss:.3g}" in (found.trouble or "")
    spoil(stage, float("nan"))
    found = stage.judge(True, None)
    assert (found.heldout_loss, found.trouble) == (None, "the held-out loss is nan")
    assert equal(kept, stage._kept)


# ---------------------------------------------------------------------- the loop, with a clock
class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A stage with one number to learn, whose steps and judgements cost time."""

    name = "teacher"
    batch = 10
    lr = 1.0
    check_every = 1
    measures: tuple[str, ...] = ("loss",)
    finish_cost = 1.0

    def __init__(self, clock: Clock, loss: Callable[[int], float] = lambda step: 1.0) -> None:
        self.clock, self.loss = clock, loss
        self.value, self.factors, self.judged = 0.0, [], []
        self.trouble_at: str | None = None

    def begin(self, seconds: float | None) -> Judgement:
        return Judgement(event="begun")

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        self.clock.now += 1.0
        self.value += 1
        self.factors.append(factor)
        return torch.tensor([self.loss(step)])

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        return None

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        self.clock.now += 2.0 if full else 0.5
        self.judged.append((self.clock.now, full))
        return Judgement(heldout_loss=0.5, trouble=self.trouble_at)

    def finish(self, seconds: float | None) -> Judgement:
        self.clock.now += 2.5
        return Judgement(event="kept")

    def retreat(self) -> str:
        return ""

    def noise_scale(self) -> float | None:
        return 2.0 * self.value

    def learned(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_learned(self, state: dict[str, Any]) -> None:
        self.value = state["value"]

    def rest(self) -> dict[str, Any]:
        return {}

    def load_rest(self, state: dict[str, Any]) -> None:
        pass


PACE = Pace(0.02, 0.5, 0.05, 0.2, evaluation_share=0.05, tries=3)


def timed(budget: Budget, loss: Callable[[int], float] = lambda step: 1.0) -> tuple[Loop, Counting]:
    clock = Clock()
    stage = Counting(clock, loss)
    return Loop(stage, budget, PACE, clock), stage


def test_a_time_budget_ends_on_time_with_a_finished_model() -> None:
    loop, stage = timed(Budget(seconds=1000.0))
    records = list(loop.records())
    assert loop.finished
    assert records[-1].event == "finished: kept"
    assert 995 <= records[-1].seconds <= 1003
    assert stage.factors[-1] < 0.01  # the learning rate has come down in time
    assert max(stage.factors) == 1.0


def test_judgements_are_paid_from_a_share_of_the_budget() -> None:
    loop, stage = timed(Budget(seconds=1000.0))
    list(loop.records())
    full = [when for when, is_full in stage.judged if is_full]
    assert 3 <= len(full) <= 4
    assert 10 <= len(stage.judged) <= 20
    assert loop.at.judging <= 0.05 * 1000
    short, stage = timed(Budget(seconds=60.0))
    list(short.records())
    assert short.at.judging <= 0.05 * 60 + 2.5  # what a kind costs is known after its first time


def test_time_that_the_caller_takes_counts() -> None:
    loop, stage = timed(Budget(seconds=100.0))
    for _ in loop.records():
        stage.clock.now += 9.0
    assert len(stage.factors) < 12


def test_a_loss_that_is_no_number_goes_back_with_half_the_rate() -> None:
    loop, stage = timed(Budget(images=1000), lambda step: float("nan") if step == 60 else 1.0)
    records = list(loop.records())
    events = [r for r in records if r.event and "went back" in r.event]
    assert len(events) == 1
    assert events[0].step == 61
    assert "(1 of 3): loss is nan; learning rate halved" in (events[0].event or "")
    assert stage.value == 55 + 39  # good at step 55; the budget that was lost is not given back
    assert max(stage.factors[61:]) <= 0.5
    assert loop.finished


def test_after_three_tries_it_stops_with_a_clear_error() -> None:
    loop, stage = timed(Budget(images=1000), lambda step: float("inf") if step > 30 else 1.0)
    records, settled = [], []

    def follow() -> None:
        for record in loop.records():
            records.append(record)
            settled.append(loop.settled)

    with pytest.raises(
        TrainingFailed, match=r"broke down 4 times.*loss is inf; lower .* in a new folder"
    ) as caught:
        follow()
    assert records[-1].event == f"failed: {caught.value}"  # the log has it too
    assert records[-1].step == len(stage.factors) == 35
    assert settled == [True] * 35 + [False]  # no state to save: it is the broken one


def test_spikes_far_apart_do_not_end_a_night() -> None:
    spikes = (120, 300, 480, 660, 840)
    loop, _ = timed(Budget(images=10_000), lambda step: float("nan") if step in spikes else 1.0)
    events = [r.event for r in loop.records() if r.event and "went back" in r.event]
    assert len(events) == len(spikes)
    assert all("(1 of 3)" in event for event in events)
    assert loop.finished
    near = (120, 200, 280, 360)  # less than a tenth of the budget from one to the next
    loop, _ = timed(Budget(images=10_000), lambda step: float("nan") if step in near else 1.0)
    with pytest.raises(TrainingFailed, match="broke down 4 times"):
        list(loop.records())


def test_only_a_judged_state_is_gone_back_to() -> None:
    """Where no judgement can be paid for, nothing new is believed to be sound."""
    clock = Clock()
    stage = Counting(clock, lambda step: float("nan") if step == 500 else 1.0)
    loop = Loop(stage, Budget(seconds=1000.0), replace(PACE, evaluation_share=1e-9), clock)
    for record in loop.records():
        if record.event and "went back" in record.event:
            break
    assert len(stage.judged) == 1
    assert stage.value == loop.at.good_step
    assert 45 <= loop.at.good_step <= 55


def test_the_last_steps_are_looked_at_before_the_end() -> None:
    loop, stage = timed(Budget(images=250), lambda step: float("nan") if step == 22 else 1.0)
    stage.check_every = 10
    records = list(loop.records())
    events = [r.event for r in records if r.event]
    assert events[-1] == "finished: kept"
    assert "went back to the last good state (1 of 3): loss is nan" in events[-2]
    assert loop.settled
    assert stage.value == loop.at.good_step < 22


def test_a_judgement_may_ask_to_go_back() -> None:
    loop, stage = timed(Budget(images=1000))
    events = []
    for record in loop.records():
        stage.trouble_at = "the distance climbed" if record.step == 55 else None
        events.append(record.event)
    assert sum("the distance climbed" in e for e in events if e) == 0  # no judgement at step 56
    loop, stage = timed(Budget(images=1000))
    for record in loop.records():
        stage.trouble_at = "the distance climbed" if 55 <= record.step < 61 else None
        events.append(record.event)
    assert sum("the distance climbed" in e for e in events if e) == 1


def test_a_finished_loop_is_left_alone_and_a_larger_budget_goes_on() -> None:
    loop, _ = timed(Budget(images=100))
    list(loop.records())
    state = copy.deepcopy(loop.state_dict())
    same, stage = timed(Budget(images=100))
    same.load_state_dict(state)
    assert same.finished
    assert list(same.records()) == []
    smaller, _ = timed(Budget(images=50))
    smaller.load_state_dict(copy.deepcopy(state))
    assert smaller.finished
    larger, stage = timed(Budget(images=200))
    larger.load_state_dict(copy.deepcopy(state))
    assert not larger.finished
    records = list(larger.records())
    assert records[0].event == "resumed at step 10"
    assert len(stage.factors) == 10
    assert stage.factors[0] == 1.0  # where the larger budget is at its half, the rate is high
    assert records[-1].images == 200


def test_on_a_device_where_looking_costs_time_trouble_is_seen_late_but_never_saved() -> None:
    loop, stage = timed(Budget(images=500), lambda step: float("nan") if step == 22 else 1.0)
    stage.check_every = 10

    def events() -> Iterator[Record]:
        for record in loop.records():
            if loop.settled:
                assert stage.value <= record.step
            yield record

    went_back = [r.step for r in events() if r.event and "went back" in r.event]
    assert went_back == [30]


def test_a_stop_looks_at_what_was_not_yet_looked_at() -> None:
    loop, stage = timed(Budget(images=500), lambda step: float("nan") if step == 22 else 1.0)
    stage.check_every = 10
    records = list(loop.records(stop=lambda: loop.at.step >= 25))
    assert "went back" in (records[-1].event or "")
    assert loop.settled
