"""A run finds its pictures again: among its own files, after a move, with the labels it had."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.pictures import class_names, folder_classes, gather
from noisewise.pictures.older_labels import as_labelled_before, in_class_order
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.training_set import TrainingSet
from picture_files import colour

TEACH = TrainConfig(
    budget="32images",
    size=8,
    widths=(4, 4),
    recipe=TeacherRecipe(batch=16, distance_images=16, sampler_images=16),
)
NAMES = ("1", "2", "10", "11")


def write(folder: Path, names: tuple[str, ...] = NAMES, each: int = 6) -> Path:
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            colour(100 * k + i, 8, 8).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("out", [None, "mine", "1/inside-a-class"])
def test_a_run_inside_of_its_pictures_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    monkeypatch.chdir(write(tmp_path / "pictures"))
    config = replace(TEACH, classes=True)
    run = noisewise.train(".", out, config=config)
    assert run.finished("teacher")
    assert list((run.path / "samples").glob("*.png"))
    assert run.data.classes == NAMES
    noisewise.train(".", out, "64images", config=config)
    assert Run(run.path).stage("teacher").images == 64
    assert len(TrainingSet.read(Run(run.path)).pictures) == 24
    found = noisewise.evaluate(run, num_images=16)
    assert found.num_images == 16
    assert noisewise.inspect(".").num_pictures == 24
    noisewise.train(".", "other", "16images", config=config)
    assert Run("other").data.fingerprint == run.data.fingerprint, "the first run is left out"


def test_moved_pictures_are_noted_when_training_goes_on(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old"), tmp_path / "new"
    run = noisewise.train(old, tmp_path / "run", config=TEACH)
    old.rename(new)
    with pytest.raises(
        ValueError, match=r"are missing: .*old does not exist; if they were moved, say"
    ):
        Run(run.path).pictures()
    noisewise.train(new, run.path, config=TEACH)  # it is finished; nothing is trained
    assert Run(run.path).source() == new
    assert Run(run.path).data.source == "../new"
    assert Run(run.path).pictures().fingerprint == run.data.fingerprint
    other = write(tmp_path / "other", each=5)
    with pytest.raises(ValueError, match="was trained on other pictures"):
        noisewise.train(other, run.path, config=TEACH)
    assert Run(run.path).source() == new, "pictures that are refused are not noted"


# ---------------------------------------------------------------------- labels of older versions
def relabelled(pictures: Pictures, labels: list[int] | None, classes: tuple[str, ...]) -> Pictures:
    """The pictures as a version read them that gave these labels."""
    array = None if labels is None else np.array(labels, np.int64)
    marks = gather.digests(pictures.images)
    print_of = gather.fingerprint_of(pictures.images.shape, marks, array, classes, pictures.groups)
    return replace(pictures, labels=array, classes=classes, fingerprint=print_of)


def test_text_order_and_missing_labels_are_found_again(tmp_path: Path) -> None:
    now = load_pictures(write(tmp_path / "x"))
    text = ("1", "10", "11", "2")
    folders = [name.split("/")[0] for name in now.names]
    sorted_as_text = relabelled(now, [text.index(name) for name in folders], text)
    for before in (sorted_as_text, relabelled(now, None, ())):
        found = as_labelled_before(now, before.fingerprint)
        assert (found.fingerprint, found.classes) == (before.fingerprint, before.classes)
        if found.labels is None or before.labels is None:
            assert found.labels is before.labels
        else:
            assert found.labels.tolist() == before.labels.tolist()
    assert as_labelled_before(now, "another") is now
    assert as_labelled_before(now, now.fingerprint) is now


def test_folders_count_where_a_file_with_labels_was_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    before = load_pictures(folder)
    rows = "\n".join(f"{name};{'ab'[i % 2]}" for i, name in enumerate(before.names))
    (folder / "metadata.csv").write_text("file_name;label\n" + rows)
    now = load_pictures(folder)
    assert now.classes == ("a", "b")
    text = ("1", "10", "11", "2")
    old = relabelled(before, [text.index(n.split("/")[0]) for n in before.names], text)
    assert as_labelled_before(now, old.fingerprint).classes == text


def test_names_in_one_spelling_stay_as_they_are(tmp_path: Path) -> None:
    names = tuple(unicodedata.normalize("NFD", name) for name in ("é", "ü"))
    found = load_pictures(write(tmp_path / "x", names, 10))
    assert found.classes == names, "as older versions read them"


def test_a_run_of_an_older_version_keeps_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorting as text stands for the older version that began the run."""
    folder, config = write(tmp_path / "x"), replace(TEACH, classes=True)
    with monkeypatch.context() as older:
        for module in (class_names, folder_classes):
            older.setattr(module, "natural_order", sorted)
        run = noisewise.train(folder, tmp_path / "run", config=config)
    assert run.data.classes == ("1", "10", "11", "2")
    for cached in (run.path / "cache").iterdir():
        cached.unlink()  # it holds the order too
    noisewise.train(folder, run.path, "64images", config=config)
    assert Run(run.path).stage("teacher").images == 64
    assert Run(run.path).teacher().classes == ("1", "10", "11", "2")
    assert Run(run.path).teacher().sample(1, label="11").shape[0] == 1
    with pytest.raises(ValueError, match=r'unknown class 11; .*; by its name: label="11"'):
        Run(run.path).teacher().sample(1, label=11)
    pictures = Run(run.path).pictures()
    assert pictures.classes == ("1", "10", "11", "2")
    fresh = load_pictures(folder)
    assert fresh.classes == NAMES
    assert in_class_order(fresh, pictures.classes).fingerprint == pictures.fingerprint
    assert in_class_order(fresh, ("1", "2")) is fresh
