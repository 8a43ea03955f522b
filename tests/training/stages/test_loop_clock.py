"""The loop by itself: budgets, judgements and breakdowns of a stage that tells the clock."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.training.models.model_config import ModelConfig
from noisewise.training.settings.budget import Budget
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import Judgement, Pace, StageName
from noisewise.training.stages.timetable import Timetable


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A stage with one number to learn, whose steps and judgements cost time."""

    name: StageName = "teacher"
    batch = 10
    lr = 1.0
    check_every = 1
    measures: tuple[str, ...] = ("loss",)
    speed = 0.0
    finish_cost = 1.0
    at_full_size = True

    def __init__(self, clock: Clock, loss: Callable[[int], float] = lambda step: 1.0) -> None:
        self.clock, self.loss = clock, loss
        self.value, self.factors, self.judged = 0.0, [], []
        self.trouble_at: str | None = None
        self.left: float | None = None

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

    def finish(self, seconds: float | None, left: float | None = None) -> Judgement:
        self.left = left
        self.clock.now += 2.5
        return Judgement(event="kept")

    def retreat(self) -> str:
        return ""

    def noise_scale(self) -> float | None:
        return 2.0 * self.value

    def best(self) -> nn.Module:
        return nn.Identity()

    def best_so_far(self) -> None:
        return None

    def model_config(self) -> ModelConfig:
        raise AssertionError("a loop alone saves no model")

    def stats(self) -> dict[str, Any]:
        return {}

    def preview(self) -> None:
        return None

    def measured_noise(self) -> None:
        return None

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
    assert stage.left == pytest.approx(1100 - (records[-1].seconds - 2.5))
    assert stage.factors[-1] < 0.01  # the learning rate has come down in time
    assert max(stage.factors) == 1.0


def slowed(loop: Loop) -> list[Record]:
    return [record for record in loop.records() if record.kind == "slowed"]


def test_a_speed_far_below_what_was_measured_is_said_once() -> None:
    clock = Clock()
    stage = Counting(clock)
    stage.speed = 557.0  # and a step of 10 images takes a second
    loop = Loop(stage, Budget(seconds=200.0), PACE, clock)
    said = slowed(loop)
    assert len(said) == 1
    assert said[0].step == 20  # a tenth of the budget, without the judgements
    assert "slow: 10 images/s, where 557 are possible; another program" in (said[0].event or "")
    assert "about 1,795 images, not 99,982" in (said[0].event or "")
    assert loop.speed.mean == 10.0
    stage = Counting(Clock())
    stage.speed = 19.0  # more than half of this
    assert slowed(Loop(stage, Budget(seconds=200.0), PACE, stage.clock)) == []


def test_a_training_that_becomes_slow_is_compared_with_its_best_while() -> None:
    """A generator has no speed measured before; nor does a net of somebody else."""

    class Slower(Counting):
        def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
            self.clock.now += 2.0 if step >= 100 else 0.0
            return super().step(step, images, factor, progress)

    stage = Slower(Clock())
    loop = Loop(stage, Budget(seconds=400.0), PACE, stage.clock)
    said = slowed(loop)
    assert len(said) == 1
    assert 110 <= said[0].step <= 130
    assert loop.speed.possible == 10.0
    even = Counting(Clock())
    assert slowed(Loop(even, Budget(seconds=400.0), PACE, even.clock)) == []


def test_the_speed_of_coarse_scales_is_no_measure_for_whole_pictures() -> None:
    class Growing(Counting):
        def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
            self.at_full_size = step >= 200
            self.clock.now -= 0.0 if self.at_full_size else 0.9  # ten times as fast
            return super().step(step, images, factor, progress)

    stage = Growing(Clock())
    loop = Loop(stage, Budget(seconds=400.0), PACE, stage.clock)
    assert slowed(loop) == []
    assert loop.speed.possible == pytest.approx(10.0)


def test_with_a_budget_of_images_the_records_do_not_depend_on_the_speed() -> None:
    stage = Counting(Clock())
    stage.speed = 557.0
    assert slowed(Loop(stage, Budget(images=4000), PACE, stage.clock)) == []


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
    events = [r for r in records if r.kind == "went_back"]
    assert len(events) == 1
    assert events[0].step == 61
    assert "loss is nan; learning rate halved (try 1 of 3)" in (events[0].event or "")
    assert stage.value == 55 + 39  # good at step 55; the budget that was lost is not given back
    assert max(stage.factors[61:]) <= 0.5
    assert loop.finished


def test_after_three_tries_it_stops_with_a_clear_error() -> None:
    loop, stage = timed(Budget(images=1000), lambda step: float("inf") if step > 30 else 1.0)
    records, settled = [], []

    def follow() -> None:
        for record in loop.records():
            records.append(record)
            settled.append(loop.can_be_saved)

    with pytest.raises(
        TrainingFailed, match=r"failed 4 times.*loss is inf; train again in a new folder"
    ) as caught:
        follow()
    assert records[-1].event == f"gave up: {caught.value}"  # the log has it too
    assert records[-1].step == len(stage.factors) == 35
    assert settled == [True] * 35 + [False]  # no state to save: it is the broken one


def test_spikes_far_apart_do_not_end_a_night() -> None:
    spikes = (120, 300, 480, 660, 840)
    loop, _ = timed(Budget(images=10_000), lambda step: float("nan") if step in spikes else 1.0)
    events = [r.event or "" for r in loop.records() if r.kind == "went_back"]
    assert len(events) == len(spikes)
    assert all("(try 1 of 3)" in event for event in events)
    assert loop.finished
    near = (120, 200, 280, 360)  # less than a tenth of the budget from one to the next
    loop, _ = timed(Budget(images=10_000), lambda step: float("nan") if step in near else 1.0)
    with pytest.raises(TrainingFailed, match="failed 4 times"):
        list(loop.records())


def test_only_a_judged_state_is_gone_back_to() -> None:
    """Where no judgement can be paid for, nothing new is believed to be sound."""
    clock = Clock()
    stage = Counting(clock, lambda step: float("nan") if step == 500 else 1.0)
    loop = Loop(stage, Budget(seconds=1000.0), replace(PACE, evaluation_share=1e-9), clock)
    for record in loop.records():
        if record.kind == "went_back":
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
    assert "went back to the last good state: loss is nan" in events[-2]
    assert loop.can_be_saved
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
            if loop.can_be_saved:
                assert stage.value <= record.step
            yield record

    went_back = [r.step for r in events() if r.kind == "went_back"]
    assert went_back == [30]


def test_a_stop_looks_at_what_was_not_yet_looked_at() -> None:
    loop, stage = timed(Budget(images=500), lambda step: float("nan") if step == 22 else 1.0)
    stage.check_every = 10
    records = list(loop.records(stop=lambda: loop.at.step >= 25))
    assert [r.kind for r in records[-2:]] == ["went_back", "stopped"]
    assert loop.can_be_saved


@pytest.mark.parametrize(("heldout", "distance", "reserve"), [(1, 2, 60), (6, 9, 140), (2, 3, 100)])
def test_the_last_choices_are_reserved_the_time_that_they_get(
    heldout: float, distance: float, reserve: float
) -> None:
    """Twenty evaluations as long as they are, but no longer than the allowance of 5 seconds."""
    times = Timetable(Budget(seconds=1000.0), PACE, finish_cost=20.0)
    times.spent("heldout", heldout)
    times.spent("distance", distance)
    times.at.seconds = 500.0
    assert times.progress == pytest.approx(500 / (1000 - reserve))
