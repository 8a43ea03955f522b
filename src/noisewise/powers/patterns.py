"""Level two of an explanation: a table that shows the answer."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from noisewise.powers.comparison import Comparison
from noisewise.powers.crossing import crossing
from noisewise.powers.formatting import (
    base_and_ln,
    bracketed,
    is_shown_exactly,
    letters,
    shorten,
    show_interval,
    show_rational,
    show_value,
    show_whole,
)
from noisewise.powers.intervals import Interval, quotient
from noisewise.powers.linear_forms import Term, decide
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.parser import Expression
from noisewise.powers.reasons import order
from noisewise.powers.values import Product, Rational, Value

_ROWS = 8
_MAX_ROWS = 12  # as many if the question is among them
_SYMBOLS = {-1: "<", 0: "=", 1: ">"}
_MAX_TABLE_BITS = 3000  # of the bases in a table


class Swapped(NamedTuple):
    """n^(n+m) against (n+m)^n with m > 0; `mirrored` if the larger base is on the left."""

    n: Rational
    m: Rational
    mirrored: bool


def swapped(left: Expression, right: Expression) -> Swapped | None:
    """The family x^y against y^x; n is the smaller of x and y. None for other questions.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> swapped(parse("11^10"), parse("10^11")).mirrored
        True
    """
    a, b, c, d = left.base, left.exponent, right.base, right.exponent
    if not all(isinstance(v, Rational) for v in (a, b, c, d)):
        return None
    assert isinstance(a, Rational)
    assert isinstance(b, Rational)
    if a != d or b != c or a == b or a.sign < 0 or b.sign < 0:
        return None
    mirrored = order(a, b) > 0
    n, larger = (b, a) if mirrored else (a, b)
    m = Rational(larger.p - n.p) if n.q == larger.q == 1 else _difference(larger, n)
    return Swapped(n, m, mirrored)


def _difference(x: Rational, y: Rational) -> Rational:
    found = Fraction(x.p, x.q) - Fraction(y.p, y.q)
    return Rational(found.numerator, found.denominator)


def pattern(left: Expression, right: Expression, found: Comparison) -> list[str]:
    """The lines of a table; no lines if a table would not help."""
    family = swapped(left, right)
    if family and family.m.q == 1 and family.m.p <= 10**6:
        return family_table(family)
    if isinstance(left.value, Product) and isinstance(right.value, Product):
        if not (left.value.is_plain and right.value.is_plain):
            return ladder(left, right)
    if found.method in ("logarithms", "common root", "computed"):
        return exchange_table(left, right, found)
    return []


def family_table(family: Swapped) -> list[str]:
    """n^(n+m) against (n+m)^n for small n from 1 on, their quotient, and where the sides cross."""
    m = family.m.p
    n = show_rational(family.n) if is_shown_exactly(family.n) else "the smaller base"
    rows = [("n", f"n^(n+{m})", "", f"(n+{m})^n", "left / right")]
    asked = family.n.p if family.n.q == 1 else 0
    last = asked if _ROWS < asked <= _MAX_ROWS else _ROWS
    for k in range(1, last + 1):
        x, y = k ** (k + m), (k + m) ** k
        sign = _SYMBOLS[(x > y) - (x < y)]
        rows.append((str(k), show_whole(x), sign, show_whole(y), _quotient(x, y)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
    equal = "2." if m == 2 else f"{crossing(12, m=m)}..."
    return [
        f"The two sides are n^(n+{m}) and (n+{m})^n with n = {n}. For small n:",
        *lines,
        *([f"For n = 0 the sides are 0^{m} = 0 and {m}^0 = 1."] if family.n.p == 0 else []),
        _guess(m),
        f"For real n > 0, the two are equal only at n = {equal}",
        f"For every larger n, n^(n+{m}) is larger; for every smaller n > 0, it is smaller.",
    ]


def _quotient(x: int, y: int) -> str:
    """Left / right with three decimals, cut off; long ones by their leading digits."""
    if x >= 10**9 * y or 1000 * x < y:
        return show_interval(quotient(x, y, 64), 4)
    units = 1000 * x // y
    return f"{units // 1000}.{units % 1000:03d}"


def _guess(m: int) -> str:
    """What the table suggests: where the sign changes, and that the quotient grows."""
    first = next(k for k in range(1, 4) if k ** (k + m) > (k + m) ** k)
    what = f"From n = {first} on the left side is larger" if first > 1 else "The left is larger"
    return f"{what}, and the quotient left / right grows with n."


def exchange_table(left: Expression, right: Expression, found: Comparison) -> list[str]:
    """For a^b against c^d with a, c > 1: the exponent that a^b has with the base c."""
    a, b, c, d = left.base, left.exponent, right.base, right.exponent
    if not (
        isinstance(a, Rational)
        and isinstance(b, Rational)
        and isinstance(c, Rational)
        and isinstance(d, Rational)
    ):
        return []
    one = Rational(1)
    if one in (b, d):
        return []
    if order(a, one) <= 0 or order(c, one) <= 0 or b.sign <= 0 or d.sign <= 0:
        return []
    if max(a.bits, c.bits) > _MAX_TABLE_BITS:
        return []
    shown_a, ln_a = base_and_ln(a, "a")
    shown_c, ln_c = base_and_ln(c, "c")
    lines = letters((a, c))
    lines.append(f"Powers of {shown_a} between powers of {shown_c}:")
    for j in range(1, _ROWS - 1):
        k = _steps(a, c, j)
        middle = f"{shown_a}^{j}"
        tie = decide([Term(j, a.p, a.q), Term(-k, c.p, c.q)]).sign == 0
        between = f"{shown_c}^{k} <= {middle} < {shown_c}^{k + 1}"
        lines.append(f"{middle} = {shown_c}^{k}" if tie else between)
    worth = log_ratio(a.p, a.q, 64).over(log_ratio(c.p, c.q, 64), 64)
    total = Interval(b.p, b.p, 0).over(Interval(b.q, b.q, 0), 128).times(worth, 64)
    lines.append(
        f"{shown_a} = {shown_c}^w with w = {ln_a} / {ln_c}, about {show_interval(worth, 10)}."
    )
    verb = {-1: "is below", 0: "equals", 1: "is above"}[found.sign or 0]
    about = show_interval(total, 10)
    if found.ln_ratio and show_interval(quotient(d.p, d.q, 64), 10) == about and found.sign:
        # The two exponents look alike, so their difference is shown.
        low, high = found.ln_ratio
        scale = log_ratio(c.p, c.q, 64)
        middle = (low + high) / 2
        apart = quotient(middle.numerator, middle.denominator, 64).over(scale, 64)
        about = f"the right exponent {'+' if found.sign > 0 else '-'} "
        about += show_interval(apart if found.sign > 0 else apart.negated(), 6)
    lines += [
        f"So the left side is {shown_c}^x with x = {bracketed(b)} w, about {about}.",
        f"x {verb} the right exponent{_shown(d)}.",
    ]
    return lines


def _shown(x: Rational) -> str:
    return f" {show_rational(x)}" if is_shown_exactly(x) else ""


def _steps(a: Rational, c: Rational, j: int) -> int:
    """The largest k with c^k <= a^j, exactly."""
    about = log_ratio(a.p, a.q, 64).over(log_ratio(c.p, c.q, 64), 64)
    bits = 64 + int(about.ends()[1]).bit_length()  # then k is off by 1 at most
    ratio = log_ratio(a.p, a.q, bits).over(log_ratio(c.p, c.q, bits), bits)
    k = int(j * ratio.ends()[0])
    while decide([Term(j, a.p, a.q), Term(-(k + 1), c.p, c.q)]).sign >= 0:
        k += 1
    return k


def ladder(left: Expression, right: Expression) -> list[str]:
    """Logarithms of both sides, again and again, one line each; no lines if none can be shown."""
    lines = [f"{shorten(left.text)}  against  {shorten(right.text)}"]
    x, y = left.value, right.value
    for depth in range(1, 5):
        if not (_single(x) and _single(y)):
            break
        assert isinstance(x, Product)
        assert isinstance(y, Product)
        (m, e), (n, f) = ((v.factors[0].base, v.factors[0].exponent) for v in (x, y))
        if not (isinstance(m, int) and isinstance(n, int)):
            break
        about = "about " if depth > 1 else ""  # without the logarithm of the factor ln m
        sides = (
            f"{about}({shorten(show_value(v))}) ln {show_whole(base)}"
            for v, base in ((e, m), (f, n))
        )
        lines.append(f"{'ln ' * depth}of both: {'  against  '.join(sides)}")
        x, y = e, f
    if len(lines) == 1:
        return []
    if len(lines) > 2:
        lines.append("'about': the logarithm of the factor ln ... in the line above is left out.")
    lines.append("The larger side has the larger logarithm, and each line has smaller numbers.")
    return lines


def _single(value: Value) -> bool:
    return isinstance(value, Product) and value.sign > 0 and len(value.factors) == 1
