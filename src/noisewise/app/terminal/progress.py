"""What a person sees while something long runs, always on stderr.

On a terminal: a bar by rich. Anywhere else (a file, a CI log, a pipe): one plain line every 30 s
and at the end of each stage. If nobody can see it (the terminal is closed, the pipe is broken, the
disk is full), the program continues without it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from noisewise.app.numbers import figure
from noisewise.app.terminal.bar import AnyBar, Bar
from noisewise.app.terminal.duration import duration
from noisewise.app.terminal.stderr import Steady
from noisewise.plain_text import printable


class Record(Protocol):
    """One logged step of training, as `noisewise.train` yields it."""

    @property
    def stage(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def images(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def loss(self) -> float | None: ...  # noqa: D102
    @property
    def heldout_loss(self) -> float | None: ...  # noqa: D102
    @property
    def distance(self) -> float | None: ...  # noqa: D102
    @property
    def floors(self) -> float | None: ...  # noqa: D102
    @property
    def event(self) -> str | None: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102


class Progress:
    r"""Shows the records of a run as they come: a bar on a terminal, else a line every 30 s.

    Args:
        stream: where to write; stderr by default.
        seconds: the stage's budget, if it is a time.
        images: the stage's budget, if it is a number of images.
        interval_seconds: time between plain lines.
        clock: seconds on any steady clock; given by tests.

    Example:
        >>> import io
        >>> from types import SimpleNamespace as Step
        >>> out = io.StringIO()
        >>> with Progress(out, seconds=60) as progress:
        ...     progress.update(Step(stage="teacher", step=10, images=640, seconds=5.0, loss=0.31,
        ...                          heldout_loss=None, distance=None, floors=3.14,
        ...                          event=None, kind="step"))
        >>> out.getvalue()
        'teacher: done after 5.0s, step 10, 640 images, 128 images/s, loss 0.31, 3.1 floors\n'
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        seconds: float | None = None,
        images: int | None = None,
        interval_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = Steady(sys.stderr if stream is None else stream)
        self._seconds = seconds
        self._images = images
        self._interval = interval_seconds
        self._clock = clock
        self._last_line = clock()
        self._last: Record | None = None
        self._heldout: float | None = None
        self._away = ""
        self._start: tuple[float, int] | None = None
        self._bar: AnyBar | None = None

    def __enter__(self) -> Self:
        self._bar = self._new_bar()
        return self

    def _new_bar(self) -> AnyBar | None:
        """What shows the progress; None: lines."""
        return Bar(self._stream) if self._stream.isatty() else None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._last is not None:
            self._finish(self._last, "done" if kind is None else "stopped")
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, record: Record) -> None:
        """Take one record: move the bar, or write a line if the last one is old enough."""
        if self._last is not None and record.stage != self._last.stage:
            self._finish(self._last, "done")
            self._start, self._heldout, self._away = None, None, ""
        if self._start is None:
            self._start = (record.seconds, record.images) if self._last is None else (0.0, 0)
            # The first record of a new stage counts from its start, of a resumed one from itself.
            if record.seconds < 2 * self._interval:
                self._start = (0.0, 0)
        if record.heldout_loss is not None:
            self._heldout = record.heldout_loss
        if record.floors is not None:
            self._away = f"{figure(record.floors)} floors"
        elif record.distance is not None:  # where it was not measured in floors
            self._away = f"distance {record.distance:.3g}"
        self._last = record
        if record.event and record.kind != "finished":  # the result says the same in short
            self.note(f"{record.stage}: {record.event}{_times(record)}")
        if self._bar is not None:
            stage, figures, left = record.stage, self._figures(record), self._left(record)
            self._bar.move(stage, self._share(record), figures, left)
        elif self._clock() - self._last_line >= self._interval:
            self._last_line = self._clock()
            self.note(
                f"{record.stage}: {self._how_far(record)}, {', '.join(self._figures(record))}"
            )

    def count(self, done: int, total: int) -> None:
        """Take the number of files read so far; shown as rarely as the records are.

        After the last file it says that training is being prepared, which takes some seconds.
        """
        if done < total:
            self.part("reading", done, total, "files")
        elif self._bar is not None:
            self._bar.wait("preparing")

    def part(self, text: str, done: int, total: int, things: str) -> None:
        """Take what is being done now, and how much of it; shown as rarely as the records are.

        Args:
            text: the part, for example "drawing".
            done: how much of it is done.
            total: all of it; 0: it is not counted.
            things: what is counted.
        """
        if self._bar is not None and total:
            self._bar.move(text, done / total)
        elif self._bar is not None:
            self._bar.wait(text)
        elif self._clock() - self._last_line >= self._interval:
            self._last_line = self._clock()
            self.note(f"{text}: {done:,} of {total:,} {things}" if total else text)

    def note(self, text: str) -> None:
        """Write one line, above the bar if there is one."""
        text = printable(text)
        if self._bar is not None:
            self._bar.note(text)
        else:
            print(text, file=self._stream, flush=True)

    def _finish(self, record: Record, word: str) -> None:
        self._last_line = self._clock()
        if record.kind == "finished":  # the result has them, with the interval
            self._away = ""
        self.note(
            f"{record.stage}: {word} after {duration(record.seconds)}, "
            f"{', '.join(self._figures(record))}"
        )
        self._last = None

    def _share(self, record: Record) -> float | None:
        """Share of the budget used, 0 to 1; None without a budget."""
        shares = []
        if self._seconds:
            shares.append(record.seconds / self._seconds)
        if self._images:
            shares.append(record.images / self._images)
        return min(1.0, max(shares)) if shares else None

    def _how_far(self, record: Record) -> str:
        share = self._share(record)
        if share is None:
            return duration(record.seconds)
        if self._seconds:
            return f"{duration(record.seconds)} of {duration(self._seconds)}"
        left = self._left(record)
        more = "" if left is None else f", {duration(left)} left"
        return f"{100 * share:.0f}% of {self._images:,} images{more}"

    def _left(self, record: Record) -> float | None:
        """Seconds until the budget is used; None if that cannot be said."""
        left = []
        if self._seconds:
            left.append(max(0.0, self._seconds - record.seconds))
        seconds, images = self._start or (0.0, 0)
        if self._images and record.images > images:
            each = (record.seconds - seconds) / (record.images - images)
            left.append(max(0, self._images - record.images) * each)
        return min(left) if left else None

    def _figures(self, record: Record) -> list[str]:
        """What is known about the training, the most telling last."""
        parts = [f"step {record.step:,}", f"{record.images:,} images"]
        seconds, images = self._start or (0.0, 0)
        if record.seconds > seconds and record.images > images:
            parts.append(f"{(record.images - images) / (record.seconds - seconds):,.0f} images/s")
        if record.loss is not None:
            parts.append(f"loss {record.loss:.3g}")
        if self._heldout is not None:
            parts.append(f"held-out {self._heldout:.3g}")
        if self._away:
            parts.append(self._away)
        return parts


def _times(record: Record) -> str:
    """How long pictures take, of teacher and generator, where it was measured."""
    # Few records have these two, and those that tests and other programs make have neither.
    rows, own = getattr(record, "teacher_steps", None), getattr(record, "milliseconds", None)
    if not rows or own is None:
        return ""
    each = ", ".join(f"{row[2]:.3g}" for row in rows)
    return f" ({each} ms a picture; this generator {own:.3g} ms)"
