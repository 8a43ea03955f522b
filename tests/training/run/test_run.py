from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import read_json
from noisewise.training.files.sample_sheet import save_sheet, sheet
from noisewise.training.run.begin import create_run
from noisewise.training.run.log import Log
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.record import KINDS, Record
from tiny import tiny_pictures

CONFIG = TrainConfig(budget="64images", recipe=TeacherRecipe(batch=16, distance_images=0))


def create(path: Path, config: TrainConfig = CONFIG, seed: int = 0) -> Run:
    pictures = tiny_pictures(seed=seed)
    return create_run(path, config, plan_teacher(config, pictures, Engine.choose("cpu")), pictures)


def test_run_json_says_everything(tmp_path: Path) -> None:
    run = create(tmp_path / "x")
    info = read_json(tmp_path / "x" / "run.json")
    assert len(info.pop("seal")) == 16
    assert info == run.info
    assert info["seed"] == 0
    assert info["train"]["recipe"]["batch"] == 16
    assert info["derived"]["sigma_data"]["value"] > 0
    assert all(derived["reason"] for derived in info["derived"].values())
    assert {"noisewise", "torch", "python"} <= set(info["versions"])
    assert info["data"]["num_training"] + info["data"]["num_held_out"] == 96
    assert info["data"]["fingerprint"] == "blobs-96-8-0"


def test_it_is_found_again_with_the_same_settings(tmp_path: Path) -> None:
    create(tmp_path / "x")
    created = Run.open(tmp_path / "x").info["created"]
    again = create(tmp_path / "x", replace(CONFIG, budget="9999images", checkpoint_seconds=5.0))
    assert again.info["created"] == created


def test_other_settings_or_pictures_are_refused(tmp_path: Path) -> None:
    create(tmp_path / "x")
    before = (tmp_path / "x" / "run.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"seed was 0 and is now 1; use the same settings, or choose"
    ):
        create(tmp_path / "x", replace(CONFIG, seed=1))
    with pytest.raises(ValueError, match=r"recipe\.lr was 0\.015 and is now 0\.1"):
        create(tmp_path / "x", replace(CONFIG, recipe=replace(CONFIG.recipe, lr=0.1)))
    with pytest.raises(ValueError, match="other pictures"):
        create(tmp_path / "x", seed=5)
    assert (tmp_path / "x" / "run.json").read_bytes() == before


