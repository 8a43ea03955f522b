"""Numbers too large for an interval: s * exp(exp(...exp(t)...)), with t in an interval.

Adding and comparing them needs only their logarithms, level by level. As with intervals, every
result contains the exact number. If the intervals cannot decide, `Unresolved` is raised or None is
returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from noisewise.powers.intervals import Interval, Unresolved, below, hull
from noisewise.powers.logarithms import exp as exp_interval
from noisewise.powers.logarithms import log as log_interval

_NUMERIC = 64  # e^x is computed as an interval for |x| below this many times the bits
_FAR_LEVEL = 3  # numbers with so many exponentials differ by more than a square root
_TINY = 64  # sizes 2^k count only up to a k of this many times the bits


class Tall(NamedTuple):
    """sign * exp(...exp(t)...) with `level` exponentials; for level 0, t with its own sign."""

    sign: int
    level: int
    t: Interval


def tall(t: Interval) -> Tall:
    """An ordinary interval as a number of level 0.

    Example:
        >>> tall(Interval(1, 1, 0)).level
        0
    """
    return Tall(1, 0, t)


def opposite(x: Tall) -> Tall:
    """-x."""
    return Tall(1, 0, x.t.negated()) if x.level == 0 else Tall(-x.sign, x.level, x.t)


def log(x: Tall, bits: int) -> Tall:
    """The logarithm of x > 0.

    Raises:
        Unresolved: if x may be 0 or less.
    """
    if x.level == 0:
        return tall(log_interval(x.t, bits))
    if x.sign < 0:
        raise Unresolved
    return Tall(1, x.level - 1, x.t)


def exp(x: Tall, bits: int) -> Tall:
    """e^x: as an interval if its size is moderate, else with one level more."""
    if x.level > 0:
        return Tall(1, x.level + 1, x.t) if x.sign > 0 else tall(_tiny(bits))
    bound = _NUMERIC * bits
    low, high = _floor(x.t), -_floor(x.t.negated())
    if -bound < low and high < bound:
        return tall(exp_interval(x.t, bits))
    if high < -bound // 2:
        return tall(_tiny(bits))
    return Tall(1, 1, x.t)


def sign(x: Tall) -> int | None:
    """-1, 0 or 1; None if the interval cannot decide."""
    return x.sign if x.level else x.t.sign


def compare(x: Tall, y: Tall, bits: int) -> int | None:
    """-1 for x < y, 1 for x > y, None if the intervals overlap.

    Example:
        >>> compare(Tall(1, 5, Interval(3, 3, 0)), Tall(1, 5, Interval(4, 4, 0)), 64)
        -1
    """
    a, b = sign(x), sign(y)
    if a is not None and b is not None and a != b:
        return 1 if a > b else -1
    if x.level and y.level and x.sign < 0:
        return compare(opposite(y), opposite(x), bits)
    # Take logarithms of both sides until one is an ordinary interval; this keeps the order.
    try:
        shared = min(x.level, y.level)
        x, y = Tall(x.sign, x.level - shared, x.t), Tall(y.sign, y.level - shared, y.t)
        if x.level or y.level:
            return _against_interval(x, y.t, bits) if x.level else _flip(y, x.t, bits)
    except Unresolved:
        return None
    less = below(x.t, y.t)
    return None if less is None else (-1 if less else 1)


def _flip(y: Tall, t: Interval, bits: int) -> int | None:
    found = _against_interval(y, t, bits)
    return None if found is None else -found


def _against_interval(x: Tall, t: Interval, bits: int) -> int | None:
    """Compares a number of level 1 or more with an ordinary interval."""
    if x.sign < 0:
        found = _against_interval(opposite(x), t.negated(), bits)
        return None if found is None else -found
    while x.level:
        if t.hi <= 0:
            return 1  # an exponential is positive
        if t.lo <= 0:
            # t contains numbers of 0 or less, so x can only be above all of t, never below.
            found = _against_interval(x, Interval(t.hi, t.hi, t.exp), bits)
            return 1 if found == 1 else None
        t, x = log_interval(t, bits), Tall(1, x.level - 1, x.t)
    less = below(x.t, t)
    return None if less is None else (-1 if less else 1)


def add(x: Tall, y: Tall, bits: int) -> Tall:
    """The sum x + y.

    Raises:
        Unresolved: if x and y nearly cancel.
    """
    if x.level == 0 and y.level == 0:
        return tall(x.t.plus(y.t, bits))
    if y.level and not x.level:
        x, y = y, x
    if y.level == 0 and (y.t.sign not in (-1, 1) or _negligible(y.t, x, bits)):
        return _nudged(x, y.t, bits)
    if x.sign < 0:
        return opposite(add(opposite(x), opposite(y), bits))
    if max(x.level, y.level) >= _FAR_LEVEL and min(x.level, y.level) >= 1:
        return _far_apart(x, y, bits)
    log_x, log_y = log(x, bits), log(y if sign(y) == 1 else opposite(y), bits)
    if sign(y) == 1:
        return exp(log_of_sum((log_x, log_y), bits), bits)
    order = compare(log_x, log_y, bits)
    if order is None:
        raise Unresolved
    if order > 0:
        return exp(joined(log_x, log_y, -1, bits), bits)
    return opposite(exp(joined(log_y, log_x, -1, bits), bits))


def _far_apart(x: Tall, y: Tall, bits: int) -> Tall:
    """The sum of two numbers of which one has three exponentials or more.

    Such numbers differ so much that one is below the square root of the other: their logarithms of
    logarithms are exponentials of numbers of thousands, and differ by more than 1. So
    log |x + y| = log |x| + c with |c| < 1.

    Raises:
        Unresolved: if they overlap.
    """
    sizes = [n if n.sign > 0 else opposite(n) for n in (x, y)]
    order = compare(sizes[0], sizes[1], bits)
    larger = x if order == 1 else y
    if order is None or larger.level < _FAR_LEVEL or _floor(larger.t) < 8 * bits:
        if x.sign != y.sign or order is not None or x.level != y.level:
            raise Unresolved
        # The sum of two numbers of one sign is at most twice the larger: c < 1.
        larger = Tall(x.sign, x.level, hull(x.t, y.t, bits))
    inner = _nudged(Tall(1, larger.level - 1, larger.t), Interval(-1, 1, 0), bits)
    return Tall(larger.sign, larger.level, inner.t)


def log_of_sum(logs: Sequence[Tall], bits: int) -> Tall:
    """The logarithm of the sum of e^x over all given x; at least one is needed.

    Example:
        >>> one = tall(Interval(1, 1, 0))
        >>> compare(log_of_sum([one, one], 64), one, 64)
        1
    """
    result = logs[0]
    for x in logs[1:]:
        order = compare(result, x, bits)
        if order is None and (result.level or x.level):
            result = _overlapping(result, x, bits)
        elif order == -1:
            result = joined(x, result, 1, bits)
        else:
            result = joined(result, x, 1, bits)
    return result


def joined(larger: Tall, smaller: Tall, sign: int, bits: int) -> Tall:
    """The logarithm of e^larger + sign e^smaller: larger + log(1 + sign e^(smaller - larger))."""
    try:
        ratio = exp(add(smaller, opposite(larger), bits), bits)
    except Unresolved:
        ratio = tall(Interval(0, 1, 0))  # smaller / larger is certainly between 0 and 1
    t = Interval(0, 1, 0) if ratio.level else ratio.t
    inside = Interval(1, 1, 0).plus(t if sign > 0 else t.negated(), bits)
    return add(larger, tall(log_interval(inside, bits)), bits)


def _overlapping(x: Tall, y: Tall, bits: int) -> Tall:
    """log(e^x + e^y) if it is open which is larger: the larger plus at most log 2 < 1."""
    if x.level != y.level or x.sign != y.sign:
        raise Unresolved
    either = Tall(x.sign, x.level, hull(x.t, y.t, bits))
    return add(either, tall(Interval(0, 1, 0)), bits)


def _negligible(c: Interval, x: Tall, bits: int) -> bool:
    """Whether adding c to exp^level(t) changes t by less than 2^(-2 bits)."""
    return min(_floor(x.t), _TINY * bits) > _size(c) + 2 * bits


def _size(c: Interval) -> int:
    """|c| < 2^size."""
    return max(abs(c.lo), abs(c.hi)).bit_length() + c.exp


def _nudged(x: Tall, c: Interval, bits: int) -> Tall:
    """The sum x + c for a small c of any sign, with |x| = exp^level(t): t changes a little."""
    size = _size(c)
    # exp^level(t) >= e^t >= 2^k
    k = min(_floor(x.t), _TINY * bits)
    if k < max(1, size + 2):
        raise Unresolved
    # log(X + c) = log X + log(1 + c / X), and |log(1 + u)| <= 2 |u| for |u| <= 1/2: one level down,
    # the change is less than 2^(size + 1 - k). Each further level divides it by at least 2 (t >= 1)
    # and multiplies it by 2.
    return Tall(x.sign, x.level, x.t.plus(Interval(-1, 1, size + 1 - k), bits))


def _floor(t: Interval) -> int:
    return t.lo << t.exp if t.exp >= 0 else t.lo >> -t.exp


def _tiny(bits: int) -> Interval:
    """An interval that contains e^x for every x below -_NUMERIC * bits / 2."""
    return Interval(0, 1, -(_NUMERIC * bits // 2))
