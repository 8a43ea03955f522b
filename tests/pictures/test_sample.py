"""A plan of many large pictures reads some of them, and knows of the others what it must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.pictures import sample
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.settings.config import TrainConfig
from noisewise.training.train import plan
from picture_files import write_pictures

WANTED = 40  # of 100 pictures


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_VALUES", WANTED * 3 * 16**2)


def sources(place: Path) -> tuple[Path, Path]:
    """100 pictures in four class folders, and the same in an array file with labels."""
    images, labels = [], []
    for label, name in enumerate("abcd"):
        folder = write_pictures(place / "set" / name, 25, 16, 16)
        for path in sorted(folder.iterdir()):
            images.append(np.asarray(Image.open(path)) // 2 + 30 * label)
            Image.fromarray(images[-1].astype(np.uint8)).save(path)
            labels.append(label)
    array = place / "set.npz"
    np.savez(array, images=np.array(images, np.uint8), labels=labels, categories=list("abcd"))
    return place / "set", array


def read(path: Path, sampled: bool) -> Pictures:
    return load_pictures(path, 16, sampled=sampled)


def test_some_pictures_keep_their_names_labels_and_all_classes(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        whole, some = read(path, False), read(path, True)
        assert (len(whole), len(some)) == (100, WANTED)
        assert (whole.total, some.total) == (0, 100)
        assert some.classes == whole.classes == ("a", "b", "c", "d")
        assert some.notes[0] == f"only {WANTED} of 100 pictures are read for this plan"
        chosen = sample.sampled(100, 16)
        np.testing.assert_array_equal(some.images, whole.images[chosen])
        assert some.labels is not None
        assert whole.labels is not None
        np.testing.assert_array_equal(some.labels, whole.labels[chosen])
        if whole.names:
            assert list(some.names) == [whole.names[i] for i in chosen]


def test_damaged_files_are_weighed_against_all_pictures(tmp_path: Path) -> None:
    path, _ = sources(tmp_path)
    for i in range(60):  # fewer than the others, more than are read
        (path / "a" / f"broken{i}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert len(read(path, True)) == WANTED


def test_a_plan_says_so_and_counts_kinds_for_all_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = sources(tmp_path)
    with np.load(path) as arrays:
        images = arrays["images"].repeat(5, 0)
    noise = np.random.default_rng(0).integers(0, 9, images.shape, np.uint8)
    np.savez(tmp_path / "more.npz", images=images + noise)
    config = TrainConfig(budget="640images", size=16)
    found = plan(tmp_path / "more.npz", config)
    assert found.notes[0] == f"only {WANTED} of 500 pictures are read for this plan"
    monkeypatch.setattr(sample, "_VALUES", 10**9)
    whole = plan(tmp_path / "more.npz", config)
    assert found.classes == whole.classes == ("kind 1", "kind 2")
    assert not any("are read for this plan" in note for note in whole.notes)
    assert found.sigma_data == pytest.approx(whole.sigma_data, rel=0.05)
    assert found.net["widths"] == whole.net["widths"]


def test_with_crops_every_file_is_read(tmp_path: Path) -> None:
    for path in sources(tmp_path):
        whole, some = (load_pictures(path, 8, crops=2, sampled=wanted) for wanted in (False, True))
        np.testing.assert_array_equal(some.images, whole.images)
        assert some.total == 0


def test_pictures_of_any_shape_are_counted_by_their_pixels() -> None:
    assert len(sample.sampled(100, (8, 32))) == len(sample.sampled(100, 16)) == WANTED
