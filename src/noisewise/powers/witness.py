"""Short proofs of a^b > c^d that can be checked with small whole numbers.

If a^j > c^k and k / j >= d / b, then a^b = (a^j)^(b/j) > (c^k)^(b/j) >= c^d. As a^b > c^d means
log a / log c > d / b, such j and k exist. The simplest fraction k / j between d / b and
log a / log c, found in the Stern-Brocot tree, gives the shortest proof.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from noisewise.powers.logarithms import log_ratio

MAX_BITS = 20_000  # of a^j and of c^k; longer numbers make no short proof


class Witness(NamedTuple):
    """a^j > c^k with k / j >= d / b."""

    j: int
    k: int


def find_witness(a: Fraction, b: Fraction, c: Fraction, d: Fraction, bits: int) -> Witness | None:
    """The simplest witness of a^b > c^d; None if its numbers are too long.

    Args:
        a: base of the larger side, above 1.
        b: its exponent, above 0.
        c: base of the smaller side, above 1.
        d: its exponent, above 0.
        bits: a precision at which the two sides can be told apart.

    Example:
        >>> find_witness(Fraction(2), Fraction(1000000), Fraction(3), Fraction(630000), 64)
        Witness(j=46, k=29)
    """
    log_a = log_ratio(a.numerator, a.denominator, bits + 64)
    log_c = log_ratio(c.numerator, c.denominator, bits + 64)
    low, _ = log_a.over(log_c, bits + 64).ends()
    if low <= d / b:
        return None
    found = simplest_between(d / b, low)
    j, k = found.denominator, found.numerator
    if max(_size(a, j), _size(c, k)) > MAX_BITS or not a**j > c**k:
        return None
    return Witness(j, k)


def _size(x: Fraction, n: int) -> int:
    """An upper bound of the bits of x^n."""
    return max(x.numerator, x.denominator).bit_length() * n


def simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """The fraction with the smallest denominator in [low, high], for 0 < low <= high.

    Example:
        >>> simplest_between(Fraction(63, 100), Fraction(64, 100))
        Fraction(7, 11)
    """
    # The terms of the continued fraction that both ends share, then the least whole number between
    # the remainders. p/q and r/s stay in lowest terms.
    p, q, r, s = *low.as_integer_ratio(), *high.as_integer_ratio()
    above, below, above_before, below_before = 1, 0, 0, 1
    while True:
        whole, rest = divmod(p, q)
        term = whole + (rest > 0)
        is_last = term * s <= r
        if not is_last:
            term = whole
        above, above_before = term * above + above_before, above
        below, below_before = term * below + below_before, below
        if is_last:
            return Fraction(above, below)
        p, q, r, s = s, r - whole * s, q, rest
