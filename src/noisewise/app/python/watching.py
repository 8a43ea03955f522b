"""What a verb called from Python shows while it works, and what an interrupt does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from noisewise.app.python.interrupt import Interrupt
from noisewise.app.python.notebook import NotebookProgress, in_notebook
from noisewise.app.sinks.sending import logging_to
from noisewise.app.sinks.sink import Sink
from noisewise.app.terminal.answer import leads
from noisewise.app.terminal.notices import told
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.stderr import Steady
from noisewise.training.callbacks import OnFile, OnRecord, Stop
from noisewise.training.run.run import Run
from noisewise.training.settings.budget import Budget
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import StageName


@dataclass(frozen=True)
class Watch:
    """The callbacks of one call.

    Attributes:
        on_record: shows a record, sends it to a log sink, and calls the caller's function.
        on_file: shows how many files are read; an interrupt ends reading.
        stop: whether to stop: an interrupt, or the caller's function.
        interrupted: whether somebody interrupted.
        progress: what is shown.
    """

    on_record: OnRecord
    on_file: OnFile
    stop: Stop
    interrupted: Callable[[], bool]
    progress: Progress


@contextmanager
def watching(
    folder: Path,
    budget: Budget,
    progress: bool | None = None,
    on_record: OnRecord | None = None,
    on_file: OnFile | None = None,
    stop: Stop | None = None,
    log_to: str | Sink | None = None,
    reads_pictures: bool = True,
) -> Iterator[Watch]:
    """Open a display for one stage of training, and close it at the end.

    Args:
        folder: of the run.
        budget: of the stage.
        progress: see `display`.
        on_record: the caller's.
        on_file: the caller's.
        stop: the caller's.
        log_to: a log sink by name, or one of your own; None: none.
        reads_pictures: whether to say first how the pictures were read.

    Raises:
        ValueError: if the sink is unknown or its package is missing.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(logging_to(log_to, folder, lambda text: shown.note(text)))
        interrupt = stack.enter_context(Interrupt())
        shown = stack.enter_context(display(progress, budget))
        tell = told(shown, folder) if reads_pictures else shown.update

        def take(record: Record) -> None:
            tell(record)
            sink(record)
            if on_record is not None:
                on_record(record)

        def count(done: int, total: int) -> None:
            if interrupt():
                raise KeyboardInterrupt("stopped while reading; nothing was trained yet")
            shown.count(done, total)
            if on_file is not None:
                on_file(done, total)

        def stops() -> bool:
            return interrupt() or (stop is not None and stop())

        yield Watch(take, count, stops, interrupt, shown)


def display(progress: bool | None, budget: Budget | None = None) -> Progress:
    """What is shown while something long runs.

    Args:
        progress: False: nothing. True: a bar, or lines where there is no terminal. None: a bar in
            a notebook and on a terminal, nothing elsewhere.
        budget: of the stage; None: it has none.
    """
    kind: type[Progress] = NotebookProgress if in_notebook() else Progress
    stream = None
    wanted = in_notebook() or Steady(sys.stderr).isatty() if progress is None else progress
    if not wanted or not leads():
        kind, stream = Progress, Steady(None)
    seconds, images = (None, None) if budget is None else (budget.seconds, budget.images)
    return kind(stream, seconds=seconds, images=images)  # pyrefly: ignore[bad-argument-type]


def resume_or_go_on(watch: Watch, run: Run, stage: StageName, call: str) -> None:
    """Raise after an interrupt, so that the next line of a program does not use half a model.

    Args:
        watch: of the call, which has saved what it had.
        run: as training left it.
        stage: that was trained.
        call: as the caller can write it again.

    Raises:
        KeyboardInterrupt: if somebody interrupted before the stage was finished.
    """
    found = run.stage(stage)
    if watch.interrupted() and (found.stopped or not found.finished):
        raise KeyboardInterrupt(f"saved at step {found.steps:,}; to resume, call again: {call}")
