"""Indexed PNGs are equal to the pictures in every pixel, also where these are transparent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.app.drawn_files import write_folder, write_sheet
from noisewise.app.indexed_png import as_indexed, larger
from noisewise.pictures.palette_files import Colours

RNG = np.random.default_rng(0)
INKS: Colours = tuple((int(r), int(g), int(b)) for r, g, b in RNG.integers(0, 256, (20, 3)))


def drawn(channels: int, alphas: tuple[int, ...] = (0, 255)) -> np.ndarray:
    """Pictures on the palette, uint8 [5, 12, 10, channels]."""
    index = RNG.integers(0, len(INKS), (5, 12, 10))
    found = np.array(INKS, np.uint8)[index]
    if channels == 1:
        return found[..., :1]
    if channels == 3:
        return found
    alpha = np.array(alphas, np.uint8)[RNG.integers(0, len(alphas), (5, 12, 10, 1))]
    return np.concatenate([found, alpha], 3)


def read(path: Path, mode: str) -> tuple[str, np.ndarray]:
    with Image.open(path) as image:
        return image.mode, np.asarray(image.convert(mode))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [1, 3])
def test_single_pictures(tmp_path: Path, channels: int, scale: int) -> None:
    pictures = drawn(channels)
    inks = INKS if channels > 1 else tuple((c[0],) * 3 for c in INKS)
    write_folder(pictures, tmp_path / "out", scale, 0, {}, False, inks)  # pyrefly: ignore
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    for i, picture in enumerate(pictures):
        kept, found = read(tmp_path / "out" / f"seed-0-{i:05d}.png", mode)
        assert kept == "P"
        expected = picture.repeat(scale, 0).repeat(scale, 1)
        assert (found.reshape(expected.shape) == expected).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_the_sheet(tmp_path: Path, channels: int) -> None:
    pictures = drawn(channels)
    write_sheet(pictures, tmp_path / "indexed.png", 2, INKS)
    write_sheet(pictures, tmp_path / "plain.png", 2)
    kept, found = read(tmp_path / "indexed.png", "RGBA")
    other, expected = read(tmp_path / "plain.png", "RGBA")
    assert (kept, other) == ("P", "RGBA")
    assert (found == expected).all()
    with Image.open(tmp_path / "indexed.png") as image:
        assert "transparency" in image.info
        assert image.text == Image.open(tmp_path / "plain.png").text  # pyrefly: ignore


def test_the_list_begins_with_the_palette() -> None:
    image = Image.new("RGB", (4, 4), INKS[7])
    found = as_indexed(image, INKS)
    assert (found.getpalette() or [])[: 3 * len(INKS)] == [level for ink in INKS for level in ink]
    assert set(np.asarray(found).ravel()) == {7}


def test_a_palette_of_many_colours_gives_a_list_of_the_pictures_own() -> None:
    many: Colours = tuple((i % 256, i // 256, 5) for i in range(1024))
    picture = np.array(many, np.uint8)[RNG.integers(0, 1024, (8, 8))]
    found = as_indexed(Image.fromarray(picture), many)
    assert found.mode == "P"
    assert (np.asarray(found.convert("RGB")) == picture).all()
    assert 0 < len(found.getpalette() or []) <= 3 * 64


def test_more_than_256_colours_stay_as_they_are() -> None:
    many: Colours = tuple((i % 256, i // 256, 5) for i in range(1024))
    image = Image.fromarray(np.array(many, np.uint8).reshape(32, 32, 3))
    assert as_indexed(image, many) is image
    soft = drawn(4, tuple(range(256)))[0]
    assert as_indexed(Image.fromarray(soft), INKS).mode in ("P", "RGBA")
    assert as_indexed(image, ()) is image


def test_a_scale_of_one_changes_nothing() -> None:
    image = Image.new("RGB", (3, 2))
    assert larger(image, 1) is image
