"""Killed for real at random instants, inside saves too: the same command ends as if never killed.

`make torture` does the same fifty times a stage, from the first instant of the process to its last.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from killing import Workshop, leftovers, traces
from noisewise.train.checkpoint import load_state
from noisewise.train.run import Run

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


def read_state(run: Path) -> bool:
    """Whether the newest checkpoint is whole."""
    return "counters" in load_state(Run.open(run).checkpoints("teacher").paths()[0])


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_second_signal_ends_at_once_and_costs_nothing_saved(
    number: signal.Signals, shop: Workshop, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with shop.start("train", run, "1000000images") as process:
        while not (run / "checkpoints").is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # so that no step ends between the two
        process.send_signal(number)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        process.send_signal(number)
        process.wait(timeout=60)
    # A quick machine may have ended by the first signal: then the last one kills what is left, and
    # a shell reports that by the same number.
    assert process.returncode in (128 + number, -number)
    assert read_state(run)
