"""Numbers of any size as short text for people."""

from __future__ import annotations

import math
import re

from noisewise.powers.intervals import Interval, quotient, whole
from noisewise.powers.linear_forms import Term, decide, enclose
from noisewise.powers.logarithms import exp, log_ratio
from noisewise.powers.values import (
    ONE,
    Atom,
    Constant,
    Factorial,
    Rational,
    Tetration,
    Value,
    negative,
)

SHOWN_DIGITS = 60  # longer numbers are shortened to their leading digits
_FRACTION_BITS = 60  # longer fractions are shown as decimals
_MAX_TENS_BITS = 30_000  # of a number that is shown as m * 10^k + r
_TENS_DIGITS = 6  # of m and r
_TEXT = 60  # longer expressions are shortened


def shorten(text: str) -> str:
    """An expression in about 60 characters at most.

    Example:
        >>> shorten("1" * 1000)
        '111111111111111111111111...111111111111 (1000 characters)'
    """
    clean = " ".join(text.split())
    if len(clean) <= _TEXT:
        return clean
    return f"{clean[:24]}...{clean[-12:]} ({len(clean)} characters)"


def show_whole(n: int) -> str:
    """A whole number: all digits, or a power of ten, or the leading digits and a power of ten.

    Example:
        >>> show_whole(-12)
        '-12'
        >>> show_whole(10**100 + 1), show_whole(7**1000)
        ('10^100 + 1', '1.25325664e845')
    """
    if _is_short(n):
        return str(n)
    if near := _near_tens(n):
        return near
    mantissa, power = scientific(whole(n, 128))
    return f"{mantissa:.9g}e{power}"


def _is_short(n: int) -> bool:
    return n.bit_length() < 3.32 * SHOWN_DIGITS


def _near_tens(n: int) -> str:
    """A long number as m * 10^k + r with short m and r; empty if it has no such form."""
    if n < 0 or n.bit_length() > _MAX_TENS_BITS:
        return ""
    _, power = scientific(whole(n, 128))
    for k in range(power, max(power - _TENS_DIGITS, 0), -1):
        m, rest = divmod(n + 10**_TENS_DIGITS, 10**k)
        rest -= 10**_TENS_DIGITS
        if abs(rest) < 10**_TENS_DIGITS:
            tens = f"10^{k}" if m == 1 else f"{m} * 10^{k}"
            return tens if rest == 0 else f"{tens} {'+' if rest > 0 else '-'} {abs(rest)}"
    return ""


def name_rational(value: Rational) -> str:
    """A number as the name of an operand; a long one by its first and last digits.

    Example:
        >>> name_rational(Rational(7**1000 + 7)), name_rational(Rational(-1, 3))
        ('1253...0008', '-1/3')
    """
    sign, parts = ("-" if value.p < 0 else ""), []
    for n in (abs(value.p), value.q):
        if _is_short(n):
            parts.append(str(n))
        elif near := _near_tens(n):
            parts.append(near if value.q == 1 and not sign else f"({near})")
        else:
            mantissa, _ = scientific(whole(n, 128))
            parts.append(f"{int(mantissa * 1000)}...{n % 10_000:04d}")
    return sign + (parts[0] if value.q == 1 else "/".join(parts))


def show_rational(value: Rational) -> str:
    """A fraction or a whole number; only the leading digits of a long one.

    Example:
        >>> show_rational(Rational(1, 3))
        '1/3'
    """
    if value.q == 1:
        return show_whole(value.p)
    if value.bits > _FRACTION_BITS:
        apart = quotient(value.p - value.q, value.q, 128)
        if value.p > value.q and scientific(apart)[1] < -6:
            return f"1 + {show_interval(apart, 9)}"
        return show_interval(quotient(value.p, value.q, 128), 9)
    return f"{value.p}/{value.q}"


def is_shown_exactly(value: Rational) -> bool:
    """Whether `show_rational` shows the exact number, not only its leading digits.

    Example:
        >>> is_shown_exactly(Rational(1, 3)), is_shown_exactly(Rational(7**1000))
        (True, False)
    """
    if value.q == 1:
        return _is_short(value.p) or bool(_near_tens(value.p))
    return value.bits <= _FRACTION_BITS


