"""The logarithm of n! for large n, as a proved interval.

    ln n! = n ln n - n + ln(2 pi n) / 2 + sum over k of B_2k / (2k (2k - 1) n^(2k - 1)),

where the rest of the series has the sign of its first term and is smaller (Whittaker and Watson
1927, section 12.33). For n of more than 20,000 each term gives 28 bits and more.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import comb

from noisewise.powers import levels
from noisewise.powers.intervals import Interval, Unresolved, hull, quotient, whole
from noisewise.powers.levels import Tall
from noisewise.powers.logarithms import log as log_interval
from noisewise.powers.logarithms import log_ratio, pi

_MAX_TERMS = 120


def log_factorial(n: int, bits: int) -> Interval:
    """An interval around ln n! for whole n of 1 or more.

    Example:
        >>> import math
        >>> low, high = log_factorial(1000, 64).ends()
        >>> float(low) <= math.lgamma(1001) * (1 + 1e-15) and float(high) * 1.000001 > 5912
        True
    """
    inner = bits + 16
    n_interval, ln_n = whole(n, inner), log_ratio(n, 1, inner)
    total = n_interval.times(ln_n.plus(Interval(-1, -1, 0), inner), inner)
    ln_2_pi_n = ln_n.plus(log_interval(pi(inner), inner), inner).plus(log_ratio(2, 1, inner), inner)
    total = total.plus(Interval(ln_2_pi_n.lo, ln_2_pi_n.hi, ln_2_pi_n.exp - 1), inner)
    for k in range(1, _MAX_TERMS):
        b = bernoulli(2 * k)
        term = quotient(b.numerator, b.denominator * 2 * k * (2 * k - 1) * n ** (2 * k - 1), inner)
        if term.exp + max(abs(term.lo), abs(term.hi)).bit_length() < -inner or k == _MAX_TERMS - 1:
            break
        total = total.plus(term, inner)
    rest = Interval(min(term.lo, 0), max(term.hi, 0), term.exp)
    return total.plus(rest, inner).rounded(bits)


@lru_cache(maxsize=256)
def bernoulli(n: int) -> Fraction:
    """The Bernoulli number B_n, for n of 0 or 2, 4, 6, ...

    Example:
        >>> bernoulli(4)
        Fraction(-1, 30)
    """
    if n == 0:
        return Fraction(1)
    # sum over k < n of C(n + 1, k) B_k = -(n + 1) B_n, with B_1 = -1/2 and no other odd ones
    others = sum((comb(n + 1, k) * bernoulli(k) for k in range(2, n, 2)), Fraction(0))
    return -(1 - Fraction(n + 1, 2) + others) / (n + 1)


def log_of_tower_factorial(ln_n: Tall, bits: int) -> Tall:
    """The logarithm of n! for an n that is known by its logarithm, for n of 1000 or more.

    It lies between n (ln n - 1) and n (ln n - 1) + ln n.

    Raises:
        Unresolved: if the interval is too wide.
    """
    less = levels.add(ln_n, levels.tall(Interval(-1, -1, 0)), bits)
    low = levels.exp(levels.add(ln_n, levels.log(less, bits), bits), bits)
    high = levels.add(low, ln_n, bits)
    if low.level != high.level:
        raise Unresolved
    return Tall(1, low.level, hull(low.t, high.t, bits))
