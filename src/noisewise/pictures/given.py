"""Pictures that a caller holds in memory become a file, which the other sources read.

An array, a tensor, a list of PIL pictures, a dataset of torch or of Hugging Face: all of them are
written once, as .npz if they are arrays and as a .zip of PNG files if they are pictures. The name
of the file is the digest of what it holds, so the same pictures give the same file: a run that is
resumed with them finds it. Classes are in the natural order of their names, as those of folders.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from noisewise.whole_files import replacing

PREFIX = "given-"
"""Names of files of given pictures begin with it."""

_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
_IMAGE_KEYS = ("image", "img", "picture", "pixel_values")
_LABEL_KEYS = ("label", "labels", "class", "fine_label", "target")
_DATE = (1980, 1, 1, 0, 0, 0)  # the same file for the same pictures


class Dataset(Protocol):
    """Has a length and items: pictures, or pairs or dictionaries with a picture in them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...  # noqa: ANN401


Given = str | Path | np.ndarray | Sequence[Any] | Dataset
"""Pictures as a caller may have them: a path, an array or tensor, a list, a dataset."""


def is_path(given: object) -> bool:
    """Whether pictures are on disk already.

    Example:
        >>> is_path("cats"), is_path(np.zeros((4, 8, 8)))
        (True, False)
    """
    return isinstance(given, str | os.PathLike)


def as_file(given: Given, folder: Path) -> Path:
    """Return the path of the pictures; those in memory are written into a folder first.

    Args:
        given: a path, or pictures in memory. Arrays and tensors are [n, height, width] or have
            their channels first or last; (images, labels) is a pair of arrays. Items of a dataset
            are pictures, pairs (picture, label), or dictionaries with `image` and `label`.
        folder: is made if it is needed; a file with the same pictures is not written again.

    Raises:
        ValueError: if they cannot be used; the message says what can.
    """
    if isinstance(given, str | os.PathLike):
        return Path(given)
    arrays = _as_arrays(given)
    if arrays is not None:
        return _save_arrays(arrays, folder)
    items = _Items(given)
    if items.are_pictures:
        return _save_pictures(items, folder)
    return _save_arrays(items.arrays(), folder)


# ---------------------------------------------------------------------------------------------
# Arrays


def _as_arrays(given: object) -> dict[str, np.ndarray] | None:
    """The arrays of a file, if an array, a tensor or a pair of them is given."""
    if _is_array(given):
        return {"images": _array(given)}
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_array, given)):
        images, labels = map(_array, given)
        if images.ndim >= 3 and labels.ndim == 1:
            return {"images": images, "labels": labels}
    return None


def _is_array(value: object) -> bool:
    """Whether it is an array of numpy or a tensor of torch; torch is not imported for that."""
    return isinstance(value, np.ndarray) or all(
        hasattr(value, name) for name in ("detach", "cpu", "numpy")
    )


def _array(value: Any) -> np.ndarray:  # noqa: ANN401 (an array or a tensor)
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value)
    tensor = value.detach().cpu()
    if "bfloat16" in str(tensor.dtype):  # NumPy does not have it
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy())


