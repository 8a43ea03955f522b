"""One process at a time in a run's folder, and no rubbish of the dead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_NAME = ".lock"
_PARTS = ("", "checkpoints", "checkpoints/best-*", "samples", "teacher", "generator")
_OTHERS = (".report.",)  # written by commands that need no lock
BEFORE_A_RUN = ("run.json", "cache", _NAME)
"""What may lie in a folder before run.json does."""
_FIRST_WRITE = re.compile(r"\.run\.json\.\d+\.tmp")  # what a kill leaves of run.json itself


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from training in this folder; sweep what killed ones left half written.

    The lock is the system's: it ends with the process, however that ends. The folder is made.

    Raises:
        ValueError: if another process trains there, or the file system has no locks.
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
        except BlockingIOError:
            raise ValueError(
                f"another process{_number(file)} is training in {path}; wait for it or stop it"
            ) from None
        except OSError as error:  # some network file systems know no locks
            raise ValueError(
                f"{path} cannot be locked against a second process ({error.strerror}); name a "
                "folder on a file system with locks, for example on a disk of this machine"
            ) from error
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


def lies_before_a_run(name: str) -> bool:
    """Whether a file of this name may lie in a folder that is to become a run: all are our own.

    Example:
        >>> lies_before_a_run("cache"), lies_before_a_run("thesis.tex")
        (True, False)
    """
    return name in BEFORE_A_RUN or _FIRST_WRITE.fullmatch(name) is not None


class Before:
    """What lay in a run's folder before a call: one that is refused leaves that, and nothing more.

    Args:
        path: the folder, there or not.
    """

    def __init__(self, path: Path) -> None:
        """Look."""
        self._path = path
        self._there = set(self._ours())

    def restore(self) -> None:
        """Remove cache, lock and folder as far as they are new; never what lay there before.

        Where a run came about (now or long ago), its lock stays.
        """
        is_run = (self._path / "run.json").exists()
        for new in self._ours():
            if new in self._there or (is_run and new.name == _NAME):
                continue
            with suppress(OSError):  # gone or not empty; why the call was refused matters more
                new.rmdir() if new.is_dir() else new.unlink()

    def _ours(self) -> list[Path]:
        """What a call may make before there is a run: the innermost first."""
        cache = self._path / "cache"
        kept = sorted(cache.iterdir()) if cache.is_dir() else []
        whole = [path for path in kept if not path.name.startswith(".")]  # others have a writer
        found = [*whole, cache, self._path / _NAME]
        return [path for path in (*found, self._path) if path.exists()]


def _number(file: IO[str]) -> str:
    """Number of the process that holds the lock, as it wrote it."""
    file.seek(0)
    text = file.read(20).strip()
    return f" (number {text})" if text.isdigit() else ""
