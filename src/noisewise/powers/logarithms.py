"""Natural logarithms of rational numbers, and exponentials, as proved intervals.

log(p / q) = k log 2 + log m with m near 1. With r square roots m comes nearer to 1, and

    log m = 2^r log m^(2^-r),    log y = 2 atanh z = 2 z (1 + z^2/3 + z^4/5 + ...),  z = (y-1)/(y+1)

in whole numbers scaled by 2^w (Brent and Zimmermann 2010, "Modern computer arithmetic", chapter 4).
The comments prove how large the error of each whole number can be; the intervals contain it. For
numbers near 1 the relative error is small too, because z is then computed from p - q. From 1500
bits on, the ball arithmetic of python-flint is used if it is installed (Johansson 2017, "Arb").
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType

from noisewise.powers.big_integers import flint
from noisewise.powers.intervals import Interval, Unresolved, hull, quotient, whole

_FLINT_BITS = 1500  # from this precision on, flint is faster, conversion included


def log_ratio(p: int, q: int, bits: int, shift: int = 0) -> Interval:
    """log(2^shift * p / q) for p, q >= 1.

    The interval is narrower than 2^(4 - bits) times the logarithm.

    Example:
        >>> low, high = log_ratio(3, 2, 64).ends()
        >>> low <= math.log(1.5) + 1e-15 and high >= math.log(1.5) - 1e-15
        True
        >>> log_ratio(7, 7, 64).sign
        0
    """
    if p == q:
        return _multiple_of_log_2(shift, bits)
    k = p.bit_length() - q.bit_length()
    scaled_p, scaled_q = (p, q << k) if k >= 0 else (p << -k, q)
    # Now 1/2 < m = p / q < 2. The leading bits are enough to bring m between 5/8 and 8/5, because
    # the bounds 4/3 and 3/4 need not be met exactly.
    cut = max(0, scaled_q.bit_length() - 32)
    top_p, top_q = scaled_p >> cut, scaled_q >> cut
    if 3 * top_p > 4 * top_q:
        k, scaled_q = k + 1, scaled_q << 1
    elif 4 * top_p < 3 * top_q:
        k, scaled_p = k - 1, scaled_p << 1
    k += shift
    module = flint()
    if module is not None and bits >= _FLINT_BITS:
        return _log_by_flint(module, scaled_p, scaled_q, k, bits)
    # k log 2 + log m cancels little, as |log m| < 0.48, and |k log 2| >= 0.69 or k = 0.
    near = _log_near_1(scaled_p, scaled_q, bits + 4)
    return near.plus(_multiple_of_log_2(k, bits + 4), bits) if k else near.rounded(bits)


def log(x: Interval, bits: int) -> Interval:
    """An interval that contains log t for every t in x, with x > 0.

    Raises:
        Unresolved: if x may be 0 or less.
    """
    if x.lo <= 0:
        raise Unresolved
    low = log_ratio(x.lo, 1, bits, x.exp)
    if x.lo == x.hi:
        return low
    high = log_ratio(x.hi, 1, bits, x.exp)
    return hull(low, high, bits)


def exp(x: Interval, bits: int) -> Interval:
    """An interval that contains e^t for every t in x, with |t| below a few thousand times `bits`.

    Example:
        >>> low, high = exp(Interval(1, 1, 0), 64).ends()
        >>> low < math.e + 1e-15 and high > math.e - 1e-15 and high - low < 2**-60
        True
    """
    low = _exp_of_end(x.lo, x.exp, bits)
    high = _exp_of_end(x.hi, x.exp, bits)
    return hull(low, high, bits)


def _log_near_1(p: int, q: int, bits: int) -> Interval:
    """The logarithm for 5/8 < p / q < 8/5, p != q; relative error at most 2^(2 - bits)."""
    z = quotient(p - q, p + q, bits + 4)
    # |z| < 2^-small; each square root makes z smaller by one more bit.
    small = -(z.exp + max(z.lo.bit_length(), z.hi.bit_length()))
    roots = max(0, math.isqrt(bits) // 3 - max(small, 2))
    if roots < 4:
        return _doubled(z.times(_atanh_series(z, bits + 4), bits + 2), 1).rounded(bits)
    w = bits + roots + max(small, 0) + 8
    # m lies in [y, y + 1] / 2^w. If m lies in [y, y + 3] / 2^w, then the root of m lies in
    # [isqrt(y 2^w), isqrt(y 2^w) + 3] / 2^w: the root of y + 3 exceeds that of y by less than
    # 3 / (2 sqrt(5/8)) < 1.9 units, and rounding down takes less than 1.
    y = (p << w) // q
    for _ in range(roots):
        y = math.isqrt(y << w)
    one = 1 << w
    z = Interval(y - one, y + 3 - one, -w).over(Interval(y + one, y + 3 + one, -w), bits + 4)
    return _doubled(z.times(_atanh_series(z, bits + 4), bits + 2), 1 + roots).rounded(bits)


def _doubled(x: Interval, times: int) -> Interval:
    return Interval(x.lo, x.hi, x.exp + times)


def _atanh_series(z: Interval, w: int) -> Interval:
    """1 + z^2/3 + z^4/5 + ... for |z| < 1/4, scaled by 2^w."""
    t, upper = z.times(z, w + 8).fixed(w)
    # The series is evaluated at t / 2^w <= z^2, and every division rounds down. A power is too
    # small by e units with e' <= e t / 2^w + 1, so e < 2 because t / 2^w < 1/16. A term is a power
    # divided by 3 or more; it is too small by less than 2 units.
    total, power, n = 1 << w, 1 << w, 0
    while power:
        power = (power * t) >> w
        n += 1
        total += power // (2 * n + 1)
    # n terms: an error below 2 n units. The rest of the series starts below 2 units and falls by a
    # factor 16 each time: after the division, 1 unit in all. The derivative in t is below
    # (1/3) / (1 - 1/16)^2 < 1.
    return Interval(total, total + 2 * n + 1 + (upper - t), -w)


@lru_cache(maxsize=16)
def _log_2(w: int) -> Interval:
    """The number log 2 = 18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749), scaled by 2^w."""
    low = high = 0
    for factor, n in ((18, 26), (-2, 4801), (8, 8749)):
        total, terms = _atanh_of_inverse(n, w)
        # atanh(1/n) lies in [total, total + terms + 1] / 2^w
        low += factor * (total + (terms + 1 if factor < 0 else 0))
        high += factor * (total + (terms + 1 if factor > 0 else 0))
    return Interval(low, high, -w)


def _atanh_of_inverse(n: int, w: int) -> tuple[int, int]:
    """1/n + 1/(3 n^3) + ... in units of 2^-w, each term rounded down, and the number of terms."""
    # Several divisions in a row that round down equal one division that rounds down: the error is
    # below 1 unit a term. The rest of the series is below 1 unit too, because its first power is.
    power, total, k = (1 << w) // n, 0, 0
    while power:
        total += power // (2 * k + 1)
        power //= n * n
        k += 1
    return total, k


@lru_cache(maxsize=16)
def pi(bits: int) -> Interval:
    """The number pi = 16 atan(1/5) - 4 atan(1/239) (Machin 1706).

    Example:
        >>> low, high = pi(64).ends()
        >>> low <= math.pi + 1e-15 and high >= math.pi - 1e-15
        True
    """
    low = high = 0
    for factor, n in ((16, 5), (-4, 239)):
        # Each term is rounded by less than 1 unit, and the rest of the series is below 1 unit.
        power, total, k = (1 << (bits + 16)) // n, 0, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power //= n * n
            k += 1
        ends = factor * (total - k - 1), factor * (total + k + 1)
        low, high = low + min(ends), high + max(ends)
    return Interval(low, high, -bits - 16).rounded(bits)


def _multiple_of_log_2(k: int, bits: int) -> Interval:
    if k == 0:
        return Interval(0, 0, 0)
    # A multiple of 64, so that neighbouring precisions share one computation.
    w = -(-(bits + 20) // 64) * 64
    return _log_2(w).times(whole(k, bits + 8), bits)


def _exp_of_end(mantissa: int, exponent: int, bits: int) -> Interval:
    """e^(mantissa 2^exponent)."""
    size = max(0, mantissa.bit_length() + exponent)  # |x| < 2^size
    w = bits + size + 16
    log_2 = _log_2(-(-(w + 8) // 64) * 64)
    x = Interval(mantissa, mantissa, exponent)
    lo, _ = x.fixed(w)
    k = (lo << -log_2.exp) // (log_2.lo << w)
    rest = x.plus(log_2.times(whole(-k, w), w + 4), w + 4)
    r, r_upper = rest.fixed(w)
    # k is the quotient rounded down, up to small errors: r / 2^w lies between -1/8 and 7/8. The
    # terms r^i / i!, each rounded down, have errors e' <= (e + 1) / i + 1 < 4 units.
    total, term, i = 1 << w, 1 << w, 0
    while term and term != -1:
        i += 1
        term = ((term * r) >> w) // i
        total += term
    # i terms with errors below 4 units each; the rest of the series is below 8 units. The
    # derivative of e^r is below 3.
    slack = 4 * i + 8
    return Interval(total - slack, total + slack + 3 * (r_upper - r), k - w).rounded(bits)


def _log_by_flint(module: ModuleType, p: int, q: int, k: int, bits: int) -> Interval:
    """The sum k log 2 + log(p / q) in ball arithmetic."""
    with module.ctx.workprec(bits + 16):
        near = module.arb(module.fmpq(p - q, q)).log1p()
        found = near + k * module.arb.const_log2() if k else near
        low, high = found.lower().man_exp(), found.upper().man_exp()
    exponent = min(int(low[1]), int(high[1]))
    return Interval(
        int(low[0]) << (int(low[1]) - exponent), int(high[0]) << (int(high[1]) - exponent), exponent
    ).rounded(bits)
