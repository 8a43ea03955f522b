"""The account of a folder: true numbers, JSON, printable lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noisewise.diffusion.noise import measured_shift
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.noise_curve import noise_curve
from noisewise.pictures.pictures import load_pictures
from noisewise.training.inspect import contact_sheet, inspect
from picture_files import colour, write_pictures


def test_account_of_an_odd_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 18, 32 if name == "a" else 36)
    colour(0).save(tmp_path / "a" / "again\nsame.png")
    for i in range(4):
        (tmp_path / "b" / f"empty{i}.png").touch()
    (tmp_path / "b" / ".DS_Store").write_bytes(b"x")
    found = inspect(tmp_path)
    assert (found.kind, found.num_pictures, found.num_files) == ("folder", 37, 42)
    assert found.found_sizes == {"32 x 32": 19, "36 x 32": 18}
    assert found.found_modes == {"RGB": 37}
    assert found.classes == {"a": 19, "b": 18}
    assert found.num_duplicates == 1
    assert found.duplicate_names == (("a/again\nsame.png", "a/p000.png"),)
    assert [(item.code, item.count) for item in found.skipped] == [("empty", 4), ("hidden", 1)]
    assert found.num_training + found.num_held_out == 37
    text = found.text()
    assert "4 empty: b/empty0.png, b/empty1.png, b/empty2.png, ..." in text
    assert "a/again\\nsame.png = a/p000.png" in text
    assert found.judge_needs is None
    real = found.num_training
    assert (
        f"judge     cannot tell: {real} real pictures are too few to say how many it needs" in text
    )
    again = json.loads(json.dumps(found.to_dict()))
    assert again["noise_curve"]["1"] == 1.0
    assert "contact_sheet" not in again


def test_it_says_how_many_pictures_the_judge_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 16, 16, 1)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    found = inspect(tmp_path / "noise.npz")
    assert found.judge_needs == 64  # the least: damage of such pictures is clear
    assert (
        "  judge     tells clear damage from 64 generated and 64 real pictures on" in found.text()
    )
    np.savez(tmp_path / "few.npz", images=images[:50])
    text = inspect(tmp_path / "few.npz").text()
    assert "judge     cannot tell: 40 real pictures are too few to say how many it needs" in text


def test_inspection_writes_nothing(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    before = sorted(tmp_path.rglob("*"))
    inspect(folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_refuses_as_loading_does(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        inspect(tmp_path)


def test_noise_curve_of_what_is_known() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    for s, value in noise_curve(noise).items():
        assert value == pytest.approx(1 / s**2, rel=0.1)
    flat = np.broadcast_to(generator.integers(0, 256, (200, 1, 1, 3)), (200, 16, 16, 3))
    assert noise_curve(flat.astype(np.uint8)) == pytest.approx({1: 1, 2: 1, 4: 1, 8: 1}, rel=1e-6)
    blocks = np.kron(noise[:, :8, :8], np.ones((1, 2, 2, 1), np.uint8))
    assert noise_curve(blocks)[2] == pytest.approx(1, rel=1e-6)
    assert list(noise_curve(np.zeros((9, 28, 28, 1), np.uint8) + noise[:9, :1, :1, :1])) == [
        1,
        2,
        4,
        8,
    ]


def test_contact_sheet_shows_the_pictures() -> None:
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 1), np.uint8)
    sheet = contact_sheet(images)
    assert sheet.shape == (8 * 66 + 2, 8 * 66 + 2, 3)
    assert (sheet[2:66, 2:66] == 0).all()
    assert (sheet[-66:-2, -66:-2] == 99).all()
    assert (sheet[:2] == 255).all()


def test_noise_curve_agrees_with_the_floor_below() -> None:
    images = np.stack([np.asarray(colour(i)) for i in range(20)])
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    expected = measured_shift(floats)
    found = noise_curve(images)
    assert tuple(found) == expected.scales
    assert tuple(found.values()) == pytest.approx(expected.survival, rel=1e-4)


def test_it_says_which_shapes_there_are_and_how_to_keep_them(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x", 20, 48, 32)
    for i in range(4):
        colour(100 + i, 40, 40).save(folder / f"square{i}.png")
    found = inspect(folder)
    assert found.size == 32
    assert found.shapes == {"wide": 20, "square": 4}
    assert found.other_size == (32, 48)
    assert "  shapes    20 wide, 4 square" in found.text()
    assert "  - with --size 48x32, keep the shape that most pictures have" in found.text()
    assert json.loads(json.dumps(found.to_dict()))["other_size"] == "48x32"
    asked = inspect(folder, "48x32")
    assert asked.size == (32, 48)
    assert asked.other_size is None
    assert asked.contact_sheet.shape == (3 * 34 + 2, 8 * 50 + 2, 3)
    assert "use every picture at 48 x 32 pixels" in asked.text()
    assert asked.to_dict()["size"] == "48x32"
    assert "ln sigma of the noise levels shifts" in asked.text()  # the mean side is 39


def test_a_contact_sheet_of_other_shapes_shows_the_pictures() -> None:
    images = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((1, 10, 30, 1), np.uint8)
    sheet = contact_sheet(images)
    assert sheet.shape == (2 * 22 + 2, 8 * 62 + 2, 3)  # twice as large: 30 pixels of 64
    assert (sheet[-22:-2, -62:-2] == 15).all()


def test_crops_that_overlap_are_no_copies_of_each_other(tmp_path: Path) -> None:
    """A smooth scan gives many crops that look alike; only another file may be a copy."""
    y, x = np.mgrid[:96, :96] / 96
    scan = (255 * np.stack([x, y, x * y], 2)).astype(np.uint8)
    (tmp_path / "one").mkdir()
    Image.fromarray(scan).save(tmp_path / "one" / "a.png")
    np.savez(tmp_path / "array.npz", images=scan[None])
    for path in (tmp_path / "one", tmp_path / "array.npz"):
        alone = inspect(path, size=16, crops=100)
        assert alone.num_pictures == 100
        assert (alone.num_near, alone.near_names, alone.num_duplicates) == (0, (), 0)
    assert near_duplicates(load_pictures(tmp_path / "one", 16, crops=100).images)
    (tmp_path / "two").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(scan).save(tmp_path / "two" / name)
    both = inspect(tmp_path / "two", size=16, crops=100)
    assert both.num_near > 0
    assert all(first != second for first, second in both.near_names)
