"""log.jsonl: one line per logged step; numbers are averaged over the steps since the last line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TextIO

from noisewise.plain_files import open_plain, read_plain
from noisewise.plain_text import json_text
from noisewise.training.stages.record import Kind, Record
from noisewise.whole_files import write_text

_LINES = 400  # approximate number of lines of a stage
_LONGEST = 30.0  # most seconds between two lines, with a budget of time
_TEXTS, _WHOLE = ("stage", "kind"), ("step", "images")
_NUMBERS = (
    *("loss", "heldout_loss", "lr", "grad_norm", "noise_scale", "distance", "floors"),
    *("fake_loss", "fisher", "variety", "milliseconds"),
)
_MOST = 2**63  # larger whole numbers do not fit into an array
_MOST_ROWS = 16
_LARGEST = 1e40  # more than a float32 holds
_AVERAGED = ("loss", "grad_norm", "fake_loss", "fisher")


@dataclass
class Position:
    """The state of a stage's log, so that a resumed log equals an uninterrupted one.

    Attributes:
        lines: number of lines of this stage.
        progress: share of the budget at the last line.
        sums: (sum, count) of each number since the last line.
    """

    lines: int = 0
    progress: float = -1.0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The position as JSON values."""
        sums = {name: list(pair) for name, pair in self.sums.items()}
        return {"lines": self.lines, "progress": self.progress, "sums": sums}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read the result of `to_dict`."""
        sums = {name: (float(total), int(n)) for name, (total, n) in values["sums"].items()}
        return cls(int(values["lines"]), float(values["progress"]), sums)


class Log:
    """The log of a run.

    Args:
        path: path of log.jsonl.
        clean: what takes paths of this machine out of a text that is written.
    """

    def __init__(self, path: Path, clean: Callable[[str], str] = str) -> None:
        """Store the path; nothing is opened yet."""
        self.path = path
        self._clean = clean

    def read(self) -> list[Record]:
        """All logged records; incomplete lines (after a crash) are skipped."""
        return [record for _, record in self._entries()]

    @contextmanager
    def writing(
        self, stage: str, step: int, position: Position | None = None, timed: bool = True
    ) -> Iterator[LogWriter]:
        """Open the log for a stage that continues after `step`; drop its lines after that step.

        Args:
            stage: name of the stage.
            step: the stage continues after this step; 0 drops all its lines.
            position: state of its log at this step; None: drop lines by their step only.
            timed: whether the budget is a time; then a line is written at least every 30 s.
        """
        most = None if position is None else position.lines
        kept, lines = [], 0
        for line, record in self._entries():
            if record.stage == stage:
                if (lines >= most) if most is not None else not 0 < step >= record.step:
                    continue
                lines += 1
            kept.append(line)
        write_text(self.path, "".join(f"{self._clean(line)}\n" for line in kept))
        at = Position() if position is None else position
        at.lines = lines
        with open_plain(self.path, "a") as file:
            yield LogWriter(file, at, timed, self._clean)

    def _entries(self) -> Iterator[tuple[str, Record]]:
        """Every complete line with its record."""
        known = {f.name for f in fields(Record)}
        if not self.path.exists():
            return
        for line in read_plain(self.path).decode("utf-8", "replace").split("\n"):
            if not line.startswith("{"):  # a file full of empty lines must not take an hour
                continue
            try:
                values = json.loads(line)
                record = Record(**{k: v for k, v in values.items() if k in known})
                _check_types(record)
            except (ValueError, AttributeError, TypeError, RecursionError):
                continue
            yield line, record if "kind" in values else replace(record, kind=_kind_by_words(record))


class LogWriter:
    """Decides which records become lines, and averages the numbers between two lines."""

    def __init__(
        self, file: TextIO, position: Position, timed: bool, clean: Callable[[str], str] = str
    ) -> None:
        """Write to an open file."""
        self._file = file
        self._timed = timed
        self._clean = clean
        self._when = time.monotonic()
        self.position = position

    def write(self, record: Record, progress: float) -> None:
        """Add a record; write a line if it is time, or if the record has an event or evaluation."""
        at = self.position
        for name in _AVERAGED:
            value = getattr(record, name)
            if value is not None:
                total, count = at.sums.get(name, (0.0, 0))
                at.sums[name] = (total + value, count + 1)
        rare = (record.event, record.heldout_loss, record.distance)
        # With a budget of images the lines depend only on the images, not on the machine's speed.
        late = self._timed and time.monotonic() - self._when > _LONGEST
        due = late or progress - at.progress >= 1 / _LINES
        if not due and all(value is None for value in rare):
            return
        means = {name: total / count for name, (total, count) in at.sums.items()}
        self._file.write(_line(self._values(record) | means))
        self._file.flush()
        at.sums, at.progress, self._when = {}, progress, time.monotonic()
        at.lines += 1

    def note(self, record: Record) -> None:
        """Write a record without touching the averages, for example a resume."""
        self._file.write(_line(self._values(record)))
        self._file.flush()
        self.position.lines += 1

    def _values(self, record: Record) -> dict[str, Any]:
        return {**asdict(record), "event": record.event and self._clean(record.event)}

    def sync(self) -> None:
        """Flush all lines to disk, before a checkpoint that counts them."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _check_types(record: Record) -> None:
    """Raise TypeError at a value that no line of ours has: somebody else may have written it."""
    for name in _TEXTS:
        if not isinstance(getattr(record, name), str):
            raise TypeError(name)
    for name in _WHOLE:
        value = getattr(record, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
            raise TypeError(name)
    for name in ("seconds", *_NUMBERS):
        value = getattr(record, name)
        if value is None and name in _NUMBERS:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(name)
        is_odd = isinstance(value, float) and not math.isfinite(value)  # a loss that diverged
        if not is_odd and abs(value) > _LARGEST:
            raise TypeError(name)
    if record.teacher_steps is not None and not _are_rows(record.teacher_steps):
        raise TypeError("teacher_steps")
    if not (0 <= record.seconds < _MOST and isinstance(record.event, str | None)):
        raise TypeError("seconds or event")


def _are_rows(value: object) -> bool:
    """Whether these are some rows of three finite numbers that are not negative."""
    if not isinstance(value, list) or len(value) > _MOST_ROWS:
        return False
    rows = [row for row in value if isinstance(row, list) and len(row) == 3]
    return len(rows) == len(value) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one < _LARGEST
        for row in rows
        for one in row
    )


def _kind_by_words(record: Record) -> Kind:
    """The kind of a record from a version without kinds, found by the words that it wrote."""
    words: tuple[tuple[str, Kind], ...] = (
        ("failed: ", "failed"),
        ("finished: ", "finished"),
        ("stopped on request", "stopped"),
        ("resumed at step", "resumed"),
        ("went back", "went_back"),
    )
    event = record.event or ""
    if record.step == 0 and event:
        return "begun"
    return next((kind for start, kind in words if event.startswith(start)), "step")


def _line(values: dict[str, Any]) -> str:
    given = {name: _short(value) for name, value in values.items() if value is not None}
    return json_text(given) + "\n"


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