def test_a_place_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"contains other files \(thesis\.tex\)"):
        create(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        create(tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run; train one first"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{]")
    with pytest.raises(ValueError, match="cannot be read"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 7}')
    with pytest.raises(ValueError, match="another version"):
        Run.open(tmp_path)


def test_models_that_are_not_there_yet(tmp_path: Path) -> None:
    run = create(tmp_path / "x")
    with pytest.raises(
        ValueError,
        match=r"resume its training, .*: noisewise train .*blobs --out .* --budget 64images",
    ):
        run.teacher()
    with pytest.raises(ValueError, match="no generator yet; distil one: noisewise distill"):
        run.generator()
    assert not run.finished("teacher")


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    run = create(tmp_path / "x")
    code = f"from noisewise import Run\nwith Run.open({str(run.path)!r}).locked(): pass"
    with run.locked():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert f"another process (number {os.getpid()}) is training".encode() in other.stderr
    with run.locked():
        pass


def test_a_file_system_without_locks_is_not_called_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system without a lock daemon answers; none can be mounted in a test."""

    def no_locks(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    run = create(tmp_path / "x")
    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(ValueError, match="cannot be locked against a second process") as caught:
        run.locked().__enter__()
    assert "is training" not in str(caught.value)


def test_what_a_kill_leaves_of_the_first_run_json_is_no_strangers_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in (".run.json.4711.tmp", ".local.json.4711.tmp", "..gitignore.4711.tmp"):
        (tmp_path / "x" / name).write_text('{"format"')
    (tmp_path / "x" / "local.json").write_text("{}")
    run = create(tmp_path / "x")
    with run.locked():
        left = {p.name for p in run.path.iterdir()} - {".gitignore", ".lock", "local.json"}
        assert left == {"run-copy.json", "run.json"}
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / ".thesis.4711.tmp").write_text("dear")
    with pytest.raises(ValueError, match="contains other files"):
        create(tmp_path / "y")


def test_the_lock_removes_temporary_files_of_killed_processes(tmp_path: Path) -> None:
    """Safetensors writes a file under a name of its own, and then gives it ours."""
    run = create(tmp_path / "x")
    (run.path / "checkpoints").mkdir()
    for name in (".run.json.4711.tmp", "checkpoints/.tmpWteS0s", ".report.html.4711.tmp"):
        (run.path / name).write_text("half")
    with run.locked():
        left = sorted({p.name for p in run.path.rglob(".*")} - {".lock", ".gitignore"})
    assert left == [".report.html.4711.tmp"]  # another command may be writing it


# ---------------------------------------------------------------------- what a refusal leaves
def few(folder: Path) -> Path:
    """A folder with too few pictures, which is noticed late: all are copies."""
    for i in range(20):
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 9).save(folder / f"{i}.png")
    return folder


def test_a_refusal_leaves_a_cache_folder_of_the_users_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "cache").mkdir(parents=True)
    (mine / "cache" / "letters.txt").write_text("dear")
    with pytest.raises(ValueError, match="pictures are different"):
        noisewise.train(few(tmp_path / "few"), mine, config=CONFIG)
    assert sorted(p.name for p in mine.rglob("*")) == ["cache", "letters.txt"]
    assert (mine / "cache" / "letters.txt").read_text() == "dear"
    with pytest.raises(ValueError, match="pictures are different"):
        noisewise.train(tmp_path / "few", tmp_path / "new" / "deep" / "run", config=CONFIG)
    assert not (tmp_path / "new").exists()  # nor the folders above


def test_a_run_that_refuses_other_pictures_or_sizes_keeps_no_cache_of_them(tmp_path: Path) -> None:
    source, run = tmp_path / "x.npz", tmp_path / "run"
    small = replace(CONFIG, widths=(4, 4), recipe=replace(CONFIG.recipe, sampler_images=0))
    np.savez(source, images=tiny_pictures().images)
    noisewise.train(source, run, config=small)
    before = {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    read: list[int] = []
    with pytest.raises(ValueError, match="size was not given and is now 12"):
        noisewise.train(
            source, run, size=12, config=small, on_file=lambda done, _: read.append(done)
        )
    assert read == [], "settings are compared before anything is read"
    np.savez(source, images=tiny_pictures(seed=5).images)
    for _ in range(2):
        with pytest.raises(ValueError, match="other pictures"):
            noisewise.train(source, run, config=small)
    after = {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    assert after == before


def test_kinds_that_had_no_effect_beside_classes_do_not_bar_a_resume(tmp_path: Path) -> None:
    """An older version let both be set; now kinds must be left out, and that is no other run."""
    config = replace(CONFIG, classes=True)
    run = create(tmp_path / "x", config)
    run.info["train"]["kinds"] = 3
    run.write()
    assert create(tmp_path / "x", config).path == run.path
    with pytest.raises(ValueError, match="was"):
        create(tmp_path / "x", CONFIG)


# ---------------------------------------------------------------------- the log
def test_lines_between_are_averaged_and_what_is_rare_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    with log.writing("teacher", 0) as writer:
        writer.write(Record("teacher", 0, 0, 0.0, event="begun"), 0.0)
        for step in range(1, 101):
            held_out = 0.5 if step == 42 else None
            record = Record("teacher", step, step, 0.1, loss=float(step), heldout_loss=held_out)
            writer.write(record, step / 10240)
    records = log.read()
    assert [r.step for r in records] == [0, 26, 42, 68, 94]
    assert records[1].loss == pytest.approx(13.5)  # the mean of 1 ... 26
    assert records[2].heldout_loss == 0.5


def test_a_resume_drops_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    with log.writing("teacher", 0) as writer:
        for step in range(10):
            writer.write(Record("teacher", step, step, 0.0, loss=1.0), step / 10)
    with log.writing("generator", 0) as writer:
        writer.write(Record("generator", 3, 3, 0.0, event="x"), 0.5)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "teacher", "st')  # cut short by a crash
    with log.writing("teacher", 4) as writer:
        writer.write(Record("teacher", 5, 5, 0.0, loss=2.0), 0.5)
    found = [(r.stage, r.step) for r in log.read()]
    assert found == [*(("teacher", s) for s in range(5)), ("generator", 3), ("teacher", 5)]
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert None not in json.loads(line).values()


def test_kinds_are_kept_whatever_the_text_says(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    with log.writing("teacher", 0) as writer:
        for step, kind in enumerate(KINDS):
            writer.write(Record("teacher", step, 0, 0.0, event="finished: no", kind=kind), 0.0)
    assert tuple(record.kind for record in log.read()) == KINDS


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("training on 5 pictures, 0 held out", "begun"),
        ("resumed at step 7; the batch was 16 and is 32", "resumed"),
        ("went back to the last good state (1 of 3): loss is nan", "went_back"),
        ("stopped on request", "stopped"),
        ("failed: teacher training broke down 4 times", "failed"),
        ("finished: kept the weight average over a share of 0.2", "finished"),
        (None, "step"),
    ],
)
def test_a_log_from_before_there_were_kinds_is_read_with_them(
    tmp_path: Path, event: str | None, kind: str
) -> None:
    line = {"stage": "teacher", "step": 0 if kind == "begun" else 9, "images": 0, "seconds": 0.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(line | ({"event": event} if event else {})))
    (record,) = Log(tmp_path / "log.jsonl").read()
    assert record.kind == kind


# ---------------------------------------------------------------------- sheets
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_the_pictures_in_order(tmp_path: Path, channels: int) -> None:
    images = torch.linspace(-1, 1, 10)[:, None, None, None].expand(10, channels, 4, 4)
    save_sheet(tmp_path / "samples" / "a.png", images)
    laid = np.asarray(Image.open(tmp_path / "samples" / "a.png"))
    assert laid.shape[:2] == (9, 39)
    assert np.array_equal(laid, sheet(images))
    first_row = laid[0, ::5].reshape(8, -1)[:, 0]
    assert first_row.tolist() == [0, 28, 57, 85, 113, 142, 170, 198]
    gap = laid[4, 0]
    for empty in (laid[4], laid[:, 4::5], laid[5:, 10:]):
        assert (empty == gap).all()
