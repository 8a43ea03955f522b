"""Decimal bounds of numbers and of their repeated logarithms: statements that a reader can check.

Every lower bound is rounded down and every upper bound up, from intervals that contain the number.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from noisewise.powers import levels, radicals
from noisewise.powers.formatting import show_interval, show_ln
from noisewise.powers.intervals import Interval, Unresolved
from noisewise.powers.levels import Tall
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.reals import log_of
from noisewise.powers.values import Rational, Value

_PRECISIONS = (64, 256, 1024, 4096)
_MAX_LOGS = 8
_MAX_DECIMALS = 60
_MAX_SHOWN = 10**12  # larger numbers are shown by their logarithms


class Bounds(NamedTuple):
    """A number, or its logarithm taken `logs` times, lies between two decimals."""

    logs: int
    low: str
    high: str

    def about(self, name: str) -> str:
        """The statement about a number with this name.

        Example:
            >>> Bounds(1, "1.38", "1.39").about("4")
            '1.38 < ln 4 < 1.39'
        """
        shown = logarithm(self.logs, name)
        return f"{shown} = {self.low}" if self.low == self.high else f"{self.low} < {shown} < {self.high}"


def logarithm(logs: int, name: str) -> str:
    """The text of a logarithm that is taken several times.

    Example:
        >>> logarithm(0, "2^3"), logarithm(1, "7"), logarithm(2, "2^3")
        ('2^3', 'ln 7', 'ln ln(2^3)')
    """
    return "ln " * (logs - 1) + show_ln(name) if logs else name


def separated(smaller: Value, larger: Value) -> tuple[Bounds, Bounds] | None:
    """Bounds that prove smaller < larger, with few logarithms and few decimals; None if too close.

    Args:
        smaller: a value above 0.
        larger: a value above 0.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> for found in separated(parse("sqrt(2)^sqrt(2)").value, parse("2").value):
        ...     print(found.low, found.high)
        1.6 1.7
        2 2
    """
    for logs in range(_MAX_LOGS):
        for bits in _PRECISIONS:
            ends = [_ends(value, logs, bits) for value in (smaller, larger)]
            if not ends[0] or not ends[1]:
                break
            found = _apart(logs, ends[0], ends[1])
            if found:
                return found
    return None


Ends = tuple[Fraction, Fraction]


def _apart(logs: int, x: Ends, y: Ends) -> tuple[Bounds, Bounds] | None:
    for decimals in range(1, _MAX_DECIMALS):
        low, high = _rounded(x, decimals), _rounded(y, decimals)
        if low[1] < high[0]:
            return tuple(Bounds(logs, *(_point(n, decimals) for n in ends)) for ends in (low, high))  # type: ignore[return-value]
    return None


def _rounded(x: Ends, decimals: int) -> tuple[int, int]:
    return math.floor(x[0] * 10**decimals), math.ceil(x[1] * 10**decimals)


def _point(units: int, decimals: int) -> str:
    sign, (before, after) = "-" if units < 0 else "", divmod(abs(units), 10**decimals)
    return f"{sign}{before}.{after:0{decimals}d}".rstrip("0").rstrip(".")


def decimals_of(value: Value, decimals: int) -> Bounds | None:
    """A value of any sign between two decimals; None if it is too large or too close to tell.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> decimals_of(parse("sqrt(2) - sqrt(3)").value, 3).about("x")
        '-0.318 < x < -0.317'
    """
    for bits in _PRECISIONS:
        ends = _ends(value, 0, bits)
        if ends is None:
            return None
        if value.sign < 0:
            ends = -ends[1], -ends[0]
        low, high = _rounded(ends, decimals)
        if high <= low + 1:
            return Bounds(0, _point(low, decimals), _point(high, decimals))
    return None


def _ends(value: Value, logs: int, bits: int) -> Ends | None:
    """An interval around |value| or a logarithm of it; None if it is too large to be shown."""
    if logs == 0 and isinstance(value, Rational):
        found = Fraction(abs(value.p), value.q)
        return (found, found) if _is_shown((found, found)) else None
    try:
        if logs == 0 and radicals.is_algebraic(value):
            number = levels.tall(radicals.evaluate(value, bits))
        else:
            number = log_of(value, bits)
            for _ in range(logs - 1):
                if levels.sign(number) != 1:
                    return None
                number = levels.log(number, bits)
            if logs == 0:
                number = levels.exp(number, bits)
    except Unresolved:
        return None
    if number.level or abs(number.t.exp) > 100_000:
        return None
    low, high = number.t.ends()
    ends = (low, high) if logs or high > 0 else (-high, -low)
    return ends if _is_shown(ends) else None


def _is_shown(x: Ends) -> bool:
    size = max(abs(x[0]), abs(x[1]))
    return Fraction(1, 10**6) < size < _MAX_SHOWN


# ------------------------------------------------------------------------------------- about


def leading_digits(value: Value, wanted: int = 9) -> tuple[int, str] | None:
    """The number of digits of |value| before the point, and its first digits as "d.ddd".

    The digits are proved and cut off, not rounded; None for towers, and if they stay open.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> leading_digits(parse("e^pi").value)
        (2, '2.31406926')
    """
    for bits in _PRECISIONS:
        try:
            log = log_of(value, bits)
        except Unresolved:
            continue
        if log.level or log.t.exp + log.t.hi.bit_length() > bits - 40:
            if log.level:
                return None
            continue
        found = _digits(log.t, bits, wanted)
        if found:
            return found
    return None


def _digits(log: Interval, bits: int, wanted: int) -> tuple[int, str] | None:
    tens = log.over(log_ratio(10, 1, bits), bits)
    low, high = (math.floor(end) for end in tens.ends())
    if low != high:
        return None
    rest = log.plus(log_ratio(10, 1, bits).times(Interval(wanted - 1 - low, wanted - 1 - low, 0), bits), bits)
    units = levels.exp(levels.tall(rest), bits)
    if units.level:
        return None
    first, last = (math.floor(end) for end in units.t.ends())
    if first != last:
        return None
    digits = str(first)
    after = digits[1:].rstrip("0")
    return low + 1, f"{digits[0]}.{after}" if after else digits[0]


def as_tens(value: Value) -> str:
    """About |value| as 10^10^...^(x); empty if the height cannot be shown.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> as_tens(parse("3^3^3^3").value)
        '10^10^(12.5609)'
    """
    try:
        number = log_of(value, 64)
        ln_10 = log_ratio(10, 1, 64)
        inverse = Interval(1, 1, 0).over(ln_10, 64)
        for count in range(1, 10):
            tens = _times(number, inverse)
            if tens.level == 0 and tens.t.exp + tens.t.hi.bit_length() < 40:
                return "10^" * count + f"({show_interval(tens.t)})"
            number = levels.log(tens, 64)
    except Unresolved:
        pass
    return ""


def _times(number: Tall, factor: Interval) -> Tall:
    if number.level == 0:
        return levels.tall(number.t.times(factor, 64))
    return levels.exp(
        levels.add(levels.log(number, 64), levels.log(levels.tall(factor), 64), 64), 64
    )
