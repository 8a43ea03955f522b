"""Whatever cannot become a training set is refused in one sentence that says what to do.

Most tests here check through `refused`: three checks each, of the sentence, that it is one line,
and that a cache folder changes nothing.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from noisewise.pictures.pictures import load_pictures
from picture_files import colour, write_pictures


def refused(path: Path, match: str, size: int | None = None, channels: int | None = None) -> None:
    """Check that a path is refused in one line, by loading and through a cache alike."""
    with pytest.raises(ValueError, match=match) as caught:
        load_pictures(path, size, channels)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=match):
        load_pictures(path, size, channels, path.parent / "cache")


def test_missing_path(tmp_path: Path) -> None:
    refused(tmp_path / "no\nwhere", "does not exist: give")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    refused(tmp_path / "x", "is empty: give a folder with at least 16")


def test_text_files_only(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i in range(3):
        (tmp_path / "x" / f"{i}.txt").write_text("words")
    (tmp_path / "x" / "README").write_text("words")
    refused(tmp_path / "x", r"no pictures, only 3 \.txt, 1 without a file ending")


def test_one_picture_and_few(tmp_path: Path) -> None:
    refused(write_pictures(tmp_path / "one", 1), "has only one usable picture: ")
    few = write_pictures(tmp_path / "few", 12)
    (few / "bad.png").touch()
    refused(few, r"only 12 usable pictures \(skipped: 1 empty\)")


def test_single_picture_file(tmp_path: Path) -> None:
    colour(0).save(tmp_path / "x.png")
    refused(tmp_path / "x.png", "is a single file: give its folder")


def test_mostly_broken(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    for i in range(30):
        (folder / f"bad{i}.jpg").write_text("html")
    refused(folder, "30 of 50 pictures cannot be used")
    for i in range(30):
        (folder / f"bad{i}.jpg").rename(folder / f"bad{i}.txt")
    assert len(load_pictures(folder)) == 20, "captions beside the pictures do no harm"


def test_copies_only(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 5)
    for i in range(30):
        (folder / f"copy{i}.png").write_bytes((folder / "p000.png").read_bytes())
    refused(folder, "only 5 of the 35 pictures are different")


@pytest.mark.parametrize(
    ("size", "near"), [(30, "28 or 32"), (0, "8"), (-4, "8"), (7, "8"), (65, "64 or 68")]
)
def test_sizes(tmp_path: Path, size: int, near: str) -> None:
    refused(
        write_pictures(tmp_path / "x"), rf"size {size} cannot be used .*: use {near}\.", size=size
    )


def test_channels(tmp_path: Path) -> None:
    refused(
        write_pictures(tmp_path / "x"),
        "2 channels do not work; use 1 .grey., 3 .colour. or 4",
        channels=2,
    )


def test_zips_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nonsense")
    refused(tmp_path / "x.zip", "cannot be read as a zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w"):
        pass
    refused(tmp_path / "y.zip", "is empty")


def test_zip_within_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    refused(tmp_path / "y.zip", r"has no pictures, only 1 \.zip")


def test_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a file nor a folder")


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(
        ValueError, match=r"taken cannot be written: File exists; check permissions"
    ):
        load_pictures(folder, cache_dir=tmp_path / "taken")


def save(path: Path, **arrays: np.ndarray) -> Path:
    """Save an npz."""
    np.savez(path, allow_pickle=False, **arrays)
    return path


def pixels(*shape: int) -> np.ndarray:
    """Return random uint8 pixels."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"a": pixels(5), "b": pixels(5, 5)}, r"no array named 'images' \(arrays found: a \(5,\)"),
        ({}, "arrays found: none"),
        ({"images": pixels(20, 32, 32, 2)}, "has no channel axis"),
        ({"images": pixels(20, 32, 32, 5)}, "has no channel axis"),
        ({"images": pixels(20, 3, 32, 3)}, "channels first or last"),
        ({"images": pixels(32, 32, 3)}, "looks like one picture with 3 channels"),
        ({"images": pixels(20)}, "has shape"),
        ({"images": pixels(0, 32, 32, 3)}, "has shape"),
        ({"images": pixels(20, 2, 2, 3)}, "pictures of 2 x 2 pixels: use sides of at least 4"),
        ({"images": pixels(4, 32, 32, 3)}, "only 4 usable pictures"),
        ({"images": np.full((20, 8, 8), np.nan)}, "NaN or infinite"),
        ({"images": pixels(20, 8, 8) * 1.0 - 99}, "not clear what is black and white"),
        ({"images": np.full((20, 8, 8), "x")}, "not a real number"),
        ({"images": np.asfortranarray(pixels(20, 8, 8))}, "Fortran order"),
        ({"images": pixels(20, 8, 8), "labels": pixels(19)}, "20 whole numbers or names"),
        ({"images": pixels(20, 8, 8), "labels": np.ones(20)}, "20 whole numbers or names"),
        (
            {"images": pixels(20, 8, 8), "labels": np.arange(20), "categories": np.array(["a"])},
            "labels go from 0 to 19, but 'categories' has 1",
        ),
    ],
)
def test_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    refused(save(tmp_path / "x.npz", **arrays), match)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    array = np.array([Trap()] * 20, dtype=object)
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    np.savez(tmp_path / "x.npz", allow_pickle=True, images=array)
    refused(tmp_path / "x.npy", "which are not loaded")
    refused(tmp_path / "x.npz", "which are not loaded")
    np.savez(tmp_path / "y.npz", allow_pickle=True, images=pixels(20, 8, 8), labels=array)
    refused(tmp_path / "y.npz", "20 whole numbers or names")
    assert not (tmp_path / "sprung").exists()


def test_damaged_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", images=pixels(40, 32, 32, 3))
    data = bytearray(path.read_bytes())
    data[60_000] ^= 0xFF
    path.write_bytes(data)
    refused(path, "truncated or damaged")
    path.write_bytes(data[:50_000])
    refused(path, "cannot be read as a NumPy file")
    np.save(tmp_path / "y.npy", pixels(40, 32, 32, 3))
    (tmp_path / "y.npy").write_bytes((tmp_path / "y.npy").read_bytes()[:9_000])
    refused(tmp_path / "y.npy", "truncated or damaged")
    (tmp_path / "z.npy").write_bytes(b"not numpy")
    refused(tmp_path / "z.npy", "cannot be read as a NumPy file")


def test_a_header_that_promises_too_much_costs_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(1000))
    refused(tmp_path / "x.npy", "truncated or damaged")
