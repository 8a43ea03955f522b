"""Pictures that a caller holds become a file with the same pixels and labels, written once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from noisewise.pictures.given import as_file
from noisewise.pictures.pictures import load_pictures
from tiny import blobs

GREY = blobs(40, 8)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4
NAMES = ("hat", "coat", "bag", "shoe")


class Things(Dataset):
    """Pairs of a picture and a number, as torchvision's sets give them; it knows its classes."""

    def __init__(self, change: Callable[[np.ndarray], Any]) -> None:
        self.change, self.classes = change, list(NAMES)

    def __len__(self) -> int:
        return len(COLOUR)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.change(COLOUR[index]), int(LABELS[index])


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """What ToTensor makes: channels first, from 0 to 1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


WAYS: dict[str, tuple[Callable[[], Any], np.ndarray]] = {
    "grey array": (lambda: GREY[..., 0], GREY),
    "array": (lambda: COLOUR, COLOUR),
    "array in Fortran order": (lambda: np.asfortranarray(COLOUR), COLOUR),
    "tensor from -1 to 1": (
        lambda: torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 127.5 - 1,
        COLOUR,
    ),
    "tensor that needs a gradient": (
        lambda: (torch.from_numpy(COLOUR).permute(0, 3, 1, 2) / 255).requires_grad_(),
        COLOUR,
    ),
    "pictures": (lambda: [Image.fromarray(pixels) for pixels in COLOUR], COLOUR),
    "list of arrays": (lambda: list(COLOUR), COLOUR),
    "list of tensors": (lambda: [as_tensor(pixels) for pixels in COLOUR], COLOUR),
    "dataset of pictures": (lambda: Things(Image.fromarray), COLOUR),
    "dataset of tensors": (lambda: Things(as_tensor), COLOUR),
    "tensors with labels": (
        lambda: TensorDataset(torch.from_numpy(COLOUR), torch.from_numpy(LABELS)),
        COLOUR,
    ),
    "pair": (lambda: (COLOUR, LABELS), COLOUR),
    "dictionaries": (
        lambda: [{"image": Image.fromarray(p), "label": n} for p, n in zip(COLOUR, LABELS)],  # noqa: B905
        COLOUR,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_pixels_are_the_same_and_the_file_is_written_once(way: str, tmp_path: Path) -> None:
    given, pixels = WAYS[way][0](), WAYS[way][1]
    path = as_file(given, tmp_path / "cache")
    pictures = load_pictures(path, 8)
    images = np.asarray(pictures.images)
    if path.suffix == ".zip":  # there they are in the order of their classes
        images, pixels = (np.array(sorted(map(bytes, of))) for of in (images, pixels))
    assert np.array_equal(images, pixels)
    written = path.stat()
    again = as_file(WAYS[way][0](), tmp_path / "cache")
    assert again == path
    assert again.stat().st_mtime_ns == written.st_mtime_ns
    assert [item.name for item in (tmp_path / "cache").iterdir()] == [path.name]


def named_labels(pictures: Any) -> list[str]:  # noqa: ANN401
    return [pictures.classes[label] for label in pictures.labels]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (lambda: Things(Image.fromarray), NAMES),
        (lambda: Things(as_tensor), NAMES),
        (lambda: Subset(Things(as_tensor), range(40)), NAMES),
        (lambda: (COLOUR, LABELS), "0123"),
        (lambda: [(Image.fromarray(p), f"class {n}") for p, n in zip(COLOUR, LABELS)], None),  # noqa: B905
        (lambda: [{"img": p, "label": torch.tensor(n)} for p, n in zip(COLOUR, LABELS)], "0123"),  # noqa: B905
    ],
)
def test_labels_keep_their_names(
    given: Callable[[], Any], names: tuple[str, ...] | str | None, tmp_path: Path
) -> None:
    pictures = load_pictures(as_file(given(), tmp_path), 8)
    order = [names[n] if names else f"class {n}" for n in LABELS]
    pixels = {picture.tobytes(): name for picture, name in zip(COLOUR, order, strict=True)}
    found = named_labels(pictures)
    assert found == [pixels[picture.tobytes()] for picture in np.asarray(pictures.images)]


def test_other_pictures_and_other_labels_are_another_file(tmp_path: Path) -> None:
    changed = COLOUR.copy()
    changed[-1, -1, -1, -1] ^= 1
    files = {
        as_file(given, tmp_path)
        for given in (COLOUR, changed, COLOUR[::-1], (COLOUR, LABELS), (COLOUR, LABELS[::-1]))
    }
    assert len(files) == 5


def test_pictures_of_several_sizes_and_kinds(tmp_path: Path) -> None:
    """As PIL has them: palettes, transparency, 16 bits, and turned by the camera."""
    turned = Image.fromarray(COLOUR[0][:, :4])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = io.BytesIO()
    turned.save(file, format="TIFF", exif=exif)
    made = [Image.fromarray(pixels).resize((8 + i, 12)) for i, pixels in enumerate(COLOUR[:20])]
    made += [picture.convert(mode) for picture in made[:2] for mode in ("P", "L", "RGBA", "CMYK")]
    path = as_file([*made, Image.open(file)], tmp_path)
    pictures = load_pictures(path, 8)
    assert len(pictures) == len(made) + 1
    with pytest.raises(ValueError, match="mode F"):
        as_file([Image.new("F", (8, 8))], tmp_path)


def test_a_class_with_a_strange_name_cannot_leave_the_file(tmp_path: Path) -> None:
    names = ["../../evil", "/root", "a\\b", ".hidden", "", "tab\there"]
    given = [(Image.fromarray(p), names[i % 6]) for i, p in enumerate(COLOUR[:36])]
    pictures = load_pictures(as_file(given, tmp_path), 8)
    assert len(pictures) == 36
    assert len(pictures.classes) == 6
    assert {path.name for path in tmp_path.iterdir()} == {as_file(given, tmp_path).name}


def test_a_set_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    )
    rows = {"image": [Image.fromarray(p) for p in COLOUR], "label": LABELS.tolist()}
    made = datasets.Dataset.from_dict(rows, features=features)
    pictures = load_pictures(as_file(made, tmp_path), 8)
    pixels = {p.tobytes(): NAMES[n] for p, n in zip(COLOUR, LABELS, strict=True)}
    images = np.asarray(pictures.images)
    assert named_labels(pictures) == [pixels[picture.tobytes()] for picture in images]
    with pytest.raises(ValueError, match=r"several splits \('train'\); give one"):
        as_file(datasets.DatasetDict({"train": made}), tmp_path)


def test_what_looks_like_such_a_set_is_read_without_the_package(tmp_path: Path) -> None:
    """The columns may have any name: their types say what they hold."""

    class Image_:
        pass

    class ClassLabel:
        names = NAMES

    Image_.__name__ = "Image"

    class Rows(list):
        column_names = ("photo", "what")
        features = {"photo": Image_(), "what": ClassLabel()}  # noqa: RUF012

    rows = Rows(
        {"photo": Image.fromarray(p), "what": int(n)} for p, n in zip(COLOUR, LABELS, strict=True)
    )
    pictures = load_pictures(as_file(rows, tmp_path), 8)
    assert sorted(pictures.classes) == sorted(NAMES)


def cut_short() -> Image.Image:
    """A picture whose file ends too early: Pillow opens it, and fails when it is used."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    return Image.open(io.BytesIO(file.getvalue()[:4000]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: 5, "a int cannot be used as pictures; give a path, an array"),
        (lambda: (p for p in COLOUR), "a generator cannot be used as pictures"),
        (list, "there are no pictures"),
        (lambda: ["a.png", "b.png"], "the first item holds a str in place of a picture"),
        (lambda: [{"caption": "a cat"}], "an item has 'caption' and no picture; name it 'image'"),
        (lambda: np.array([COLOUR[0], None], object), "array of Python objects"),
        (lambda: [COLOUR[0], COLOUR[1][:4]], "picture 1 is uint8 of shape"),
        (lambda: [Image.fromarray(COLOUR[0]), COLOUR[1]], "item 1 holds a ndarray"),
        (lambda: [(COLOUR[0], 3.5)] * 40, "a label is a float; give whole numbers or names"),
        (lambda: SimpleNamespace(x=1), "a SimpleNamespace cannot be used"),
        (lambda: {"image": list(COLOUR)}, "a dict cannot be used as pictures; give its pictures"),
        (lambda: [(COLOUR[0], np.eye(3)[0])] * 40, "a label is a ndarray; give whole numbers"),
        (
            lambda: [(COLOUR[0], "a"), COLOUR[1]],
            "picture 1 has no label, and the first one has one",
        ),
        (
            lambda: [COLOUR[0], (COLOUR[1], "a")],
            "picture 1 has a label, and the first one has none",
        ),
        (lambda: [Image.fromarray(COLOUR[0]), cut_short()], "picture 1 cannot be read: .*leave it"),
    ],
)
def test_what_cannot_be_pictures_is_one_sentence(
    given: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        as_file(given(), tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert as_file("cats", tmp_path) == as_file(Path("cats"), tmp_path) == Path("cats")
