"""An interrupt in Python: the first Ctrl-C (or a notebook's stop button) ends the step and saves.

Like `app.terminal.signals.Stop`, but the process is somebody's own: it never ends it, and it leaves
handlers alone that somebody else has set.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from noisewise.app.terminal.stderr import tell


class Interrupt:
    """While open, turns the first interrupt into a flag; a second one raises at once.

    Example:
        >>> import os, signal
        >>> with Interrupt() as interrupt:
        ...     os.kill(os.getpid(), signal.SIGINT)
        ...     interrupt()
        True
    """

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._asked = self._is_set = False

    def __call__(self) -> bool:
        """Whether somebody interrupted."""
        return self._asked

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)
            self._is_set = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_set:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_set = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt("stopped at once; what was saved before is kept")
        self._asked = True
        try:
            tell("Stopping: this step is finished and saved first. Interrupt again to stop now.")
        except RuntimeError:  # it came in the middle of another line
            pass
