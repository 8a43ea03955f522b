"""Which sizes of pictures a net can use: both sides have to be multiples of a step."""

from __future__ import annotations

from collections.abc import Callable

from noisewise.sizes import Size, divisible, either, nearest, sides, written


def check_fits(
    size: Size, step: int, least: int | None = None, step_of: Callable[[Size], int] | None = None
) -> None:
    """Refuse a size that a net cannot use, and name the nearest ones that it can.

    Args:
        size: of the pictures.
        step: must divide both sides.
        least: smallest side; None: the step.
        step_of: the step of another size, where it depends on the size; None: always the same.

    Raises:
        ValueError: if a side is too small, or not a multiple of step.

    Example:
        >>> check_fits((30, 48), 4)
        Traceback (most recent call last):
        ...
        ValueError: this net cannot use 48x30 pixels: set size to 48x28 or 48x32
    """
    least = least or step
    if divisible(size, step) and min(sides(size)) >= least:
        return
    found = nearest(size, step, least)
    if step_of is not None:
        # A larger picture may need a larger step.
        ends = [_fitting(found[0], step_of, 0), _fitting(found[-1], step_of, -1)]
        found = list(dict.fromkeys(ends))
    raise ValueError(f"this net cannot use {written(size)} pixels: set size to {either(found)}")


def _fitting(size: Size, step_of: Callable[[Size], int], which: int) -> Size:
    """Round down (0) or up (-1) until the step of the size divides it."""
    while not divisible(size, step_of(size)):
        size = nearest(size, step_of(size), step_of(size))[which]
    return size
