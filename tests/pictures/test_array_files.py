"""Arrays: every layout and range that can be told apart gives the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from noisewise.demo import demo_path
from noisewise.pictures.pictures import load_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
PIXELS[0, 0, 0] = [0, 255, 128]  # both ends are there, so that ranges are seen whole


@pytest.mark.parametrize(
    ("array", "note"),
    [
        (PIXELS, ""),
        (PIXELS.transpose(0, 3, 1, 2).copy(), "has the channels first"),
        (PIXELS / np.float32(255), "0 to 1"),
        ((PIXELS / 127.5 - 1).astype(np.float32), "-1 to 1"),
        (PIXELS.astype(np.float64), "0 to 255"),
        (PIXELS.astype(np.int64), "0 to 255"),
        (PIXELS.astype(np.uint16) * 257, "0 to 65535"),
        (PIXELS.astype(">u2") * 257, "0 to 65535"),
        ((PIXELS / 255).astype(np.float16), "0 to 1"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "npy", "compressed"])
def test_layouts_and_ranges(tmp_path: Path, array: np.ndarray, note: str, suffix: str) -> None:
    path = tmp_path / f"x.{'npy' if suffix == 'npy' else 'npz'}"
    if suffix == "npy":
        np.save(path, array)
    else:
        save = np.savez if suffix == "npz" else np.savez_compressed
        save(path, images=array)
    pictures = load_pictures(path)
    np.testing.assert_array_equal(pictures.images, PIXELS)
    assert any(note in text for text in pictures.notes)


def test_grey_bool_and_alpha(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", PIXELS[..., 0])
    grey = load_pictures(tmp_path / "grey.npy")
    np.testing.assert_array_equal(grey.images, PIXELS[..., :1])
    np.save(tmp_path / "bool.npy", PIXELS[..., 0] > 99)
    assert set(np.unique(load_pictures(tmp_path / "bool.npy").images)) == {0, 255}
    alpha = np.concatenate([PIXELS, np.full((24, 8, 8, 1), 255, np.uint8)], axis=3)
    alpha[:, :4, :, 3] = 0
    np.save(tmp_path / "alpha.npy", alpha)
    kept = load_pictures(tmp_path / "alpha.npy").images
    np.testing.assert_array_equal(kept, alpha * (alpha[..., 3:] > 0))
    flat = load_pictures(tmp_path / "alpha.npy", background="white").images
    assert (flat[:, :4] == 255).all()
    np.testing.assert_array_equal(flat[:, 4:], PIXELS[:, 4:])


def test_other_key_labels_and_names(tmp_path: Path) -> None:
    names = np.array([f"n{i}" for i in range(24)])
    np.savez(tmp_path / "a.npz", x=PIXELS, y=np.arange(24) % 3 * 10, names=names)
    pictures = load_pictures(tmp_path / "a.npz")
    assert pictures.classes == ("0", "10", "20")
    assert pictures.label_histogram == (8, 8, 8)
    assert pictures.names == tuple(names)
    assert "the pictures are the array 'x'" in pictures.notes
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=np.array(["cat", "dog"] * 12))
    assert load_pictures(tmp_path / "b.npz").classes == ("cat", "dog")


def test_resized_and_cached(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.repeat(np.repeat(PIXELS, 4, 1), 4, 2))
    pictures = load_pictures(tmp_path / "a.npz", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(pictures.images, PIXELS)
    assert "(pixel art, enlarged 4 times)" in pictures.notes[0]
    again = load_pictures(tmp_path / "a.npz", cache_dir=tmp_path / "cache")
    assert again.fingerprint == pictures.fingerprint
    assert load_pictures(tmp_path / "a.npz", size=32).size == 32


def test_sizes_between_multiples_are_rounded_down(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (20, 31, 45), dtype=np.uint8)
    np.save(tmp_path / "x.npy", noise)
    pictures = load_pictures(tmp_path / "x.npy")
    assert pictures.images.shape == (20, 28, 28, 1)
    assert any("not square" in note for note in pictures.notes)


def test_demo_is_read_exactly() -> None:
    pictures = load_pictures(demo_path())
    with np.load(demo_path()) as arrays:
        np.testing.assert_array_equal(pictures.images, arrays["images"])
        np.testing.assert_array_equal(pictures.labels, arrays["labels"])
    assert pictures.label_histogram == (600,) * 10
    assert pictures.fingerprint == "431298fee723dd113a904eabd738cf11"
    assert pictures.sigma_data() == pytest.approx(0.708, abs=1e-3)


@pytest.mark.parametrize("name", ["LICENSE-fashion-mnist.txt", "README.md"])
def test_demo_has_its_licence_beside_it(name: str) -> None:
    assert "Zalando SE" in (demo_path().parent / name).read_text("utf-8")
