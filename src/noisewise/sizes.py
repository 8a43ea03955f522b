"""The size of pictures: one side where they are square, else height and width.

In Python, a size is a side in pixels, or (height, width): the order of tensors. As text it is
WIDTHxHEIGHT, such as 48x32, as image tools write it: on the command line, in files of settings, in
run.json and in the config.json of a model. Squares stay one number everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral

Size = int | tuple[int, int]
"""Side of square pictures in pixels, or (height, width) of others."""

AnySize = int | str | tuple[int, int]
"""A size as people give it: a `Size`, or a text such as 32 or 48x32."""

MIN_SIZE = 8
SIZE_STEP = 4
_WRITTEN = re.compile(r"\s*(-?[0-9]{1,6})(?:\s*[xX×]\s*(-?[0-9]{1,6}))?\s*")
_LONGEST = 60  # characters of a text that a complaint repeats


def as_size(value: object) -> Size:
    """Read a size: a side, (height, width), or a text such as 32 or 48x32 (WIDTHxHEIGHT).

    Equal sides become one number. Whether pictures can have this size is not checked here.

    Raises:
        ValueError: if it is none of these.

    Example:
        >>> as_size("48x32"), as_size((32, 48)), as_size("32"), as_size([8, 8])
        ((32, 48), (32, 48), 32, 8)
        >>> as_size("48x")
        Traceback (most recent call last):
        ...
        ValueError: size takes a side in pixels or WIDTHxHEIGHT, such as 32 or 48x32, not '48x'
    """
    if isinstance(value, str) and (found := _WRITTEN.fullmatch(value)):
        width, height = found[1], found[2] or found[1]
        return size_of(int(height), int(width))
    if _whole(value):
        return int(value)  # pyrefly: ignore
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_whole, value)):
        return size_of(int(value[0]), int(value[1]))
    shown = value if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    shown = repr(shown) if isinstance(value, str) else shown
    raise ValueError(
        f"size takes a side in pixels or WIDTHxHEIGHT, such as 32 or 48x32, not {shown}"
    )


def size_of(height: int, width: int) -> Size:
    """The size of pictures with these sides.

    Example:
        >>> size_of(32, 48), size_of(32, 32)
        ((32, 48), 32)
    """
    return height if height == width else (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Height and width.

    Example:
        >>> sides(32), sides((32, 48))
        ((32, 32), (32, 48))
    """
    return (size, size) if isinstance(size, int) else size


def written(size: Size) -> int | str:
    """A size as files and the command line have it: 32 or 48x32 (WIDTHxHEIGHT).

    Example:
        >>> written(32), written((32, 48))
        (32, '48x32')
    """
    return size if isinstance(size, int) else f"{size[1]}x{size[0]}"


def spelled(size: Size) -> str:
    """A size in a sentence, width first.

    Example:
        >>> spelled(32), spelled((32, 48))
        ('32 x 32', '48 x 32')
    """
    height, width = sides(size)
    return f"{width} x {height}"


def num_pixels(size: Size) -> int:
    """Number of pixels of a picture.

    Example:
        >>> num_pixels(4), num_pixels((4, 6))
        (16, 24)
    """
    height, width = sides(size)
    return height * width


def mean_side(size: Size) -> float:
    """Side of the square with as many pixels: the geometric mean of the sides.

    Noise levels go by it. The mean colour of a picture is a coefficient of an orthonormal
    transform, ``sqrt(h w)`` times as large as the mean itself, so noise has to be as much stronger
    to hide it. What a net costs grows with the same product.

    Example:
        >>> mean_side(32), mean_side((16, 64))
        (32, 32.0)
    """
    return size if isinstance(size, int) else math.sqrt(size[0] * size[1])


def halved(size: Size, times: int) -> Size:
    """The size after so many halvings, rounded down.

    Example:
        >>> halved((32, 48), 2), halved(32, 1)
        ((8, 12), 16)
    """
    height, width = sides(size)
    return size_of(height >> times, width >> times)


def divisible(size: Size, step: int) -> bool:
    """Whether both sides are multiples of step.

    Example:
        >>> divisible((32, 48), 16), divisible((32, 40), 16)
        (True, False)
    """
    return not any(side % step for side in sides(size))


def nearest(size: Size, step: int, least: int) -> list[Size]:
    """The nearest sizes whose sides are multiples of step and at least `least`: smaller, larger.

    Example:
        >>> nearest(30, 4, 8), nearest((30, 48), 4, 8), nearest((2, 48), 4, 8)
        ([28, 32], [(28, 48), (32, 48)], [(8, 48)])
    """
    down = [max(least, side // step * step) for side in sides(size)]
    up = [max(least, -(-side // step) * step) for side in sides(size)]
    return [size_of(*found) for found in ([down] if down == up else [down, up])]


def either(found: Sequence[Size]) -> str:
    """Some sizes as the end of a complaint.

    Example:
        >>> either([28, 32]), either([(28, 48)])
        ('28 or 32', '48x28')
    """
    return " or ".join(str(written(size)) for size in found)


def check_size(size: Size) -> None:
    """Refuse a size that the nets cannot use, and name the nearest sizes that they can.

    Example:
        >>> check_size(30)
        Traceback (most recent call last):
        ...
        ValueError: size 30 cannot be used (nets need a multiple of 4, at least 8): use 28 or 32.
    """
    if min(sides(size)) >= MIN_SIZE and divisible(size, SIZE_STEP):
        return
    need = "a multiple" if isinstance(size, int) else "sides that are multiples"
    raise ValueError(
        f"size {written(size)} cannot be used (nets need {need} of {SIZE_STEP}, at least "
        f"{MIN_SIZE}): use {either(nearest(size, SIZE_STEP, MIN_SIZE))}."
    )


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
