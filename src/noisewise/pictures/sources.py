"""List the files of a folder or a zip in a fixed order, and say which are skipped and why.

Nothing here decodes a picture. A listing follows each link once, never opens pipes or devices, and
never unpacks a zip on disk. Every skipped file has a code from the list below, for programs, and a
reason, for people.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

EMPTY = "empty"
TRUNCATED = "truncated"
DAMAGED = "damaged"
NOT_PICTURE = "not_picture"
OTHER_FILE = "other_file"
TOO_LARGE = "too_large"
TOO_SMALL = "too_small"
HIDDEN = "hidden"
BROKEN_LINK = "broken_link"
ALREADY_READ = "already_read"
NOT_REGULAR = "not_regular"
UNREADABLE = "unreadable"
PASSWORD = "password"
UNSUPPORTED = "unsupported"
NOT_FINITE = "not_finite"

REASONS = {
    EMPTY: "empty",
    TRUNCATED: "truncated",
    DAMAGED: "damaged",
    NOT_PICTURE: "not a picture despite the name",
    OTHER_FILE: "not a picture",
    TOO_LARGE: "too large",
    TOO_SMALL: "too small",
    HIDDEN: "hidden or made by the system",
    BROKEN_LINK: "broken link",
    ALREADY_READ: "already read through another link",
    NOT_REGULAR: "not a regular file",
    UNREADABLE: "unreadable",
    PASSWORD: "password-protected",
    UNSUPPORTED: "in an unsupported format",
    NOT_FINITE: "with NaN or infinite values",
}
"""The reason of each code, for people; a count stands before it ("3 too small")."""

HARMLESS = frozenset({HIDDEN, OTHER_FILE, ALREADY_READ, NOT_REGULAR})
"""Codes of files that were never meant as pictures: no sign of a damaged set."""

_OLD_TEXTS = {
    "empty file": EMPTY,
    "not an image": NOT_PICTURE,
    "other file": OTHER_FILE,
    "too large": TOO_LARGE,
    "too small": TOO_SMALL,
    "hidden or system file": HIDDEN,
    "broken link": BROKEN_LINK,
    "folder already read through another link": ALREADY_READ,
    "not a regular file": NOT_REGULAR,
    "password-protected": PASSWORD,
    "unsupported kind of image": UNSUPPORTED,
    "values that are not finite": NOT_FINITE,
}  # older versions stored these texts in run.json and in caches, where now the code is

MAX_FILE_BYTES = 512 * 2**20
_SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})


@dataclass(frozen=True)
class Skipped:
    """A file that is not used.

    Attributes:
        name: its path below the source, with forward slashes.
        code: why, for programs: one of the codes above.
        reason: why, for people.

    Example:
        >>> Skipped("a.png", TOO_SMALL)
        Skipped(name='a.png', code='too_small', reason='too small')
    """

    name: str
    code: str
    reason: str = field(init=False)

    def __post_init__(self) -> None:
        """Look the reason up; a code of a newer version is its own reason."""
        object.__setattr__(self, "reason", REASONS.get(self.code, self.code))


@dataclass(frozen=True)
class Entry:
    """A file that may be a picture; `name` is its path below the source, with forward slashes."""

    name: str
    num_bytes: int
    mtime_ns: int
    locator: str | zipfile.ZipInfo = field(repr=False)


@dataclass(frozen=True)
class Source:
    """A listed folder or zip: its entries sorted by name, and the files already skipped."""

    path: Path
    kind: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    archive: zipfile.ZipFile | None = None

    def open(self, entry: Entry) -> BinaryIO:
        """Open one entry for reading in binary; a file in a zip is read into memory."""
        if isinstance(entry.locator, str):
            return open(entry.locator, "rb")
        assert self.archive is not None
        with self.archive.open(entry.locator) as member:
            # Read only the listed length: the file may be longer than the zip says.
            return io.BytesIO(member.read(entry.num_bytes))

    def open_bytes(self, entry: Entry) -> int:
        """Bytes of memory that an entry takes while it is open."""
        return 0 if isinstance(entry.locator, str) else entry.num_bytes


def code_of(stored: str) -> str:
    """Return the code that a file holds; older files hold a text in its place.

    Example:
        >>> code_of("too_small"), code_of("folder already read through another link")
        ('too_small', 'already_read')
    """
    return _OLD_TEXTS.get(stored, stored)


def read_skipped(item: Mapping[str, str]) -> Skipped:
    """Read a skipped file from run.json; runs of older versions have no code.

    Example:
        >>> read_skipped({"name": "a.png", "reason": "empty file"}).code
        'empty'
    """
    return Skipped(item["name"], code_of(item.get("code", item["reason"])))


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
        ValueError: if the file cannot be read as a zip.
    """
    if path.is_dir():
        yield _list_folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises almost anything on a damaged table of contents
        raise ValueError(
            f"{printable(str(path))} cannot be read as a zip ({error}): "
            "download it again, or give the unpacked folder."
        ) from error
    with archive:
        yield _list_zip(path, archive)


def class_labels(names: list[str]) -> tuple[list[int] | None, list[str], list[str]]:
    """Read class labels from folder names: the first folder that differs is the class.

    Leading folders that all pictures share are ignored, and so are train and test folders. There
    are no labels if a picture is outside the class folders, if there is only one class, or if the
    folders hold fewer than four pictures on average (one folder per person or per day).

    Args:
        names: paths below the source, with forward slashes.

    Returns:
        One label per picture (or None), the class names in sorted order, and notes.

    Example:
        >>> class_labels([f"pets/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)])
        ([0, 0, 0, 0, 1, 1, 1, 1], ['cat', 'dog'], [])
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    notes: list[str] = []
    folders = _strip_shared(folders)
    tops = {parts[0].lower() if parts else "" for parts in folders}
    if len(tops) > 1 and tops <= _SPLIT_NAMES:
        notes.append(f"the folders {', '.join(sorted(tops))} are used as one set")
        folders = _strip_shared([parts[1:] for parts in folders])
    loose = sum(not parts for parts in folders)
    classes = sorted({parts[0] for parts in folders if parts})
    if loose or len(classes) < 2:
        if classes and loose:
            notes.append(f"no classes: {loose} pictures are outside the subfolders")
        return None, [], notes
    if len(names) < 4 * len(classes):
        notes.append(
            f"no classes: the {len(classes)} subfolders hold fewer than 4 pictures on average"
        )
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
    # Names that are not UTF-8 arrive with lone surrogates, which cannot be written or printed.
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
                # Real folders before links, so that pictures get their real names.
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
        # On Windows only os.stat() gives the inode.
        identity = _identity(os.stat(item.path))
        if identity in seen:
            return Skipped(name, ALREADY_READ)
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
