"""A lost stderr, a hung-up terminal, names that are not UTF-8: training goes on, or stops saved."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noisewise.app import cli
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.stderr import Steady, tell
from noisewise.training.stages.record import Record

Settings = Callable[[str], list[str]]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(params=["full", "broken"])
def lost(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper]:
    """A full disk, and a pipe whose other end is gone; both for real."""
    if request.param == "full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, handle = os.pipe()
        os.close(reading)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        yield stream


def test_progress_goes_on_without_a_display(lost: io.TextIOWrapper) -> None:
    with Progress(lost, clock=lambda: 0.0) as progress:
        progress.update(Record("teacher", 1, 64, 1.0, event="begun"))
        progress.note("a note")


def test_a_signal_is_heeded_though_nobody_can_be_told(lost: io.TextIOWrapper) -> None:
    with Stop(lost) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()


def test_a_bar_outlives_its_terminal() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        with Progress(terminal, images=64) as progress:
            progress.update(Record("teacher", 1, 8, 1.0))
            os.close(master)
            for step in range(2, 5):
                progress.update(Record("teacher", step, 8 * step, 1.0, event="an event"))
                time.sleep(0.3)  # the bar is drawn four times a second, by a thread of its own


def test_without_a_stderr_nothing_goes_to_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    tell("a note")
    assert not Steady(None).isatty()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no hang-ups here")
def test_a_closed_terminal_asks_once_however_often_it_says_so() -> None:
    out = io.StringIO()
    with Stop(out) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop()
    assert stop.exit_code == 129
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no hang-ups here")
def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop(io.StringIO()) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_ends_well_though_its_stderr_is_gone(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    """As `2>&1 | tee log` whose tee has died, or a connection that was dropped."""
    out = tmp_path / "run"
    words = [str(folder), "--out", str(out), "--budget", "600images", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "noisewise", "train", *words, *settings("train")],
            stdout=subprocess.PIPE, stderr=writing, text=True, env=ENVIRONMENT, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert json.loads(done.stdout)["finished"]
    assert (out / "teacher" / "model.safetensors").exists()


_BREAKS_A_PIPE = """
import os, sys
from noisewise.app import cli
def action():
    reading, writing = os.pipe()
    os.close(reading)
    os.write(sys.stdout.fileno() if sys.argv[1:] else writing, b"x")
try:
    action()
except OSError as error:
    sys.exit(cli.exit_code(error, "noisewise test"))
"""


@pytest.mark.parametrize(("of_stdout", "code"), [(True, 0), (False, 1)])
def test_a_broken_pipe_is_no_failure_only_where_an_answer_was_written(
    of_stdout: bool, code: int
) -> None:
    command = [sys.executable, "-c", _BREAKS_A_PIPE, *(["stdout"] if of_stdout else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if of_stdout:
            process.stdout.close()
        said = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == code, said
    assert (b"BrokenPipeError" in said) != of_stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_paths_that_are_not_utf_8(
    folder: Path,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder named in Latin-1, as old archives have them, through every command."""
    place = tmp_path / os.fsdecode(b"caf\xe9")
    source, run = place / os.fsdecode(b"pictur\xe9s"), place / "run"
    shutil.copytree(folder, source)
    words = [str(source), "--out", str(run), "--budget", "300images", *settings("train")]
    assert cli.main(["inspect", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == str(source)
    assert cli.main(["train", *words]) == 0
    assert "caf\\udce9" in capsys.readouterr().out
    assert cli.main(["train", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(run)
    assert (
        json.loads((run / "run.json").read_text("utf-8"))["data"]["source"] == f"../{source.name}"
    )
    assert cli.main(["distill", str(run), "--budget", "64images", *settings("distill")]) == 0
    assert cli.main(["report", str(run), "-n", "64"]) == 0
    assert "pictur\\udce9s" in (run / "report.html").read_text("utf-8")
    assert cli.main(["sample", str(run), "-n", "4"]) == 0
