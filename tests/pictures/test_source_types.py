"""A new type of source is one value: here a text file that names the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from noisewise.pictures import source_types
from noisewise.pictures.gather import Gathered
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.read_files import read_files
from noisewise.pictures.source_type import Request, SourceType, has_suffix
from noisewise.pictures.source_types import SOURCE_TYPES, source_type
from noisewise.pictures.sources import Entry, Source, by_length
from picture_files import write_pictures


def _open(entry: Entry) -> BinaryIO:
    assert isinstance(entry.locator, str)
    return open(entry.locator, "rb")


def _read(path: Path, request: Request) -> Gathered:
    files = [path.parent / line for line in path.read_text().splitlines()]
    entries = [Entry(f.name, f.stat().st_size, f.stat().st_mtime_ns, str(f)) for f in files]
    usable = tuple(entry for entry in entries if isinstance(by_length(entry), Entry))
    return read_files(Source(path, "list", usable, (), _open), request)


LIST = SourceType("list", (".txt",), has_suffix(".txt"), _read)


def test_a_type_of_your_own_reads_the_same_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "pictures", 24)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    listing = tmp_path / "pictures" / "some.txt"
    listing.write_text("\n".join(names[:18]))
    with pytest.raises(ValueError, match=r"a \.zip, \.npz or \.npy file"):
        load_pictures(listing)
    monkeypatch.setattr(source_types, "SOURCE_TYPES", (*SOURCE_TYPES, LIST))
    found, whole = load_pictures(listing), load_pictures(tmp_path / "pictures")
    assert len(found) == 18
    assert (found.images == whole.images[:18]).all()
    with pytest.raises(ValueError, match=r"a \.zip, \.npz, \.npy or \.txt file"):
        load_pictures(tmp_path / "missing")


def test_each_type_knows_its_own(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    assert source_type(tmp_path / "folder.npz").name == "folder"
    for name, kind in (("a.zip", "zip"), ("a.ZIP", "zip"), ("a.npy", "array"), ("a.npz", "array")):
        (tmp_path / name).write_bytes(b"x")
        assert source_type(tmp_path / name).name == kind