def _save_arrays(arrays: dict[str, np.ndarray], folder: Path) -> Path:
    digest = hashlib.blake2b(digest_size=16)
    for name, values in arrays.items():
        if values.dtype.hasobject:
            raise ValueError(
                f"the {name} are an array of Python objects; give one array of numbers, with all "
                "pictures of one size, or a list of PIL pictures"
            )
        digest.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        digest.update(values.tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{PREFIX}{digest.hexdigest()}.npz"
    if not place.exists():
        with replacing(place) as new, new.open("wb") as file:
            np.savez(file, **arrays)  # pyrefly: ignore[bad-argument-type]
    return place


# ---------------------------------------------------------------------------------------------
# Lists and datasets


class _Items:
    """Pictures and labels of a list or a dataset, one by one."""

    def __init__(self, given: Any) -> None:  # noqa: ANN401
        if isinstance(getattr(given, "column_names", None), dict):  # several splits of datasets
            names = ", ".join(map(repr, given))
            raise ValueError(f"these are several splits ({names}); give one, as data['train']")
        if isinstance(given, Mapping) or (hasattr(given, "columns") and hasattr(given, "shape")):
            raise ValueError(
                f"a {type(given).__name__} cannot be used as pictures; give its pictures as a "
                "list, alone or as pairs (picture, label)"
            )
        if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
            raise ValueError(
                f"a {type(given).__name__} cannot be used as pictures; give a path, an array or "
                "tensor [n, height, width, channels], a list of PIL pictures, or a dataset with a "
                "length"
            )
        if not len(given):
            raise ValueError("there are no pictures: the list or dataset is empty")
        self._given = given
        self._image, self._label = _columns(given)
        self.classes = _class_names(given, self._label)
        first, label = self._parts(given[0])
        self._labelled = label is not None
        self.are_pictures = isinstance(first, Image.Image)
        if not (self.are_pictures or _is_array(first)):
            raise ValueError(
                f"the first item holds a {type(first).__name__} in place of a picture; give PIL "
                "pictures, arrays or tensors, alone, as (picture, label), or as a dictionary with "
                "'image' and 'label'"
            )

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for index in range(len(self._given)):
            image, label = self._parts(self._given[index])
            if (label is not None) != self._labelled:
                has, first = ("no label", "one") if self._labelled else ("a label", "none")
                raise ValueError(
                    f"picture {index} has {has}, and the first one has {first}; give all of them "
                    "labels, or none"
                )
            yield image, label

    def arrays(self) -> dict[str, np.ndarray]:
        """All of them as arrays.

        Raises:
            ValueError: if the pictures have several sizes or types.
        """
        images, labels = [], []
        for image, label in self:
            images.append(_array(image) if _is_array(image) else np.asarray(image))
            labels.append(label)
            if images[-1].shape != images[0].shape or images[-1].dtype != images[0].dtype:
                raise ValueError(
                    f"picture {len(images) - 1} is {images[-1].dtype} of shape "
                    f"{images[-1].shape}, and the first is {images[0].dtype} of shape "
                    f"{images[0].shape}; give arrays of one size and type, or PIL pictures"
                )
        found = {"images": np.stack(images)}
        if labels[0] is not None:
            found["labels"] = np.array([self.named(label) for label in labels])
        return found

    def named(self, label: Any) -> str:  # noqa: ANN401 (a number, a text, a tensor)
        """The name of a label."""
        try:
            value = label.item() if hasattr(label, "item") else label
        except (ValueError, RuntimeError):  # an array of several numbers
            value = label
        if isinstance(value, int) and self.classes:
            if not 0 <= value < len(self.classes):
                raise ValueError(f"a label is {value}, but there are {len(self.classes)} classes")
            return self.classes[value]
        if not isinstance(value, int | str):
            raise ValueError(
                f"a label is a {type(value).__name__}; give whole numbers or names, one a picture"
            )
        return str(value)

    def _parts(self, item: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Picture and label of an item; None without a label."""
        if isinstance(item, dict):
            image = self._image or _first(_IMAGE_KEYS, item)
            if image is None:
                raise ValueError(
                    f"an item has {', '.join(map(repr, item))} and no picture; name it 'image'"
                )
            label = self._label or _first(_LABEL_KEYS, item)
            return item[image], None if label is None else item[label]
        if isinstance(item, tuple | list) and item:
            return item[0], item[1] if len(item) > 1 else None
        return item, None


def _first(names: Sequence[str], there: Any) -> str | None:  # noqa: ANN401
    return next((name for name in names if name in there), None)


def _columns(given: Any) -> tuple[str | None, str | None]:  # noqa: ANN401
    """The columns of a dataset of Hugging Face with pictures and with labels."""
    features = getattr(given, "features", None)
    if not isinstance(features, dict):
        return None, None
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = next((name for name, kind in kinds.items() if kind == "Image"), None)
    label = next((name for name, kind in kinds.items() if kind == "ClassLabel"), None)
    return image or _first(_IMAGE_KEYS, kinds), label or _first(_LABEL_KEYS, kinds)


def _class_names(given: Any, label: str | None) -> tuple[str, ...]:  # noqa: ANN401
    """Names of the classes, of a dataset that knows them; a subset asks what it is a part of."""
    features = getattr(given, "features", None)
    if isinstance(features, dict) and label is not None:
        names = getattr(features[label], "names", None)
        return tuple(map(str, names or ()))
    for _ in range(8):
        names = getattr(given, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
        given = getattr(given, "dataset", None)
    return ()


# ---------------------------------------------------------------------------------------------
# Pictures


def _save_pictures(items: _Items, folder: Path) -> Path:
    """A zip of PNG files; the folder of each is its class."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(digest_size=16)
    with tempfile.TemporaryFile(dir=folder) as written:  # its name is the digest of its content
        _write_zip(items, written, digest)
        place = folder / f"{PREFIX}{digest.hexdigest()}.zip"
        if not place.exists():
            written.seek(0)
            with replacing(place) as new, new.open("wb") as file:
                shutil.copyfileobj(written, file)
    return place


def _write_zip(items: _Items, file: IO[bytes], digest: Any) -> None:  # noqa: ANN401 (of hashlib)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, (image, label) in enumerate(items):
            if not isinstance(image, Image.Image):
                raise ValueError(
                    f"item {number} holds a {type(image).__name__}, and the first one a PIL "
                    "picture; give one type of pictures"
                )
            named = "" if label is None else f"{_folder_name(items.named(label))}/"
            name = f"{named}{number:07d}.png"
            data = _png(image, number)
            digest.update(f"{name} {len(data)} ".encode())
            digest.update(data)
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)


def _png(image: Image.Image, number: int) -> bytes:
    """A picture as PNG, turned as its camera says."""
    if image.mode == "F":
        raise ValueError(
            "a PIL picture has the mode F, whose black and white nobody knows; give an array of "
            "floats in [0, 1] or [-1, 1]"
        )
    try:
        upright = ImageOps.exif_transpose(image)  # Pillow reads files as late as it can
        upright.load()
    except OSError as error:
        raise ValueError(f"picture {number} cannot be read: {error}; leave it out") from error
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGBA" if upright.mode in ("PA", "La", "RGBa") else "RGB")
    file = io.BytesIO()
    upright.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _folder_name(name: str) -> str:
    """A class as the name of a folder in a zip; what cannot be one is written as %XX."""
    safe = "".join(c if c.isprintable() and c not in "/\\%" else f"%{ord(c):02X}" for c in name)
    return f"%2E{safe[1:]}" if safe.startswith(".") else safe or "%"
