"""Lines for people on stderr: that nobody can read them any more is no reason to stop.

A training of a night outlives its terminal, the other end of its pipe and the room on the disk that
its stderr was redirected to.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class Steady(io.TextIOBase):
    """A text stream that goes on, in silence, when the one behind it takes no more.

    Args:
        stream: where to write; None: nowhere (a process may be started without a stderr).

    Example:
        >>> import os
        >>> reading, writing = os.pipe()
        >>> os.close(reading)
        >>> with os.fdopen(writing, "w") as broken:
        ...     print("nobody reads this", file=Steady(broken), flush=True)
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyrefly: ignore[bad-override] (rich asks for it)
        """That of the stream behind."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal, and still there."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Number of the stream behind; OSError when there is none."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no stream any more")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, or do not."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeError:
            self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, or do not."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        """Write nothing more; what waits in buffers goes nowhere instead of failing at the end."""
        stream, self._stream = self._stream, None
        if stream is None or isinstance(error, ValueError):  # closed by somebody: nothing waits
            return
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def tell(text: str) -> None:
    """Write a line on stderr, if anybody can be told."""
    print(text, file=Steady(sys.stderr), flush=True)


def readable(text: str) -> str:
    r"""Text that any UTF-8 stream takes: bytes of names that are not UTF-8 are written as escapes.

    JSON that is passed through this says the same as before.

    Example:
        >>> readable("caf\udce9")
        'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
