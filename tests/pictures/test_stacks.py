"""Files with several pages, as microscopes write them: every page is a picture."""

from __future__ import annotations

import csv
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from noisewise.pictures import gather
from noisewise.pictures.cache import cache_key
from noisewise.pictures.pages import Pages, TooManyPagesError, pages_of
from noisewise.pictures.pictures import load_pictures
from noisewise.training.inspect import inspect
from picture_files import colour, write_pictures


def write_stack(path: Path, pages: list[Any], **how: Any) -> Path:  # noqa: ANN401
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [page if isinstance(page, Image.Image) else Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:], **how)
    return path


def reduced(image: Image.Image) -> Image.Image:
    """A page that says that it is a smaller copy."""
    image.encoderinfo = {"tiffinfo": ImageFileDirectory_v2()}  # pyrefly: ignore
    image.encoderinfo["tiffinfo"][254] = 1
    return image


def test_every_page_is_a_picture_and_bit_depth_is_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pages = [rng.integers(0, 3000, (16, 16), dtype=np.uint16) for _ in range(20)]
    pages[17][0, 0] = 4000  # of 12 bits
    write_stack(tmp_path / "x" / "s.tif", pages)
    found = load_pictures(tmp_path / "x", cache_dir=tmp_path / "cache")
    assert found.names == tuple(f"s.tif#{i}" for i in range(1, 21))
    expected = np.stack(pages) * (255 / 4095)
    np.testing.assert_allclose(found.images[..., 0], expected, atol=0.51)
    assert any(note.startswith("20 pages of 1 file are read, each as a") for note in found.notes)
    assert any("4095 is white" in note for note in found.notes)
    again = load_pictures(tmp_path / "x", cache_dir=tmp_path / "cache")
    assert (again.fingerprint, again.names) == (found.fingerprint, found.names)
    np.testing.assert_array_equal(again.split(3)[1], found.split(3)[1])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_pages_are_those_that_pillow_finds(tmp_path: Path, compression: str) -> None:
    images = [colour(i, 32, 32 if i % 3 else 40) for i in range(17)]
    path = write_stack(tmp_path / "x" / "s.tiff", images, compression=compression)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "deep/s.tiff")
    found = load_pictures(path.parent, 32)
    assert load_pictures(tmp_path / "x.zip", 32).fingerprint == found.fingerprint
    with Image.open(path) as file:
        for number, picture in enumerate(found.images):
            file.seek(number)
            page = np.asarray(file.convert("RGB"))
            np.testing.assert_array_equal(picture, page[(len(page) - 32) // 2 :][:32])


def test_pages_of_big_tiffs_are_found(tmp_path: Path) -> None:
    pages = [colour(i) for i in range(18)]
    path = write_stack(tmp_path / "x" / "s.tif", pages, big_tiff=True)
    assert path.read_bytes()[2] == 43
    found = load_pictures(path.parent)
    np.testing.assert_array_equal(found.images, np.stack([np.asarray(p) for p in pages]))


def test_smaller_copies_are_no_pages(tmp_path: Path) -> None:
    for count in (1, 3):  # a picture, or a stack, with a thumbnail after each page
        pages = [p for i in range(count) for p in (colour(i), reduced(colour(i, 20, 20)))]
        path = write_stack(tmp_path / f"{count}" / "s.tif", pages)
        with path.open("rb") as file:
            assert len(pages_of(file).offsets) == (count if count > 1 else 0)
    folder = write_pictures(tmp_path / "x", 16)
    write_stack(folder / "pyramid.tif", [colour(50, 60, 44), colour(50, 30, 22), colour(50, 7, 5)])
    found = load_pictures(folder)
    assert "pyramid.tif" in found.names
    assert len(found) == 17
    assert not any("pages" in note for note in found.notes)


def test_animations_keep_their_first_frame(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    write_stack(folder / "film.gif", [colour(i) for i in range(60, 64)])
    write_stack(folder / "film.png", [colour(i) for i in range(60, 64)])
    write_stack(folder / "film.webp", [colour(i) for i in range(60, 64)])
    assert len(load_pictures(folder)) == 19


def test_pages_have_the_class_of_their_folder_or_file(tmp_path: Path) -> None:
    for at, name in enumerate(("a", "b")):
        write_stack(tmp_path / "x" / name / "s.tif", [colour(20 * at + i) for i in range(9)])
    assert load_pictures(tmp_path / "x").label_histogram == (9, 9)
    flat = tmp_path / "flat"
    for at, name in enumerate(("a.tif", "b.tif")):
        write_stack(flat / name, [colour(20 * at + i) for i in range(9)])
    with (flat / "metadata.csv").open("w") as file:
        csv.writer(file).writerows([("file_name", "label"), ("a.tif", "one"), ("b.tif", "two")])
    found = load_pictures(flat)
    assert found.classes == ("one", "two")
    assert found.label_histogram == (9, 9)


def sides(held_out: np.ndarray, names: tuple[str, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name.partition("#")[0], []).append(int(i in held_out))
    return found


def test_pages_of_a_stack_stay_on_one_side(tmp_path: Path) -> None:
    for i in range(12):
        write_stack(tmp_path / "x" / f"{i}.tif", [colour(100 * i + k) for k in range(5)])
    for crops in (0, 3):
        found = load_pictures(tmp_path / "x", 16 if crops else None, crops=crops)
        assert len(found) == 60 * max(crops, 1)
        for seed in range(3):
            _, held_out = found.split(seed)
            assert 0 < len(held_out) <= len(found) // 4
            assert all(len(set(side)) == 1 for side in sides(held_out, found.names).values())


@pytest.mark.parametrize("crops", [0, 3])
def test_a_single_stack_is_divided_between_neighbours(tmp_path: Path, crops: int) -> None:
    write_stack(tmp_path / "x" / "s.tif", [colour(i) for i in range(100)])
    found = load_pictures(tmp_path / "x", 16 if crops else None, crops=crops)
    for seed in range(3):
        _, held_out = found.split(seed)
        assert 0 < len(held_out) <= len(found) // 4
        (side,) = sides(held_out, found.names).values()
        borders = np.count_nonzero(np.diff(side))
        assert borders <= 10  # at random there would be 30


def test_pages_and_copies_elsewhere_stay_together(tmp_path: Path) -> None:
    for i in range(10):
        write_stack(tmp_path / "x" / f"{i}.tif", [colour(100 * i + k) for k in range(5)])
        colour(100 * i + 2).save(tmp_path / "x" / f"copy{i}.png")
    found = load_pictures(tmp_path / "x")
    _, held_out = found.split(0)
    side = sides(held_out, found.names)
    assert all(side[f"{i}.tif"][0] == side[f"copy{i}.png"][0] for i in range(10))


def test_inspect_counts_files_and_pages(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    write_stack(folder / "s.tif", [colour(i) for i in range(40, 47)])
    found = inspect(folder)
    assert (found.num_pictures, found.num_files) == (23, 17)
    assert "7 pages of 1 file are read" in found.text()


def test_a_truncated_stack_gives_its_whole_pages(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 16)
    path = write_stack(tmp_path / "s.tif", [colour(i) for i in range(40, 50)])
    with path.open("rb") as file:
        offsets = pages_of(file).offsets
    (folder / "s.tif").write_bytes(path.read_bytes()[: offsets[6] + 3])
    found = load_pictures(folder)
    assert len(found) in (21, 22)
    assert {item.code for item in found.skipped} == {"truncated"}


def forged(num_pages: int, width: int = 8) -> io.BytesIO:
    """Pages of a few bytes each; their pixels are not there."""
    data = io.BytesIO(b"II*\0" + struct.pack("<I", 8))
    data.seek(8)
    for i in range(num_pages):
        after = 8 + 30 * (i + 1) if i + 1 < num_pages else 0
        tags = struct.pack("<HHIIHHIII", 256, 4, 1, width, 257, 4, 1, width, after)
        data.write(struct.pack("<H", 2) + tags)
    data.seek(0)
    return data


def test_a_million_pages_are_refused_and_circles_end(tmp_path: Path) -> None:
    assert len(pages_of(forged(1000)).offsets) == 1000
    with pytest.raises(TooManyPagesError):
        pages_of(forged(1_000_000))
    with pytest.raises(TooManyPagesError):
        pages_of(forged(1000, width=9000))
    circle = bytearray(forged(3).getvalue())
    circle[-4:] = struct.pack("<I", 8)
    assert len(pages_of(io.BytesIO(circle)).offsets) == 3
    folder = write_pictures(tmp_path / "x", 16)
    (folder / "many.tif").write_bytes(forged(1_000_000).getvalue())
    found = load_pictures(folder)
    assert [(item.name, item.code) for item in found.skipped] == [("many.tif", "too_large")]


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II+\0\x08\0\0\0" * 3])
def test_what_is_no_tiff_has_no_pages(data: bytes) -> None:
    assert pages_of(io.BytesIO(data)) == Pages()


def test_any_bytes_are_read_without_an_error() -> None:
    rng = np.random.default_rng(0)
    whole = forged(30).getvalue()
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(4, len(data), 3):
            data[at] = rng.integers(256)
        for start in (data, b"II+\0\x08\0\0\0" + data[8:], b"MM\0*" + data[4:]):
            try:
                pages_of(io.BytesIO(start))
            except TooManyPagesError:
                continue


def test_a_cache_of_first_pages_alone_is_not_used(tmp_path: Path) -> None:
    folder, cache = write_pictures(tmp_path / "x", 16), tmp_path / "cache"
    load_pictures(folder, cache_dir=cache)
    (facts,) = cache.glob("*.json")
    assert gather.load_cached(cache, facts.stem) is not None
    old = "1 picture with several pages: only the first is used; save each page as a file"
    facts.write_text(facts.read_text().replace('"notes": [', f'"notes": ["{old}", '))
    assert gather.load_cached(cache, facts.stem) is None
    assert cache_key(["folder"])  # the key of single pages stays: it lists files, not pages
