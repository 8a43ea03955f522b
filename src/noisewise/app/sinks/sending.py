"""Sends the records of a run to a log sink while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from noisewise.app.sinks.listing import sink_named
from noisewise.app.sinks.sent import Sent
from noisewise.app.sinks.sink import Guarded, Sink
from noisewise.training.stages.record import Record


@contextmanager
def logging_to(
    log_to: str | Sink | None, folder: Path, tell: Callable[[str], object]
) -> Iterator[Callable[[Record], None]]:
    """Yield what takes the records of a run, and close the sink at the end.

    Args:
        log_to: name of a sink in `listing`, or a sink of your own; None: records go nowhere.
        folder: of the run.
        tell: shows a line to people, if the sink fails.

    Raises:
        ValueError: if there is no such sink, or its package is missing.
    """
    if log_to is None:
        yield lambda _: None
        return
    if isinstance(log_to, str):
        chosen = sink_named(log_to)
        name = chosen.name
        run_name = folder.resolve().name

        def start(mark: str) -> tuple[Sink, str]:
            return chosen.start(folder, run_name, mark)
    else:
        given, name = log_to, type(log_to).__name__

        def start(mark: str) -> tuple[Sink, str]:
            return given, mark

    guarded = Guarded(name, start, Sent(folder, name), tell)
    try:
        yield guarded
    finally:
        guarded.close()


def both(
    first: Callable[[Record], object], second: Callable[[Record], object]
) -> Callable[[Record], None]:
    """Return what calls one after the other.

    Example:
        >>> seen = []
        >>> both(seen.append, seen.append)(Record("teacher", 1, 32, 0.5))
        >>> len(seen)
        2
    """

    def take(record: Record) -> None:
        first(record)
        second(record)

    return take
