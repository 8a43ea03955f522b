"""Writes files whole or not at all: a reader sees the old file or the new one, also after a crash.

A file is written under another name in the same folder, synced to disk, then renamed, and the
folder is synced. The new file is locked until it has its name, so that whoever removes what killed
processes left can tell which files are still being written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def replacing(path: Path, start: str = "") -> Generator[Path]:
    """Give a place for the new content, and rename it over a file when the block ends well.

    Args:
        path: the file; its folder must exist.
        start: of the temporary name; "": a dot, the name and a number, ending in ".tmp".

    Raises:
        OSError: if it cannot be written; the old file then remains.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as new:
        ...         _ = new.write_text("whole")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    handle, new = _new_file(path, start)
    try:
        if os.name == "nt":  # Windows renames no open file, and has no locks of this kind
            os.close(handle)
        usual = stat.S_IMODE(new.stat().st_mode)
        yield new
        with new.open("r+b") as file:  # Windows cannot sync a file opened for reading
            os.fsync(file.fileno())
        if stat.S_IMODE(new.stat().st_mode) != usual:  # safetensors lets its owner alone read it
            new.chmod(usual)
        new.replace(path)
    except OSError as error:
        if error.filename is None:  # a write names no file, and people ask which disk is full
            error.filename = str(path)
        raise
    finally:
        new.unlink(missing_ok=True)
        if os.name != "nt":
            os.close(handle)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: if it cannot be written; the old file then remains.
    """
    with replacing(path) as new:
        new.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as UTF-8.

    Paths that are not UTF-8 contain lone surrogates. These are written as escapes, which JSON reads
    back correctly.

    Raises:
        OSError: if it cannot be written; the old file then remains.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sync_folder(folder: Path) -> None:
    """Make a rename permanent; systems where a folder cannot be opened do this themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(handle: int, wait: bool = False) -> bool:
    """Lock an open file or folder; False if another process has it, or there are no locks.

    Args:
        handle: its number; the lock ends when it is closed, or with the process.
        wait: wait for the other process.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _new_file(path: Path, start: str) -> tuple[int, Path]:
    """A new, locked file beside another one; its rights are those of any new file."""
    while True:
        number = f"{os.getpid()}{int.from_bytes(os.urandom(4), 'big') % 10**6:06}"
        new = path.with_name(f"{start}{number}" if start else f".{path.name}.{number}.tmp")
        try:
            handle = os.open(new, _NEW, 0o666)
        except FileExistsError:
            continue
        take_lock(handle, wait=True)
        if new.exists():  # it was not swept before it was locked
            return handle, new
        os.close(handle)
