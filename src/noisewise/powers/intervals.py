"""Intervals with ends m * 2^e: the exact result always lies inside, in spite of rounding.

An interval has two whole mantissas and one exponent. Every operation is told how many bits to keep;
it rounds the lower end down and the upper end up. Exponents are whole numbers of any size, so there
is no overflow and no underflow. An addition shifts by no more than the bits that are kept.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Unresolved(ArithmeticError):
    """An interval is too wide to continue; more bits may help. Never reaches the user."""


class Interval(NamedTuple):
    """All x with lo * 2^exp <= x <= hi * 2^exp."""

    lo: int
    hi: int
    exp: int

    @property
    def sign(self) -> int | None:
        """-1, 0 or 1 if all numbers of the interval have this sign, else None."""
        if self.lo > 0:
            return 1
        if self.hi < 0:
            return -1
        return 0 if self.lo == self.hi == 0 else None

    def rounded(self, bits: int) -> Interval:
        """Rounded outward to mantissas of at most `bits` bits (one more after rounding up)."""
        shift = max(self.lo.bit_length(), self.hi.bit_length()) - bits
        if shift <= 0:
            return self
        return Interval(self.lo >> shift, -(-self.hi >> shift), self.exp + shift)

    def negated(self) -> Interval:
        """Every -x."""
        return Interval(-self.hi, -self.lo, self.exp)

    def plus(self, other: Interval, bits: int) -> Interval:
        """Every x + y."""
        # Parts below this exponent do not change the bits that are kept; they are rounded outward.
        floor = max(_top(self), _top(other)) - bits - 2
        exp = max(min(self.exp, other.exp), floor)
        (a, b), (c, d) = _at(self, exp), _at(other, exp)
        return Interval(a + c, b + d, exp).rounded(bits)

    def times(self, other: Interval, bits: int) -> Interval:
        """Every x * y."""
        a, b, c, d = self.lo, self.hi, other.lo, other.hi
        if a >= 0 and c >= 0:
            lo, hi = a * c, b * d
        else:
            products = (a * c, a * d, b * c, b * d)
            lo, hi = min(products), max(products)
        return Interval(lo, hi, self.exp + other.exp).rounded(bits)

    def over(self, other: Interval, bits: int) -> Interval:
        """Every x / y, for y > 0.

        Raises:
            Unresolved: if y may be 0 or less.
        """
        if other.lo <= 0:
            raise Unresolved
        # The quotient of the shifted mantissas has at least `bits` bits.
        widest = max(self.lo.bit_length(), self.hi.bit_length())
        shift = max(0, bits + 1 + other.hi.bit_length() - widest)
        lo, hi = self.lo << shift, self.hi << shift
        low = lo // (other.hi if lo >= 0 else other.lo)
        high = -(-hi // (other.lo if hi >= 0 else other.hi))
        return Interval(low, high, self.exp - other.exp - shift).rounded(bits)

    def fixed(self, bits: int) -> tuple[int, int]:
        """The lower end times 2^bits, rounded down, and the upper end times 2^bits, rounded up."""
        return _at(self, -bits)

    def ends(self) -> tuple[Fraction, Fraction]:
        """Both ends as exact fractions; only for exponents of moderate size."""
        if self.exp >= 0:
            return Fraction(self.lo << self.exp), Fraction(self.hi << self.exp)
        return Fraction(self.lo, 1 << -self.exp), Fraction(self.hi, 1 << -self.exp)


def whole(n: int, bits: int) -> Interval:
    """An interval around a whole number that keeps its leading bits.

    Example:
        >>> whole(-5, 64)
        Interval(lo=-5, hi=-5, exp=0)
        >>> whole(2**100 + 1, 8)
        Interval(lo=128, hi=129, exp=93)
    """
    shift = n.bit_length() - bits
    if shift <= 0:
        return Interval(n, n, 0)
    low = n >> shift
    return Interval(low, low + (low << shift != n), shift)


def quotient(p: int, q: int, bits: int) -> Interval:
    """The quotient p / q for q > 0, with a relative error of at most 2^(3 - bits).

    Example:
        >>> low, high = quotient(1, 3, 64).ends()
        >>> low < Fraction(1, 3) < high and high - low < Fraction(1, 2**60)
        True
    """
    return whole(p, bits + 2).over(whole(q, bits + 2), bits)


def hull(a: Interval, b: Interval, bits: int) -> Interval:
    """The smallest interval of `bits` bits that contains both."""
    exp = max(min(a.exp, b.exp), max(_top(a), _top(b)) - bits - 2)
    (p, q), (r, s) = _at(a, exp), _at(b, exp)
    return Interval(min(p, r), max(q, s), exp).rounded(bits)


def below(a: Interval, b: Interval) -> bool | None:
    """Whether a < b if that is certain; None otherwise, also if the two may touch."""
    difference = b.plus(a.negated(), max(_width(a), _width(b)) + 4).sign
    return None if difference in (0, None) else difference > 0


def _width(x: Interval) -> int:
    return max(x.lo.bit_length(), x.hi.bit_length())


def _top(x: Interval) -> int:
    """|x| < 2^top; very low for 0, so that a 0 never decides where an addition rounds."""
    width = _width(x)
    return x.exp + width if width else -(1 << 200)


def _at(x: Interval, exp: int) -> tuple[int, int]:
    """The mantissas for another exponent, rounded outward."""
    if x.exp >= exp:
        return x.lo << (x.exp - exp), x.hi << (x.exp - exp)
    shift = exp - x.exp
    return x.lo >> shift, -(-x.hi >> shift)
