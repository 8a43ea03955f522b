"""Colours are counted as numpy counts them, and pixel art, icons and photographs are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from coloured_sets import INKS, icons, own_palettes, photographs, sprites
from noisewise.demo import demo_path
from noisewise.quality.colours import (
    check_pictures,
    codes,
    colours_of_codes,
    count_colours,
    used_colours,
)


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
