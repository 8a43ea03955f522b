"""Files beside the pictures (labels, captions, notes) are never counted as broken pictures."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from noisewise.pictures import sources
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.sources import Skipped, is_broken
from picture_files import write_pictures

ENDINGS = (".txt", ".json", ".xml", ".md", ".csv", ".names", ".lock", "")


@pytest.mark.parametrize("text", [b"", b"BM", b"P3 a b", b"II*\0", b"0 0.5 0.5"])
def test_no_content_of_a_side_file_refuses_a_set(tmp_path: Path, text: bytes) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    for i in range(40):
        (folder / f"p{i:03}{ENDINGS[i % 5]}").write_bytes(text)
    pictures = load_pictures(folder)
    assert len(pictures) == 16
    assert {item.code for item in pictures.skipped} == {sources.OTHER_FILE}


def test_empty_files_that_are_named_as_pictures_still_count(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    for i in range(40):
        (folder / f"p{i:03}{ENDINGS[i % len(ENDINGS)]}").touch()
    assert len(load_pictures(folder)) == 16
    for i, ending in enumerate((".png", ".JPG", ".heic", ".tga") * 5):
        (folder / f"empty{i}{ending}").touch()
    with pytest.raises(ValueError, match=r"20 of 36 pictures cannot be used \(20 empty\)"):
        load_pictures(folder)


def test_the_same_in_a_zip_in_folders_of_their_own(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"set/images/{path.name}")
        for i in range(40):
            archive.writestr(f"set/labels/p{i:03}.txt", "")
    pictures = load_pictures(tmp_path / "x.zip")
    assert len(pictures) == 16
    assert pictures.skip_reasons == {"not a picture": 40}


def test_links_to_nothing_count_by_their_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    for i in range(20):
        (folder / f"{i}.txt").symlink_to(tmp_path / "gone")
    assert len(load_pictures(folder)) == 16
    for i in range(20):
        (folder / f"{i}.png").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"\(20 broken link\)"):
        load_pictures(folder)


def test_what_could_be_opened_counts_by_its_bytes() -> None:
    assert is_broken(Skipped("a.txt", sources.TRUNCATED)), "a picture under another name"
    assert not is_broken(Skipped("a.txt", sources.UNREADABLE))
    assert not is_broken(Skipped("a.zip.part", sources.EMPTY))
    assert is_broken(Skipped("a.jpeg", sources.PASSWORD))
