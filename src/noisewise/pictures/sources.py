"""Where pictures are: a folder or a zip, listed in a fixed order, with what is left out and why.

Nothing here decodes a picture. A listing follows links once, never opens pipes or devices, never
unpacks a zip on disk, and gives every file left out a reason from the short list below.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

EMPTY = "empty file"
TRUNCATED = "truncated"
DAMAGED = "damaged"
NOT_IMAGE = "not an image"
OTHER_FILE = "other file"
TOO_LARGE = "too large"
TOO_SMALL = "too small"
HIDDEN = "hidden or system file"
BROKEN_LINK = "broken link"
SEEN_BEFORE = "folder already read through another link"
NOT_REGULAR = "not a regular file"
UNREADABLE = "unreadable"
PASSWORD = "password-protected"
UNSUPPORTED = "unsupported kind of image"
NOT_FINITE = "values that are not finite"

HARMLESS = frozenset({HIDDEN, OTHER_FILE, SEEN_BEFORE, NOT_REGULAR})
"""Reasons that say nothing about the pictures: such files were never meant to be read."""

MAX_FILE_BYTES = 512 * 2**20
_SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})


@dataclass(frozen=True)
class Skipped:
    """A file that was left out: its name below the source, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A file that may hold a picture; `name` is relative, with forward slashes."""

    name: str
    num_bytes: int
    mtime_ns: int
    locator: str | zipfile.ZipInfo = field(repr=False)


@dataclass(frozen=True)
class Source:
    """A listed folder or zip: entries in sorted order, and what was left out already."""

    path: Path
    kind: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    archive: zipfile.ZipFile | None = None

    def open(self, entry: Entry) -> BinaryIO:
        """Open one entry for reading in binary; a zip's member is read into memory."""
        if isinstance(entry.locator, str):
            return open(entry.locator, "rb")
        assert self.archive is not None
        with self.archive.open(entry.locator) as member:
            # Never more than was listed: a member that lies about its length is not unpacked whole.
            return io.BytesIO(member.read(entry.num_bytes))

    def held_bytes(self, entry: Entry) -> int:
        """Bytes of memory that an opened entry takes by itself."""
        return 0 if isinstance(entry.locator, str) else entry.num_bytes


def printable(name: str) -> str:
    r"""Return a name that any terminal prints on one line.

    Example:
        >>> printable("two\nlines")
        'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


@contextmanager
def open_source(path: Path) -> Generator[Source]:
    """List a folder or a zip file; the zip stays open inside the `with` block.

    Raises:
        ValueError: if the file is no zip that can be read.
    """
    if path.is_dir():
        yield _list_folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises almost anything on a damaged table of contents
        raise ValueError(
            f"{printable(str(path))} is not a zip that can be read ({error}): "
            "download it again, or give the unpacked folder."
        ) from error
    with archive:
        yield _list_zip(path, archive)


def class_labels(names: list[str]) -> tuple[list[int] | None, list[str], list[str]]:
    """Read class labels from folder names: the first folder that differs names the class.

    Leading folders that all pictures share, and a split into train and test, are stepped over.
    There are no labels when a picture lies beside the class folders, when there is one class only,
    or when the folders hold fewer than four pictures on average (a folder a person or a day).

    Args:
        names: relative names with forward slashes.

    Returns:
        One label a picture (or None), the class names in sorted order, and notes.

    Example:
        >>> class_labels([f"pets/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)])
        ([0, 0, 0, 0, 1, 1, 1, 1], ['cat', 'dog'], [])
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    notes: list[str] = []
    folders = _strip_shared(folders)
    tops = {parts[0].lower() if parts else "" for parts in folders}
    if len(tops) > 1 and tops <= _SPLIT_NAMES:
        notes.append(f"the folders {', '.join(sorted(tops))} were read together")
        folders = _strip_shared([parts[1:] for parts in folders])
    loose = sum(not parts for parts in folders)
    classes = sorted({parts[0] for parts in folders if parts})
    if loose or len(classes) < 2:
        if classes and loose:
            notes.append(f"no classes: {loose} pictures lie beside the subfolders")
        return None, [], notes
    if len(names) < 4 * len(classes):
        notes.append(f"no classes: {len(classes)} subfolders hold fewer than 4 pictures each")
        return None, [], notes
    index = {name: label for label, name in enumerate(classes)}
    return [index[parts[0]] for parts in folders], classes, notes


def _strip_shared(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while folders and all(folders) and len({parts[0] for parts in folders}) == 1:
        folders = [parts[1:] for parts in folders]
    return folders


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in _SYSTEM_NAMES


def _clean(name: str) -> str:
    # Names that are not UTF-8 reach us with lone surrogates, which no file or terminal takes.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _list_folder(root: Path) -> Source:
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    seen = {_identity(root.stat())}
    pending = [(str(root), "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as scan:
                # Real folders before links: the name kept is then the real one.
                items = sorted(scan, key=lambda item: (item.is_symlink(), item.name))
        except OSError:
            skipped.append(Skipped(prefix.rstrip("/") or ".", UNREADABLE))
            continue
        below: list[tuple[str, str]] = []
        for item in items:
            found = _visit(item, prefix, seen)
            if isinstance(found, Entry):
                entries.append(found)
            elif isinstance(found, Skipped):
                skipped.append(found)
            else:
                below.append(found)
        pending.extend(reversed(below))
    entries.sort(key=lambda entry: entry.name)
    skipped.sort(key=lambda item: item.name)
    return Source(root, "folder", tuple(entries), tuple(skipped))


def _visit(
    item: os.DirEntry[str], prefix: str, seen: set[tuple[int, int]]
) -> Entry | Skipped | tuple[str, str]:
    name = prefix + _clean(item.name)
    if _is_hidden(item.name):
        return Skipped(name, HIDDEN)
    try:
        status = item.stat()
    except OSError:  # a link to nothing, or to itself
        return Skipped(name, BROKEN_LINK if item.is_symlink() else UNREADABLE)
    if stat.S_ISDIR(status.st_mode):
        # item.stat() has no inode on Windows, os.stat() does.
        identity = _identity(os.stat(item.path))
        if identity in seen:
            return Skipped(name, SEEN_BEFORE)
        seen.add(identity)
        return item.path, name + "/"
    if not stat.S_ISREG(status.st_mode):
        return Skipped(name, NOT_REGULAR)
    return _by_length(Entry(name, status.st_size, status.st_mtime_ns, item.path))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _by_length(entry: Entry) -> Entry | Skipped:
    if entry.num_bytes == 0:
        return Skipped(entry.name, EMPTY)
    if entry.num_bytes > MAX_FILE_BYTES:
        return Skipped(entry.name, TOO_LARGE)
    return entry


def _list_zip(path: Path, archive: zipfile.ZipFile) -> Source:
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    for info in archive.infolist():
        name = _clean(info.filename.replace("\\", "/")).lstrip("/")
        if info.is_dir() or not name:
            continue
        when = int("".join(f"{part:02d}" for part in info.date_time))
        found = _by_length(Entry(name, info.file_size, when, info))
        if any(_is_hidden(part) for part in name.split("/") if part not in ("", ".", "..")):
            found = Skipped(name, HIDDEN)
        elif info.flag_bits & 1:
            found = Skipped(name, PASSWORD)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            skipped.append(found)
    entries.sort(key=lambda entry: entry.name)
    return Source(path, "zip", tuple(entries), tuple(skipped), archive)
