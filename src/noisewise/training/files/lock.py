"""The lock of a run folder, and the removal of files that killed or refused calls leave there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from noisewise.plain_files import open_plain
from noisewise.training.files.run_folder import IGNORED, LOCAL, is_run
from noisewise.training.files.run_parts import check_run

_NAME = ".lock"
_LONGEST = 20  # characters of a lock: the number of a process
_PARTS = ("", "checkpoints", "checkpoints/best-*", "samples", "teacher", "generator")
_TEMPORARY = (".*.tmp", ".tmp??????")  # our names, and those that safetensors makes
_OTHERS = (".report.",)  # temporary files of commands that do not take the lock
_OUR_FILES = ("run.json", "cache", _NAME, LOCAL, IGNORED)
# Left if a process is killed while it writes the first files.
_FIRST_WRITE = re.compile(r"\.(run\.json|local\.json|\.gitignore)\.\d+\.tmp")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a folder for one process, and remove temporary files of killed processes.

    The folder is made if needed. The system releases the lock when the process ends, also when it
    is killed.

    Raises:
        ValueError: if another process trains there, the file system has no locks, or a part of the
            folder is a link.
        OSError: if the folder cannot be written.
    """
    check_run(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no fcntl; there the folder is not locked
        yield
        return
    with open_plain(path / _NAME, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process{_number(file)} is training in {path}; wait for it or stop it"
            ) from None
        except OSError as error:  # some network file systems have no locks
            raise ValueError(
                f"{path} cannot be locked against a second process ({error.strerror}); choose a "
                "folder on a file system with locks, for example on a disk of this machine"
            ) from error
        _check_lock(file, path / _NAME)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        sweep(path)
        yield


def sweep(path: Path) -> int:
    """Remove temporary files of killed processes; return their number.

    Call it with the lock held, so that no other process is writing.
    """
    removed = 0
    for part in _PARTS:
        folder = f"{part}/" if part else ""
        for pattern in _TEMPORARY:
            for left in path.glob(f"{folder}{pattern}"):
                if not left.name.startswith(_OTHERS):
                    left.unlink(missing_ok=True)
                    removed += 1
    return removed


def is_our_file(name: str) -> bool:
    """Whether a file of this name is from noisewise, so the folder may become a run.

    Example:
        >>> is_our_file("cache"), is_our_file("thesis.tex")
        (True, False)
    """
    return name in _OUR_FILES or _FIRST_WRITE.fullmatch(name) is not None


class FolderSnapshot:
    """The files in a run folder before a call; a refused call removes those that it added.

    Args:
        path: the folder; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        """List the files."""
        self._path = path
        self._there = set(self._ours())
        self._parents = [one for one in path.absolute().parents if not one.exists()]

    def remove_new_files(self) -> None:
        """Remove the cache, the lock and the folder if they are new; keep everything older.

        The lock of an existing run stays.
        """
        was_begun = is_run(self._path)
        for new in (*self._ours(), *self._parents):
            if new in self._there or (was_begun and new.name == _NAME):
                continue
            with suppress(OSError):  # missing or not empty; the reason of the refusal matters more
                new.rmdir() if new.is_dir() else new.unlink()

    def _ours(self) -> list[Path]:
        """What a call may create before there is a run, the innermost first."""
        cache = self._path / "cache"
        kept = sorted(cache.iterdir()) if cache.is_dir() else []
        whole = [path for path in kept if not path.name.startswith(".")]  # others are being written
        found = [*whole, cache, self._path / _NAME]
        return [path for path in (*found, self._path) if path.exists()]


def _check_lock(file: IO[str], path: Path) -> None:
    """Refuse to empty a file that is no lock: two names may be of one file (a hard link)."""
    file.seek(0)
    text = file.read(_LONGEST + 1).strip()
    if text and not text.isdigit():
        raise ValueError(f"{path} is no lock of noisewise, but holds something else; move it away")


def _number(file: IO[str]) -> str:
    """Number of the process that holds the lock, from the lock file."""
    file.seek(0)
    text = file.read(_LONGEST).strip()
    return f" (number {text})" if text.isdigit() else ""
