"""Read pictures from .npz and .npy files, block by block; pickled objects are never loaded.

Notes say which layout and which range of values was found.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from noisewise.pictures import bit_depth, decode
from noisewise.pictures.class_names import natural_order
from noisewise.pictures.sources import printable

LABEL_KEYS = ("labels", "label", "y")
# Sets that are kept in parts, as those of Keras and MedMNIST: the training part, and its labels.
_TRAINING = {"x_train": "y_train", "train_x": "train_y", "train_images": "train_labels"}
_CHANNELS = (1, 3, 4)
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Member:
    """The header of one array in a file.

    Attributes:
        key: name of the array; empty in a .npy file.
        shape: from the header.
        dtype: from the header.
        fortran: whether it is stored in Fortran order.
        num_bytes: bytes that follow the header.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    num_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether the file has all the bytes that the header promises."""
        return self.dtype.itemsize * math.prod(self.shape) <= self.num_bytes


@dataclass(frozen=True)
class ArrayFile:
    """A usable array of pictures, with everything needed to read it."""

    path: Path
    member: Member
    channels_first: bool
    low: float
    factor: float
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self.member.shape[0]

    @property
    def height_width_channels(self) -> tuple[int, int, int]:
        """Shape of one picture."""
        shape = self.member.shape[1:]
        if len(shape) == 2:
            return shape[0], shape[1], 1
        first, second, third = shape
        return (second, third, first) if self.channels_first else (first, second, third)

    def pictures(self) -> Iterator[np.ndarray]:
        """Yield each picture as uint8 [height, width, channels]; memory use stays at a few MB."""
        for block in _blocks(self.path, self.member):
            pixels = block
            if pixels.dtype != np.uint8:
                scaled = (block.astype(np.float64) - self.low) * self.factor
                pixels = np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)
            if pixels.ndim == 3:
                pixels = pixels[..., None]
            elif self.channels_first:
                pixels = pixels.transpose(0, 2, 3, 1)
            yield from pixels


def open_arrays(path: Path) -> ArrayFile:
    """Find the pictures (and labels) in a .npz or .npy file.

    Expects `images` [n, height, width, channels] (or channels first, or [n, height, width] grey),
    uint8 or another range that is clear from the values. `labels` [n], `categories` and `names` [n]
    are optional.

    Raises:
        ValueError: with the keys or shapes that were found and what to do.
    """
    members = _members(path)
    with _clear_errors(path):
        return _described(path, members)


def _described(path: Path, members: dict[str, Member]) -> ArrayFile:
    member = _choose(path, members)
    channels_first, layout_note = _layout(path, member)
    low, factor, range_note = _range(path, member)
    notes = [note for note in (layout_note, range_note) if note]
    if member.key not in ("", "images"):
        notes.append(f"the pictures are the array {member.key!r}{_not_used(members, member)}")
    members = _with_training_labels(members, member, notes)
    labels, classes = _labels(path, members, member.shape[0])
    names = _names(path, members, member.shape[0])
    return ArrayFile(
        path, member, channels_first, low, factor, labels, classes, names, tuple(notes)
    )


def _members(path: Path) -> dict[str, Member]:
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"": _header(file, "", os.fstat(file.fileno()).st_size)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as file:
                        key = info.filename.removesuffix(".npy")
                        found[key] = _header(file, key, info.file_size)
            return found
    except Exception as error:  # NumPy parses headers as Python: damaged ones can raise anything
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{_shown(path)} cannot be read as a NumPy file ({printable(message)}): "
            "save it again with numpy.savez(path, images=array)."
        ) from error


def _header(file: IO[bytes], key: str, num_bytes: int) -> Member:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version} of the array {key!r} is not supported")
    return Member(key, shape, dtype, fortran, num_bytes - file.tell())


def _choose(path: Path, members: dict[str, Member]) -> Member:
    if path.suffix.lower() == ".npy":
        return _checked(path, members[""])
    if "images" in members:
        return _checked(path, members["images"])
    plausible = [m for m in members.values() if len(m.shape) in (3, 4) and not m.dtype.hasobject]
    training = [m for m in plausible if m.key.lower() in _TRAINING]
    if len(plausible) == 1 or len(training) == 1:
        return _checked(path, (training or plausible)[0])
    keys = ", ".join(f"{printable(k)} {m.shape}" for k, m in members.items()) or "none"
    raise ValueError(
        f"{_shown(path)} has no array named 'images' (arrays found: {keys}): "
        "save the pictures with numpy.savez(path, images=array)."
    )


def _not_used(members: dict[str, Member], chosen: Member) -> str:
    """The other arrays of pictures, in words: the parts for tests."""
    others = [key for key, m in members.items() if m.shape[1:] == chosen.shape[1:] and m != chosen]
    return f"; not used: {', '.join(map(printable, sorted(others)))}" if others else ""


def _with_training_labels(
    members: dict[str, Member], chosen: Member, notes: list[str]
) -> dict[str, Member]:
    """The arrays, with the labels of the training part under the usual name."""
    if any(key in members for key in LABEL_KEYS):
        return members
    wanted = _TRAINING.get(chosen.key.lower(), "")
    key = next((key for key in members if key.lower() == wanted), None)
    if key is None:
        return members
    found, count = members[key], chosen.shape[0]
    if found.shape not in ((count,), (count, 1)) or found.dtype.kind not in "buiUS":
        notes.append(
            f"no classes: {key!r} has shape {found.shape} and type {found.dtype}, not {count} "
            "whole numbers or names"
        )
        return members
    return {**members, LABEL_KEYS[0]: found}


def _checked(path: Path, member: Member) -> Member:
    where = f"{_shown(path)}, array {member.key!r}" if member.key else _shown(path)
    if member.dtype.hasobject:
        raise ValueError(
            f"{where} holds Python objects, which are not loaded because that is not safe: "
            "save one uint8 array of shape [n, height, width, channels]."
        )
    if len(member.shape) not in (3, 4) or min(member.shape) < 1:
        raise ValueError(
            f"{where} has shape {member.shape}: "
            "save pictures as [n, height, width] or [n, height, width, channels]."
        )
    if member.dtype.kind not in "buif":
        raise ValueError(
            f"{where} has type {member.dtype}, which is not a real number: save it as uint8."
        )
    if member.fortran:
        raise ValueError(
            f"{where} is stored in Fortran order and cannot be read picture by picture: "
            "save numpy.ascontiguousarray(images)."
        )
    if not member.is_whole:
        raise _damaged(path)
    return member


def _layout(path: Path, member: Member) -> tuple[bool, str]:
    shape = member.shape
    if len(shape) == 3:
        if shape[2] in _CHANNELS:
            raise ValueError(
                f"{_shown(path)}: shape {shape} looks like one picture with {shape[2]} channels: "
                "save at least 16 pictures as [n, height, width, channels]."
            )
        first = False
    else:
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if first == last:
            problem = "may have its channels first or last" if first else "has no channel axis"
            raise ValueError(
                f"{_shown(path)}: shape {shape} {problem}: "
                "save it as [n, height, width, channels] with 1, 3 or 4 channels."
            )
    height, width = shape[2:] if first else shape[1:3]
    if min(height, width) < decode.MIN_SIDE or height * width > decode.MAX_PIXELS:
        raise ValueError(
            f"{_shown(path)} has pictures of {width} x {height} pixels: use sides of at least "
            f"{decode.MIN_SIDE} pixels and at most {decode.MAX_PIXELS:,} pixels per picture."
        )
    return first, f"shape {shape} has the channels first; they were moved last" if first else ""


def _range(path: Path, member: Member) -> tuple[float, float, str]:
    """Return (low, factor, note): the uint8 value is (x - low) * factor."""
    if member.dtype == np.uint8:
        return 0.0, 1.0, ""
    if member.dtype.kind == "b":
        return 0.0, 255.0, "True is read as white, False as black"
    low, high = np.inf, -np.inf
    for block in _blocks(path, member):
        if not np.isfinite(block).all():
            raise ValueError(
                f"{_shown(path)} holds NaN or infinite values: replace them, or save uint8."
            )
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    note = f"values from {low:g} to {high:g} ({member.dtype}) are read on the scale"
    nearly = bit_depth.NEARLY if member.dtype.kind == "f" else 0.0
    if nearly and low >= -nearly and high <= 1 + nearly:
        return 0.0, 255.0, f"{note} 0 to 1"
    if nearly and bit_depth.is_signed(low, high):
        return -1.0, 127.5, f"{note} -1 to 1"
    if low >= -255 * nearly and high <= 255 * (1 + nearly):
        return 0.0, 1.0, f"{note} 0 to 255"
    if low >= 0 and high <= 65535 and member.dtype.kind in "iu":
        scale = bit_depth.declared_range(high)
        return 0.0, 255.0 / scale, f"{note} 0 to {scale:g}"
    raise ValueError(
        f"{_shown(path)} holds values from {low:g} to {high:g} ({member.dtype}), and it is not "
        "clear what is black and white: save uint8 (0 to 255), or floats in [0, 1] or [-1, 1]."
    )


def _blocks(path: Path, member: Member) -> Iterator[np.ndarray]:
    with _clear_errors(path):
        if member.key == "":
            with open(path, "rb") as file:
                yield from _read_rows(path, file, member)
            return
        with zipfile.ZipFile(path) as archive, archive.open(member.key + ".npy") as file:
            yield from _read_rows(path, file, member)


def _read_rows(path: Path, file: IO[bytes], member: Member) -> Iterator[np.ndarray]:
    _header(file, member.key, 0)
    row_bytes = member.dtype.itemsize * math.prod(member.shape[1:])
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, member.shape[0], step):
        count = min(step, member.shape[0] - start)
        data = file.read(count * row_bytes)
        if len(data) != count * row_bytes:
            raise _damaged(path)
        yield np.frombuffer(data, member.dtype).reshape(count, *member.shape[1:])


@contextmanager
def _clear_errors(path: Path) -> Generator[None]:
    """Turn what zipfile, zlib and NumPy raise on damaged input into one clear ValueError."""
    try:
        yield
    except ValueError:  # already clear
        raise
    except Exception as error:  # damaged input can raise almost anything
        if isinstance(error, OSError) and error.errno is not None:  # a problem of the disk
            raise
        raise _damaged(path) from error


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{_shown(path)} is truncated or damaged: copy or download it again.")


def _small(path: Path, member: Member) -> np.ndarray:
    if not member.is_whole:
        raise _damaged(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[member.key]
    except ValueError as error:  # from NumPy, without the file's name
        raise _damaged(path) from error


def _labels(
    path: Path, members: dict[str, Member], num_images: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    key = next((k for k in LABEL_KEYS if k in members), None)
    if key is None:
        return None, ()
    shape, kind = members[key].shape, members[key].dtype.kind
    if shape not in ((num_images,), (num_images, 1)) or kind not in "buiUS":
        raise ValueError(
            f"{_shown(path)}: {key!r} has shape {shape} and type {members[key].dtype}: save "
            f"{num_images} whole numbers or names, one per picture, or remove this array."
        )
    values = _small(path, members[key]).reshape(-1)
    named = members.get("categories")
    if named is None or kind in "US":
        found, labels = np.unique(values, return_inverse=True)
        classes = [_text(value) for value in found]
        if kind not in "US":
            return labels.astype(np.int64), tuple(classes)
        order = natural_order(set(classes))
        number = {name: index for index, name in enumerate(order)}
        return np.array([number[name] for name in classes], np.int64)[labels], tuple(order)
    if len(named.shape) != 1 or named.dtype.kind not in "US":
        raise ValueError(
            f"{_shown(path)}: 'categories' has shape {named.shape} and type {named.dtype}: "
            "save a list of names."
        )
    classes = tuple(_text(value) for value in _small(path, named))
    if values.min() < 0 or values.max() >= len(classes):
        raise ValueError(
            f"{_shown(path)}: labels go from {values.min()} to {values.max()}, but 'categories' "
            f"has {len(classes)} names: save one name per label; labels start at 0."
        )
    return values.astype(np.int64), classes


def _names(path: Path, members: dict[str, Member], num_images: int) -> tuple[str, ...]:
    member = members.get("names")
    if member is None or member.shape != (num_images,) or member.dtype.kind not in "US":
        return ()
    return tuple(_text(value) for value in _small(path, member))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shown(path: Path) -> str:
    return printable(str(path))
