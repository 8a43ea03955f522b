"""Colours are counted as numpy counts them, and pixel art, icons and photographs are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from noisewise.demo import demo_path
from noisewise.quality.colours import (
    check_pictures,
    codes,
    colours_of_codes,
    count_colours,
    used_colours,
)

INKS = np.random.default_rng(5).integers(0, 256, (24, 3)).astype(np.uint8)


def sprites(count: int, inks: np.ndarray = INKS, size: int = 16, seed: int = 0) -> np.ndarray:
    """Pixel art: 6 of the inks in a picture, in blocks of 2 x 2."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        few = rng.choice(len(inks), 6, replace=False)
        small = inks[few[rng.integers(0, 6, (size // 2, size // 2))]]
        found.append(small.repeat(2, 0).repeat(2, 1))
    return np.stack(found)


def icons(count: int, size: int = 48) -> np.ndarray:
    """Discs with soft edges on a shaded ground, each in colours of its own."""
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        image = Image.new("RGB", (8 * size, 8 * size), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(9):
            x, y, r = rng.uniform(0, 8 * size, 3)
            fill = tuple(rng.integers(0, 256, 3).tolist())
            draw.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=fill)
        found.append(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(found)


def photographs(count: int, channels: int = 3) -> np.ndarray:
    """Smooth shades with the noise of a sensor, half of each exactly black."""
    rng = np.random.default_rng(2)
    shade = np.linspace(40, 200, 32)[None, :, None, None] + 20 * rng.random((count, 1, 32, 1))
    noisy = shade + rng.normal(0, 4, (count, 32, 32, channels))
    noisy[:, 16:] = 0
    return noisy.clip(0, 255).astype(np.uint8)


def own_palettes(count: int) -> np.ndarray:
    """Pixel art in which each picture has colours of its own."""
    rng = np.random.default_rng(3)
    return np.concatenate([
        sprites(1, rng.integers(0, 256, (8, 3)).astype(np.uint8), seed=i) for i in range(count)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("images", "verdict"),
    [
        (sprites(60), "one palette"),
        (own_palettes(120), "few a picture"),
        (icons(30), "flat areas"),
        (photographs(60), "neither"),
        (photographs(60, 1), "neither"),
        (sprites(60)[..., :1] // 64 * 64, "one palette"),
    ],
    ids=["sprites", "own", "icons", "photographs", "grey photographs", "grey sprites"],
)
def test_sets_are_told_apart(images: np.ndarray, verdict: str) -> None:
    found = count_colours(images)
    assert found.verdict == verdict, found
    assert found.has_palette == (verdict in ("one palette", "few a picture"))


def test_garments_have_neither() -> None:
    with np.load(demo_path()) as stored:
        found = count_colours(stored["images"].reshape(-1, 28, 28, 1))
    assert found.verdict == "neither"
    assert found.in_all <= 256, "grey pictures have few levels without having a palette"
    assert found.flat > 0.3 > 0.1 > found.flat_off_ground


def test_counts_are_those_of_numpy() -> None:
    images = icons(9, 24)
    found = count_colours(images)
    assert found.in_all == len(np.unique(images.reshape(-1, 3), axis=0))
    counts = [len(np.unique(image.reshape(-1, 3), axis=0)) for image in images]
    assert found.median == round(float(np.median(counts)))
    assert (found.low, found.high) == tuple(np.percentile(counts, (10, 90)).round().astype(int))
    equal = [
        ((i[1:] == i[:-1]).all(2).sum() + (i[:, 1:] == i[:, :-1]).all(2).sum()) / (2 * 24 * 23)
        for i in images
    ]
    assert found.flat == pytest.approx(np.mean(equal))


def test_what_is_transparent_has_no_colour() -> None:
    plain = sprites(40)
    alpha = np.full((*plain.shape[:3], 1), 255, np.uint8)
    images = np.concatenate([plain, alpha], 3)
    images[:, :8] = np.random.default_rng(0).integers(0, 256, images[:, :8].shape)
    images[:, :8, :, 3] = 0
    found = count_colours(images)
    assert (found.verdict, found.in_all, found.transparent) == ("one palette", 24, True)
    assert not count_colours(plain).transparent


def test_a_few_tiny_pictures_have_no_palette_by_chance() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    assert count_colours(images).verdict == "neither"


def test_codes_are_read_back() -> None:
    assert (colours_of_codes(codes(INKS)) == INKS).all()
    used = used_colours(sprites(40))
    assert np.flatnonzero(used).tolist() == np.unique(codes(INKS)).tolist()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 2), np.uint8), np.zeros((2, 8, 8, 3)),
     np.zeros((0, 8, 8, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_array_of_pictures_is_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give"):
        check_pictures(images)
