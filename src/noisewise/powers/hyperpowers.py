"""Knuth's arrows: a^^b = a^a^...^a with b numbers a, a^^^b = a^^a^^...^^a, and so on.

a^^b is written as powers up to 50 levels. A taller tower of a whole number stays one atom; it is
compared by the logarithm of its logarithm ..., whose level is a whole number of any size.
"""

from __future__ import annotations

from noisewise.powers.values import (
    ONE,
    ZERO,
    Rational,
    Tetration,
    Value,
    atom,
    power,
    written,
)

MAX_LEVELS = 50  # taller towers are atoms
MAX_HEIGHT_BITS = 3000  # of the number of levels
_TOO_TALL = (
    "this tower has more levels than can be counted in 900 digits; only smaller towers can be "
    "compared"
)


def arrows(base: Value, count: int, height: Value) -> Value:
    """The number base, `count` arrows, height; one arrow is an ordinary power.

    Raises:
        ValueError: if the height is not a whole number of 0 or more, or the tower is too tall, or
            if a tall tower has a base that is not a whole number.

    Example:
        >>> arrows(Rational(2), 2, Rational(4)), arrows(Rational(2), 3, Rational(3))
        (Rational(p=65536, q=1), Rational(p=65536, q=1))
    """
    if count == 1:
        return power(base, height)
    times = written(height, MAX_HEIGHT_BITS)
    if times is None:
        raise ValueError(_TOO_TALL)
    if not times.is_whole or times.p < 0:
        raise ValueError(
            f"{'^' * count} needs a whole number of 0 or more on its right, the number of levels"
        )
    levels = times.p // times.q
    if levels == 0 or base == ONE:
        return ONE
    if base == ZERO:
        return ONE if count == 2 and levels % 2 == 0 else ZERO
    if base == Rational(2) and levels == 2:
        return Rational(4)  # for any number of arrows
    if count == 2:
        return _tower(base, levels)
    if levels == 1:
        return base
    if levels > MAX_LEVELS:
        raise ValueError(_TOO_TALL)
    result = base
    for _ in range(levels - 1):
        result = arrows(base, count - 1, result)
    return result


def _tower(base: Value, levels: int) -> Value:
    if levels <= MAX_LEVELS:
        result = base
        for _ in range(levels - 1):
            result = power(base, result)
        return result
    if not isinstance(base, Rational) or not base.is_whole or base.p < 0:
        raise ValueError(
            f"towers of more than {MAX_LEVELS} levels need a whole number of 0 or more; use fewer "
            "levels"
        )
    return atom(Tetration(base.p // base.q, levels))