def bracketed(value: Rational) -> str:
    """A number in brackets, unless it is written with digits alone.

    Example:
        >>> bracketed(Rational(7)), bracketed(Rational(1, 3)), bracketed(Rational(-7))
        ('7', '(1/3)', '(-7)')
    """
    shown = show_rational(value)
    return shown if shown.isdigit() else f"({shown})"


def show_ln(text: str) -> str:
    """The natural logarithm of a number, as text.

    Example:
        >>> show_ln("7"), show_ln("1/3")
        ('ln 7', 'ln(1/3)')
    """
    return f"ln {text}" if text.isdigit() else f"ln({text})"


def base_and_ln(base: Rational, letter: str) -> tuple[str, str]:
    """A base and its logarithm as text; a letter stands for a base too long to show exactly.

    Example:
        >>> base_and_ln(Rational(7, 2), "a"), base_and_ln(Rational(7**1000), "a")
        (('(7/2)', 'ln(7/2)'), ('a', 'ln a'))
    """
    if is_shown_exactly(base):
        return bracketed(base), show_ln(show_rational(base))
    return letter, f"ln {letter}"


def letters(bases: tuple[Rational, Rational]) -> list[str]:
    """One sentence for each letter that `base_and_ln` uses: a for the left base, c for the right.

    Example:
        >>> letters((Rational(3), Rational(7**1000)))
        ['Here c is the right base.']
    """
    names = ("a is the left base", "c is the right base")
    return [
        f"Here {name}."
        for name, base in zip(names, bases, strict=True)
        if not is_shown_exactly(base)
    ]


def in_full(value: Value) -> Rational | None:
    """The value if it is a fraction with few enough digits to show all of them, else None.

    Example:
        >>> in_full(Rational(7)), in_full(Rational(7**1000))
        (Rational(p=7, q=1), None)
    """
    fits = isinstance(value, Rational) and value.bits < 3.32 * SHOWN_DIGITS
    return value if fits and isinstance(value, Rational) else None


def show_value(value: Value) -> str:
    """A value as a product of powers.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> show_value(parse("(2/3)^10^10^10").value)
        '2^10^10000000000 * 3^(-10^10000000000)'
    """
    if isinstance(value, Rational):
        return show_rational(value)
    parts = []
    for factor in value.factors:
        exponent = show_value(factor.exponent)
        base = show_base(factor.base)
        bare = re.fullmatch(r"[0-9]+(\^[0-9]+)*", exponent)
        shown = f"{base}^{exponent if bare else f'({exponent})'}"
        parts.append(base if factor.exponent == ONE else shown)
    return ("-" if value.sign < 0 else "") + " * ".join(parts)


def show_base(base: int | Atom) -> str:
    """The base of a power as text, in brackets unless it is one word.

    Example:
        >>> show_base(Constant("pi")), show_base(Tetration(3, 1000)), show_base(10**100)
        ('pi', '(3^^1000)', '(10^100)')
    """
    if isinstance(base, int):
        shown = show_whole(base)
        return shown if shown.isdigit() else f"({shown})"
    if isinstance(base, Constant):
        return base.name
    if isinstance(base, Tetration):
        return f"({base.base}^^{base.height})"
    if isinstance(base, Factorial):
        shown = show_value(base.n)
        return f"{shown if shown.isdigit() else f'({shown})'}!"
    first, *rest = base.terms
    signs = (f" {'-' if term.sign < 0 else '+'} {show_value(_absolute(term))}" for term in rest)
    return f"({show_value(first)}{''.join(signs)})"


def _absolute(value: Value) -> Value:
    return negative(value) if value.sign < 0 else value


def tens_of(terms: list[Term], scale: int = 1) -> Interval:
    """An interval that contains log10 x, for x^scale = prod (p/q)^E.

    Example:
        >>> show_interval(tens_of([Term(1000, 2, 1)]))
        '301.03'
    """
    return enclose(terms, 64).over(log_ratio(10, 1, 64).times(whole(scale, 64), 64), 64)


