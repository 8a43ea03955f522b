"""Following a loop: its records become log lines, its judgements sheets, its states checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from noisewise.training.files.sample_sheet import save_sheet
from noisewise.training.run.checkpoints import Checkpoints, Resumed
from noisewise.training.run.log import Log, LogWriter, Position
from noisewise.training.run.run_json import NOISE
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.record import Kind, Record

if TYPE_CHECKING:
    from noisewise.training.stages.student import StudentStage
    from noisewise.training.stages.teacher import TeacherStage


_BESIDE: tuple[Kind, ...] = ("resumed", "stopped")
"""Records that a run without a pause would not have: they leave the log's averages as they are."""


@dataclass(frozen=True)
class Following:
    """What is written of a stage while it runs; of several processes the first one writes.

    Args:
        path: of the run.
        loop: fresh, or as a checkpoint left it.
        stage: what the loop drives.
        keeper: its checkpoints.
        checkpoint_seconds: time between them.
    """

    path: Path
    loop: Loop
    stage: TeacherStage | StudentStage
    keeper: Checkpoints
    checkpoint_seconds: float

    def along(self, stop: Callable[[], bool] | None) -> None:
        """Take part as a process that does not write.

        Raises:
            TrainingFailed: if training broke down too often.
        """
        for _ in self.loop.records(stop):
            if self.loop.settled and self.loop.ranks.agree(None):
                self.keeper.save(self.loop, Position(), self.stage)
        self.keeper.save(self.loop, Position(), self.stage)

    def lead(
        self,
        on_record: Callable[[Record], object] | None,
        stop: Callable[[], bool] | None,
        resumed: Resumed | None,
        said: str = "",
    ) -> None:
        """Run the loop as the process that writes.

        Args:
            on_record: is given every record.
            stop: asked before every step.
            resumed: where the log goes on; None: it begins.
            said: stands in the first record's event beside what is said there anyway.

        Raises:
            TrainingFailed: if training broke down too often.
        """
        loop, saved = self.loop, time.monotonic()
        note = "; ".join(filter(None, (said, "" if resumed is None else resumed.note)))
        position = None if resumed is None else resumed.position
        timed = loop.budget.seconds is not None
        log = Log(self.path / "log.jsonl")
        with log.writing(self.keeper.stage, loop.at.step, position, timed) as lines:
            for number, record in enumerate(loop.records(stop)):
                if number == 0:
                    record = replace(record, event=_joined(record.event, note))
                if record.kind in _BESIDE:
                    lines.note(record)
                else:
                    lines.write(record, loop.progress)
                if on_record is not None:
                    on_record(record)
                if record.distance is not None and self.stage.preview is not None:
                    sheet = f"{self.keeper.stage}-{record.step:07d}.png"
                    save_sheet(self.path / "samples" / sheet, self.stage.preview)
                late = time.monotonic() - saved > self.checkpoint_seconds
                if loop.settled and loop.ranks.agree(late):
                    self._save(lines)
                    saved = time.monotonic()
            self._save(lines)

    def _save(self, lines: LogWriter) -> None:
        lines.sync()
        self.keeper.save(self.loop, lines.position, self.stage)
        measured = self.stage.measured_noise()
        if measured is not None:  # for `noisewise lr advise`, and for a later batch
            measured.save(self.path / NOISE)


def _joined(event: str | None, note: str) -> str | None:
    return "; ".join(part for part in (event, note) if part) or None
