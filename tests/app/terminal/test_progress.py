"""What people see while they wait, and how they stop it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from noisewise.app.terminal.bar import Bar
from noisewise.app.terminal.duration import duration
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.signals import Stop


@dataclass(frozen=True)
class Step:
    """A record with the fields that progress reads."""

    stage: str
    step: int
    images: int
    seconds: float
    loss: float | None = 0.25
    heldout_loss: float | None = None
    distance: float | None = None
    floors: float | None = None
    event: str | None = None
    kind: str = "step"


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def _feed(progress: Progress, now: list[float], seconds: int, stage: str = "teacher") -> None:
    for second in range(1, seconds + 1):
        now[0] += 1.0
        progress.update(Step(stage, second * 5, second * 320, float(second)))


def test_a_log_gets_one_line_every_half_minute_and_one_at_each_end() -> None:
    """100 s of one stage and 40 s of the next: three lines, an end, one line, an end."""
    out, now = io.StringIO(), [0.0]
    with Progress(out, seconds=100, clock=lambda: now[0]) as progress:
        _feed(progress, now, 100)
        _feed(progress, now, 40, "distill")
    lines = out.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["teacher"] * 4 + ["distill"] * 2
    assert lines[0].startswith("teacher: 30s of 1m40s, step 150, 9,600 images, 320 images/s")
    assert "done after 1m40s" in lines[3]
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_events_are_told_at_once() -> None:
    """An event does not wait for the next line."""
    out = io.StringIO()
    with Progress(out, clock=lambda: 0.0) as progress:
        progress.update(Step("distill", 1, 64, 1.0, event="a step was left out"))
        assert "distill: a step was left out" in out.getvalue()


def test_measurements_stay_on_the_line_until_the_next() -> None:
    """The last held-out loss and distance are shown although most records have none."""
    out = io.StringIO()
    with Progress(out, clock=lambda: 0.0) as progress:
        progress.update(Step("teacher", 1, 64, 1.0, heldout_loss=0.5, distance=0.125))
        progress.update(Step("teacher", 2, 128, 2.0))
    assert "held-out 0.5, distance 0.125" in out.getvalue()


def test_floors_stand_in_place_of_the_distance() -> None:
    """One number is called one thing: a distance is only shown where there are no floors."""
    out = io.StringIO()
    with Progress(out, clock=lambda: 0.0) as progress:
        progress.update(Step("teacher", 1, 64, 1.0, distance=0.125, floors=3.14))
        progress.update(Step("teacher", 2, 128, 2.0))
    assert "3.1 floors" in out.getvalue()
    assert "distance" not in out.getvalue()


def test_the_long_words_of_the_end_are_left_to_the_result() -> None:
    """The log has them; the command prints a line for each thing."""
    out = io.StringIO()
    with Progress(out, clock=lambda: 0.0) as progress:
        progress.update(Step("teacher", 9, 64, 1.0, floors=3.0, event="words", kind="finished"))
    assert out.getvalue().splitlines() == [
        "teacher: done after 1.0s, step 9, 64 images, 64 images/s, loss 0.25"
    ]


def test_a_stage_that_breaks_is_not_called_done() -> None:
    """An error inside shows in the last line."""
    out = io.StringIO()

    def breaks() -> None:
        with Progress(out) as progress:
            progress.update(Step("teacher", 1, 64, 1.0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks()
    assert "teacher: stopped after" in out.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    """On a terminal rich draws the share of the budget."""
    out, now = Terminal(), [0.0]
    with Progress(out, images=32_000, clock=lambda: now[0]) as progress:
        _feed(progress, now, 50)
    assert "50%" in out.getvalue()
    assert "teacher" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (59.4, "59s"), (60, "1m"), (119.6, "2m"), (3599.9, "1h"), (3660, "1h01m")],
)
def test_duration(seconds: float, text: str) -> None:
    """Rounding never gives 60 seconds or 60 minutes."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_asks(number: signal.Signals, code: int) -> None:
    """The flag is up, the handlers are put back, and nothing was raised."""
    before = signal.getsignal(number)
    out = io.StringIO()
    with Stop(out) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert stop.exit_code == code
    assert signal.getsignal(number) is before
    assert "saved" in out.getvalue()


def test_second_signal_ends_at_once() -> None:
    """A process that does not stop by itself is gone after the second signal."""
    program = textwrap.dedent(
        """
        import os, signal, time
        from noisewise.app.terminal.signals import Stop
        with Stop():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert done.returncode == 130


def _screen(columns: int, feed: Callable[[Progress], None]) -> str:
    """What stands on the last line of a terminal of this width."""
    out = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        with Progress(out, images=32_000) as progress:
            feed(progress)
            assert isinstance(progress._bar, Bar)
            progress._bar._rich.refresh()
            text = out.getvalue()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n")).splitlines()
    return [line for line in lines if line.strip()][-1]


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_the_bar_fits_and_shows_the_time_left(columns: int) -> None:
    def feed(progress: Progress) -> None:
        for step in range(1, 6):
            progress.update(Step("generator", step * 50, step * 3200, step * 30.0, floors=3.14))

    line = _screen(columns, feed)
    assert len(line.rstrip()) <= columns
    assert "━━━━━" in line
    assert "50%" in line
    assert line.rstrip().endswith("2m30s left")
    assert ("images/s" in line) == (columns > 100)


def test_after_reading_the_bar_goes_on() -> None:
    """It does not stand at 100% while training is prepared."""

    def feed(progress: Progress) -> None:
        progress.count(10, 20)
        progress.count(20, 20)

    line = _screen(80, feed)
    assert "preparing" in line
    assert "%" not in line


def test_a_log_tells_the_time_left_of_a_number_of_images() -> None:
    out, now = io.StringIO(), [0.0]
    with Progress(out, images=32_000, clock=lambda: now[0]) as progress:
        _feed(progress, now, 31)
    assert out.getvalue().startswith("teacher: 30% of 32,000 images, 1m10s left, step 150")
