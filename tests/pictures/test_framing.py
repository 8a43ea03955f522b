"""The frame of each picture: crop and background are chosen, and said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures.decode import decode
from noisewise.pictures.framing import Frame, Framed
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.request import Crop
from picture_files import colour, write_pictures

# Red, green and blue thirds, left to right.
STRIPES = np.zeros((20, 60, 3), np.uint8)
for third in range(3):
    STRIPES[:, 20 * third : 20 * third + 20, third] = 255


def made(pixels: np.ndarray, frame: Frame, name: str = "x.png") -> Framed:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return decode(file, name, frame)


def test_the_middle_is_the_middle() -> None:
    picture = made(STRIPES, Frame(20))
    assert (picture.pixels == [0, 255, 0]).all()


def test_a_random_crop_depends_on_the_name_alone() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    places = [int(made(ramp, Frame(20, "random"), f"{i}.png").pixels[0, 0, 0]) for i in range(60)]
    again = [int(made(ramp, Frame(20, "random"), f"{i}.png").pixels[0, 0, 0]) for i in range(60)]
    assert places == again
    assert len(set(places)) > 40
    assert min(places) < 40
    assert max(places) > 196
    assert max(places) <= 236


@pytest.mark.parametrize(("word", "rgb"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_padding_shows_all_of_it(word: str, rgb: int) -> None:
    picture = made(STRIPES, Frame(60, "pad", word))
    np.testing.assert_array_equal(picture.pixels[20:40], STRIPES)
    assert (picture.pixels[:20] == rgb).all()
    assert (picture.pixels[40:] == rgb).all()


def test_a_coloured_background_makes_grey_pictures_coloured_where_it_shows() -> None:
    grey = np.full((20, 60), 7, np.uint8)
    picture = made(grey, Frame(60, "pad", "#ff0000"))
    assert not picture.grey
    assert (picture.pixels[0, 0] == [255, 0, 0]).all()
    assert (picture.pixels[30, 30] == 7).all()
    clear = np.stack([grey, np.zeros_like(grey)], axis=2)
    assert (made(clear, Frame(20, background="#ff0000")).pixels == [255, 0, 0]).all()
    assert made(clear, Frame(20, background="black")).grey


def test_a_strip_does_not_become_a_bomb() -> None:
    strip = np.zeros((4, 60_000), np.uint8)
    strip[:, 30_000:] = 255
    picture = made(strip, Frame(16, "pad", "black"))
    assert picture.pixels.shape == (16, 16, 1)


def test_the_choice_is_part_of_the_account_and_of_the_cache(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", width=48, height=32)
    found = {}
    crops: tuple[Crop, ...] = ("centre", "random", "pad")
    for crop in crops:
        pictures = load_pictures(folder, cache_dir=tmp_path / "cache", crop=crop)
        again = load_pictures(folder, cache_dir=tmp_path / "cache", crop=crop)
        assert pictures.fingerprint == again.fingerprint
        found[crop] = pictures
        assert any(note.startswith("20 pictures not square: ") for note in pictures.notes)
    assert len({p.fingerprint for p in found.values()}) == 3
    assert found["pad"].size == 48, "all of it is shown: the long side counts"
    assert "padded with white" in " ".join(found["pad"].notes)


def test_arrays_are_framed_too(tmp_path: Path) -> None:
    array = np.stack([np.asarray(colour(i, 48, 32)) for i in range(20)])
    np.save(tmp_path / "x.npy", array)
    padded = load_pictures(tmp_path / "x.npy", crop="pad", background="black")
    np.testing.assert_array_equal(padded.images[:, 8:40], array)
    assert not padded.images[:, :8].any()


@pytest.mark.parametrize(
    ("crop", "background", "says"),
    [("corner", "white", "use centre, random or pad"), ("pad", "rgb(a)", "is not a colour")],
)
def test_unknown_words_are_one_sentence(
    tmp_path: Path, crop: Crop, background: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        load_pictures(write_pictures(tmp_path / "x"), crop=crop, background=background)
