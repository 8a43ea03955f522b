"""A folder of picture files: follows each link once, never opens pipes or devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from noisewise.pictures.gather import Gathered
from noisewise.pictures.own_files import is_own_folder, is_run
from noisewise.pictures.read_files import read_files
from noisewise.pictures.source_type import Request, SourceType
from noisewise.pictures.sources import (
    ALREADY_READ,
    BROKEN_LINK,
    HIDDEN,
    NOT_REGULAR,
    OWN,
    UNREADABLE,
    Entry,
    Skipped,
    Source,
    by_length,
    clean_name,
    is_hidden,
)
from noisewise.plain_text import printable


def _read(path: Path, request: Request) -> Gathered:
    return read_files(list_folder(path), request)


def _open(entry: Entry) -> BinaryIO:
    assert isinstance(entry.locator, str)
    return open(entry.locator, "rb")


def list_folder(root: Path) -> Source:
    """List the files of a folder and its subfolders, in a fixed order.

    Folders that noisewise made are left out, each as one skipped name.

    Raises:
        ValueError: if the folder itself is a run.
    """
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
        names = {item.name for item in items}
        if not prefix and is_run(names - {".lock"}):
            raise ValueError(
                f"{printable(str(root))} is a run of noisewise, not a folder of pictures: give the "
                "folder of the pictures; if they lie here too, move them to one of their own."
            )
        if prefix and is_own_folder(names):
            skipped.append(Skipped(prefix.rstrip("/"), OWN))
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
    return Source(root, "folder", tuple(entries), tuple(skipped), _open)


def _visit(
    item: os.DirEntry[str], prefix: str, seen: set[tuple[int, int]]
) -> Entry | Skipped | tuple[str, str]:
    name = prefix + clean_name(item.name)
    if is_hidden(item.name):
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
    return by_length(Entry(name, status.st_size, status.st_mtime_ns, item.path))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


FOLDER = SourceType("folder", (), Path.is_dir, _read)
