"""What a caller of train, distill or adapt may hand in: to watch, to count files, to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from noisewise.training.stages.record import Record

OnRecord = Callable[[Record], object]
OnFile = Callable[[int, int], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Callbacks:
    """The three together.

    Args:
        on_record: gets every step's record.
        on_file: gets (files read, files in all) while pictures are read.
        stop: asked before every step; true ends the training after it is saved.
    """

    on_record: OnRecord | None = None
    on_file: OnFile | None = None
    stop: Stop | None = None

    def record(self, record: Record) -> None:
        """Pass a record on."""
        if self.on_record is not None:
            self.on_record(record)
