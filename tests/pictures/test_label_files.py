"""Labels from metadata.csv and metadata.jsonl: what is said is used, what is odd is named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import noisewise
from noisewise.pictures.pictures import load_pictures
from noisewise.training.settings.config import TrainConfig
from picture_files import write_pictures


def csv_of(rows: Sequence[tuple[object, ...]], head: str = "file_name,label") -> str:
    return "\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n"


def named(count: int = 20) -> list[str]:
    return [f"p{i:03}.png" for i in range(count)]


def test_a_csv_of_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = [(name, ("dog", "cat")[i % 2]) for i, name in enumerate(named())]
    (folder / "metadata.csv").write_text(csv_of(rows))
    pictures = load_pictures(folder)
    assert pictures.classes == ("cat", "dog")
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [1, 0] * 10
    assert not pictures.skipped, "the metadata file is read, not left out"
    assert "classes: the labels in the metadata file" in pictures.notes


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = [json.dumps({"file_name": n, "label": (2, 10)[i % 2]}) for i, n in enumerate(named())]
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n\n")
    pictures = load_pictures(folder)
    assert pictures.classes == ("2", "10")
    assert pictures.label_histogram == (10, 10)
    (folder / "metadata.jsonl").unlink()
    rows = [(name, (2, 10)[i % 2]) for i, name in enumerate(named())]
    (folder / "metadata.csv").write_text("\ufeff" + csv_of(rows))
    assert load_pictures(folder).classes == ("2", "10")


def test_one_a_split_and_names_with_folders(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pictures(tmp_path / part / "in", 10 if part == "train" else 18)
        count = 10 if part == "train" else 18
        rows = [(f"in/../in/{n}", ("a", "b")[i % 2]) for i, n in enumerate(named(count))]
        (tmp_path / part / "metadata.csv").write_text(csv_of(rows))
    assert load_pictures(tmp_path).label_histogram == (14, 14)


def test_in_a_zip(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = [(name, i % 2) for i, name in enumerate(named())]
    (folder / "metadata.csv").write_text(csv_of(rows))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"top/{file.name}")
    zipped = load_pictures(tmp_path / "x.zip")
    assert zipped.label_histogram == (10, 10)
    assert zipped.fingerprint == load_pictures(folder).fingerprint


def test_captions_alone_leave_the_folders_their_say(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 18)
        rows = [(n, "a drawing") for n in named(18)]
        (tmp_path / name / "metadata.csv").write_text(csv_of(rows, "file_name,text"))
    pictures = load_pictures(tmp_path)
    assert pictures.classes == ("a", "b")
    assert any("no column named label" in note for note in pictures.notes)


def test_a_picture_without_a_label_is_said(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    rows = [(name, i % 2) for i, name in enumerate(named()[:-1])]
    (folder / "metadata.csv").write_text(csv_of(rows))
    pictures = load_pictures(folder)
    assert pictures.labels is None
    assert any(
        "19 of 20 pictures have a label in the metadata file and 1 has none" in note
        for note in pictures.notes
    )
    assert any("p019.png" in note for note in pictures.notes)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.csv", b"label\n1\n", "row 1 has no file_name"),
        ("metadata.csv", b"\n", "no column named label"),
        ("metadata.csv", b'file_name,label\n"p000.png,1\n', "is not used"),
        ("metadata.csv", b"file_name,label\np000.png,\xff\xfe\n", "is not used"),
        ("metadata.jsonl", b"{]\n", "line 1 is not JSON"),
        ("metadata.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("metadata.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        (
            "metadata.jsonl",
            b'{"file_name": "p000.png", "label": 1.5}\n',
            "is not a name or a whole number",
        ),
        ("metadata.jsonl", b'{"file_name": 3, "label": 1}\n', "row 1 has no file_name"),
        ("metadata.jsonl", bytes(range(256)), "is not used"),
    ],
)
def test_odd_metadata_costs_no_picture(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    folder = write_pictures(tmp_path / "x")
    (folder / name).write_bytes(content)
    pictures = load_pictures(folder)
    assert len(pictures) == 20
    assert pictures.labels is None
    assert any(says in note and "\n" not in note for note in pictures.notes), pictures.notes


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_to_metadata_never_raises(tmp_path: Path, seed: int) -> None:
    folder = write_pictures(tmp_path / "x", 16, 8, 8)
    generator = np.random.default_rng(seed)
    good = csv_of([(name, i % 2) for i, name in enumerate(named(16))]).encode()
    for _ in range(10):
        data = bytearray(good)
        for place in generator.integers(0, len(data), 4):
            data[place] = generator.integers(0, 256)
        (folder / "metadata.csv").write_bytes(data)
        pictures = load_pictures(folder)
        assert len(pictures) == 16
        assert pictures.labels is not None or pictures.notes


def about(folder: Path, *, with_classes: bool = False) -> list[str]:
    if with_classes:
        with pytest.raises(ValueError, match="no classes to learn") as error:
            noisewise.plan(folder, TrainConfig(budget="16images", classes=True))
        return [str(error.value)]
    return [note for note in load_pictures(folder).notes if "not there" in note]


@pytest.mark.parametrize("kind", ["dataset.json", "metadata.csv", "metadata.jsonl"])
def test_names_without_a_file_are_told_in_one_note(tmp_path: Path, kind: str) -> None:
    folder = write_pictures(tmp_path / "x")
    (folder / "broken.png").write_bytes(b"")  # it is there, though it cannot be used
    for stale in ((), ("gone.png",), ("gone\n.png", "lost.png", "old/p000.png")):
        pairs = [(name, i % 2) for i, name in enumerate((*named(), "broken.png", *stale))]
        texts = {
            "dataset.json": json.dumps({"labels": pairs}),
            "metadata.csv": csv_of([(f'"{name}"', label) for name, label in pairs]),
            "metadata.jsonl": "\n".join(
                json.dumps({"file_name": name, "label": label}) for name, label in pairs
            ),
        }
        (folder / kind).write_text(texts[kind])
        few, many = f"{kind} names 1 file that is", f"{kind} names 3 files that are"
        expected = {
            0: [],
            1: [f"{few} not there: gone.png"],
            3: [f"{many} not there, for example gone\\n.png"],
        }
        assert about(folder) == expected[len(stale)]
        assert load_pictures(folder).label_histogram == (10, 10)


def test_classes_of_partly_labelled_pictures_are_refused_with_numbers(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "x")
    pairs = [(name, i % 2) for i, name in enumerate(named(17))]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    (said,) = about(folder, with_classes=True)
    assert "17 of 20 pictures have a label in the metadata file and 3 have none" in said
    assert "for example p017.png" in said
    (folder / "dataset.json").unlink()
    (said,) = about(folder, with_classes=True)
    assert "it has no class subfolders and no labels; train without --classes" in said
