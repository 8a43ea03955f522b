"""A zip of picture files; it is never unpacked on disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from noisewise.pictures import zip_limits
from noisewise.pictures.gather import Gathered
from noisewise.pictures.own_files import is_below, own_folders
from noisewise.pictures.read_files import read_files
from noisewise.pictures.source_type import Request, SourceType, has_suffix
from noisewise.pictures.sources import (
    DAMAGED,
    HIDDEN,
    OWN,
    PASSWORD,
    UNSUPPORTED,
    Entry,
    Skipped,
    Source,
    by_length,
    clean_name,
    is_hidden,
)
from noisewise.plain_text import printable

_SUFFIXES = (".zip",)
_PIECE = 2**20  # bytes


def _read(path: Path, request: Request) -> Gathered:
    with open_zip(path) as source:
        return read_files(source, request)


@contextmanager
def open_zip(path: Path) -> Generator[Source]:
    """List a zip file; it stays open inside the `with` block.

    Raises:
        ValueError: if the file cannot be read as a zip.
    """
    status = path.stat()
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises almost anything on a damaged table of contents
        raise ValueError(
            f"{printable(str(path))} cannot be read as a zip ({error}): "
            "download it again, or give the unpacked folder."
        ) from error
    with archive:
        yield replace(_list_zip(path, archive), status=status)


def _list_zip(path: Path, archive: zipfile.ZipFile) -> Source:
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    members = [
        (clean_name(info.filename.replace("\\", "/")).lstrip("/"), info)
        for info in archive.infolist()
    ]
    shared = zip_limits.overlapping(archive.infolist())
    own = set(own_folders(name for name, _ in members))
    skipped.extend(Skipped(name, OWN) for name in sorted(own))
    for name, info in members:
        # zipfile cannot ask a member without a name.
        if not name or info.is_dir() or is_below(name, own):
            continue
        when = int("".join(f"{part:02d}" for part in info.date_time))
        found = by_length(Entry(name, info.file_size, when, info))
        if any(is_hidden(part) for part in name.split("/") if part not in ("", ".", "..")):
            found = Skipped(name, HIDDEN)
        elif info.flag_bits & 1:
            found = Skipped(name, PASSWORD)
        elif info.header_offset in shared:
            found = Skipped(name, DAMAGED)
        elif not zip_limits.has_known_method(info):
            found = Skipped(name, UNSUPPORTED)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            skipped.append(found)
    entries.sort(key=lambda entry: entry.name)

    last: list[tuple[int, bytes]] = []  # the pages of a stack are read one after the other

    def open_member(entry: Entry) -> BinaryIO:
        assert isinstance(entry.locator, zipfile.ZipInfo)
        if not entry.page:
            return unpacked(entry.locator, entry.num_bytes)
        place = entry.locator.header_offset
        for known, whole in last[:]:
            if known == place:
                return io.BytesIO(whole)
        content = unpacked(entry.locator, entry.num_bytes)
        last[:] = [(place, content.getvalue())]
        return content

    def unpacked(member_info: zipfile.ZipInfo, num_bytes: int) -> io.BytesIO:
        content = io.BytesIO()
        with archive.open(member_info) as member:
            # Read only the listed length: the file may be longer than the zip says. In pieces,
            # because zipfile joins what it reads at once, and holds it twice.
            while piece := member.read(min(_PIECE, num_bytes - content.tell())):
                content.write(piece)
        content.seek(0)
        return content

    return Source(path, "zip", tuple(entries), tuple(skipped), open_member, in_memory=True)


ZIP = SourceType("zip", _SUFFIXES, has_suffix(*_SUFFIXES), _read)
