"""The last two checkpoints, the state to go back to, the best model; and what damage does."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import noisewise
from noisewise.training.files.atomic import save_tensors
from noisewise.training.models.model_folder import load_model
from noisewise.training.models.models import Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages import teacher
from noisewise.training.stages.record import Record
from tiny import blobs, build

RECIPE = TeacherRecipe(
    batch=16, distance_images=0, heldout_every=0.2, distance_every=0.5, sampler_images=0
)
TEACH = TrainConfig(budget="480images", recipe=RECIPE, checkpoint_seconds=1e-9)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npz"
    np.savez(path, images=blobs(128, 8), labels=np.arange(128) % 2)
    return path


def train(data: Path, out: Path, steps: int | None = None, **more: Callable) -> Run:  # pyrefly: ignore
    """Train to the end, or stop after some steps."""
    counter = itertools.count()
    stop = None if steps is None else lambda: next(counter) >= steps
    return noisewise.train(data, out, config=TEACH, build=build, stop=stop, **more)  # pyrefly: ignore


def names(run: Run) -> list[str]:
    return sorted(p.name for p in (run.path / "checkpoints").iterdir())


def weights(run: Run) -> bytes:
    return (run.path / "teacher" / "model.safetensors").read_bytes()


def test_two_checkpoints_the_good_state_and_the_best_model_are_kept(
    data: Path, tmp_path: Path
) -> None:
    run = train(data, tmp_path / "run", 15)
    assert names(run) == [
        "best-teacher",
        "teacher-0000014.safetensors",
        "teacher-0000015.safetensors",
        "teacher-good-0000012.safetensors",  # of step 14's checkpoint
        "teacher-good-0000015.safetensors",  # of step 15's
    ]
    best = load_model(run.path / "checkpoints" / "best-teacher", build)
    assert isinstance(best, Teacher)
    assert torch.isfinite(best.sample(2)).all()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    data: Path, tmp_path: Path, damage: str
) -> None:
    run = train(data, tmp_path / "run", 15)
    path = run.path / "checkpoints" / "teacher-0000015.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(
        {
            "cut": bytes(content[:-1000]),
            "flipped": bytes(content),
            "empty": b"",
            "text": b"{}",
        }[damage]
    )
    seen: list[Record] = []
    train(data, run.path, on_record=seen.append)
    event = seen[0].event or ""
    assert event.startswith("resumed at step 14; ")
    assert "teacher-0000015.safetensors is damaged" in event
    assert "resumed from an earlier checkpoint, teacher-0000014.safetensors" in event
    logged = [r.event or "" for r in Run.open(run.path).records()]  # without places
    assert any("teacher-0000015.safetensors is damaged" in one for one in logged)
    whole = train(data, tmp_path / "whole")
    assert weights(run) == weights(whole)
    assert "teacher-0000015.safetensors.damaged" in names(run)


def test_when_none_is_whole_there_is_one_sentence(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", 15)
    for path in run.checkpoints("teacher").paths():
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"is damaged .*, and there is no other") as caught:
        train(data, run.path)
    assert "\n" not in str(caught.value)
    train(data, run.path)
    assert weights(run) == weights(train(data, tmp_path / "whole"))


def test_a_roll_back_after_a_resume_goes_to_the_same_state(data: Path, tmp_path: Path) -> None:
    """The state to go back to outlives the process; without it a resume would change the result."""
    results = []
    for name, stops in (("whole", []), ("stopped", [13, 3])):
        for steps in stops:
            train(data, tmp_path / name, steps)
        if name == "stopped":
            without = tmp_path / "without"
            shutil.copytree(tmp_path / name, without)
            for good in (without / "checkpoints").glob("teacher-good*"):
                good.unlink()
        results.append(_with_a_bad_batch(data, tmp_path / name))
    assert results[0] == results[1]
    assert _with_a_bad_batch(data, tmp_path / "without") != results[0]


def _with_a_bad_batch(data: Path, out: Path) -> bytes:
    """Finish training; the batch of step 18 is not finite."""
    normal = teacher.TeacherStage.step

    def step(
        self: teacher.TeacherStage, step: int, images: int, factor: float, progress: float
    ) -> torch.Tensor:
        measured = normal(self, step, images, factor, progress)
        if step == 18:
            with torch.no_grad():
                next(self.denoiser.parameters()).fill_(float("nan"))
            return measured * float("nan")
        return measured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher.TeacherStage, "step", step)
        run = train(data, out)
    events = [r.event for r in run.records() if r.event]
    assert sum("went back to the last good state" in event for event in events) == 1
    return weights(run)


def test_a_checkpoint_that_cannot_be_read_now_is_no_damaged_one(data: Path, tmp_path: Path) -> None:
    """Something else is in its place (a folder); nothing is put aside, and nothing is lost."""
    run = train(data, tmp_path / "run", 15)
    log = (run.path / "log.jsonl").read_bytes()
    path = run.path / "checkpoints" / "teacher-0000015.safetensors"
    path.rename(tmp_path / "away")
    path.mkdir()
    before = names(run)
    with pytest.raises(ValueError, match="is a folder where a file belongs"):
        train(data, run.path)
    assert names(run) == before
    assert (run.path / "log.jsonl").read_bytes() == log
    path.rmdir()
    (tmp_path / "away").rename(path)
    seen: list[Record] = []
    train(data, run.path, on_record=seen.append)
    assert seen[0].event == "resumed at step 15"


def damage(folder: Path, how: str) -> None:
    """Spoil a finished model."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "cut between two files":  # config.json is of other weights
        model = load_file(weights)
        save_tensors(weights, {name: tensor + 1 for name, tensor in model.items()})
    elif how == "weights gone":
        weights.unlink()
    else:
        path = weights if how == "weights flipped" else config
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["cut between two files", "weights gone", "weights flipped", "config flipped"]
)
def test_a_damaged_model_of_a_finished_run_is_refused_and_mended(
    data: Path, tmp_path: Path, how: str
) -> None:
    distil = DistillConfig(budget="96images", recipe=StudentRecipe(batch=16, distance_images=32))
    run = train(data, tmp_path / "run")
    noisewise.distill(run, config=distil, build=build)
    for stage in ("teacher", "generator"):
        folder = run.path / stage
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        damage(folder, how)
        with pytest.raises(ValueError, match=r"damaged|missing|has changed|cannot be read"):
            load_model(folder, build)
        seen: list[Record] = []
        if stage == "teacher":
            train(data, run.path, on_record=seen.append)
        else:
            noisewise.distill(run.path, config=distil, build=build, on_record=seen.append)
        (record,) = seen
        assert "the saved model is missing or damaged; saving it again" in (record.event or "")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_distilling_tells_that_run_json_was_damaged(data: Path, tmp_path: Path) -> None:
    """Also although the settings of the distillation are written before the first record."""
    run = train(data, tmp_path / "run")
    path = run.path / "run.json"
    damaged = path.read_bytes().replace(b'"seed": 0', b'"seed": 1', 1)
    path.write_bytes(damaged)
    seen: list[Record] = []
    distil = DistillConfig(budget="16images", recipe=StudentRecipe(batch=8, distance_images=32))
    noisewise.distill(run.path, config=distil, build=build, on_record=seen.append)
    assert "its copy run-copy.json was used" in (seen[0].event or "")
    assert (run.path / "run.json.damaged").read_bytes() == damaged
    assert not Run.open(run.path).warning


