"""A log sink gets the numbers of log.jsonl once each, and cannot end a training."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.app import cli
from noisewise.app.sinks.listing import SINKS, sink_named
from noisewise.app.sinks.sent import Sent
from noisewise.app.sinks.sink import Guarded, Numbers
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.record import Record
from tiny import blobs, build

RECIPE = TeacherRecipe(batch=16, distance_images=32, sampler_images=0)
CONFIG = TrainConfig(recipe=RECIPE, checkpoint_seconds=1e-3)


class Kept:
    """Keeps what it is sent; raises at a step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.sent: list[tuple[int, Numbers]] = []
        self.fails_at, self.closed = fails_at, 0

    def log(self, step: int, numbers: Numbers) -> None:
        if step == self.fails_at:
            raise OSError("the server is gone\nmany lines follow")
        self.sent.append((step, numbers))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    np.savez(tmp_path / "blobs.npz", images=blobs(128, 8))
    return tmp_path / "blobs.npz"


def train(pictures: Path, out: Path, budget: str, sink: Kept, **more: object) -> Run:
    return noisewise.train(pictures, out, budget, config=CONFIG, build=build, log_to=sink, **more)  # pyrefly: ignore


def test_it_gets_the_numbers_of_the_log(pictures: Path, tmp_path: Path) -> None:
    sink = Kept()
    run = train(pictures, tmp_path / "run", "320images", sink)
    assert sink.closed == 1
    steps = [step for step, _ in sink.sent]
    assert steps == sorted(set(steps))
    logged = {record.step: record for record in run.records()}
    compared = 0
    for step, numbers in sink.sent:
        assert all(name.startswith("teacher/") for name in numbers)
        for name in ("distance", "floors", "heldout_loss"):
            value = getattr(logged[step], name, None) if step in logged else None
            if value is not None:
                assert numbers[f"teacher/{name}"] == pytest.approx(value, rel=1e-4)
                compared += 1
    assert compared >= 3
    assert any("teacher/loss" in numbers for _, numbers in sink.sent)


def test_no_step_is_sent_twice_when_a_run_resumes(pictures: Path, tmp_path: Path) -> None:
    """Killed, it goes back to a checkpoint; the steps in between come again and are not sent."""
    seen: list[Record] = []

    def fall(record: Record) -> None:
        seen.append(record)
        if record.step == 12:
            raise RuntimeError("as if it were killed")

    first, second = Kept(), Kept()
    slow = TrainConfig(recipe=RECIPE, checkpoint_seconds=1e9)
    with pytest.raises(RuntimeError, match="killed"):
        noisewise.train(
            *(pictures, tmp_path / "run", "320images"),
            config=slow,
            build=build,
            log_to=first,
            on_record=fall,
        )
    assert first.closed == 1
    train(pictures, tmp_path / "run", "320images", second)
    once, again = ([step for step, _ in sink.sent] for sink in (first, second))
    assert once
    assert again
    assert not set(once) & set(again)
    assert max(once) < min(again)


def test_a_sink_that_fails_is_told_once_and_ends_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = Kept(fails_at=20)
    run = train(pictures, tmp_path / "run", "320images", sink, progress=True)
    assert run.finished("teacher")
    assert all(step < 20 for step, _ in sink.sent)
    told = [line for line in capsys.readouterr().err.splitlines() if "takes no more" in line]
    assert told == [
        "note: Kept takes no more numbers (OSError: the server is gone); log.jsonl has all of them"
    ]
    assert max(record.step for record in run.records()) == 20


def test_between_rare_records_it_gets_means(tmp_path: Path) -> None:
    """One a second, so that a server keeps up with a hundred steps a second."""
    now, sink = [0.0], Kept()
    take = Guarded("kept", lambda mark: (sink, mark), Sent(tmp_path, "kept"), print, lambda: now[0])
    for step in range(1, 101):
        now[0] = step / 16  # exact in binary
        take(Record("teacher", step, 32 * step, now[0], loss=float(step)))
    assert [step for step, _ in sink.sent] == [1, 17, 33, 49, 65, 81, 97]
    assert [numbers["teacher/loss"] for _, numbers in sink.sent] == [
        1,
        9.5,
        25.5,
        41.5,
        57.5,
        73.5,
        89.5,
    ]
    take(Record("teacher", 101, 3232, 6.3, loss=1.0, floors=2.0))
    assert sink.sent[-1][0] == 101
    assert sink.sent[-1][1]["teacher/floors"] == 2.0
    take(Record("generator", 1, 32, 0.1, loss=3.0, event="begun"))  # steps of a stage of its own
    assert sink.sent[-1] == (
        1,
        {f"generator/{k}": v for k, v in {"images": 32.0, "seconds": 0.1, "loss": 3.0}.items()},
    )