def digits_of(terms: list[Term], scale: int = 1, wanted: int = 9) -> tuple[int, str]:
    """The number of digits of x before the point, and its leading digits as "d.ddd".

    Here x^scale = prod (p/q)^E. The leading digits are cut off, not rounded. Both results are
    proved: the number of digits by an exact comparison with a power of ten, the leading digits by
    an interval. For x < 1 the number of digits is 0 or negative: 10^(digits - 1) <= x < 10^digits.

    Args:
        terms: the terms of scale * log x.
        scale: 1 unless x is a root.
        wanted: how many leading digits to return.

    Example:
        >>> digits_of([Term(10, 11, 1)])
        (11, '2.59374246')
    """
    value = enclose(terms, 64)
    size = max(0, value.exp + max(value.lo.bit_length(), value.hi.bit_length()))
    bits = 64 + 4 * wanted + size
    while True:
        ten = log_ratio(10, 1, bits)
        log10 = enclose(terms, bits).over(ten.times(whole(scale, bits), bits), bits)
        power = log10.lo << log10.exp if log10.exp >= 0 else log10.lo >> -log10.exp
        if decide([*terms, Term(-(power + 1) * scale, 10, 1)]).sign >= 0:
            power += 1
        elif decide([*terms, Term(-power * scale, 10, 1)]).sign < 0:
            power -= 1
        # x / 10^(power - wanted + 1) has `wanted` digits before the point.
        shifted = [*terms, Term((wanted - 1 - power) * scale, 10, 1)]
        units = exp(enclose(shifted, bits).over(whole(scale, bits), bits), bits)
        low, high = (int(end) for end in units.ends())
        if high == low + 1:
            # The interval contains a whole number: decide on which side of it x lies.
            low += decide([*shifted, Term(-scale, high, 1)]).sign >= 0
        if high <= low + 1:
            digits = str(low)
            rest = digits[1:].rstrip("0")
            return power + 1, f"{digits[0]}.{rest}" if rest else digits[0]
        bits *= 2


def scientific(x: Interval) -> tuple[float, int]:
    """About x, as mantissa and power of ten. Only for display: nothing is proved here.

    Example:
        >>> scientific(Interval(5, 5, 0))
        (5.0, 0)
    """
    m = x.lo if abs(x.lo) > abs(x.hi) else x.hi
    if m == 0:
        return 0.0, 0
    size = x.exp + m.bit_length()
    if abs(size) < 1000:
        cut = max(0, m.bit_length() - 60)
        shown = f"{math.ldexp(m >> cut, x.exp + cut):.11e}"
        return float(shown.partition("e")[0]), int(shown.partition("e")[2])
    bits = 64 + abs(x.exp).bit_length()
    log10 = log_ratio(abs(m), 1, bits, x.exp).over(log_ratio(10, 1, bits), bits)
    power = log10.lo << log10.exp if log10.exp >= 0 else log10.lo >> -log10.exp
    rest = log10.plus(Interval(-power, -power, 0), 64)
    mantissa = 10.0 ** (rest.lo * 2.0 ** min(0, rest.exp))
    shown = float(f"{mantissa:.12g}")
    if shown >= 10:
        shown, power = shown / 10, power + 1
    return (shown if m > 0 else -shown), power


def show_interval(x: Interval, digits: int = 6) -> str:
    """About x, with a few digits.

    Example:
        >>> show_interval(Interval(3, 3, -1))
        '1.5'
    """
    mantissa, power = scientific(x)
    if -5 <= power < digits:
        return f"{mantissa * 10.0**power:.{digits}g}"
    return f"{mantissa:.{digits}g}e{power}"


def show_times(log_ratio_interval: Interval) -> str:
    """About e^x for x > 0: how many times one number is the other.

    Example:
        >>> show_times(log_ratio(3, 2, 64))
        '1.5'
        >>> show_times(log_ratio(10**50 + 1, 10**50, 64))
        '1 + 1e-50'
        >>> show_times(Interval(1, 1, 40))
        '10^(4.77512e11)'
    """
    mantissa, power = scientific(log_ratio_interval)
    if power < -6:
        return f"1 + {show_interval(log_ratio_interval)}"
    if power < 1:
        return f"{math.exp(mantissa * 10.0**power):.6g}"
    tens = log_ratio_interval.over(log_ratio(10, 1, 64), 64)
    shown = show_interval(tens)
    return f"10^({shown})" if "e" in shown else f"10^{shown}"
