"""Progress in a notebook: one output that is replaced; without widgets, so that it shows anywhere.

IPython is there whenever a notebook is; it is no dependency.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from noisewise.app.terminal.duration import duration
from noisewise.app.terminal.progress import Progress

_SECONDS = 0.25  # between two changes of what is shown


def in_notebook() -> bool:
    """Whether this process answers a notebook: Jupyter, VS Code, Colab.

    Example:
        >>> in_notebook()
        False
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookProgress(Progress):
    """Shows the records of a run as they come, in the output of a cell."""

    def _new_bar(self) -> NotebookBar:
        return NotebookBar()


class NotebookBar:
    """A bar, a line of figures, and the notes so far; stands in the place of rich's bar."""

    def __init__(self) -> None:
        """Show it, empty."""
        from IPython.display import display

        self._notes: list[str] = []
        self._line = "starting"
        self._share: float | None = None
        self._when, self._began = 0.0, time.monotonic()
        self._shown: Any = display(self, display_id=True)

    def move(
        self,
        text: str,
        share: float | None,
        figures: Sequence[str] = (),
        left: float | None = None,
    ) -> None:
        """Show how far it is; what comes sooner than a quarter of a second later is left out."""
        more = [*figures, *([] if left is None else [f"{duration(left)} left"])]
        self._line, self._share = f"{text}: {', '.join(more)}" if more else text, share
        if time.monotonic() - self._when >= _SECONDS:
            self._show()

    def wait(self, text: str) -> None:
        """Show that something is done which has no known end."""
        self._line, self._share = text, None
        self._show()

    def note(self, text: str) -> None:
        """Add a note."""
        self._notes.append(text)
        self._show()

    def stop(self) -> None:
        """Show the end."""
        self._line, self._share = f"ended after {duration(time.monotonic() - self._began)}", 1.0
        self._show()

    def _show(self) -> None:
        self._when = time.monotonic()
        if self._shown is not None:
            self._shown.update(self)

    def __repr__(self) -> str:
        """The same as plain text."""
        share = "" if self._share is None else f"{100 * self._share:.0f}% "
        return "\n".join([*self._notes, f"{share}{self._line}"])

    def _repr_html_(self) -> str:
        value = "" if self._share is None else f' value="{self._share:.4f}"'
        notes = "".join(f"<div>{escape(note)}</div>" for note in self._notes)
        bar = f'<progress max="1"{value} aria-label="progress"></progress>'
        return f"<div>{notes}<div>{bar} {escape(self._line)}</div></div>"
