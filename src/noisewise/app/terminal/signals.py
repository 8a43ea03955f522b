"""The first Ctrl-C, SIGTERM or SIGHUP asks to stop; the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self, TextIO

from noisewise.app.terminal.stderr import Steady

_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows


class Stop:
    """While open, turns the first of these signals into a flag; a second one ends the process.

    SIGINT, SIGTERM, and SIGHUP, unless the process was told to ignore it (nohup). A terminal that
    closes sends SIGHUP more than once: a second SIGHUP changes nothing.
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
        self._stream = Steady(sys.stderr if stream is None else stream)
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
            numbers = [signal.SIGINT, signal.SIGTERM]
            if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
                numbers.append(_HANGUP)
            for number in numbers:
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
            if number == _HANGUP:
                return
            # No clean-up on purpose: files are renamed into place only when they are whole.
            os._exit(128 + number)
        self._signal = number
        try:
            print(
                "\nStopping: this step is finished and saved first. Ctrl-C again stops at once.",
                file=self._stream,
                flush=True,
            )
        except (
            RuntimeError
        ):  # it came in the middle of another line; Python does not write a second one
            pass
