"""Says once, when the first pictures are drawn, how long the others take."""

from __future__ import annotations

import time
from collections.abc import Callable

from noisewise.app.terminal.duration import duration

_WORTH_A_LINE = 20.0  # seconds; less needs no warning


class Forecast:
    """Takes what a command reports while it draws, and writes one line for each way to draw.

    Args:
        note: writes a line.
        fewer: how to draw fewer pictures, such as "-n 500".
        clock: seconds on any steady clock; given by tests.

    Example:
        >>> times = iter([0.0, 3.0, 6.0])
        >>> forecast = Forecast(print, "-n 500", lambda: next(times))
        >>> for done in (0, 50, 100):
        ...     forecast.part("drawing", done, 2000)
        drawing 2,000 pictures takes about 2m on this machine; -n 500 would draw fewer
    """

    def __init__(
        self, note: Callable[[str], None], fewer: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note = note
        self._fewer = fewer
        self._clock = clock
        self._start: float | None = None

    def part(self, part: str, done: int, total: int) -> None:
        """Take what is being done now, and how much of it."""
        if part != "drawing":
            return
        if not done:
            self._start = self._clock()
        elif self._start is not None:
            seconds = (self._clock() - self._start) * total / done
            self._start = None
            if done < total and seconds >= _WORTH_A_LINE:
                self._note(
                    f"drawing {total:,} pictures takes about {duration(seconds)} on this machine; "
                    f"{self._fewer} would draw fewer"
                )
