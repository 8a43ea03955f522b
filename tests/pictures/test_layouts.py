"""Layouts of other tools: read with their labels, or named with what to change."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.pictures.bit_depth import Extent, Range, ranges
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.settings.config import TrainConfig
from picture_files import colour, write_pictures


def write(folder: Path, *places: str, each: int = 8) -> Path:
    """Different pictures in each of some folders."""
    for k, place in enumerate(places):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            colour(100 * k + i).save(folder / place / f"{k}-{i}.png")
    return folder


def by_name(pictures: Pictures) -> dict[str, str]:
    assert pictures.labels is not None
    return dict(
        zip(pictures.names, (pictures.classes[label] for label in pictures.labels), strict=True)
    )


# ---------------------------------------------------------------------- folders
def test_classes_below_train_and_none_below_test(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", "train/cat", "train/dog", "test")
    pictures = load_pictures(folder)
    assert pictures.labels is None
    want = (
        "no classes: train has class folders, but the 8 pictures in test are in none; "
        "to learn classes, give the folder train alone"
    )
    assert want in pictures.notes
    assert load_pictures(folder / "train").classes == ("cat", "dog")
    with pytest.raises(
        ValueError, match=r"no classes to learn: .*give the folder train alone.*without"
    ):
        noisewise.plan(folder, TrainConfig(budget="16images", classes=True))


def test_other_splits(tmp_path: Path) -> None:
    both = load_pictures(write(tmp_path / "a", "train/cat", "train/dog", "val/cat", "val/dog"))
    assert both.classes == ("cat", "dog")
    unknown = load_pictures(write(tmp_path / "b", "s/train/cat", "s/train/dog", "s/test/unknown"))
    assert unknown.classes == ("cat", "dog", "unknown")
    assert any("no other folder has the classes of test (unknown)" in n for n in unknown.notes)
    mixed = load_pictures(write(tmp_path / "c", "train/cat", "train/dog", "train", "test"))
    assert "no classes: 16 pictures are outside the subfolders" in mixed.notes


# ---------------------------------------------------------------------- dataset.json
def test_labels_of_stylegan_and_edm(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", "00000", "00001", each=10)
    names = sorted(str(p.relative_to(folder).as_posix()) for p in folder.rglob("*.png"))
    wanted = {name: (3, 20, 100)[i % 3] for i, name in enumerate(names)}
    (folder / "dataset.json").write_text(json.dumps({"labels": list(wanted.items())}))
    pictures = load_pictures(folder)
    assert by_name(pictures) == {name: str(label) for name, label in wanted.items()}
    assert pictures.classes == ("3", "20", "100")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    assert by_name(load_pictures(tmp_path / "x.zip")) == by_name(pictures)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"labels": null}', 'it has no list of "labels"'),
        ('{"images": [1]}', 'it has no list of "labels"'),
        ("[]", 'it has no list of "labels"'),
        ("[" * 9999, "it is not JSON"),
        ('{"labels": [["0-0.png", [0.5, 1]]]}', "label 1 is not a file name and a whole number"),
        ('{"labels": [["0-0.png", true]]}', "label 1 is not a file name and a whole number"),
    ],
)
def test_other_files_of_this_name_do_no_harm(tmp_path: Path, text: str, why: str) -> None:
    folder = write(tmp_path / "x", "cat", "dog")
    (folder / "dataset.json").write_text(text)
    pictures = load_pictures(folder)
    assert f"dataset.json is not used: {why}" in pictures.notes
    assert pictures.classes == ("cat", "dog")


# ---------------------------------------------------------------------- metadata
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("first", ["", "sep={}"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_csv_of_spreadsheets(
    tmp_path: Path, encoding: str, separator: str, first: str, end: str
) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = [("file_name", "label"), *((f"p{i:03}.png", "äb"[i % 2]) for i in range(20))]
    lines = [first.format(separator), *(separator.join(row) for row in rows)]
    text = end.join(lines if first else lines[1:])
    (folder / "metadata.csv").write_bytes(text.encode(encoding))
    assert by_name(load_pictures(folder)) == {f"p{i:03}.png": "äb"[i % 2] for i in range(20)}


def test_semicolons_inside_of_names_change_nothing(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = "".join(f"p{i:03}.png,{('a;b', 'c')[i % 2]},x;y\n" for i in range(20))
    (folder / "metadata.csv").write_text("file_name,label,note; more\n" + rows)
    assert load_pictures(folder).classes == ("a;b", "c")


@pytest.mark.parametrize("composed", [True, False])
def test_both_spellings_of_accents_name_a_file(tmp_path: Path, composed: bool) -> None:
    on_disk, in_file = ("NFC", "NFD") if composed else ("NFD", "NFC")
    folder = tmp_path / "x"
    for i in range(20):
        (folder / unicodedata.normalize(on_disk, "é")).mkdir(parents=True, exist_ok=True)
        colour(i).save(folder / unicodedata.normalize(on_disk, f"é/ü{i}.png"))
    rows = [f"é/ü{i}.png,{'ab'[i % 2]}" for i in range(20)]
    text = "\n".join(["file_name,label", *rows])
    (folder / "metadata.csv").write_text(unicodedata.normalize(in_file, text), "utf-8")
    assert load_pictures(folder).label_histogram == (10, 10)


# ---------------------------------------------------------------------- arrays
@pytest.mark.parametrize(
    ("images", "labels", "test"),
    [
        ("x_train", "y_train", "x_test"),
        ("X_train", "y_train", "X_test"),
        ("train_images", "train_labels", "val_images"),
    ],
)
@pytest.mark.parametrize("column", [False, True])
def test_the_training_part_of_an_npz(
    tmp_path: Path, images: str, labels: str, test: str, column: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    numbers = np.arange(20) % 4
    parts = {images: pixels[:20], labels: numbers[:, None] if column else numbers}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, array in {**parts, test: pixels[20:]}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    pictures = load_pictures(tmp_path / "a.npz")
    assert f"the pictures are the array {images!r}; not used: {test}" in pictures.notes
    assert pictures.labels is not None
    assert pictures.labels.tolist() == numbers.tolist()
    np.testing.assert_array_equal(pictures.images[..., 0], pixels[:20])


def test_labels_of_another_form_are_named(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.eye(20))
    pictures = load_pictures(tmp_path / "a.npz")
    assert pictures.labels is None
    assert any("no classes: 'y_train' has shape (20, 20)" in note for note in pictures.notes)


# ---------------------------------------------------------------------- values of floats
@pytest.mark.parametrize("beyond", [0.0, 0.0008])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_every_scale_of_floats_may_be_exceeded_a_little(
    tmp_path: Path, beyond: float, low: float, high: float
) -> None:
    pixels = np.random.default_rng(0).random((20, 8, 8))
    pixels[0, 0, :2] = 0.0, 1.0
    scaled = low + (high - low) * pixels
    scaled += beyond * (high - low) / 2 * (2 * pixels - 1)
    for kind in (np.float32, np.float64):
        np.save(tmp_path / "a.npy", scaled.astype(kind))
        found = load_pictures(tmp_path / "a.npy").images[..., 0]
        assert np.abs(found - 255 * pixels).max() < 0.75, "washed out"
    extent = Extent("float", float(scaled.min()), float(scaled.max()))
    assert ranges([extent]).of("F") == Range(low, high)


def test_more_than_a_little_is_another_scale() -> None:
    assert ranges([Extent("float", -0.01, 1.0)]).of("F") == Range(-1.0, 1.0)
    assert ranges([Extent("float", -0.01, 37.0)]).of("F") == Range(-0.01, 37.0)
    assert ranges([Extent("float", 0.0, 256.0)]).of("F") == Range(0.0, 1023.0)
    assert ranges([Extent("16-bit", 0.0, 255.0)]).of("I;16") == Range(0.0, 255.0)
    assert ranges([Extent("16-bit", 0.0, 256.0)]).of("I;16") == Range(0.0, 1023.0)


# ---------------------------------------------------------------------- several pictures in a file
@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_film_is_named_with_what_to_do(tmp_path: Path, ending: str) -> None:
    first, *others = [colour(i) for i in range(20)]
    path = tmp_path / "x" / f"film.{ending}"
    path.parent.mkdir()
    first.save(path, save_all=True, append_images=others)
    with pytest.raises(ValueError, match=r"1 file with several frames, 20 pictures in all.*save"):
        load_pictures(path.parent)
    write_pictures(path.parent, 3)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in path.parent.iterdir():
            archive.write(file, file.name)
    with pytest.raises(ValueError, match="23 pictures in all"):
        load_pictures(tmp_path / "x.zip")
    write_pictures(path.parent, 20)
    notes = load_pictures(path.parent).notes
    assert any(note.startswith("1 picture with several frames: only") for note in notes)


def test_few_pages_are_few_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "x", 3)
    colour(9).save(tmp_path / "x" / "s.tif", save_all=True, append_images=[colour(8)])
    with pytest.raises(ValueError, match="has only 5 usable pictures"):
        load_pictures(tmp_path / "x")
