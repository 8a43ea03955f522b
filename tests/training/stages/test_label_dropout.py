"""Some pictures are trained without their class; runs from before that resume as they began."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import noisewise
from noisewise.training.devices.engine import Engine
from noisewise.training.in_memory import train
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch, Batches
from noisewise.training.stages.lost_classes import loses_a_class
from noisewise.training.stages.plan import plan_teacher
from tiny import blobs, build, tiny_denoiser, tiny_pictures

ENGINE = Engine.choose("cpu")
RECIPE = TeacherRecipe(batch=16, distance_images=0)
CONFIG = TrainConfig(budget="96images", classes=True, recipe=RECIPE)


def drawn(label_dropout: float, batches: int = 100) -> list[Batch]:
    config = replace(CONFIG, recipe=replace(RECIPE, label_dropout=label_dropout))
    pictures = tiny_pictures()
    plan = plan_teacher(config, pictures, ENGINE)
    found = Batches(pictures, np.arange(96), plan, 0, ENGINE, label_dropout)
    return [found.next(16 * step) for step in range(batches)]


def labels_of(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.labels for batch in batches if batch.labels is not None])


def test_the_share_of_pictures_without_their_class_is_as_asked_and_the_rest_keep_theirs() -> None:
    plain, dropped = labels_of(drawn(0.0)), labels_of(drawn(0.25))
    anyone = dropped == 2
    assert anyone.float().mean().item() == pytest.approx(0.25, abs=0.04)  # 1600 pictures
    assert torch.equal(dropped[~anyone], plain[~anyone])
    shares = torch.stack([anyone[plain == k].float().mean() for k in (0, 1)])
    torch.testing.assert_close(shares, torch.full((2,), 0.25), rtol=0, atol=0.06)


def test_without_dropout_nothing_is_drawn_for_it() -> None:
    """Or the next batch of an older run would be another one."""
    config = replace(CONFIG, recipe=replace(RECIPE, label_dropout=0.0))
    pictures = tiny_pictures()
    plan = plan_teacher(config, pictures, ENGINE)
    bare = Batches(pictures, np.arange(96), plan, 0, ENGINE)
    for batch in drawn(0.0, 3):
        again = bare.next(0)
        assert torch.equal(batch.sigma, again.sigma)
        assert torch.equal(batch.noise, again.noise)


def test_the_net_gets_one_more_label_where_there_are_classes() -> None:
    pictures = tiny_pictures()
    for config, labels, any_label in (
        (CONFIG, 3, 2),
        (replace(CONFIG, recipe=replace(RECIPE, label_dropout=0.0)), 2, None),
        (replace(CONFIG, classes=False), 0, None),
    ):
        plan = plan_teacher(config, pictures, ENGINE)
        assert (plan.net["num_classes"], plan.any_label) == (labels, any_label)
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="label_dropout"):
            TeacherRecipe(label_dropout=wrong)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(96, 8), labels=np.arange(96) % 2)
    return path


def test_a_new_run_can_be_guided_and_says_so(data: Path, tmp_path: Path) -> None:
    run = noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    teacher = run.teacher(build)
    assert teacher.config.any_label == 2
    low, high = teacher.sampler.guidance_interval
    assert (low, high) == pytest.approx(
        (0.4 * teacher.config.sigma_data, 6 * teacher.config.sigma_data)
    )
    assert teacher.network_calls(guidance=1.5) > teacher.network_calls()
    assert torch.isfinite(teacher.sample(4, guidance=1.5)).all()
    generator = noisewise.distill(run, budget="32images", build=build)
    assert generator.sample(2).shape == (2, 1, 8, 8)


def as_before_label_dropout(run: Run) -> None:
    """Write run.json as a version that knew no label dropout did."""
    path = run.path / "run.json"
    info = json.loads(path.read_text())
    del info["train"]["recipe"]["label_dropout"], info["seal"]
    path.write_text(json.dumps(info))
    (run.path / "run-copy.json").unlink()


@pytest.mark.parametrize("label_dropout", [0.1, 0.3, 0.0])
def test_a_run_from_before_resumes_as_it_began(
    data: Path, tmp_path: Path, label_dropout: float
) -> None:
    old = replace(CONFIG, recipe=replace(RECIPE, label_dropout=0.0))
    whole = noisewise.train(data, tmp_path / "whole", config=old, build=build)
    counter = itertools.count()
    run = noisewise.train(
        data, tmp_path / "run", config=old, build=build, stop=lambda: next(counter) >= 3
    )
    as_before_label_dropout(run)
    now = replace(CONFIG, recipe=replace(RECIPE, label_dropout=label_dropout))
    resumed = noisewise.train(data, run.path, config=now, build=build)
    assert resumed.finished("teacher")
    teacher = resumed.teacher(build)
    assert teacher.config.any_label is None
    for a, b in zip(teacher.parameters(), whole.teacher(build).parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="never learned pictures without their class"):
        teacher.sample(1, guidance=1.5)


def test_a_run_of_today_resumes_only_with_its_own_label_dropout(data: Path, tmp_path: Path) -> None:
    noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    other = replace(CONFIG, recipe=replace(RECIPE, label_dropout=0.3))
    with pytest.raises(ValueError, match=r"recipe.label_dropout was 0\.1 and is now 0\.3"):
        noisewise.train(data, tmp_path / "run", config=other, build=build)


def test_a_resumed_run_draws_the_same_labels(data: Path, tmp_path: Path) -> None:
    whole = noisewise.train(data, tmp_path / "whole", config=CONFIG, build=build)
    counter = itertools.count()
    noisewise.train(
        data, tmp_path / "run", config=CONFIG, build=build, stop=lambda: next(counter) >= 3
    )
    resumed = noisewise.train(data, tmp_path / "run", config=CONFIG, build=build)
    models = (whole.teacher(build), resumed.teacher(build))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)


def test_a_net_of_one_s_own_without_the_label_is_trained_in_memory() -> None:
    denoiser = tiny_denoiser(num_classes=2)
    list(train(tiny_pictures(), denoiser, CONFIG))
    assert denoiser.net.cls.weight.shape[0] == 2


def test_a_lost_class_is_seen() -> None:
    pictures = tiny_pictures(400)
    real, labels = pictures.tensor(np.arange(400)), torch.arange(400) % 2
    names = ("left", "right")
    assert loses_a_class(real[labels == 0][:128], real[:128], real, labels, names)
    assert not loses_a_class(real[128:256], real[:128], real, labels, names)
    assert not loses_a_class(real[:8], real[:8], real[:4], torch.zeros(4).long(), names)
