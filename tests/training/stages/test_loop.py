"""The loop with the real teacher: what it learns, keeps, repeats, and judges to be trouble."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.diffusion import Preconditioned
from noisewise.quality.distance import Reference
from noisewise.training.devices.engine import Engine
from noisewise.training.in_memory import train
from noisewise.training.models.models import Teacher
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import BatchOrder
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.teacher import TeacherStage, teacher_pace
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
    assert stage.stats()["kept_after_images"] < 0.8 * 6000
    assert "training after that made it worse" in (records[-1].event or "")
    assert stage.stats()["heldout_loss"] == min(losses) == records[-1].heldout_loss
    assert losses[-2] > 1.01 * losses[-1], "the last average is worse than the kept one"
    drawn = Teacher(stage.best(), stage.model_config()).draw(0, 0, 64)
    assert stage.preview() is not None
    torch.testing.assert_close(
        stage.preview(), drawn
    )  # the last sheet and the distance are its own
    teacher = Teacher(stage.best(), stage.model_config())
    fresh = teacher.draw(0, 1_000_000, 64)  # pictures that have chosen nothing
    distance = Reference(pictures.tensor(stage.judged.real_indices()[0])).distance(fresh).value
    assert records[-1].distance == stage.stats()["distance"] == pytest.approx(distance)
    assert stage.stats()["floors"]["num_real"] < 64
    assert records[-1].floors is None  # twelve pictures tell nothing, so no number is told


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
    return loop.stage, loop.stage.stats()["heldout_loss"]


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
    kept = [weight.clone() for weight in stage.judged.kept]
    spoil(stage, 5.0)
    for step in range(200):  # so slow that no step is a jump
        loss = float(stage.step(step, 3000, 0.0, 0.9)[0])
        stage.trouble({"loss": loss}, 0.9)
    found = stage.judge(False, None)
    assert found.heldout_loss is not None
    assert found.heldout_loss > 3 * lowest
    assert f"the held-out loss rose to {found.heldout_loss:.3g}" in (found.trouble or "")
    spoil(stage, float("nan"))
    found = stage.judge(True, None)
    assert (found.heldout_loss, found.trouble) == (None, "the held-out loss is nan")
    assert equal(kept, stage.judged.kept)
