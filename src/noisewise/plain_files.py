"""Opens files in folders that may come from somebody else: real files only, of a bounded size.

A folder that was sent by somebody else can hold a link in place of a file, and what is written or
removed there would then be written or removed elsewhere; a pipe or a device in place of a file
never ends. So parts of a run are opened here: no link is followed, and a file is a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Literal, TextIO, overload

Mode = Literal["rb", "a", "a+"]

MOST_TEXT = 2**28  # bytes of a JSON file or a log that are read
MOST_PIXELS_FILE = 2**27  # bytes of a sheet
MOST_TENSORS = 2**38  # bytes of a file of tensors
_DEEPEST = 4  # folders inside a part: checkpoints/best-teacher is the deepest of ours

_FLAGS: dict[Mode, int] = {
    "rb": os.O_RDONLY,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
}
_SAFE = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would wait for ever
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class NotPlainError(ValueError):
    """A file or folder is a link, something special, of another type, or too large."""


@overload
def open_plain(path: Path, mode: Literal["rb"] = "rb", most: int = ...) -> BufferedReader: ...


@overload
def open_plain(path: Path, mode: Literal["a", "a+"], most: int = ...) -> TextIO: ...


def open_plain(path: Path, mode: Mode = "rb", most: int = MOST_TENSORS) -> BufferedReader | TextIO:
    """Open a real file; "a" and "a+" make it if it is missing, as UTF-8 text.

    Args:
        path: the file; its folder is trusted, see `check_parts`.
        mode: "rb", "a" or "a+".
        most: bytes that the file may have.

    Raises:
        NotPlainError: if it is a link, a folder, a pipe or a device, or too large.
        OSError: if it is missing, or cannot be opened now.

    Example:
        >>> open_plain(Path(os.devnull))
        Traceback (most recent call last):
        ...
        noisewise.plain_files.NotPlainError: /dev/null is not a file; remove it
    """
    try:
        _check_file(path, os.lstat(path), most)
    except FileNotFoundError:
        if not _FLAGS[mode] & os.O_CREAT:
            raise
    handle = os.open(path, _FLAGS[mode] | _SAFE, 0o666)
    try:
        _check_file(path, os.fstat(handle), most)  # it may have been replaced since
        if mode == "rb":
            return os.fdopen(handle, mode)
        return os.fdopen(handle, mode, encoding="utf-8", errors="backslashreplace")
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: Path, most: int = MOST_TEXT) -> bytes:
    """Read a whole real file.

    Raises:
        NotPlainError, OSError: as `open_plain` does.
    """
    with open_plain(path, "rb", most) as file:
        # Python takes as much memory as it is asked for before it reads.
        return file.read(os.fstat(file.fileno()).st_size)


def check_parts(folder: Path, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Refuse a folder whose named parts, or what lies in them, are links or something special.

    The folder itself may be a link. Parts may be missing. Other names are not looked at.

    Args:
        folder: the folder; it may not exist.
        files: names of parts that are files.
        folders: names of parts that are folders; they are looked through.

    Raises:
        NotPlainError: at the first such part.
        OSError: if a folder cannot be listed.

    Example:
        >>> check_parts(Path("/dev"), files=["null"])
        Traceback (most recent call last):
        ...
        noisewise.plain_files.NotPlainError: /dev/null is not a file; remove it
    """
    for name in files:
        if (found := _found(folder / name)) is not None:
            _check_file(folder / name, found)
    for name in folders:
        if (found := _found(folder / name)) is not None:
            check_folder(folder / name, found)
            _check_inside(folder / name, _DEEPEST)


def check_folder(path: Path, found: os.stat_result | None = None) -> None:
    """Refuse a link, or something else, in the place of a folder; it may be missing.

    Raises:
        NotPlainError: if there is something else.
    """
    found = _found(path) if found is None else found
    if found is None:
        return
    _check_link(path, found)
    if not stat.S_ISDIR(found.st_mode):
        raise NotPlainError(f"{path} is not a folder; remove it")


def _found(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_file(path: Path, found: os.stat_result, most: int | None = None) -> None:
    _check_link(path, found)
    if stat.S_ISDIR(found.st_mode):
        raise NotPlainError(f"{path} is a folder where a file belongs; remove it")
    if not stat.S_ISREG(found.st_mode):
        raise NotPlainError(f"{path} is not a file; remove it")
    if most is not None and found.st_size > most:
        raise NotPlainError(
            f"{path} has {found.st_size:,} bytes, more than the {most:,} that such a file may "
            "have; remove it, or restore it from a copy"
        )


def _check_link(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise NotPlainError(
            f"{path} is a link, and what is written there would end up elsewhere; put the real "
            "file or folder in its place (the whole folder of a run may be a link)"
        )


def _check_inside(folder: Path, depth: int) -> None:
    """Refuse links and special files in a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if depth > 1:
                    _check_inside(Path(entry.path), depth - 1)
            elif entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                try:
                    _check_file(Path(entry.path), entry.stat(follow_symlinks=False))
                except FileNotFoundError:  # another process has just removed it
                    continue
