"""The functions that a caller of train, distill or adapt may pass: to watch it and to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from noisewise.training.stages.record import Record

OnRecord = Callable[[Record], object]
OnFile = Callable[[int, int], None]
OnPart = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, all of it; 0: it is not counted)."""
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Callbacks:
    """The caller's functions; each may be None.

    Args:
        on_record: called with the record of every step.
        on_file: called with (files read, files in all) while pictures are read.
        stop: called before every step; if it returns true, training is saved and stops.
    """

    on_record: OnRecord | None = None
    on_file: OnFile | None = None
    stop: Stop | None = None

    def record(self, record: Record) -> None:
        """Call `on_record`, if there is one."""
        if self.on_record is not None:
            self.on_record(record)
