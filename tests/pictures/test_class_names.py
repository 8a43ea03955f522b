"""Class names: natural order in every source, and a note where they look like class numbers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from noisewise.pictures.class_names import about_numbers, composed, natural_order
from noisewise.pictures.pictures import Pictures, load_pictures
from picture_files import colour, write_pictures

NAMES = ("1", "2", "3", "10", "11")
NOTE = 'class names are not class numbers: label="2" draws the class 2, label=2 the class 3'


def classes_of(pictures: Pictures) -> list[str]:
    """The class of each picture, by name."""
    assert pictures.labels is not None
    return [pictures.classes[label] for label in pictures.labels]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([np.asarray(colour(i)) for i in range(20)])
    return images, np.array([NAMES[i % 5] for i in range(20)])


def sources(folder: Path) -> dict[str, Path]:
    """The same classes in every source."""
    images, names = arrays()
    for i in range(20):
        (folder / "folders" / names[i]).mkdir(parents=True, exist_ok=True)
        colour(i).save(folder / "folders" / names[i] / f"{i}.png")
    rows = "".join(f"p{i:03}.png,class {names[i]}\n" for i in range(20))
    write_pictures(folder / "rows")
    (folder / "rows" / "metadata.csv").write_text("file_name,label\n" + rows)
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for path in sorted((folder / "folders").rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    np.savez(folder / "text.npz", images=images, labels=names)
    np.savez(folder / "bytes.npz", images=images, labels=names.astype("S"))
    np.savez(folder / "numbers.npz", images=images, labels=names.astype(np.int64))
    found = ("folders", "rows", "z.zip", "text.npz", "bytes.npz", "numbers.npz")
    return {name: folder / name for name in found}


def test_numbers_have_their_order_in_every_source(tmp_path: Path) -> None:
    for name, path in sources(tmp_path).items():
        pictures = load_pictures(path)
        word = "class " if name == "rows" else ""
        assert pictures.classes == tuple(word + number for number in NAMES), name
        assert pictures.label_histogram == (4, 4, 4, 4, 4), name
        assert (NOTE in pictures.notes) == (name != "rows"), name
        if name in ("text.npz", "bytes.npz", "numbers.npz"):
            assert classes_of(pictures) == [NAMES[i % 5] for i in range(20)], name
        if name in ("folders", "z.zip"):
            assert classes_of(pictures) == [p.split("/")[-2] for p in pictures.names], name


def test_natural_order_of_odd_names() -> None:
    names = ["b", "a10b2", "a2", "a10b10", "007", "7", "", "9" * 5000, "1" * 5001, "-1", "²"]
    ordered = natural_order(names)
    assert sorted(ordered) == sorted(names)
    assert ordered.index("a2") < ordered.index("a10b2") < ordered.index("a10b10") < len(names)
    assert ordered.index("9" * 5000) < ordered.index("1" * 5001), "by value, without int()"
    assert natural_order(reversed(ordered)) == ordered, "the order is total"


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (("0", "1"), None),
        (("cat", "dog"), None),
        (("00", "01"), None),
        (("1", "2"), 'label="1" draws the class 1, label=1 the class 2'),
        (("100", "200"), "label=100 is no class, as numbers end at 1"),
        (("cat", "0"), 'label="0" draws the class 0, label=0 the class cat'),
        (("1a", "2a"), None),
        (("²", "1" * 30), None),
    ],
)
def test_names_that_look_like_numbers(classes: tuple[str, ...], note: str | None) -> None:
    found = about_numbers(classes)
    assert not found if note is None else note in found[0]


def test_one_class_in_two_spellings_of_its_accent(tmp_path: Path) -> None:
    one, two = "caf\u00e9", "cafe\u0301"
    assert composed(two) == one
    for i, folder in enumerate((f"train/{one}", "train/tea", f"val/{two}", "val/tea")):
        (tmp_path / folder).mkdir(parents=True)
        for k in range(5):
            colour(5 * i + k).save(tmp_path / folder / f"{k}.png")
    assert load_pictures(tmp_path).classes == (one, "tea")
