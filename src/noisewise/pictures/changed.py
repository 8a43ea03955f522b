"""Refuses pictures that somebody changes while they are read.

A run would learn from a mixture that no later call finds again, and could not be resumed.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if TYPE_CHECKING:
    from noisewise.pictures.sources import Entry

T = TypeVar("T")


class ChangedError(ValueError):
    """A file has changed while it was read."""


def refuse_changed(entry: Entry, file: BinaryIO) -> None:
    """Refuse a file of a folder that is no longer the one that was listed.

    An earlier time is no change: some file systems round the times of new files down.

    Raises:
        ChangedError: if it has another length or was written later.
    """
    if os.name == "nt":  # there a list of a folder may show lengths and times of before
        return
    try:
        now = os.stat(str(entry.locator) if file.closed else file.fileno())
    except FileNotFoundError:  # it was read before it vanished
        return
    if now.st_size != entry.num_bytes or now.st_mtime_ns > entry.mtime_ns:
        raise _changed(entry.name)


def unchanged(items: Generator[T], path: Path, before: os.stat_result) -> Generator[T]:
    """Yield the items that are read from a file; at the end, refuse it if it has changed.

    Args:
        items: what is read.
        path: the file.
        before: what the system said of it before.

    Raises:
        ChangedError: if it is no longer the same file.
    """
    yield from items
    if _is_another(path, before):
        raise _changed(path.name)


@contextmanager
def blamed_on_change(path: Path) -> Generator[None]:
    """While a file is read: if it changes, that is the reason of what looks damaged in it.

    Raises:
        ChangedError: in place of another ValueError, if the path is a file that has changed.
    """
    before = path.stat() if path.is_file() else None
    try:
        yield
    except ValueError as error:
        if before is None or not _is_another(path, before):
            raise
        raise _changed(path.name) from error


def _is_another(path: Path, before: os.stat_result) -> bool:
    try:
        now = path.stat()
    except OSError:  # it has vanished
        return True
    facts = (before.st_size, before.st_mtime_ns, before.st_ino, before.st_dev)
    return facts != (now.st_size, now.st_mtime_ns, now.st_ino, now.st_dev)


def _changed(name: str) -> ChangedError:
    return ChangedError(
        f"{name!r} has changed while it was read: wait until nothing writes to the pictures, then "
        "run the same command again."
    )
