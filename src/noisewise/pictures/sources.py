"""A place with picture files: its entries, which files are skipped and why, and their classes.

Nothing here decodes a picture. Every skipped file has a code from the list below, for programs, and
a reason, for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import zipfile

EMPTY = "empty"
TRUNCATED = "truncated"
DAMAGED = "damaged"
NOT_PICTURE = "not_picture"
OTHER_FILE = "other_file"
TOO_LARGE = "too_large"
TOO_SMALL = "too_small"
SMALLER_THAN_CROPS = "smaller_than_crops"
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
    SMALLER_THAN_CROPS: "smaller than the crops",
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

HARMLESS = frozenset({HIDDEN, OTHER_FILE, ALREADY_READ, NOT_REGULAR, SMALLER_THAN_CROPS})
"""Codes of files that are no sign of a damaged set: most were never meant as pictures."""

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
    """A place with picture files, listed.

    Attributes:
        path: of the place.
        kind: name of the source type, such as "folder".
        entries: files that may be pictures, sorted by name.
        skipped: files that are not used.
        opener: opens one entry for reading in binary.
        in_memory: whether an open entry lies in memory as a whole.
    """

    path: Path
    kind: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    opener: Callable[[Entry], BinaryIO]
    in_memory: bool = False

    def open(self, entry: Entry) -> BinaryIO:
        """Open one entry for reading in binary."""
        return self.opener(entry)

    def open_bytes(self, entry: Entry) -> int:
        """Bytes of memory that an entry takes while it is open."""
        return entry.num_bytes if self.in_memory else 0


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


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by the system."""
    return part.startswith(".") or part.lower() in _SYSTEM_NAMES


def clean_name(name: str) -> str:
    """Return a name that can be written and printed."""
    # Names that are not UTF-8 arrive with lone surrogates, which cannot be written or printed.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def by_length(entry: Entry) -> Entry | Skipped:
    """Return the entry, or why its length rules it out."""
    if entry.num_bytes == 0:
        return Skipped(entry.name, EMPTY)
    if entry.num_bytes > MAX_FILE_BYTES:
        return Skipped(entry.name, TOO_LARGE)
    return entry
