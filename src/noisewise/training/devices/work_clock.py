"""A clock that stands still while the process is stopped: Ctrl-Z, SIGSTOP, a sleeping machine.

A budget of time is time to work. A run that is killed and resumed does not count the time between;
one that is stopped and continued does not either (as schedulers that suspend jobs do it: Slurm
counts no suspended time). Otherwise a pause would end the run with weights that never saw the
decay of the learning rate.

No signal tells a process how long it was stopped, and some pauses send none. So a thread looks at
the clock many times a second: where it could not look for seconds, and the process computed nothing
meanwhile, the process was stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_BEAT = 0.1  # seconds between two looks
_SHORTEST = 2.0  # seconds of a pause; less is a busy machine
_IDLE = 0.1  # share of a pause in which the process may seem to have computed


class WorkClock:
    """Seconds that only increase, without those in which the process was stopped.

    It tells pauses only while it is open; before, it is the clock of the machine.

    Attributes:
        paused: seconds that were not counted so far.

    Args:
        clock: seconds that only increase.
        computed: seconds of all processors that the process has used.

    Example:
        >>> with WorkClock() as clock:
        ...     start = clock()
        ...     clock() >= start, clock.paused
        (True, 0.0)
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        computed: Callable[[], float] = time.process_time,
    ) -> None:
        self.paused = 0.0
        self._clock, self._computed = clock, computed
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = self._used = 0.0
        # What all processors may have done between the last look and the pause.
        self._before = _BEAT * (os.cpu_count() or 1)

    def __enter__(self) -> Self:
        """Start to look."""
        self._seen, self._used = self._clock(), self._computed()
        self._thread = threading.Thread(target=self._watch, name="work clock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def __call__(self) -> float:
        """Seconds of work since some instant."""
        with self._lock:
            now = self._clock()
            if self._thread is not None:
                self._look(now)
            return now - self.paused

    def _watch(self) -> None:
        while not self._ended.wait(_BEAT):
            with self._lock:
                self._look(self._clock())

    def _look(self, now: float) -> None:
        """Take the time since the last look for a pause if it is long and nothing was computed."""
        used = self._computed()
        gap, work = now - self._seen, used - self._used
        if gap > _SHORTEST and work < _IDLE * gap + self._before:
            self.paused += gap
        self._seen, self._used = now, used
