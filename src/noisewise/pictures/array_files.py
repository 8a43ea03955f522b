"""Read pictures from .npz and .npy files, block by block; pickled objects are never loaded.

Notes say which layout and which range of values was found. No size that a file states is trusted:
it is compared with a limit before memory is taken for it.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from noisewise.pictures import bit_depth, decode, zip_limits
from noisewise.pictures.class_names import natural_order
from noisewise.plain_text import printable

LABEL_KEYS = ("labels", "label", "y")
# Sets that are kept in parts, as those of Keras and MedMNIST: the training part, and its labels.
_TRAINING = {"x_train": "y_train", "train_x": "train_y", "train_images": "train_labels"}
_CHANNELS = (1, 3, 4)
_BLOCK_VALUES = 2**21  # read and scaled at a time: 16 MiB for each copy as float64
_MOST_HEADER = 10_000  # bytes; as many as NumPy evaluates
_MOST_NAMED = 256 * 2**20  # bytes of an array of labels or names
_MOST_LETTERS = 1_000  # in one label or name
_ALPHA = "alpha"  # name of the array with the opacity of each pixel
_SHOWN = 8  # arrays that an error names
# A compressed file may be small and its content is not: above this many bytes (with what Python
# takes for each picture), content that is so many times the file is refused.
_MOST_UNASKED, _EACH, _MOST_TIMES = 2**30, 500, 200


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
    opacity: ArrayFile | None = None

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self.member.shape[0]

    @property
    def height_width_channels(self) -> tuple[int, int, int]:
        """Shape of one picture."""
        shape = self.member.shape[1:]
        if self.opacity is not None:
            return (*self.opacity.height_width_channels[:2], 4)
        if len(shape) == 2:
            return shape[0], shape[1], 1
        first, second, third = shape
        return (second, third, first) if self.channels_first else (first, second, third)

    def pictures(self) -> Iterator[np.ndarray]:
        """Yield each picture as uint8 [height, width, channels], with its opacity if that is given.

        Memory use stays at some 100 MB, and that of one picture as uint8.
        """
        if self.opacity is None:
            yield from self._colours()
            return
        for colour, opacity in zip(self._colours(), self.opacity.pictures(), strict=True):
            yield np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)), opacity], 2)

    def _colours(self) -> Iterator[np.ndarray]:
        each = math.prod(self.member.shape[1:])
        whole, filled = np.empty(0, np.uint8), 0
        for values in _blocks(self.path, self.member):
            pixels = self._eight_bits(values)
            if len(pixels) < each:  # a part of a large picture
                whole = np.empty(each, np.uint8) if filled == 0 else whole
                whole[filled : filled + len(pixels)] = pixels
                filled = (filled + len(pixels)) % each
                if filled:
                    continue
                pixels = whole
            yield from self._shaped(pixels)

    def _eight_bits(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.uint8:
            return values
        scaled = (values.astype(np.float64) - self.low) * self.factor
        return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)

    def _shaped(self, pixels: np.ndarray) -> np.ndarray:
        """Some whole pictures, from their values in the order of the file."""
        pictures = pixels.reshape(-1, *self.member.shape[1:])
        if pictures.ndim == 3:
            return pictures[..., None]
        return pictures.transpose(0, 2, 3, 1) if self.channels_first else pictures


def open_arrays(path: Path) -> ArrayFile:
    """Find the pictures (and labels) in a .npz or .npy file.

    Expects `images` [n, height, width, channels] (or channels first, or [n, height, width] grey),
    uint8 or another range that is clear from the values. Optional are `labels` [n], `categories`,
    `names` [n], and `alpha` [n, height, width], the opacity of grey or colour pictures.

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
    found = ArrayFile(
        path, member, channels_first, low, factor, labels, classes, names, tuple(notes)
    )
    if _ALPHA not in members or member.key == _ALPHA:
        return found
    return replace(found, opacity=_opacity(path, _checked(path, members[_ALPHA]), found))


def _opacity(path: Path, member: Member, of: ArrayFile) -> ArrayFile:
    """The array of opacity; it must fit the pictures."""
    height, width, channels = of.height_width_channels
    if channels == 4 or member.shape not in (
        (len(of), height, width),
        (len(of), height, width, 1),
    ):
        raise ValueError(
            f"{_shown(path)}: the array {_ALPHA!r} has shape {member.shape} and the pictures "
            f"{of.member.shape}: give one value a pixel, [n, height, width], for pictures of 1 or "
            f"3 channels, or leave {_ALPHA!r} out."
        )
    low, factor, _ = _range(path, member)
    found = ArrayFile(path, member, False, low, factor, None, (), (), ())
    if member.dtype == np.uint8 and not any((one > 1).any() for one in found.pictures()):
        raise ValueError(
            f"{_shown(path)}: no value of the array {_ALPHA!r} is above 1 of 255, so nothing could "
            "be seen: give opacity from 0 to 255, or save a mask as bool."
        )
    return found


def _members(path: Path) -> dict[str, Member]:
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"": _header(file, "", os.fstat(file.fileno()).st_size)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    zip_limits.check_method(info)
                    with archive.open(info) as file:
                        key = info.filename.removesuffix(".npy")
                        found[key] = _header(file, key, info.file_size)
            return found
    except MemoryError:  # not the file's fault
        raise
    except Exception as error:  # NumPy parses headers as Python: damaged ones can raise anything
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{_shown(path)} cannot be read as a NumPy file ({printable(message)}): "
            "save it again with numpy.savez(path, images=array)."
        ) from error


