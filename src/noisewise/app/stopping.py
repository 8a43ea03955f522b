"""Stopping politely: the first Ctrl-C or SIGTERM asks, the second one ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self, TextIO


class Stop:
    """While open, turns the first SIGINT or SIGTERM into a flag; a second one ends the process.

    Exit codes follow the shell: 128 + the signal's number, so 130 for Ctrl-C and 143 for SIGTERM.
    Signals can only be caught in the main thread; elsewhere this does nothing.

    Example:
        >>> import os, signal, io
        >>> with Stop(io.StringIO()) as stop:
        ...     before = stop()
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     before, stop(), stop.exit_code
        (False, True, 143)
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._signal: int | None = None
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether somebody asked to stop."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """What the process should return: 0 when nobody asked, else 128 + signal."""
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]
        self._before.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            # No clean-up on purpose: files are only ever renamed into place when they are whole.
            os._exit(128 + number)
        self._signal = number
        print(
            "\nStopping: this step is finished and saved first. Once more ends at once.",
            file=self._stream,
            flush=True,
        )
