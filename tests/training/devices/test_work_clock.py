"""A clock that stands still while the process is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from noisewise.training.devices.work_clock import WorkClock

# Prints what its clock and that of the machine show, each time a line comes.
_SHOWS = """
import sys, time
from noisewise.training.devices.work_clock import WorkClock
with WorkClock() as clock:
    for line in sys.stdin:
        if line == "compute\\n":
            end = time.process_time() + 3
            sum(0 for _ in iter(lambda: time.process_time() < end, False))
        print(clock(), time.monotonic(), clock.paused, flush=True)
"""


def test_time_in_which_a_process_is_stopped_is_not_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SHOWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def shown(line: str) -> list[float]:
            process.stdin.write(f"{line}\n")  # pyrefly: ignore[missing-attribute]
            process.stdin.flush()  # pyrefly: ignore[missing-attribute]
            return [float(word) for word in process.stdout.readline().split()]  # pyrefly: ignore

        work, wall, _ = shown("now")
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(4)
        os.kill(process.pid, signal.SIGCONT)
        after, wall_after, paused = shown("now")
        assert paused > 3.5
        assert after - work <= wall_after - wall - 3.5
        assert after >= work
        *_, as_before = shown("compute")  # a long step is no pause
        assert as_before == pytest.approx(paused)


def test_a_gap_is_a_pause_only_if_nothing_was_computed_in_it() -> None:
    """By clocks that are set by hand; the thread that looks is stopped by the clock as well."""
    now, used = [0.0], [0.0]
    with WorkClock(lambda: now[0], lambda: used[0]) as clock:
        for step, work, counted in ((1.0, 0.0, 1.0), (600.0, 0.0, 1.0), (600.0, 500.0, 601.0)):
            now[0], used[0] = now[0] + step, used[0] + work
            assert clock() == pytest.approx(counted)
        assert clock.paused == 600
    now[0] += 600
    assert clock() == pytest.approx(1201.0), "nobody looks any more"
