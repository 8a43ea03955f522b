"""Near duplicates: what people do to a picture is found, other pictures are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from noisewise.demo import demo_path
from noisewise.pictures.near_duplicates import _thumbnails, near_duplicates
from noisewise.pictures.pictures import load_pictures
from noisewise.training.inspect import inspect
from picture_files import colour, write_pictures


def as_array(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.convert("RGB").resize((32, 32))) for image in images])


def test_thumbnails_are_made_of_the_exact_means_of_channels() -> None:
    """Runs keep their split: quicker arithmetic must not move a pair over the limit."""
    for channels in (1, 3):
        images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, channels), np.uint8)
        plain = images.astype(np.float32).mean(axis=3)
        np.testing.assert_array_equal(_thumbnails(images), plain)


def test_saved_again_resized_and_brightened_pictures_are_near() -> None:
    originals = [colour(i, 128, 128) for i in range(50)]
    squeezed = io.BytesIO()
    originals[3].save(squeezed, "JPEG", quality=60)
    changed = [
        Image.open(squeezed),
        originals[11].resize((50, 50), Image.Resampling.BILINEAR),
        ImageEnhance.Brightness(originals[20]).enhance(1.05),
    ]
    assert near_duplicates(as_array([*originals, *changed])) == [(3, 50), (11, 51), (20, 52)]


def test_other_pictures_mirrors_and_flat_ones_are_not() -> None:
    originals = [colour(i) for i in range(300)]
    mirrors = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in originals]
    flat = [Image.new("RGB", (32, 32), (i, i, i)) for i in range(100, 130)]
    assert near_duplicates(as_array(originals + mirrors + flat)) == []


def test_exact_copies_are_counted_elsewhere() -> None:
    images = as_array([colour(0), colour(0), colour(1)])
    assert near_duplicates(images) == []


def test_a_real_set_of_look_alikes_stays_mostly_apart() -> None:
    """Garments share their shapes; the pixels still tell them apart."""
    images = load_pictures(demo_path()).images
    assert len(near_duplicates(images)) < 0.02 * len(images)


def test_inspect_names_them(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    colour(4).save(folder / "again.jpg", quality=90)
    found = inspect(folder)
    assert (found.num_near, found.num_duplicates) == (1, 0)
    assert found.near_names == (("again.jpg", "p004.png"),)
    assert "1 nearly equal to another picture: again.jpg ~ p004.png" in found.text()
    assert found.to_dict()["near_names"] == [["again.jpg", "p004.png"]]
