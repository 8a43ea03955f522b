"""The numbers people ask with: ranks, tolerances, counts; right, or refused with a sentence."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def whole(name: str, value: object, least: int = 0) -> int:
    """Return a whole number, however it is written: 2, 2.0, an integer of numpy, a tensor.

    Args:
        name: what the number is called, for the sentence.
        value: the number.
        least: the smallest number allowed.

    Raises:
        ValueError: for anything else.

    Example:
        >>> whole("rank", 2.0)
        2
        >>> whole("rank", 1e-3)
        Traceback (most recent call last):
        ...
        ValueError: rank is 0.001: give a whole number, or a tolerance as tol=0.001.
    """
    number = _number(value)
    if number is None:
        raise ValueError(f"{name} is {value!r}: give a whole number.")
    if not math.isfinite(number) or number != int(number):
        is_tolerance = name == "rank" and 0 < number < 1
        way = f", or a tolerance as tol={number:g}" if is_tolerance else ""
        raise ValueError(f"{name} is {number}: give a whole number{way}.")
    if number < least:
        raise ValueError(f"{name} is {int(number)}: give {least} or more.")
    return int(number)


def positive(name: str, value: object) -> float:
    """Return a positive finite number.

    Raises:
        ValueError: for anything else.
    """
    number = _number(value)
    if number is None:
        raise ValueError(f"{name} is {value!r}: give a positive number, such as 1e-3.")
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} is {number}: give a positive relative tolerance, such as 1e-3.")
    return float(number)


def rank_and_tol(m: int, n: int, rank: object, tol: object) -> tuple[int | None, float | None]:
    """Return the requested rank and tolerance of a factorisation of an m x n matrix.

    Raises:
        ValueError: if both are missing or one is out of range.
    """
    if rank is None and tol is None:
        raise ValueError("Give a rank or a relative tolerance tol.")
    found = None
    if rank is not None:
        number = _number(rank)
        if number is not None and (number < 0 or number > min(m, n)):
            raise ValueError(
                f"rank is {number}: a {m} x {n} matrix can have ranks from 0 to {min(m, n)}."
            )
        found = whole("rank", rank)
    return found, None if tol is None else positive("tol", tol)


def _number(value: object) -> int | float | None:
    """A number of Python or numpy, or a tensor or array with one number; None for others."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and not value.ndim):
        value = value.item()
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