def test_a_damaged_run_json_is_read_from_its_copy_and_mended(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", 15)
    path = run.path / "run.json"
    whole = json.loads(path.read_text())
    damaged = path.read_bytes().replace(b'"seed": 0', b'"seed": 1', 1)
    path.write_bytes(damaged)
    opened = Run.open(run.path)
    assert "its copy run-copy.json was used" in opened.warning
    assert opened.info["seed"] == 0
    seen: list[Record] = []
    train(data, run.path, on_record=seen.append)
    assert "run.json has changed since noisewise wrote it" in (seen[0].event or "")
    assert (run.path / "run.json.damaged").read_bytes() == damaged
    mended = Run.open(run.path)
    assert not mended.warning
    assert mended.info["created"] == whole["created"]
    assert weights(run) == weights(train(data, tmp_path / "whole"))
    (run.path / "run-copy.json").write_text("{")
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"run\.json has changed since noisewise wrote it"):
        Run.open(run.path)


def test_a_deleted_run_json_is_read_from_its_copy_and_written_again(
    data: Path, tmp_path: Path
) -> None:
    run = train(data, tmp_path / "run", 15)
    whole = run.info
    (run.path / "run.json").unlink()
    opened = Run.open(run.path)
    assert "run.json is missing; its copy run-copy.json was used" in opened.warning
    assert opened.info == whole
    seen: list[Record] = []
    train(data, run.path, on_record=seen.append)
    assert "run.json is missing" in (seen[0].event or "")
    mended = Run.open(run.path)
    assert not mended.warning
    assert mended.info["created"] == whole["created"]
    assert not (run.path / "run.json.damaged").exists()
    assert weights(run) == weights(train(data, tmp_path / "whole"))
    for name in ("run.json", "run-copy.json"):
        (run.path / name).unlink()
    with pytest.raises(ValueError, match="is not a run; train one first"):
        Run.open(run.path)


@pytest.mark.parametrize("stage", ["teacher", "generator"])
def test_a_kill_between_the_last_checkpoint_and_the_model_is_mended(
    data: Path, tmp_path: Path, stage: str
) -> None:
    """The model folder and run.json's word of it are missing; the same command writes them."""
    distil = DistillConfig(budget="160images", recipe=StudentRecipe(batch=16, distance_images=32))
    run = train(data, tmp_path / "run")
    noisewise.distill(run, config=distil, build=build)
    folder = run.path / stage
    before = (folder / "model.safetensors").read_bytes()
    for how in ("no model", "older model"):
        info = Run.open(run.path)
        if how == "no model":
            shutil.rmtree(folder)
            del info.info["stages"][stage]["finished"]
        else:
            info.info["stages"][stage]["steps"] -= 1
        info.write()
        if stage == "teacher":
            train(data, run.path)
        else:
            noisewise.distill(run.path, config=distil, build=build)
        assert (folder / "model.safetensors").read_bytes() == before
        assert Run.open(run.path).finished("teacher" if stage == "teacher" else "generator")


def test_the_log_after_a_resume_is_that_of_a_whole_run(data: Path, tmp_path: Path) -> None:
    for name, stops in (("whole", ()), ("stopped", (3, 8, 1))):
        for steps in stops:
            train(data, tmp_path / name, steps)
        train(data, tmp_path / name)
    logs = []
    for name in ("whole", "stopped"):
        lines = [
            json.loads(line)
            for line in (tmp_path / name / "log.jsonl").read_text().split("\n")
            if line
        ]
        logs.append([
            {k: v for k, v in line.items() if k != "seconds"} for line in lines
            if not line.get("event", "").startswith(("resumed", "stopped"))
        ])  # fmt: skip
    assert logs[0] == logs[1]
