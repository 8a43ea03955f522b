"""Stopped and continued, and on machines whose clock jumps: the run is the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import noisewise
from forked import Command, run, stopped_in_training
from killing import Workshop, leftovers, traces

# A clock on the wall that goes back by an hour each time it is read.
_BACKWARDS = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long reads;
int clock_gettime(clockid_t which, struct timespec *found) {
  long code = syscall(SYS_clock_gettime, which, found);
  if (which == CLOCK_REALTIME) found->tv_sec -= 3600 * ++reads;
  return code;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  found->tv_sec = now.tv_sec;
  found->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *found) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (found) *found = now.tv_sec;
  return now.tv_sec;
}
"""
BUDGET = "160images"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures, and a run that nothing happened to."""
    shop = Workshop.make(tmp_path_factory.mktemp("clocks"))
    run(*shop.command("train", shop.root / "whole", BUDGET)[3:]).ended()
    return shop


@pytest.fixture(scope="module")
def backwards(shop: Workshop) -> Path:
    """A library that moves the clocks of a process; skips the tests where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, library = shop.root / "backwards.c", shop.root / "backwards.so"
    source.write_text(_BACKWARDS)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("the library cannot be compiled here")
    return library


def test_stopped_and_continued_it_ends_as_if_nothing_had_happened(
    shop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    log = folder / "log.jsonl"
    command = Command(shop.command("train", folder, BUDGET)[3:])
    for size in (1, 1000, 2000):
        command.until(lambda size=size: log.exists() and log.stat().st_size > size)
        command.stop()
        time.sleep(0.1)
        command.go_on()
    command.wait().ended()
    assert traces(folder, "teacher") == traces(shop.root / "whole", "teacher")
    assert leftovers(folder) == []


@pytest.mark.slow
def test_a_budget_of_time_does_not_count_a_pause(shop: Workshop, tmp_path: Path) -> None:
    """It would end at once, without the decay of its learning rate."""
    folder = tmp_path / "run"
    log = folder / "log.jsonl"
    command = Command(shop.command("train", folder, "20s")[3:])
    command.until(lambda: log.exists() and log.stat().st_size > 1000)
    assert command.runs
    command.stop()
    before = log.read_text().count("\n")
    time.sleep(40)
    command.go_on()
    command.wait().ended()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["kind"] == "finished"
    assert lines[-1]["seconds"] < 40
    assert len(lines) > before + 1
    assert lines[-2]["lr"] < lines[before]["lr"]  # it has decayed


def restarted() -> list[str]:
    """Words before a command whose steady clock is behind; none where the system has no such."""
    words = ["unshare", "--time", "--monotonic", str(-int(time.monotonic() / 2)), "--fork"]
    if shutil.which("unshare") is None:
        return []
    done = subprocess.run([*words, "true"], capture_output=True, check=False)
    return [] if done.returncode else words


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(
    shop: Workshop, backwards: Path, tmp_path: Path
) -> None:
    """The machine has also been restarted since the kill: its steady clock begins anew."""
    folder = tmp_path / "run"
    command = stopped_in_training(shop.command("train", folder, BUDGET)[3:], folder)
    command.send(signal.SIGKILL)
    command.go_on()
    assert command.wait().code == -signal.SIGKILL
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(backwards)}
    read = "import time; a = time.time(); b = time.time(); print(a - b > 1000)"
    words = shop.command("train", folder, BUDGET)
    shown = subprocess.run([words[0], "-c", read], env=env, capture_output=True, text=True)
    if shown.stdout != "True\n":
        pytest.skip("the clocks of a process cannot be moved here")
    done = subprocess.run(
        [*restarted(), *words], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert traces(folder, "teacher") == traces(shop.root / "whole", "teacher")
    lines = (folder / "log.jsonl").read_text().splitlines()
    clock = [json.loads(line)["seconds"] for line in lines]
    assert clock == sorted(clock)
    assert all(0 <= second < 280 for second in clock)


def test_pictures_and_runs_from_the_future(shop: Workshop, tmp_path: Path) -> None:
    """Files of a machine whose clock was ahead, and then of one that was behind."""
    folder = tmp_path / "run"
    shutil.copytree(shop.root / "whole", folder)
    expected = traces(folder, "teacher")
    for year in (2100, 1971):
        when = (year - 1970) * 365.25 * 24 * 3600
        for path in [*folder.rglob("*"), shop.root / "blobs.npz"]:
            os.utime(path, (when, when))
        said = run(*shop.command("train", folder, BUDGET)[3:]).ended()
        assert "already finished" in said
    run("evaluate", folder, "-n", "16").ended()
    assert traces(folder, "teacher") == expected


def test_no_duration_is_taken_from_the_clock_on_the_wall() -> None:
    """That clock is asked only for the dates that a run and its page show."""
    asked = re.compile(r"\btime\.time\b|\btime_ns\b|\bnow\(|\butcnow\b|\btoday\(")
    root = Path(noisewise.__file__).parent
    found = [path.name for path in root.rglob("*.py") if asked.search(path.read_text("utf-8"))]
    assert sorted(found) == ["collect.py", "run_json.py"]