def _header(file: IO[bytes], key: str, num_bytes: int) -> Member:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} of the array {key!r} is not supported")
    length = file.read(2 if version == (1, 0) else 4)
    num_letters = int.from_bytes(length, "little")
    if num_letters > _MOST_HEADER:  # NumPy would read all of it before it looks at the length
        raise ValueError(f"the header of the array {key!r} has {num_letters:,} bytes")
    text = io.BytesIO(length + file.read(num_letters))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(text)
    except MemoryError as error:  # of Python's parser: the header is short, so it is nonsense
        raise ValueError(f"the header of the array {key!r} is damaged") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"the array {key!r} has shape {str(shape)[:60]}")
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
    shown = [f"{printable(key[:99])} {str(m.shape)[:60]}" for key, m in members.items()][:_SHOWN]
    more = f", and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
    keys = ", ".join(shown) + more or "none"
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
    _check_total(path, member)
    return member


def _check_total(path: Path, member: Member) -> None:
    """Refuse a small file that would fill the memory."""
    count, num_bytes = member.shape[0], member.dtype.itemsize * math.prod(member.shape)
    needed = num_bytes + _EACH * count
    if needed > max(_MOST_UNASKED, _MOST_TIMES * path.stat().st_size):
        raise ValueError(
            f"{_shown(path)} states {count:,} pictures of {num_bytes / 2**30:,.1f} GiB in a file "
            f"of {path.stat().st_size / 2**20:,.1f} MiB, which no real pictures fit into: save "
            "them again, as .npy if they are right."
        )


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
    """Yield the values in the file's order, flat: some whole pictures, or a part of one."""
    with _clear_errors(path):
        if member.key == "":
            with open(path, "rb") as file:
                yield from _read_values(path, file, member)
            return
        with zipfile.ZipFile(path) as archive, archive.open(member.key + ".npy") as file:
            yield from _read_values(path, file, member)


def _read_values(path: Path, file: IO[bytes], member: Member) -> Iterator[np.ndarray]:
    _header(file, member.key, 0)
    most = max(1, min(_BLOCK_VALUES, 8 * _BLOCK_VALUES // member.dtype.itemsize))
    each = math.prod(member.shape[1:])
    unit = each * max(1, most // max(1, each))
    for start in range(0, math.prod(member.shape), max(1, unit)):
        end = min(start + unit, math.prod(member.shape))
        for at in range(start, end, most):
            count = min(most, end - at)
            data = file.read(count * member.dtype.itemsize)
            if len(data) != count * member.dtype.itemsize:
                raise _damaged(path)
            yield np.frombuffer(data, member.dtype, count)


@contextmanager
def _clear_errors(path: Path) -> Generator[None]:
    """Turn what zipfile, zlib and NumPy raise on damaged input into one clear ValueError."""
    try:
        yield
    except (ValueError, MemoryError):  # already clear, or not the file's fault
        raise
    except Exception as error:  # damaged input can raise almost anything
        if isinstance(error, OSError) and error.errno is not None:  # a problem of the disk
            raise
        raise _damaged(path) from error


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{_shown(path)} is truncated or damaged: copy or download it again.")


def _small(path: Path, member: Member) -> np.ndarray:
    """A whole array of labels or names, flat."""
    if not member.is_whole:
        raise _damaged(path)
    # A text without letters has no bytes in the file; NumPy then makes one letter of it.
    num_bytes = max(1, member.dtype.itemsize) * math.prod(member.shape)
    letter = 4 if member.dtype.kind == "U" else 1
    if member.dtype.kind in "US" and member.dtype.itemsize > letter * _MOST_LETTERS:
        raise ValueError(
            f"{_shown(path)}: {member.key!r} has texts of {member.dtype.itemsize // letter:,} "
            f"letters: save names of at most {_MOST_LETTERS:,} letters, or remove this array."
        )
    if num_bytes > _MOST_NAMED:
        raise ValueError(
            f"{_shown(path)}: {member.key!r} takes {num_bytes / 2**20:,.0f} MiB, and at most "
            f"{_MOST_NAMED // 2**20} MiB are read: save whole numbers, or remove this array."
        )
    values = np.zeros(math.prod(member.shape), member.dtype)
    if member.dtype.itemsize == 0:  # texts without letters
        return values
    filled = 0
    for block in _blocks(path, member):
        values[filled : filled + len(block)] = block
        filled += len(block)
    return values


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
    values = _small(path, members[key])
    named = members.get("categories")
    if named is None or kind in "US":
        found, labels = np.unique(values, return_inverse=True)
        classes = _texts(path, found)
        if kind not in "US":
            return labels.astype(np.int64), classes
        order = natural_order(set(classes))
        number = {name: index for index, name in enumerate(order)}
        return np.array([number[name] for name in classes], np.int64)[labels], tuple(order)
    if len(named.shape) != 1 or named.dtype.kind not in "US":
        raise ValueError(
            f"{_shown(path)}: 'categories' has shape {named.shape} and type {named.dtype}: "
            "save a list of names."
        )
    classes = _texts(path, _small(path, named))
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
    return _texts(path, _small(path, member))


def _texts(path: Path, values: np.ndarray) -> tuple[str, ...]:
    try:
        return tuple(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in values
        )
    except ValueError as error:  # a number that is no letter
        raise _damaged(path) from error


def _shown(path: Path) -> str:
    return printable(str(path))
