"""How wide a net is depends on budget and machine, once: a run that goes on keeps its net."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.pictures.pictures import load_pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.training_set import mirrored
from tiny import blobs

RECIPE = TeacherRecipe(batch=8, distance_images=0, sampler_images=0, noise_every=0)
SHORT = "64images"
LONG = "2000000images"  # of a wider net, had it been asked for at once


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(48, 8))
    return path


def test_a_larger_budget_goes_on_with_the_net_that_was_begun(data: Path, tmp_path: Path) -> None:
    run = noisewise.train(data, tmp_path / "run", SHORT, config=TrainConfig(recipe=RECIPE))
    before = run.info["derived"]["net"]
    wider = noisewise.plan(data, TrainConfig(budget=LONG, recipe=RECIPE))
    assert wider.net["widths"] != before["value"]["widths"]  # else this would test nothing
    calls = itertools.count()
    longer = noisewise.train(
        data,
        run.path,
        LONG,
        config=TrainConfig(recipe=RECIPE),
        stop=lambda: next(calls) >= 3,
    )
    assert longer.info["stages"]["teacher"]["steps"] > 8  # 64 images are 8 steps: it went on
    assert longer.info["derived"]["net"] == before


def test_the_net_is_as_wide_as_the_machine_can_train(data: Path) -> None:
    pictures, engine = load_pictures(data), Engine.choose("cpu", threads=1)
    plans = [
        plan_teacher(TrainConfig(budget=budget, recipe=RECIPE), pictures, engine)
        for budget in ("1s", "1000h")
    ]
    widest = [max(plan.net["widths"]) for plan in plans]
    assert widest[0] < widest[1]
    assert all("pictures/s measured here" in plan.reasons["net"] for plan in plans)


def test_an_image_budget_times_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> float:
        raise AssertionError("timed")

    monkeypatch.setattr(Engine, "images_per_second", refuse)
    plan = plan_teacher(TrainConfig(budget=SHORT), load_pictures(data), Engine.choose("cpu"))
    assert plan.net["widths"][0] == 32


def test_a_generator_of_an_earlier_teacher_is_told_of(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(recipe=RECIPE)
    run = noisewise.train(data, tmp_path / "run", SHORT, config=config)
    distil = DistillConfig(budget=SHORT, recipe=StudentRecipe(batch=8, distance_images=32))
    noisewise.distill(run, config=distil)
    assert Run.open(run.path).stale_generator() == ""
    longer = noisewise.train(data, run.path, "128images", config=config)
    assert "distil again" in longer.stale_generator()
    noisewise.distill(longer, config=distil)
    assert Run.open(run.path).stale_generator() == ""


def test_pictures_that_training_mirrored_count_as_copies(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(recipe=RECIPE, flips="on")
    run = noisewise.train(data, tmp_path / "run", SHORT, config=config)
    pictures = run.pictures()
    assert mirrored(run, pictures)
    run.info["derived"]["flips"]["value"] = False
    assert mirrored(run, pictures) == pictures.suggest_flip()[0]
