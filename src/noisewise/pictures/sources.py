"""A place with picture files: its entries, and which files are skipped and why.

Nothing here decodes a picture. Every skipped file has a code from the list below, for programs, and
a reason, for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from noisewise.pictures.picture_names import claims_picture

if TYPE_CHECKING:
    import os
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
INVISIBLE = "invisible"
OWN = "made_by_noisewise"

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
    INVISIBLE: "invisible: alpha is 0 everywhere, or nearly",
    OWN: "made by noisewise",
}
"""The reason of each code, for people; a count stands before it ("3 too small")."""

HARMLESS = frozenset({HIDDEN, OTHER_FILE, ALREADY_READ, NOT_REGULAR, SMALLER_THAN_CROPS, OWN})
"""Codes of files that are no sign of a damaged set: most were never meant as pictures."""

_NOT_OPENED = frozenset({EMPTY, UNREADABLE, PASSWORD, BROKEN_LINK})

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
    """A file that may be a picture, or a page of one that has several.

    Attributes:
        name: its path below the source, with forward slashes; of a page, and its number from 1
            ("stack.tif#3").
        num_bytes: of the file.
        mtime_ns: when the file was changed.
        locator: where the file is.
        page: place of the page inside the file (see `pages`); 0: the file is one picture.
    """

    name: str
    num_bytes: int
    mtime_ns: int
    locator: str | zipfile.ZipInfo = field(repr=False)
    page: int = field(default=0, repr=False)

    @property
    def file_name(self) -> str:
        """The path of the file below the source."""
        return self.name.rpartition("#")[0] if self.page else self.name

    @property
    def stack(self) -> str:
        """The file of which it is one page of several, or ""."""
        return self.file_name if self.page else ""

    def pages(self, offsets: Sequence[int]) -> list[Entry]:
        """The pages of this file."""
        return [
            replace(self, name=f"{self.name}#{number}", page=offset)
            for number, offset in enumerate(offsets, start=1)
        ]


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
        status: what the system said of a file with all entries when it was opened; None: a folder.
    """

    path: Path
    kind: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    opener: Callable[[Entry], BinaryIO]
    in_memory: bool = False
    status: os.stat_result | None = None

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


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by the system."""
    return part.startswith(".") or part.lower() in _SYSTEM_NAMES


def clean_name(name: str) -> str:
    """Return a name that can be written and printed."""
    # Names that are not UTF-8 arrive with lone surrogates, which cannot be written or printed.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def by_length(entry: Entry) -> Entry | Skipped:
    """Return the entry, or why its length rules it out.

    Empty and huge files that are not named as pictures are other files: labels, captions, films.
    """
    if 0 < entry.num_bytes <= MAX_FILE_BYTES:
        return entry
    if not claims_picture(entry.name):
        return Skipped(entry.name, OTHER_FILE)
    return Skipped(entry.name, TOO_LARGE if entry.num_bytes else EMPTY)


def is_broken(item: Skipped) -> bool:
    """Whether a skipped file claims to be a picture and is not usable.

    What could not be opened claims it by its name, all else by its bytes.

    Example:
        >>> is_broken(Skipped("a.png", UNREADABLE)), is_broken(Skipped("a.txt", UNREADABLE))
        (True, False)
    """
    if item.code in _NOT_OPENED:
        return claims_picture(item.name)
    return item.code not in HARMLESS
