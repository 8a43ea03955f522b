"""One process at a time in a run's folder, and no rubbish of the dead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_NAME = ".lock"
_PARTS = ("", "checkpoints", "checkpoints/best-*", "samples", "teacher", "generator")
_OTHERS = (".report.",)  # written by commands that need no lock
BEFORE_A_RUN = ("run.json", "cache", _NAME)
"""What may lie in a folder before run.json does."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from training in this folder; sweep what killed ones left half written.

    The lock is the system's: it ends with the process, however that ends. The folder is made.

    Raises:
        ValueError: if another process trains there.
        OSError: if the folder cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # not on Windows; there the folder is not guarded
        yield
        return
    with (path / _NAME).open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another process{_number(file)} is training in {path}; wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        sweep(path)
        yield


def sweep(path: Path) -> int:
    """Remove the temporary files of processes that died while they wrote; returns how many.

    Call it with the lock held: then nobody is writing.
    """
    removed = 0
    for part in _PARTS:
        for left in path.glob(f"{part}/.*.tmp" if part else ".*.tmp"):
            if not left.name.startswith(_OTHERS):
                left.unlink(missing_ok=True)
                removed += 1
    return removed


def remove_if_no_run(path: Path) -> None:
    """Remove a folder of ours in which no run came about: it holds a cache at most."""
    if path.is_dir() and all(p.name in BEFORE_A_RUN[1:] for p in path.iterdir()):
        shutil.rmtree(path)


def _number(file: IO[str]) -> str:
    """Number of the process that holds the lock, as it wrote it."""
    file.seek(0)
    text = file.read(20).strip()
    return f" (number {text})" if text.isdigit() else ""
