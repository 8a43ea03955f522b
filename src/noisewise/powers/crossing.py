"""Where the curves x^(x+m) and (x+m)^x cross, with any number of proved digits.

Let f(x) = (x + m) ln x - x ln(x + m) for x > 0, m > 0; with u = m / x,

    f'(x) = (1 + u) - 1 / (1 + u) - ln(1 + u) > 0,

because this is 0 at u = 0, and its derivative in u is 1 + 1/(1+u)^2 - 1/(1+u) > 0. So f rises and
has exactly one root. The root lies between 1, where f(1) = -ln(1 + m) < 0, and e, where f(e) > 0
because ln x / x is largest at e.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

from noisewise.powers.intervals import Interval
from noisewise.powers.linear_forms import Term, decide, enclose

MAX_DIGITS = 100_000
_MIN_M, _MAX_M = Fraction(1, 1000), Fraction(10**6)


def crossing(digits: int = 30, m: int | Fraction | Decimal | str = 1) -> str:
    """The only x > 0 with x^(x+m) = (x+m)^x, cut off after `digits` decimals.

    For smaller x, x^(x+m) is the smaller side; for larger x, it is the larger side. The digits are
    proved: the comparison is exact at the returned value and at the value one unit above it in the
    last decimal.

    Args:
        digits: number of decimals, 0 to 100000.
        m: from 1/1000 to 1000000; not a float.

    Raises:
        ValueError: for arguments outside these ranges.

    Example:
        >>> crossing(20)
        '2.29316628741186103150'
        >>> crossing(3, m=2)
        '2.000'
    """
    if isinstance(m, float):
        raise ValueError(f"m = {m!r} is a float; give it as a text, a Fraction or a Decimal")
    step = Fraction(m)
    if not 0 <= digits <= MAX_DIGITS:
        raise ValueError(f"digits is {digits}; give a number of decimals from 0 to {MAX_DIGITS}")
    if not _MIN_M <= step <= _MAX_M:
        raise ValueError(f"m is {m}; give a number from 1/1000 to 1000000")
    scale = 10**digits
    numerator = math.floor(_newton(step, digits) * scale)
    while excess(Fraction(numerator, scale), step) > 0:
        numerator -= 1
    while excess(Fraction(numerator + 1, scale), step) <= 0:
        numerator += 1
    whole, rest = divmod(numerator, scale)
    return f"{whole}.{_padded(rest, digits)}" if digits else str(whole)


def excess(x: Fraction, m: Fraction) -> int:
    """The exact sign of x^(x+m) - (x+m)^x, for x > 0, m > 0.

    Example:
        >>> excess(Fraction(3), Fraction(1)), excess(Fraction(2), Fraction(1))
        (1, -1)
    """
    return decide(_terms(x, m)).sign


def _terms(x: Fraction, m: Fraction) -> list[Term]:
    y = x + m
    scale = math.lcm(x.denominator, y.denominator)
    return [
        Term(int(y * scale), x.numerator, x.denominator),
        Term(-int(x * scale), y.numerator, y.denominator),
    ]


def _newton(m: Fraction, digits: int) -> Fraction:
    """The root, nearly to the wanted decimals: bisection to 47 bits, then Newton's method."""
    low, high = Fraction(1), Fraction(2719, 1000)
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle, m) > 0 else (middle, high)
    x, correct = low, 40
    wanted = int(3.33 * digits) + 16
    while correct < wanted:
        correct = min(2 * correct - 8, wanted)
        # f' is at least about u^2 / 2: the quotient loses that many bits.
        bits = correct + 32 + 2 * max(0, math.ceil(math.log2(3 / m)))
        x = _rounded(x - _quotient(x, m, bits), bits)
    return x


def _quotient(x: Fraction, m: Fraction, bits: int) -> Fraction:
    """f(x) / f'(x), nearly."""
    scale = math.lcm(x.denominator, (x + m).denominator)
    f = _middle(enclose(_terms(x, m), 2 * bits)) / scale
    u = m / x
    log = _middle(enclose([Term(1, (1 + u).numerator, (1 + u).denominator)], bits))
    return _rounded(f, 2 * bits) / _rounded(1 + u - 1 / (1 + u) - log, bits)


def _middle(x: Interval) -> Fraction:
    low, high = x.ends()
    return (low + high) / 2


def _rounded(x: Fraction, bits: int) -> Fraction:
    return Fraction(math.floor(x * 2**bits), 2**bits)


def _padded(rest: int, digits: int) -> str:
    """The decimals with leading zeros. In chunks, because Python limits str(int) to 4300 digits."""
    chunk = 1000
    parts = []
    for _ in range(digits // chunk):
        rest, last = divmod(rest, 10**chunk)
        parts.append(f"{last:0{chunk}d}")
    if digits % chunk:
        parts.append(f"{rest:0{digits % chunk}d}")
    return "".join(reversed(parts))
