"""Run folders of older versions (see tests/frozen): today's code opens, draws and goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import noisewise
from noisewise.training.files.atomic import read_json
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.record import Record

FROZEN = Path(__file__).resolve().parents[2] / "frozen"
VERSIONS = sorted(path.name for path in FROZEN.iterdir() if path.is_dir())
TEACH = TrainConfig(
    budget="640images",
    widths=(4, 4),
    classes=True,
    recipe=TeacherRecipe(batch=16, distance_images=32, sampler_images=32),
)
DISTIL = DistillConfig(
    budget="320images",
    recipe=StudentRecipe(batch=16, distance_images=32, two_call_sigmas=(0.3,)),
)


@pytest.fixture(params=VERSIONS)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a frozen run that may be written."""
    return Path(shutil.copytree(FROZEN / request.param / "run", tmp_path / "run"))


def test_it_is_opened_and_its_teacher_draws(frozen: Path) -> None:
    run = Run.open(frozen)
    assert run.finished("teacher")
    assert not run.finished("generator")
    assert {r.stage for r in run.records()} == {"teacher", "generator"}
    pictures = run.teacher().sample(4)
    assert pictures.shape == (4, 1, 8, 8)
    assert torch.isfinite(pictures).all()


def test_its_distillation_goes_on_where_it_stopped(frozen: Path) -> None:
    seen: list[Record] = []
    generator = noisewise.distill(frozen, config=DISTIL, on_record=seen.append)
    assert seen[0].event == "resumed at step 9"
    assert seen[-1].images == 320
    assert torch.isfinite(generator.sample(4)).all()
    steps = [r.step for r in Run.open(frozen).records() if r.stage == "generator" and r.loss]
    assert steps == sorted(set(steps))
    assert Run.open(frozen).finished("generator")
    names = sorted(p.name for p in (frozen / "checkpoints").glob("generator*"))
    assert "generator-0000020.safetensors" in names
    now = read_json(frozen / "run.json")
    assert (now["format"], now["data"]["source"]) == (2, "blobs.npz")
    assert read_json(frozen / "local.json")["pictures"]["path"] == "/frozen/blobs.npz"


def test_its_training_is_finished_and_a_larger_budget_goes_on(frozen: Path) -> None:
    before = (frozen / "teacher" / "model.safetensors").read_bytes()
    seen: list[Record] = []
    noisewise.train(FROZEN / "blobs.npz", frozen, config=TEACH, on_record=seen.append)
    assert "already finished" in (seen[0].event or "")
    assert (frozen / "teacher" / "model.safetensors").read_bytes() == before
    noisewise.train(FROZEN / "blobs.npz", frozen, "800images", config=TEACH, on_record=seen.append)
    assert seen[1].event == "resumed at step 40"
    assert Run.open(frozen).info["stages"]["teacher"]["images"] == 800
    assert Run.open(frozen).source() == FROZEN / "blobs.npz"
    assert str(FROZEN) not in (frozen / "run.json").read_text()
    assert (frozen / "teacher" / "model.safetensors").read_bytes() != before


def test_other_settings_are_still_refused(frozen: Path) -> None:
    with pytest.raises(ValueError, match="crop was 'centre' and is now 'pad'"):
        noisewise.train(FROZEN / "blobs.npz", frozen, config=replace(TEACH, crop="pad"))
