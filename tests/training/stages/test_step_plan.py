"""Batch and parts follow from budget, speed and memory."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from noisewise.nets import derive
from noisewise.nets.costs import costs_of
from noisewise.pictures.pictures import load_pictures
from noisewise.sizes import as_size, sides
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.step_plan import plan_step
from noisewise.training.stages.teacher import TeacherStage

LARGE = derive(128, 3).net


@pytest.mark.parametrize(
    ("budget", "speed", "batch"),
    [("1m", 30.0, 8), ("4m", 30.0, 16), ("10m", 30.0, 32), ("30m", 30.0, 64), ("1m", None, 8)],
)
def test_a_large_picture_gets_steps_rather_than_a_batch(
    budget: str, speed: float | None, batch: int
) -> None:
    plan = plan_step(TrainConfig(budget=budget), LARGE, speed, None)
    assert plan.batch == batch
    assert plan.accumulate == 1


def test_up_to_32_pixels_the_batch_is_the_usual_one() -> None:
    for size in (28, 32):
        plan = plan_step(TrainConfig(budget="1m"), derive(size, 3).net, 1.0, None)
        assert plan.batch == TeacherRecipe().batch


def test_a_small_memory_divides_the_batch() -> None:
    costs = costs_of(LARGE)
    memory = int(costs.step_bytes(3) / 0.7) + 100
    plan = plan_step(TrainConfig(batch=8), LARGE, None, memory)
    assert (plan.batch, plan.accumulate) == (8, 3)
    assert "3 pictures fit" in plan.reasons["accumulate"]
    by_hand = plan_step(TrainConfig(batch=8, accumulate=2), LARGE, None, memory)
    assert by_hand.accumulate == 2


def test_where_one_picture_does_not_fit_blocks_forget_their_features() -> None:
    costs = costs_of(LARGE)
    between = (costs.step_bytes(1) + costs.recomputed().step_bytes(1)) // 2
    tight = int(between / 0.7) + 1
    plan = plan_step(TrainConfig(batch=8), LARGE, 30.0, tight)
    assert (plan.recompute, plan.accumulate) == (True, 8)
    assert plan.cost["images_per_second"] == pytest.approx(0.75 * 30.0)
    assert "a picture at once needs" in plan.reasons["recompute"]
    assert "takes a third longer" in plan.reasons["recompute"]
    roomy = plan_step(TrainConfig(batch=8), LARGE, 30.0, 2 * tight)
    assert not roomy.recompute  # parts of a batch cost less time
    by_hand = plan_step(TrainConfig(batch=8, accumulate=1), LARGE, 30.0, 2 * tight)
    assert by_hand.recompute
    assert not plan_step(TrainConfig(batch=8, accumulate=1), LARGE, 30.0, None).recompute


def test_what_cannot_fit_is_refused_with_a_size_that_would() -> None:
    large = derive(1024, 3).net
    memory = costs_of(derive(512, 3).net).step_bytes(1)
    with pytest.raises(ValueError, match=r"needs .* GiB in training") as caught:
        plan_step(TrainConfig(), large, None, memory)
    found = re.search(r"--size (\d+)", str(caught.value))
    assert found is not None
    fits = derive(int(found[1]), 3).net
    assert plan_step(TrainConfig(), fits, None, memory).batch >= 1


def test_another_shape_that_cannot_fit_keeps_its_shape_in_the_way_out() -> None:
    large = derive((1024, 2048), 3).net
    memory = costs_of(derive((512, 1024), 3).net).step_bytes(1)
    with pytest.raises(ValueError, match=r"a picture of 2048x1024 pixels needs") as caught:
        plan_step(TrainConfig(), large, None, memory)
    found = re.search(r"--size (\d+x\d+)", str(caught.value))
    assert found is not None
    height, width = sides(as_size(found[1]))
    assert width / height == pytest.approx(2, rel=0.2)
    assert plan_step(TrainConfig(), derive((height, width), 3).net, None, memory).batch >= 1


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (24, 16, 16, 1)).astype(np.uint8))
    weights = []
    for parts in (1, 3):
        pictures = load_pictures(tmp_path / "set.npz", 16)
        recipe = TeacherRecipe(distance_images=0, noise_every=0, batch=7)
        config = TrainConfig(budget="99images", kinds=0, recipe=recipe, accumulate=parts)
        engine = Engine.choose("cpu", threads=1)
        plan = plan_teacher(config, pictures, engine)
        with engine.seeded(0):
            denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction)
        stage = TeacherStage(pictures, denoiser, plan, config, engine)
        losses = [stage.step(step, 7 * step, 1.0, 0.5) for step in range(2)]
        weights.append([p.detach().clone() for p in stage.denoiser.parameters()])
        assert all(torch.isfinite(loss).all() for loss in losses)
    for one, three in zip(*weights, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)


def test_a_training_that_recomputes_has_the_same_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (24, 16, 16, 1)).astype(np.uint8))
    pictures = load_pictures(tmp_path / "set.npz", 16)
    recipe = TeacherRecipe(distance_images=0, noise_every=2, batch=8)
    config = TrainConfig(budget="64images", kinds=0, widths=(8, 16), recipe=recipe)
    engine, weights = Engine.choose("cpu", threads=1), []
    for recompute in (False, True):
        plan = replace(plan_teacher(config, pictures, engine), recompute=recompute)
        with engine.seeded(0):
            denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction)
        stage = TeacherStage(pictures, denoiser, plan, config, engine)
        for step in range(10):  # some of them measure the noise of the gradient
            stage.step(step, 8 * step, 1.0, 0.5)
        weights.append([p.detach().clone() for p in stage.denoiser.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("accumulate", [0, -1])
def test_no_parts_are_refused(accumulate: int) -> None:
    with pytest.raises(ValueError, match="use 1 or more parts"):
        TrainConfig(accumulate=accumulate)
