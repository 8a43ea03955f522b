"""The bar on a terminal, drawn by rich: it always fits on one line, and shows the time left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from noisewise.app.terminal.duration import duration
from noisewise.app.terminal.stderr import Steady
from noisewise.plain_text import printable

if TYPE_CHECKING:
    from rich.progress import Task

_WIDE, _NARROW = 24, 12  # columns of the bar itself
_WIDE_TERMINAL = 80
_TIME = 11  # columns of "1h30m left" and a space
_SHARE = 5
_SURE = 2.0  # seconds after which the time left is a guess from the time passed


class AnyBar(Protocol):
    """What shows progress: a bar on a terminal, or one in a notebook."""

    def move(  # noqa: D102
        self,
        text: str,
        share: float | None,
        figures: Sequence[str] = (),
        left: float | None = None,
    ) -> None: ...
    def wait(self, text: str) -> None: ...  # noqa: D102
    def note(self, text: str) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102


class Bar:
    """A bar with what is done, its share, a few figures, and the time left or passed.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: Steady) -> None:
        """Show it, without a length yet."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column
        from rich.text import Text

        class Time(ProgressColumn):
            def render(self, task: Task) -> Text:
                left = task.fields["left"]
                return Text(duration(task.elapsed or 0.0) if left is None else left)

        class Share(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text("" if task.total is None else f"{task.percentage:>3.0f}%")

        console = Console(file=stream)  # pyrefly: ignore[bad-argument-type]
        width = _WIDE if console.width >= _WIDE_TERMINAL else _NARROW
        fixed = Column(no_wrap=True, min_width=width)
        self._room = width
        self._rich = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=width, table_column=fixed),
            Share(),
            TextColumn("{task.fields[figures]}", markup=False),
            Time(),
            console=console,
            refresh_per_second=4,
        )
        self._rich.add_task("starting", total=None, figures="", left=None)
        self._rich.start()

    def move(
        self,
        text: str,
        share: float | None,
        figures: Sequence[str] = (),
        left: float | None = None,
    ) -> None:
        """Show how far it is.

        Args:
            text: what is being done.
            share: of it that is done, 0 to 1; None: it has no known end.
            figures: as many of the last ones are shown as fit.
            left: seconds that it still takes, if known.
        """
        text = printable(text)
        task = self._task_of(text, share is not None)
        if left is None and share and task.elapsed and task.elapsed > _SURE:
            left = task.elapsed * (1 - share) / share
        room = self._rich.console.width - len(text) - self._room - _SHARE - _TIME - 4
        self._rich.update(
            task.id,
            completed=share or 0.0,
            figures=fitting(figures, room),
            left=None if left is None else f"{duration(left)} left",
        )

    def wait(self, text: str) -> None:
        """Show that something is done which has no known end, and since when."""
        self._task_of(printable(text), has_end=False)

    def _task_of(self, text: str, has_end: bool) -> Task:
        """The line for what is done now; a new thing begins at 0, with a time of its own."""
        task = self._rich.tasks[0]
        if task.description != text or (task.total is None) == has_end:
            self._rich.remove_task(task.id)
            total = 1.0 if has_end else None
            self._rich.add_task(text, total=total, figures="", left=None)
            task = self._rich.tasks[0]
        return task

    def note(self, text: str) -> None:
        """Write one line above it."""
        self._rich.console.print(text, markup=False, highlight=False, emoji=False)

    def stop(self) -> None:
        """Leave it as it is."""
        self._rich.stop()


def fitting(figures: Sequence[str], room: int) -> str:
    """The last figures that fit, in one text.

    Example:
        >>> fitting(["step 1,200", "loss 0.25", "3.1 floors"], 24)
        'loss 0.25, 3.1 floors'
        >>> fitting(["step 1,200"], 5)
        ''
    """
    for first in range(len(figures)):
        text = ", ".join(figures[first:])
        if len(text) <= room:
            return text
    return ""
