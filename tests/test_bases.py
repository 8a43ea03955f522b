"""The pictures of a base, what a test leaves out, and how a base is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pictures import base_sets, make_bases
from benchmarks.shared import harness
from noisewise.training.bases import MOST_BYTES, packaged
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.models.models import Teacher
from noisewise.training.starts.base import load_base
from tiny import UNET_CONFIG

NOTO = ("rocket", "pizza", "joy", "boy")


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    return cells.repeat(size // 8, 1).repeat(size // 8, 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Small sets in the form of the real ones: the second pizza is that of Fluent."""
    labels, names = np.array([0, 0, 1, 1]), np.array(NOTO)
    categories = np.array(["Objects", base_sets.FACES[0]])
    for size in (32, 64):
        np.savez(
            tmp_path / f"noto_emoji_{size}.npz",
            images=pictures(4, size, 1), labels=labels, names=names, categories=categories,
        )  # fmt: skip
    codes = np.array(["1f680", "1f355", "1f602", "1f466", "0023-fe0f-20e3"])
    np.savez(tmp_path / "fluent_emoji_3d_64.npz", images=pictures(5, 64, 2), names=codes)
    tiles = pictures(6, 32, 3)
    tiles[5] = tiles[0]  # an item that looks like a monster
    np.savez(
        tmp_path / "dungeon_tiles_32.npz", images=tiles, labels=np.array([0, 0, 1, 1, 2, 2]),
        categories=np.array(["monster", "item", "dungeon"]), names=np.array([*"abcdef"]),
    )  # fmt: skip
    return tmp_path


def test_a_base_of_everything_has_everything(data: Path) -> None:
    images, sources = base_sets.base_pictures(str(data), 32)
    assert images.shape == (15, 32, 32, 3)
    assert [one.license for one in sources] == ["Apache-2.0", "MIT", "CC0-1.0"]
    assert base_sets.base_pictures(str(data), 64)[0].shape == (15, 64, 64, 3)


def test_a_set_and_its_twins_are_left_out(data: Path) -> None:
    images, _ = base_sets.base_pictures(str(data), 32, base_sets.TESTS["people"])
    noto, fluent = (base_sets.stored(str(data), name, 32)["images"] for name in ("noto", "fluent"))
    kept = {picture.tobytes() for picture in images}
    assert [picture.tobytes() in kept for picture in noto] == [True, True, False, False]
    # "joy" and "boy" are people; of the keycap nobody can tell by its name
    assert [picture.tobytes() in kept for picture in fluent] == [True, False, False, False, False]
    tiles, sources = base_sets.base_pictures(str(data), 64, base_sets.TESTS["fluent"])
    assert len(tiles) == 6
    assert [one.name for one in sources] == ["Dungeon Crawl Stone Soup tiles"]
    others, _ = base_sets.base_pictures(str(data), 32, base_sets.TESTS["monsters"])
    assert len(others) == 4 + 5 + 3, "the item that is a monster's picture is left out too"


def test_sizes_change_without_a_smoothing_filter() -> None:
    images = pictures(2, 32, 0)
    assert np.array_equal(base_sets.resized(base_sets.resized(images, 64), 32), images)
    assert base_sets.resized(images, 64)[0, :2, :2].reshape(4, 3).std(0).max() == 0


def test_a_base_is_a_teacher_of_16_bits(tmp_path: Path) -> None:
    denoiser = build_denoiser(dict(UNET_CONFIG.net), 0.5)
    teacher = Teacher(denoiser, UNET_CONFIG)
    sources = list(base_sets.SOURCES.values())
    make_bases.save_base(teacher, tmp_path / "icons_8", sources, 15)
    found = load_base(tmp_path / "icons_8")
    assert found.name == "icons_8"
    assert [one["license"] for one in found.sources] == ["Apache-2.0", "MIT", "CC0-1.0"]
    for p, q in zip(denoiser.parameters(), found.teacher.denoiser.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-3)
    assert "CC0-1.0" in (tmp_path / "icons_8" / "LICENSES.md").read_text()
    with torch.no_grad():
        next(denoiser.parameters()).fill_(1e6)
    with pytest.raises(harness.UsageError, match="too large for 16 bits"):
        make_bases.save_base(teacher, tmp_path / "other", sources, 15)
    net = dict(UNET_CONFIG.net) | {"widths": [256, 256]}
    wide = Teacher(build_denoiser(net, 0.5), replace(UNET_CONFIG, net=net))
    with pytest.raises(harness.UsageError, match="train less wide"):
        make_bases.save_base(wide, tmp_path / "other", sources, 15)


@pytest.mark.parametrize("folder", packaged(), ids=lambda path: path.name)
def test_a_packaged_base_is_small_and_licensed(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_size <= MOST_BYTES + 2**16
    base = load_base(folder)
    assert base.sources
    assert all(one["license"] in ("Apache-2.0", "MIT", "CC0-1.0") for one in base.sources)
    assert (folder / "LICENSES.md").is_file()
