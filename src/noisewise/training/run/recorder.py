"""Writes what a loop does into a run: log lines, sample sheets, checkpoints, measured noise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from noisewise.training.callbacks import Callbacks
from noisewise.training.files.sample_sheet import save_sheet, sheet_path
from noisewise.training.run.checkpoints import Checkpoints, Resumed
from noisewise.training.run.log import Log, LogWriter, Position
from noisewise.training.run.places import Places
from noisewise.training.run.run_json import NOISE
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.record import Kind, Record
from noisewise.whole_files import write_text

_BESIDE: tuple[Kind, ...] = ("resumed", "stopped")
"""Kinds of record that an uninterrupted run does not have; the log's averages ignore them."""

_FIRST = 10.0  # seconds until the first checkpoint: a short training is killed too


@dataclass(frozen=True)
class Recorder:
    """Writes what a stage does while it trains; only the first process writes.

    Args:
        path: folder of the run.
        loop: new, or restored from a checkpoint.
        checkpoints: checkpoints of the stage.
        checkpoint_seconds: seconds between checkpoints.
    """

    path: Path
    loop: Loop
    checkpoints: Checkpoints
    checkpoint_seconds: float

    @contextmanager
    def recording(
        self, callbacks: Callbacks, resumed: Resumed | None, warning: str = ""
    ) -> Iterator[Callable[[Record], None]]:
        """Open the log; yield what takes each record; save at the end.

        In a process that does not write, the checkpoints are saved together with the first one.

        Args:
            callbacks: called with every record.
            resumed: where the log continues; None: at the start.
            warning: added to the event of the first record.
        """
        if not self.loop.ranks.leads:
            yield self._attend
            self.checkpoints.save(self.loop, Position())
            return
        loop = self.loop
        note = "; ".join(filter(None, (warning, "" if resumed is None else resumed.note)))
        position = None if resumed is None else resumed.position
        timed = loop.budget.seconds is not None
        saved, first = time.monotonic(), True
        wait = min(_FIRST, self.checkpoint_seconds)
        log = Log(self.path / "log.jsonl", Places.read(self.path).cleaner())
        with log.writing(loop.stage.name, loop.at.step, position, timed) as lines:

            def take(record: Record) -> None:
                nonlocal saved, first, wait
                if first and note:
                    record = replace(record, event="; ".join(filter(None, (record.event, note))))
                first = False
                try:
                    self._take(record, lines, callbacks)
                except KeyboardInterrupt:  # of a callback, so between two steps: nothing is half
                    if loop.can_be_saved and loop.ranks.world == 1:
                        self._save(lines)
                    raise
                late = time.monotonic() - saved > wait
                if loop.can_be_saved and loop.ranks.agree(late):
                    self._save(lines)
                    saved, wait = time.monotonic(), self.checkpoint_seconds

            yield take
            self._save(lines)

    def _attend(self, _: Record) -> None:
        """Take part in a checkpoint that the first process asks for."""
        if self.loop.can_be_saved and self.loop.ranks.agree(None):
            self.checkpoints.save(self.loop, Position())

    def _take(self, record: Record, lines: LogWriter, callbacks: Callbacks) -> None:
        """Log a record, pass it to the callbacks, and save a sheet if it has a distance."""
        if record.kind in _BESIDE:
            lines.note(record)
        else:
            lines.write(record, self.loop.progress)
        callbacks.record(record)
        pictures = self.loop.stage.preview() if record.distance is not None else None
        if pictures is not None:
            save_sheet(sheet_path(self.path, record.stage, record.step), pictures)

    def _save(self, lines: LogWriter) -> None:
        lines.sync()
        self.checkpoints.save(self.loop, lines.position)
        measured = self.loop.stage.measured_noise()
        if measured is not None:  # for `noisewise lr advise`, and for a later batch
            text = json.dumps(measured.to_dict(), indent=1, allow_nan=False)
            write_text(self.path / NOISE, text + "\n")
