"""Lines for people on stderr: if they cannot be written, the program continues without them.

A long training outlives its terminal, the reader of its pipe, and the free space on the disk that
its stderr goes to.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from noisewise.plain_text import printable


class Steady(io.TextIOBase):
    """A text stream that keeps accepting text when the stream behind it fails.

    Args:
        stream: where to write; None: nowhere (a process may start without a stderr).

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
        """The encoding of the stream behind it."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal that is still open."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Number of the stream behind it; OSError if there is none."""
        if self._stream is None:
            raise io.UnsupportedOperation("the stream is gone")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except UnicodeError:
            self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written, if that is possible."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        """Write nothing more; text left in buffers is dropped instead of failing at the end."""
        stream, self._stream = self._stream, None
        if stream is None or isinstance(error, ValueError):  # closed by somebody: nothing is left
            return
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def tell(*lines: str) -> None:
    """Write lines on stderr, printable, if that is possible."""
    print("\n".join(map(printable, lines)), file=Steady(sys.stderr), flush=True)
