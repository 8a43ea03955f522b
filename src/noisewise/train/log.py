"""log.jsonl: one line a logged step; numbers of the steps between two lines are averaged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TextIO

from noisewise.train.checkpoint import write_text
from noisewise.train.loop import Record

_LINES = 400  # about so many for a whole stage
_LONGEST = 30.0  # seconds between lines, at most
_AVERAGED = ("loss", "grad_norm", "fake_loss", "fisher")


class Log:
    """The log of a run.

    Args:
        path: of log.jsonl.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.path = path

    def read(self) -> list[Record]:
        """All logged records; a last line cut short by a crash is left out."""
        known = {f.name for f in fields(Record)}
        records = []
        for line in self._lines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            records.append(Record(**{k: v for k, v in values.items() if k in known}))
        return records

    @contextmanager
    def writing(self, stage: str, step: int) -> Iterator[LogWriter]:
        """Open for a stage that goes on after `step`; what it logged later than that is dropped."""
        kept = [r for r in self.read() if r.stage != stage or 0 < step >= r.step]
        write_text(self.path, "".join(_line(asdict(record)) for record in kept))
        with self.path.open("a", encoding="utf-8") as file:
            yield LogWriter(file)

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []


class LogWriter:
    """Decides which records become lines, and averages what lies between."""

    def __init__(self, file: TextIO) -> None:
        """Write to an open file."""
        self._file = file
        self._progress = -1.0
        self._when = time.monotonic()
        self._sums: dict[str, tuple[float, int]] = {}

    def write(self, record: Record, progress: float) -> None:
        """Take in a record; write a line if it is time or if it tells something rare."""
        for name in _AVERAGED:
            value = getattr(record, name)
            if value is not None:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
        rare = (record.event, record.heldout_loss, record.distance)
        late = time.monotonic() - self._when > _LONGEST
        due = late or progress - self._progress >= 1 / _LINES
        if not due and all(value is None for value in rare):
            return
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._file.write(_line(asdict(record) | means))
        self._file.flush()
        self._sums, self._progress, self._when = {}, progress, time.monotonic()


def _line(values: dict[str, Any]) -> str:
    given = {name: _short(value) for name, value in values.items() if value is not None}
    return json.dumps(given, ensure_ascii=False) + "\n"


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
