"""Killed for real at random instants, inside saves too: the same command ends as if never killed.

`make torture` does the same fifty times a stage, from the first instant of the process to its last.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from killing import Workshop, leftovers, traces
from noisewise.training.files.atomic import load_state
from noisewise.training.run.run import Run

BUDGETS = {"train": "640images", "distill": "320images"}
STAGES = {"train": "teacher", "distill": "generator"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures, and a run that was never killed."""
    shop = Workshop.make(tmp_path_factory.mktemp("killing"))
    for verb, budget in BUDGETS.items():
        shop.finish(verb, shop.root / "whole", budget)
    return shop


@pytest.mark.parametrize(("verb", "kills"), [("train", 2), ("distill", 1)])
def test_kills_change_nothing(verb: str, kills: int, shop: Workshop, tmp_path: Path) -> None:
    run, stage = tmp_path / "run", STAGES[verb]
    if verb == "distill":
        shutil.copytree(shop.root / "whole", run)
        for old in [*(run / "checkpoints").glob("*generator*"), run / "generator"]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for sheet in (run / "samples").glob("generator-*"):
            sheet.unlink()
    instants = np.random.default_rng(0).uniform(0, 0.4, kills)
    killed = [shop.kill(verb, run, BUDGETS[verb], instant, True) for instant in instants]
    assert killed[0]
    shop.finish(verb, run, BUDGETS[verb])
    expected, found = traces(shop.root / "whole", stage), traces(run, stage)
    assert found["log"] == expected["log"]
    assert found["weights"] == expected["weights"]
    assert found["sheets"] == expected["sheets"]
    assert leftovers(run) == []


_STALLS = """
import sys, time
from noisewise.app import cli
from noisewise.training.stages.teacher import TeacherStage
step = TeacherStage.step
def stalling(self, number, *rest):
    if number == 5:
        print("stalled", flush=True)
        time.sleep(3600)  # goes on sleeping after a signal was heeded
    return step(self, number, *rest)
TeacherStage.step = stalling
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once_and_costs_nothing_saved(
    second: signal.Signals, shop: Workshop, tmp_path: Path
) -> None:
    """In a step that never ends, the first signal can do nothing: what ends it is the second."""
    run = tmp_path / "run"
    words = shop.command("train", run, "1000000images")[3:]
    with subprocess.Popen(
        [sys.executable, "-c", _STALLS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "stalled\n"
            paths = Run.open(run).checkpoints("teacher").paths()
            before = {path: path.read_bytes() for path in paths}
            process.send_signal(signal.SIGTERM)
            assert any("again stops at once" in line for line in process.stderr)
            assert process.poll() is None
            process.send_signal(second)
            process.wait(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + second
    after = Run.open(run).checkpoints("teacher").paths()
    assert {path: path.read_bytes() for path in after} == before, "nothing was saved on the way out"
    assert "counters" in load_state(after[0])
