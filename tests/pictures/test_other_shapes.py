"""Pictures that are wider or taller: framed, read and measured without a square in the way."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures.flips import suggest_flip
from noisewise.pictures.framing import Frame, fit
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.noise_curve import mean_colour_sd, noise_curve
from noisewise.pictures.pictures import load_pictures
from noisewise.pictures.request import Crop
from noisewise.pictures.shapes import count_shapes, size_in_shape
from picture_files import colour, write_pictures

CROPS: tuple[Crop, ...] = ("centre", "random", "pad")


def random_picture(rng: np.random.Generator, pixel_art: bool) -> Image.Image:
    """Of low contrast: a resizing filter that overshoots is not cut off at black or white."""
    height, width = rng.integers(4, 90, 2)
    if not pixel_art:
        return Image.fromarray(rng.integers(90, 150, (height, width, 3), dtype=np.uint8))
    small = 90 + 20 * rng.integers(0, 3, (-(-height // 3), -(-width // 3), 1))
    return Image.fromarray(np.kron(small, np.ones((3, 3, 3))).astype(np.uint8))


# ---------------------------------------------------------------------------------- framing
def test_the_middle_of_the_shape_is_kept_pixel_for_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    done: set[str] = set()
    out = np.asarray(fit(Image.fromarray(pixels), "x", Frame((32, 48)), done))
    np.testing.assert_array_equal(out, pixels[4:36])
    assert done == {"cropped"}
    same = Image.fromarray(pixels[4:36])
    nothing: set[str] = set()
    assert fit(same, "x", Frame((32, 48)), nothing) is same
    assert not nothing


@pytest.mark.parametrize(
    ("width", "height"), [(96, 64), (1000, 667), (30, 20), (8, 5), (3000, 2000)]
)
def test_a_picture_in_the_shape_is_neither_cut_nor_padded(width: int, height: int) -> None:
    """Up to the rounding of its own sides."""
    image = colour(0, width, height)
    for crop in CROPS:
        done: set[str] = set()
        assert fit(image, "x", Frame((32, 48), crop), done).size == (48, 32)
        assert "cropped" not in done


def test_padding_shows_all_of_it_in_the_middle() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    wide = np.asarray(fit(image, "x", Frame((24, 48), "pad", "black"), set()))
    np.testing.assert_array_equal(wide[:, 12:36], pixels)
    assert not wide[:, :12].any()
    assert not wide[:, 36:].any()
    tall = np.asarray(fit(image, "x", Frame((48, 24), "pad", "black"), set()))
    np.testing.assert_array_equal(tall[12:36], pixels)


@pytest.mark.parametrize("pixel_art", [False, True])
@pytest.mark.parametrize("shape", [(16, 24), (8, 40), (48, 32)])
def test_a_turned_picture_comes_out_turned(shape: tuple[int, int], pixel_art: bool) -> None:
    """Rows and columns are treated alike; resizing rounds after its first direction."""
    rng = np.random.default_rng(1)
    crops: tuple[Crop, ...] = ("centre", "pad")
    for crop, _ in itertools.product(crops, range(20)):
        image = random_picture(rng, pixel_art)
        turned = image.transpose(Image.Transpose.TRANSPOSE)
        first, second = set(), set()
        out = np.asarray(fit(image, "x", Frame(shape, crop), first)).astype(int)
        back = np.asarray(fit(turned, "x", Frame(shape[::-1], crop), second)).astype(int)
        assert out.shape == (*shape, 3)
        assert first == second
        assert np.abs(out - back.transpose(1, 0, 2)).max() <= 2


def test_pixel_art_is_enlarged_by_whole_pixels_and_reduced_to_its_own() -> None:
    art = 60 * np.random.default_rng(0).integers(0, 4, (8, 12, 1)).astype(np.uint8).repeat(3, 2)
    large = art.repeat(5, 0).repeat(5, 1)
    for pixels in (art, large):
        out = np.asarray(fit(Image.fromarray(pixels), "x", Frame((16, 24)), set()))
        np.testing.assert_array_equal(out, art.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("crop", CROPS)
def test_strips_of_any_length_have_a_place(crop: Crop) -> None:
    strip = Image.fromarray(np.zeros((4, 60_000), np.uint8))
    for shape in ((8, 512), (512, 8), (16, 24)):
        out = fit(strip, "x", Frame(shape, crop), set())
        assert out.size == shape[::-1]


def old_square(image: Image.Image, share: float, size: int) -> Image.Image:
    """The rule for squares alone, as it was: the largest square, resized once."""
    width, height = image.size
    side = min(width, height)
    left, top = int((width - side) * share), int((height - side) * share)
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    if side < size and size % side == 0 and image.getcolors(64):
        return image.resize((size, size), Image.Resampling.NEAREST, box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def test_squares_are_the_same_pixels_as_before_there_were_other_shapes() -> None:
    rng = np.random.default_rng(2)
    for size, _ in itertools.product((8, 20, 32), range(40)):
        image = random_picture(rng, pixel_art=False)
        out = fit(image, "x", Frame(size), set(), lossless=False)
        np.testing.assert_array_equal(np.asarray(out), np.asarray(old_square(image, 0.5, size)))


# ---------------------------------------------------------------------------------- reading
def test_a_folder_is_read_in_a_shape_and_cached_for_it_alone(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", width=48, height=40)
    found = {}
    for size in ("48x32", "32x48", 32, "48x40"):
        pictures = load_pictures(folder, size, cache_dir=tmp_path / "cache")
        again = load_pictures(folder, size, cache_dir=tmp_path / "cache")
        assert again.fingerprint == pictures.fingerprint
        found[size] = pictures
    assert len({p.fingerprint for p in found.values()}) == 4
    assert found["48x32"].images.shape == (20, 32, 48, 3)
    assert found["48x32"].size == (32, 48)
    assert found["32x48"].images.shape == (20, 48, 32, 3)
    assert found[32].size == 32
    assert "20 pictures not of the shape 48x32: cropped to the middle" in str(found["48x32"].notes)
    assert not any("shape" in note for note in found["48x40"].notes)
    assert found["48x32"].tensor([0, 1]).shape == (2, 3, 32, 48)
    same = load_pictures(folder, (32, 48))
    assert same.fingerprint == found["48x32"].fingerprint


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ("48x30", "48x28 or 48x32"),
        ((30, 50), "48x28 or 52x32"),
        ("7x40", "8x40"),
        ("0x32", "8x32"),
        ("30x30", "28 or 32"),
    ],
)
def test_a_size_without_a_net_is_refused_with_the_nearest_ones(
    tmp_path: Path, size: str, near: str
) -> None:
    with pytest.raises(ValueError, match=rf"cannot be used .*: use {near}\.$"):
        load_pictures(tmp_path, size)


# ---------------------------------------------------------------------------------- measuring
def test_the_noise_curve_of_what_is_known_in_other_shapes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 16, 48, 1), dtype=np.uint8)
    for images in (noise, noise.transpose(0, 2, 1, 3)):
        curve = noise_curve(images)
        assert list(curve) == [1, 2, 4, 8]
        for s, value in curve.items():
            assert value == pytest.approx(1 / s**2, rel=0.1)
    blocks = noise.repeat(4, 1).repeat(4, 2)
    assert noise_curve(blocks)[4] == pytest.approx(1)
    assert mean_colour_sd(noise) == pytest.approx(mean_colour_sd(noise.transpose(0, 2, 1, 3)))


def test_near_duplicates_and_flips_do_not_ask_for_squares() -> None:
    images = [np.asarray(colour(i, 48, 20)) for i in range(40)]
    images.append(np.clip(images[7].astype(int) + 3, 0, 255).astype(np.uint8))
    assert near_duplicates(np.stack(images)) == [(7, 40)]
    arrows = np.zeros((32, 8, 24, 1), np.uint8)
    arrows[np.arange(32), np.arange(32) % 8, :9] = 255
    assert not suggest_flip(arrows)[0]
    even = np.concatenate([arrows, arrows[:, :, ::-1]])
    assert suggest_flip(even)[0]


# ---------------------------------------------------------------------------------- proposing
def test_a_size_is_proposed_in_the_shape_of_most() -> None:
    photos = Counter({(3000, 2000): 30, (2000, 3000): 9, (600, 601): 5})
    assert count_shapes(photos) == {"wide": 30, "tall": 14}
    assert size_in_shape(photos, 64, "centre") == (64, 96)
    assert size_in_shape(photos, 64, "pad") == (44, 64)
    tall = Counter({(h, w): n for (w, h), n in photos.items()})
    assert size_in_shape(tall, 64, "centre") == (96, 64)


@pytest.mark.parametrize(
    "sizes",
    [
        {(32, 32): 40, (64, 32): 10},  # most are square
        {(64, 32): 10, (32, 64): 10},  # no shape is that of most
        {(33, 32): 40},  # nearly square
        {(500, 20): 40},  # a long strip
    ],
)
def test_nothing_is_proposed_where_no_shape_is_clear(sizes: dict[tuple[int, int], int]) -> None:
    assert size_in_shape(Counter(sizes), 32, "centre") is None
    assert size_in_shape(Counter({(96, 64): 9}), (32, 48), "centre") is None  # it has one already
