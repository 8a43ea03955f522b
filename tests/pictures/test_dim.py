"""8-bit masks of 0 and 1 are named, with the factor that makes them visible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import noisewise
from noisewise.pictures.pictures import load_pictures
from noisewise.training.inspect import inspect
from noisewise.training.settings.config import TrainConfig


def masks(highest: int, count: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, highest + 1, (count, 16, 16)).astype(np.uint8)


def notes_on_dark(path: Path) -> list[str]:
    return [note for note in load_pictures(path).notes if note.startswith("no value is above")]


def write(folder: Path, images: np.ndarray, mode: str = "L") -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).convert(mode).save(folder / f"{i:02}.png")
    return folder


@pytest.mark.parametrize("highest", [1, 3, 7])
def test_masks_are_refused_with_a_factor_that_works(tmp_path: Path, highest: int) -> None:
    folder = write(tmp_path / "x", masks(highest))
    (note,) = notes_on_dark(folder)
    factor = 255 // highest
    assert "so all pictures are black: such values are masks or class numbers; mu" in note
    assert f"lambda v: v * {factor})" in note
    for refused in (
        lambda: noisewise.plan(folder),
        lambda: noisewise.train(folder, tmp_path / "run", "16images"),
    ):
        with pytest.raises(ValueError, match=f"no value is above {highest} of 255"):
            refused()
    assert not (tmp_path / "run").exists()
    assert inspect(folder).plan()[0] == f"refuse this: {note}"
    for file in folder.iterdir():  # what the note says
        Image.open(file).point(lambda v: v * factor).save(file)
    assert not notes_on_dark(folder)
    assert not inspect(folder).refused
    assert load_pictures(folder).images.max() == highest * factor


def test_other_kinds_of_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", masks(1))
    assert "images * 255" in notes_on_dark(tmp_path / "a.npy")[0]
    np.savez(tmp_path / "b.npz", images=masks(1).astype(np.int64), labels=np.arange(24) % 2)
    assert notes_on_dark(tmp_path / "b.npz")
    assert notes_on_dark(write(tmp_path / "colour", masks(1), "RGB"))
    assert (
        "so all pictures are dark; multiply" in notes_on_dark(write(tmp_path / "k", masks(20)))[0]
    )


def test_what_is_no_such_mask(tmp_path: Path) -> None:
    np.save(tmp_path / "bool.npy", masks(1).astype(bool))
    np.save(tmp_path / "float.npy", masks(1).astype(np.float32))
    some = masks(1)
    some[3, 4, 4] = 255
    np.save(tmp_path / "one-bright.npy", some)
    np.save(tmp_path / "night.npy", masks(60))
    for name in ("bool", "float", "one-bright", "night"):
        assert not notes_on_dark(tmp_path / f"{name}.npy"), name
    one_bit = write(tmp_path / "one-bit", 255 * masks(1), "1")
    assert not notes_on_dark(one_bit)
    assert noisewise.plan(one_bit, TrainConfig(budget="16images")).size == 16
