"""A log sink: takes the records of a training, and never ends it.

A record has the mean of what was measured since the one before, as a line of log.jsonl has. What a
sink was sent is noted in the run, `sinks.json`, before it is sent: a run that was killed and goes
back some steps when it resumes does not send them twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from noisewise.app.sinks.sent import Sent
from noisewise.training.stages.record import Record

Numbers = dict[str, float]
_SECONDS = 1.0  # between two records that have nothing rare
_AVERAGED = ("loss", "grad_norm", "fake_loss", "fisher")
_RARE = ("heldout_loss", "distance", "floors", "event")
_NO_NUMBERS = frozenset({"stage", "step", "event", "kind", "teacher_steps"})


class Sink(Protocol):
    """What a log sink does; give one of your own as `log_to`."""

    def log(self, step: int, numbers: Numbers) -> object:
        """Take the numbers of a step, such as {"teacher/loss": 0.3}; steps of a stage only rise."""
        ...

    def close(self) -> object:
        """End; called once."""
        ...


@dataclass(frozen=True)
class SinkType:
    """A log sink that can be chosen by name.

    Attributes:
        name: as people choose it.
        package: to install, with pip.
        module: to import, whose absence means that the package is missing.
        start: opens it: given the folder of the run, its name, and an id that this sink gave
            before ("" if the run is new); returns the sink and its id.
    """

    name: str
    package: str
    module: str
    start: Callable[[Path, str, str], tuple[Sink, str]]


class Guarded:
    """Sends records to a sink; the first failure is told once, and ends the sending alone.

    Args:
        name: of the sink, for people and for the note in the run.
        start: opens it, when the first record comes; given the id of an earlier call.
        sent: what it was sent before.
        tell: shows a line to people.
        clock: seconds on any steady clock; given by tests.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[str], tuple[Sink, str]],
        sent: Sent,
        tell: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet."""
        self._name, self._start, self._sent = name, start, sent
        self._tell, self._clock = tell, clock
        self._sink: Sink | None = None
        self._failed = False
        self._sums: dict[str, list[float]] = {}
        self._when = -_SECONDS

    def __call__(self, record: Record) -> None:
        """Take a record of a training."""
        if self._failed or record.step <= self._sent.last(record.stage):
            return
        for name in _AVERAGED:
            value = getattr(record, name)
            if value is not None:
                self._sums.setdefault(name, []).append(value)
        rare = any(getattr(record, name) is not None for name in _RARE)
        if not rare and self._clock() - self._when < _SECONDS:
            return
        self._when = self._clock()
        self._send(record)

    def _send(self, record: Record) -> None:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums = {}
        numbers = {
            f"{record.stage}/{name}": float(value)
            for name, value in (numbers_of(record) | means).items()
        }
        try:
            if self._sink is None:
                self._sink, mark = self._start(self._sent.mark)
                self._sent.note_mark(mark)
            self._sent.note(record.stage, record.step)
            self._sink.log(record.step, numbers)
        except (Exception, SystemExit) as error:  # somebody else's program must not end it
            self._fail(error)

    def close(self) -> None:
        """End the sink."""
        try:
            if self._sink is not None and not self._failed:
                self._sink.close()
        except (Exception, SystemExit) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failed = True
        lines = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        self._tell(f"note: {self._name} takes no more numbers ({why}); log.jsonl has all of them")


def numbers_of(record: Record) -> Numbers:
    """The numbers of a record that were measured, by name.

    Example:
        >>> numbers_of(Record("teacher", 3, 96, 1.5, loss=0.25, event="begun"))
        {'images': 96, 'seconds': 1.5, 'loss': 0.25}
    """
    names = [field.name for field in fields(Record) if field.name not in _NO_NUMBERS]
    found = {name: getattr(record, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
