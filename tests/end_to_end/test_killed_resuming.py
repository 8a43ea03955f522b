"""Killed, and killed again while it resumes, before any change of a file: as if never killed.

A process is killed exactly before it opens a file to write, renames, removes or makes one. Two such
kills are tried here; `make torture` tries many.
"""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from forked import Ended, Where, run
from killing import Workshop, leftovers, traces

BUDGETS = {"train": "160images", "distill": "96images"}
STAGES = {"train": "teacher", "distill": "generator"}
_RESUMING = 24  # changes in which a command locks, cleans up, cuts the log and saves again


@dataclass(frozen=True)
class Halves:
    """A run that was never killed, and those that were killed about in the middle."""

    shop: Workshop
    changes: dict[str, int]

    def whole(self) -> Path:
        """The run that was never killed."""
        return self.shop.root / "whole"

    def half(self, verb: str) -> Path:
        """The killed run."""
        return self.shop.root / f"half-{verb}"

    def go_on(self, verb: str, folder: Path, die_at: int = 0) -> Ended:
        """The command that resumes it; 0: to its end."""
        words = self.shop.command(verb, folder, BUDGETS[verb])[3:]
        return run(*words, where=Where(die_at=die_at, watched=str(folder)))

    def kill(self, verb: str, folder: Path, die_at: int) -> bool:
        """The same, killed before that change; False if it ended before."""
        ended = self.go_on(verb, folder, die_at)
        assert ended.code in (0, -signal.SIGKILL), ended
        return ended.code != 0

    def check(self, verb: str, folder: Path) -> None:
        """Let it end, and compare it with the one that was never killed."""
        self.go_on(verb, folder).ended()
        assert traces(folder, STAGES[verb]) == traces(self.whole(), STAGES[verb])
        assert leftovers(folder) == []


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    """A workshop; each stage is made there when it is asked for."""
    return Halves(Workshop.make(tmp_path_factory.mktemp("twice")), {})


def made(halves: Halves, verb: str) -> Halves:
    """A stage whole, and killed in the middle of its changes; made once."""
    if verb in halves.changes:
        return halves
    if verb == "distill":
        made(halves, "train")
        shutil.copytree(halves.whole(), halves.half(verb))
    ended = halves.go_on(verb, halves.whole())
    ended.ended()
    halves.changes[verb] = ended.changes
    assert halves.kill(verb, halves.half(verb), ended.changes // 2)
    return halves


def spread(last: int, count: int) -> list[int]:
    """Some changes from the first to the last one, each of the parts of a resume among them."""
    return sorted({int(x) for x in np.linspace(1, last, count).round()})


@pytest.mark.parametrize("verb", ["train", pytest.param("distill", marks=pytest.mark.slow)])
def test_a_kill_in_each_of_two_resumes(verb: str, halves: Halves, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made(halves, verb).half(verb), folder)
    for die_at in (9, 4):
        assert halves.kill(verb, folder, die_at)
    halves.check(verb, folder)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "distill"])
def test_a_kill_before_every_change_of_a_resume(verb: str, halves: Halves, tmp_path: Path) -> None:
    """Every change of the beginning; of what follows, some."""
    made(halves, verb)
    later = spread(halves.changes[verb] // 2 - _RESUMING, 16)
    for first in [*range(1, _RESUMING + 1), *(_RESUMING + at for at in later)]:
        folder = tmp_path / f"run-{first}"
        shutil.copytree(halves.half(verb), folder)
        assert halves.kill(verb, folder, first)
        halves.kill(verb, folder, 1 + first % _RESUMING)  # of the end, less may be left
        halves.check(verb, folder)
        shutil.rmtree(folder)
