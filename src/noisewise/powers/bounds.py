"""Decimal bounds of numbers and of their repeated logarithms: statements that a reader can check.

Every lower bound is rounded down and every upper bound up, from intervals that contain the number.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from noisewise.powers import levels, radicals
from noisewise.powers.formatting import show_interval, show_ln
from noisewise.powers.intervals import Interval, Unresolved
from noisewise.powers.levels import Tall
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.reals import log_of
from noisewise.powers.values import Rational, Value

_PRECISIONS = (64, 256, 1024, 4096)
_MAX_LOGS = 6  # written one after the other
_MAX_DECIMALS = 160
_MAX_SHOWN = Fraction(10**12)  # larger numbers are shown by their logarithms


class Bounds(NamedTuple):
    """A number, or its logarithm taken `logs` times, lies between two decimals.

    An empty `high` means that only a lower bound is given.
    """

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
        if self.low == self.high:
            return f"{shown} = {self.low}"
        return f"{self.low} < {shown} < {self.high}" if self.high else f"{shown} > {self.low}"


def logarithm(logs: int, name: str) -> str:
    """The text of a logarithm that is taken several times; ln[9] stands for nine times.

    Example:
        >>> logarithm(0, "2^3"), logarithm(1, "7"), logarithm(2, "2^3"), logarithm(9, "7")
        ('2^3', 'ln 7', 'ln ln(2^3)', 'ln[9](7)')
    """
    if logs > _MAX_LOGS:
        return f"ln[{logs}]({name})"
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
    for logs in _counts(smaller):
        for bits in _PRECISIONS if logs <= _MAX_LOGS else _PRECISIONS[:2]:
            low, high = (_ends(value, logs, bits) for value in (smaller, larger))
            if not low or not high or low[1] is None:
                break
            found = _apart(logs, low, high)
            if found:
                return found
    return None


def _counts(value: Value) -> list[int]:
    """How many logarithms to try: few, and for tall towers as many as leave a short number."""
    few = list(range(_MAX_LOGS + 1))
    try:
        level = _log(value, _PRECISIONS[0]).level
    except Unresolved:
        return few
    return [*few, *(n for n in range(level + 1, level + 5) if n > _MAX_LOGS)]


Ends = tuple[Fraction, Fraction | None]


def _apart(logs: int, x: Ends, y: Ends) -> tuple[Bounds, Bounds] | None:
    """The fewest decimals that separate two intervals."""
    if x[1] is None or x[1] >= y[0]:
        return None
    for decimals in range(1, _MAX_DECIMALS):
        low, high = _rounded(x, decimals), _rounded(y, decimals)
        if low.high_units < high.low_units:
            return low.bounds(logs, decimals), high.bounds(logs, decimals)
    return None


class _Units(NamedTuple):
    low_units: int
    high_units: int
    open_above: bool

    def bounds(self, logs: int, decimals: int) -> Bounds:
        high = "" if self.open_above else _point(self.high_units, decimals)
        return Bounds(logs, _point(self.low_units, decimals), high)


def _rounded(x: Ends, decimals: int) -> _Units:
    low, scale = math.floor(x[0] * 10**decimals), 10**decimals
    return _Units(low, low if x[1] is None else math.ceil(x[1] * scale), x[1] is None)


def _point(units: int, decimals: int) -> str:
    sign, (before, after) = "-" if units < 0 else "", divmod(abs(units), 10**decimals)
    return f"{sign}{before}.{after:0{decimals}d}".rstrip("0").rstrip(".")


class LnBounds(NamedTuple):
    """Bounds of a logarithm other than 0."""

    bounds: Bounds
    is_above: bool  # whether the logarithm is above 0

    def about(self, name: str) -> str:
        """The statement about a number with this name."""
        if self.is_above:
            return Bounds(1, self.bounds.low, self.bounds.high).about(name)
        return Bounds(1, f"-{self.bounds.high}", f"-{self.bounds.low}").about(name)


def bounds_of_ln(value: Value) -> LnBounds | None:
    """Bounds of ln(value) with a few digits, for a positive value other than 1; else None.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> bounds_of_ln(parse("1/2").value).about("1/2")
        '-0.69315 < ln(1/2) < -0.69314'
    """
    for bits in _PRECISIONS:
        try:
            log = log_of(value, bits)
        except Unresolved:
            continue
        if log.level or log.t.exp > 10_000:
            return None
        if log.t.sign not in (-1, 1) or log.t.exp < -10_000:
            continue
        is_above = log.t.sign > 0
        low, high = (log.t if is_above else log.t.negated()).ends()
        if low >= Fraction(1, 100) and high < _MAX_SHOWN:
            return LnBounds(_rounded((low, high), 5).bounds(1, 5), is_above)
        found = _in_tens(low, high)
        if found:
            return LnBounds(found, is_above)
    return None


def _in_tens(low: Fraction, high: Fraction) -> Bounds | None:
    """Bounds of a small or large number above 0 as m * 10^(k) with three digits of m."""
    power = _power_of_ten(low)
    units = math.floor(low / _tens(power - 2)), math.ceil(high / _tens(power - 2))
    if units[1] > units[0] + 2:
        return None
    return Bounds(1, *(f"{_point(n, 2)} * 10^({power})" for n in units))


def _power_of_ten(x: Fraction) -> int:
    """The k with 10^k <= x < 10^(k+1)."""
    k = int((x.numerator.bit_length() - x.denominator.bit_length()) * math.log10(2))
    while _tens(k) > x:
        k -= 1
    while _tens(k + 1) <= x:
        k += 1
    return k


def _tens(k: int) -> Fraction:
    return Fraction(10**k) if k >= 0 else Fraction(1, 10**-k)


def decimals_of(value: Value, decimals: int) -> Bounds | None:
    """A value of any sign between two decimals; None if it is too large or too close to tell.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> decimals_of(parse("sqrt(2) - sqrt(3)").value, 3).about("x")
        '-0.318 < x < -0.317'
    """
    for bits in _PRECISIONS:
        ends = _ends(value, 0, bits)
        if ends is None or ends[1] is None:
            return None
        if value.sign < 0:
            ends = -ends[1], -ends[0]
        found = _rounded(ends, decimals)
        if found.high_units <= found.low_units + 2:
            return found.bounds(0, decimals)
    return None


def _ends(value: Value, logs: int, bits: int) -> Ends | None:
    """An interval around |value| or a logarithm of it; only a lower end if it is very large.

    None if there is no such logarithm, or if it is too near to 0 to be shown.
    """
    if logs == 0 and isinstance(value, Rational):
        found = Fraction(abs(value.p), value.q)
        return _shown(found, found)
    try:
        number = _number(value, logs, bits)
    except Unresolved:
        return None
    if number is None:
        return None
    if number.level or number.t.exp > 100_000:
        return (_MAX_SHOWN, None) if levels.sign(number) == 1 else None
    if number.t.exp < -100_000:
        return None
    return _shown(*number.t.ends())


def _number(value: Value, logs: int, bits: int) -> Tall | None:
    """The number |value|, or its logarithm taken `logs` times if that exists."""
    if logs == 0 and radicals.is_algebraic(value):
        number = levels.tall(radicals.evaluate(value, bits))
        return number if value.sign > 0 else levels.opposite(number)
    number = _log(value, bits)
    if logs == 0:
        return levels.exp(number, bits)
    steps = min(logs - 1, number.level) if number.sign > 0 else 0
    number = Tall(number.sign, number.level - steps, number.t)
    for _ in range(logs - 1 - steps):
        if levels.sign(number) != 1:
            return None
        number = levels.log(number, bits)
    return number


@lru_cache(maxsize=8)
def _log(value: Value, bits: int) -> Tall:
    """The logarithm of |value|, kept while more logarithms of the same number are tried."""
    return log_of(value, bits)


def _shown(low: Fraction, high: Fraction) -> Ends | None:
    if low > _MAX_SHOWN:
        return _MAX_SHOWN, None
    size = max(abs(low), abs(high))
    return (low, high) if Fraction(1, 10**6) < size <= _MAX_SHOWN else None


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
    rest = log.plus(
        log_ratio(10, 1, bits).times(Interval(wanted - 1 - low, wanted - 1 - low, 0), bits), bits
    )
    units = levels.exp(levels.tall(rest), bits)
    if units.level:
        return None
    first, last = (math.floor(end) for end in units.t.ends())
    if first != last:
        return None
    digits = str(first)
    after = digits[1:].rstrip("0")
    return low + 1, f"{digits[0]}.{after}" if after else digits[0]


def tens(value: Value) -> tuple[float | None, float | None]:
    """About log10 |value| and log10 log10 |value|; None where it does not exist or is too large.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> tens(parse("10^10^10^10").value)
        (None, 10000000000.0)
    """
    try:
        log = log_of(value, 64)
        once = _times(log, Interval(1, 1, 0).over(log_ratio(10, 1, 64), 64))
        twice = None
        if levels.sign(once) == 1:
            ln_10 = levels.tall(Interval(1, 1, 0).over(log_ratio(10, 1, 64), 64))
            twice = _times(levels.log(once, 64), ln_10.t)
    except Unresolved:
        return None, None
    return _float(once), None if twice is None else _float(twice)


def _float(x: Tall) -> float | None:
    """The middle of an interval as a float; None if it is too large for one."""
    if x.level or abs(x.t.exp) > 900:
        return None
    return float((x.t.ends()[0] + x.t.ends()[1]) / 2)


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
