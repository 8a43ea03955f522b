"""Short proofs of a^b > c^d that anybody can check with small whole numbers.

If a^j > c^k and k / j >= d / b, then a^b = (a^j)^(b/j) > (c^k)^(b/j) >= c^d. As a^b > c^d means
log a / log c > d / b, such j and k exist: the simplest fraction k / j from d / b up to
log a / log c (walking down the Stern-Brocot tree) makes the shortest of these proofs.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from noisewise.powers.logarithms import log_ratio

MAX_BITS = 20_000  # of a^j and of c^k: what is larger convinces nobody


class Witness(NamedTuple):
    """a^j > c^k with k / j >= d / b."""

    j: int
    k: int


def find_witness(a: Fraction, b: Fraction, c: Fraction, d: Fraction, bits: int) -> Witness | None:
    """The simplest witness of a^b > c^d; None where its numbers are too long.

    Args:
        a: base of the larger side, above 1.
        b: its exponent, above 0.
        c: base of the smaller side, above 1.
        d: its exponent, above 0.
        bits: a precision that separates the two.

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
    """Bits of x^n, at most."""
    return max(x.numerator, x.denominator).bit_length() * n


def simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of the smallest denominator in [low, high], 0 < low <= high.

    Example:
        >>> simplest_between(Fraction(63, 100), Fraction(64, 100))
        Fraction(7, 11)
    """
    # Terms of the continued fraction that both ends share, then the least whole number between what
    # is left of them. p/q and r/s stay in lowest terms on the way.
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