def test_a_damaged_note_is_only_a_note(tmp_path: Path) -> None:
    for text in ("[1", '{"kept": 5}', '{"kept": {"teacher": "x"}}', "[]"):
        (tmp_path / "sinks.json").write_text(text)
        sent = Sent(tmp_path, "kept")
        assert sent.last("teacher") == -1
        assert sent.mark == ""
        sent.note("teacher", 4)
        assert Sent(tmp_path, "kept").last("teacher") == 4


def test_an_unknown_sink_and_a_missing_package_are_one_sentence(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [known for known in SINKS if not _there(known.module)]
    for known in missing:
        words = ["train", str(pictures), "--out", str(tmp_path / "run"), "--log-to", known.name]
        assert cli.main(words) == 2
        said = capsys.readouterr().err.strip()
        assert said.endswith(f"pip install {known.package}")
        assert "\n" not in said
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="use one of tensorboard, wandb, trackio"):
        noisewise.train(pictures, tmp_path / "run", log_to="mlflow")
    assert not (tmp_path / "run").exists()


def _there(module: str) -> bool:
    try:
        return bool(sink_named(module))
    except ValueError:
        return False


def test_no_package_is_imported_unless_it_is_used() -> None:
    code = (
        "import sys, noisewise\n"
        "noisewise.train\n"
        "import noisewise.app.sinks.listing\n"
        "assert not {'tensorboard', 'wandb', 'trackio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], list[str]]:
    """A command that trains a tiny run, with a log sink."""
    np.savez(tmp_path / "blobs.npz", images=blobs(128, 8))
    values = {
        "widths": [8, 8],
        "batch": 16,
        "threads": 1,
        "recipe": {"distance_images": 32, "sampler_images": 0},
    }
    (tmp_path / "train.json").write_text(json.dumps(values))
    words = ["train", str(tmp_path / "blobs.npz"), "--out", str(tmp_path / "run")]
    words += ["--config", str(tmp_path / "train.json"), "--budget", "320images"]
    return lambda name: [*words, "--log-to", name]


def test_tensorboard_reads_what_was_written(
    small: Callable[[str], list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert cli.main(small("tensorboard")) == 0
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    run = Run(tmp_path / "run")
    logged = {r.step: r.distance for r in run.records() if r.distance is not None}
    found = {event.step: event.value for event in read.Scalars("teacher/distance")}
    assert found == pytest.approx(logged, rel=1e-4)
    steps = [event.step for event in read.Scalars("teacher/loss")]
    assert steps == sorted(set(steps))
    assert cli.main(small("tensorboard")) == 0  # already finished: nothing new
    read.Reload()
    assert [event.step for event in read.Scalars("teacher/loss")] == steps


def test_wandb_without_a_network(
    small: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb_home"))
    words = [sys.executable, "-m", "noisewise", *small("wandb")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "takes no more" not in done.stderr
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"teacher/loss" in file.read_bytes()
    assert Sent(tmp_path / "run", "wandb").mark in file.name


def test_trackio_keeps_the_numbers_here(
    small: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [sys.executable, "-m", "noisewise", *small("trackio"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "takes no more" not in done.stderr
    assert done.stdout.startswith("{")  # trackio's own lines are on stderr
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT step, metrics FROM metrics").fetchall()
    found = {step: json.loads(text).get("teacher/distance") for step, text in rows}
    logged = {r.step: r.distance for r in Run(tmp_path / "run").records() if r.distance is not None}
    assert len(rows) == len(found)  # no step twice
    assert {k: v for k, v in found.items() if v is not None} == pytest.approx(logged, rel=1e-4)
