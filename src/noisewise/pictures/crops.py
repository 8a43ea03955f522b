"""Crops: pieces of a large picture at its own scale, spread over it with few overlaps.

A grid has as many cells as there are crops. A crop lies at a random place of its cell, so places
are spread evenly and no lattice shows (jittered sampling). Where a cell is at least as large as a
crop, crops do not overlap.
Source: Cook 1986, "Stochastic sampling in computer graphics", section 4 (jittering).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from noisewise.pictures.framing import Frame, Framed, as_framed, fit, undo_enlargement
from noisewise.sizes import Size, sides

_THUMBNAIL = 16  # side of the small whole by which copies of a large picture are found


@dataclass(frozen=True)
class Cut:
    """What becomes of one large picture.

    Attributes:
        crops: number of crops.
        parts: the picture is divided into about this many parts, and no crop crosses a border: one
            part can be held out while another is trained on.
        whole: whether the whole picture, reduced, is used too.
    """

    crops: int
    parts: int = 1
    whole: bool = False

    @property
    def total(self) -> int:
        """Number of pictures that it gives."""
        return self.crops + self.whole


@dataclass(frozen=True)
class Place:
    """Where a crop begins, in pixels from the left and the top, and in which part it lies."""

    left: int
    top: int
    part: int


@dataclass(frozen=True, eq=False)
class Pieces:
    """What one large picture gives.

    Attributes:
        framed: the crops, then the whole picture if it is used.
        parts: the part of the picture that each belongs to, in rising order.
        whole: whether the last one is the whole picture.
        num_pixels: of the picture.
        thumbnail: the whole picture, uint8 [16, 16, 1].
    """

    framed: tuple[Framed, ...]
    parts: tuple[int, ...]
    whole: bool
    num_pixels: int
    thumbnail: np.ndarray


def most_crops(width: int, height: int, size: Size) -> int:
    """Number of different places for a crop; 0 if it does not fit.

    Example:
        >>> most_crops(66, 64, 64), most_crops(63, 100, 64)
        (3, 0)
    """
    high, wide = sides(size)
    return max(0, width - wide + 1) * max(0, height - high + 1)


def most_parts(width: int, height: int, size: Size) -> int:
    """Number of parts of a picture that each have room for a crop.

    Example:
        >>> most_parts(200, 130, 64)
        6
    """
    high, wide = sides(size)
    return (width // wide) * (height // high)


def grid(width: int, height: int, size: Size, count: int) -> tuple[int, int]:
    """Columns and rows of at least `count` cells: little overlap, then cells shaped as crops.

    Args:
        width: of the picture, in pixels.
        height: of the picture.
        size: of a crop.
        count: number of crops, 1 to `most_crops`.

    Example:
        >>> grid(400, 200, 64, 8), grid(400, 64, 64, 5), grid(400, 200, 64, 1)
        ((4, 2), (5, 1), (1, 1))
    """
    high, wide = sides(size)
    columns = np.arange(1, min(count, width - wide + 1) + 1)
    rows = -(-count // columns)
    columns, rows = (side[rows <= height - high + 1] for side in (columns, rows))
    across, down = width / columns / wide, height / rows / high  # of a cell, in crops
    overlap = wide * np.maximum(1 - across, 0) + high * np.maximum(1 - down, 0)
    spare = columns * rows / count - 1
    best = np.lexsort((np.abs(np.log(across / down)) + spare, overlap.round(6)))[0]
    return int(columns[best]), int(rows[best])


def places(
    width: int, height: int, size: Size, cut: Cut, generator: np.random.Generator
) -> list[Place]:
    """Places of the crops of one picture; all differ.

    Args:
        width: of the picture, in pixels, at least that of a crop.
        height: of the picture, at least that of a crop.
        size: of a crop.
        cut: how many crops, in how many parts.
        generator: source of randomness.

    Example:
        >>> found = places(200, 130, 64, Cut(6), np.random.default_rng(0))
        >>> sorted({place.left // 67 for place in found}), sorted({p.top // 65 for p in found})
        ([0, 1, 2], [0, 1])
    """
    if not cut.crops:
        return []
    columns, rows = grid(width, height, size, min(cut.parts, most_parts(width, height, size)))
    ends = np.linspace(0, cut.crops, columns * rows + 1).astype(int)
    found = []
    for part, count in enumerate(np.diff(ends).tolist()):
        left, right = (width * (part % columns + i) // columns for i in (0, 1))
        top, bottom = (height * (part // columns + i) // rows for i in (0, 1))
        inside = (right - left, bottom - top)
        count = min(count, most_crops(*inside, size))
        found += [
            Place(left + x, top + y, part) for x, y in _jittered(*inside, size, count, generator)
        ]
    return found


def cut_picture(
    image: Image.Image,
    name: str,
    frame: Frame,
    cut: Cut,
    done: set[str],
    lossless: bool = True,
    convert: Callable[[Image.Image], Image.Image] | None = None,
) -> Pieces:
    """Cut one upright picture on its background; `done` collects what was changed.

    Args:
        image: mode L, RGB, RGBA or CMYK; both sides at least those of the frame.
        name: of the file: it fixes the places.
        frame: size of the crops, and how the whole picture takes their shape.
        cut: what to cut.
        done: marks of what was changed; the first piece gets them, so that each is counted once.
        lossless: enlarged pixel art is reduced to its original pixels first.
        convert: makes mode L or RGB of each piece.
    """
    flat = convert or (lambda picture: picture)
    image = _own_pixels(image, frame.size, done) if lossless and cut.crops else image
    mark = hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(mark, "little"))
    found = places(*image.size, frame.size, cut, generator)
    high, wide = sides(frame.size)
    pieces = [flat(image.crop((p.left, p.top, p.left + wide, p.top + high))) for p in found]
    if cut.whole:
        pieces.append(_whole(image, name, frame, done, lossless, flat))
    framed = [as_framed(piece, set() if at else done) for at, piece in enumerate(pieces)]
    parts = tuple(place.part for place in found) + (0,) * cut.whole
    return Pieces(tuple(framed), parts, cut.whole, image.width * image.height, _thumbnail(image))


def _jittered(
    width: int, height: int, size: Size, count: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Left and top of `count` crops, in a grid of cells that some stay empty of."""
    if not count:
        return []
    columns, rows = grid(width, height, size, count)
    chosen = np.sort(generator.permutation(columns * rows)[:count])
    high, wide = sides(size)
    left = _in_cells(width, wide, columns, chosen % columns, generator)
    top = _in_cells(height, high, rows, chosen // columns, generator)
    return list(zip(left.tolist(), top.tolist(), strict=True))


def _in_cells(
    length: int, size: int, cells: int, cell: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Random first pixels along one axis, each in its cell; different cells never share one."""
    if length // cells >= size:  # the whole crop lies in its cell
        first, after = (length * (cell + i) // cells for i in (0, 1))
        after = after - size + 1
    else:  # only its first pixel does
        first, after = ((length - size + 1) * (cell + i) // cells for i in (0, 1))
    return generator.integers(first, after)


def _own_pixels(image: Image.Image, size: Size, done: set[str]) -> Image.Image:
    """Enlarged pixel art in its original pixels, if a crop still fits into it."""
    marks: set[str] = set()
    if image.mode not in ("L", "RGB", "RGBA"):
        return image
    reduced = undo_enlargement(image, marks)
    if not most_crops(*reduced.size, size):
        return image
    done |= marks
    return reduced


def _whole(
    image: Image.Image,
    name: str,
    frame: Frame,
    done: set[str],
    lossless: bool,
    flat: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    if frame.crop == "pad":  # the background is an sRGB colour: add it after the conversion
        return fit(flat(image), name, frame, done, lossless)
    return flat(fit(image, name, frame, done, lossless))


def _thumbnail(image: Image.Image) -> np.ndarray:
    side = (_THUMBNAIL, _THUMBNAIL)
    small = image.resize(side, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("L"))[..., None]
