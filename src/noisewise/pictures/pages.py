"""The pages of a TIFF: where each begins, and a view of the file that begins with one of them.

Pillow goes to page n through all pages before it. A view states another first page in its header,
so that every page opens as the first page of a file of its own.
Source: TIFF revision 6.0 (Adobe 1992), section 2: the header and the image file directory (IFD);
BigTIFF has wider numbers.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MOST_PAGES = 2**16
_MOST_PIXELS_A_BYTE = 2**10  # more than deflate and LZW can pack
_MOST_PIXELS = 2**26  # of all pages, whatever the length of the file
_LOOKED_AT = 64  # tags of a page: those that are looked for are among the first ones

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT = 254, 255, 256, 257
_REDUCED, _MASK = 1, 4  # bits of _SUBFILE
_OLD_REDUCED = 2  # value of _OLD_SUBFILE
_BYTE, _SHORT, _LONG, _LONG8 = 1, 3, 4, 16
_SIZES = {_BYTE: "B", _SHORT: "H", _LONG: "I", _LONG8: "Q"}


class TooManyPagesError(Exception):
    """A file states more pages, or pixels of pages, than such a file can hold."""


@dataclass(frozen=True)
class Pages:
    """The pages of a file.

    Attributes:
        offsets: of the IFD of each page in the file; empty if the file is one picture.
        cut_off: whether the file ends before the list of its pages does.
    """

    offsets: tuple[int, ...] = ()
    cut_off: bool = False


@dataclass(frozen=True)
class _Page:
    offset: int
    width: int
    height: int


@dataclass(frozen=True)
class _Layout:
    """How numbers are written: the byte order, and the formats of BigTIFF or of TIFF."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def tag(self) -> str:
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def header(self) -> int:
        """Bytes before the offset of the first IFD."""
        return 8 if self.big else 4


def pages_of(file: BinaryIO) -> Pages:
    """Find the pages of a TIFF, without Pillow; smaller copies of a page and masks are none.

    Args:
        file: any file; its position is kept.

    Raises:
        TooManyPagesError: if it states more than `MOST_PAGES`, or more pixels than it can hold.
    """
    start = file.tell()
    try:
        layout = _layout(file)
        return Pages() if layout is None else _pages(file, layout)
    finally:
        file.seek(start)


class PageView(io.RawIOBase):
    """A TIFF whose header names one page as the first; closing it leaves the file open.

    Args:
        file: the whole file, open for reading.
        offset: of the page, from `pages_of`.
    """

    def __init__(self, file: BinaryIO, offset: int) -> None:
        file.seek(0)
        layout = _layout(file)
        assert layout is not None, "offsets are of TIFF files only"
        file.seek(0)
        self._head = file.read(layout.header) + struct.pack(layout.offset, offset)
        self._file = file
        file.seek(0)
        if hasattr(file, "getvalue"):  # Pillow gives such bytes to libtiff without a copy
            self.getvalue = file.getvalue

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read at any place."""
        return True

    def read(self, size: int = -1) -> bytes:  # pyrefly: ignore[bad-override]
        """Read up to so many bytes from where it is."""
        at = self._file.tell()
        found = self._file.read(size)
        if at >= len(self._head):
            return found
        return (self._head[at:] + found[len(self._head) - at :])[: len(found)]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place where it is."""
        return self._file.tell()

    def fileno(self) -> int:
        """Number of the file behind it; OSError if there is none."""
        return self._file.fileno()


def _layout(file: BinaryIO) -> _Layout | None:
    """How a file is written; None if it is no TIFF."""
    head = file.read(8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    (version,) = struct.unpack(f"{order}H", head[2:4])
    if version == 43:
        return _Layout(order, True) if struct.unpack(f"{order}HH", head[4:]) == (8, 0) else None
    return _Layout(order, False) if version == 42 else None


def _pages(file: BinaryIO, layout: _Layout) -> Pages:
    found: list[_Page] = []
    cut_off = False
    for page in _walk(file, layout):
        if page is None:
            cut_off = True
        elif page.width:
            found.append(page)
    if len(found) < 2 or _is_pyramid(found):
        return Pages()
    num_bytes = file.seek(0, io.SEEK_END)
    if sum(p.width * p.height for p in found) > max(_MOST_PIXELS, _MOST_PIXELS_A_BYTE * num_bytes):
        raise TooManyPagesError
    return Pages(tuple(page.offset for page in found), cut_off)


def _walk(file: BinaryIO, layout: _Layout) -> Iterator[_Page | None]:
    """Each IFD; of width 0 where it is no page, None where the file ends too early."""
    seen: set[int] = set()
    file.seek(layout.header)
    while True:
        offset = _number(file, layout.offset)
        if offset is None:
            yield None
            return
        if offset == 0 or offset in seen:  # a circle of pages
            return
        if len(seen) >= MOST_PAGES:
            raise TooManyPagesError
        seen.add(offset)
        count = _number(file, layout.count) if _goes(file, offset) else None
        if count is None:
            yield None
            return
        size = struct.calcsize(layout.tag)
        tags = file.read(size * min(count, _LOOKED_AT))
        yield _page(offset, tags[: len(tags) // size * size], layout)
        if not _goes(file, offset + struct.calcsize(layout.count) + size * count):
            yield None
            return


def _goes(file: BinaryIO, place: int) -> bool:
    """Go to a place; False if it is beyond any file, as BigTIFF can state."""
    try:
        file.seek(place)
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _page(offset: int, tags: bytes, layout: _Layout) -> _Page:
    values = {}
    for tag, kind, count, value in struct.iter_unpack(layout.tag, tags):
        if tag in (_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT) and kind in _SIZES and count == 1:
            form = layout.order + _SIZES[kind]
            if struct.calcsize(form) <= len(value):
                (values[tag],) = struct.unpack_from(form, value)
    is_copy = values.get(_SUBFILE, 0) & (_REDUCED | _MASK)
    if is_copy or values.get(_OLD_SUBFILE) == _OLD_REDUCED:
        return _Page(offset, 0, 0)
    return _Page(offset, values.get(_WIDTH, 0), values.get(_HEIGHT, 0))


def _is_pyramid(pages: list[_Page]) -> bool:
    """Whether each page after the first is the first one, halved once or more: no marks say so."""
    first, level = pages[0] if pages else None, 0
    for page in pages[1:]:
        assert first is not None
        halved = (level + k for k in range(1, 17))
        level = next((k for k in halved if _is_level(page, first, k)), 0)
        if not level:
            return False
    return True


def _is_level(page: _Page, first: _Page, level: int) -> bool:
    """Whether a page has the size of another, divided by 2^level and rounded in any way."""
    step = 2**level
    return all(
        whole // step <= side <= -(-whole // step) and side < whole
        for side, whole in ((page.width, first.width), (page.height, first.height))
    )


def _number(file: BinaryIO, form: str) -> int | None:
    """The number at this place; None at the end of the file."""
    size = struct.calcsize(form)
    found = file.read(size)
    return struct.unpack(form, found)[0] if len(found) == size else None
