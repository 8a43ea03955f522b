"""Compares two powers: the sign of their difference, and the reason in words."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NoReturn, SupportsIndex

from noisewise.powers.formatting import name_rational, shorten, show_times
from noisewise.powers.parser import Expression, parse
from noisewise.powers.reasons import Finding, Method, find
from noisewise.powers.values import Rational, power, rational

Operand = SupportsIndex | Fraction | Decimal | str | Expression
_SYMBOLS = {-1: "<", 0: "=", 1: ">", None: "?"}


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        sign: -1 if the left side is smaller, 0 if both are equal, 1 if the left side is larger;
            None if undecided, which happens only for towers.
        reason: the reason in one or two sentences.
        left: the left side as text, shortened if it is long.
        right: the right side as text, shortened if it is long.
        method: the kind of argument that decided.
        bits: the precision of the intervals that decided; 0 if no interval was needed.
        ln_ratio: two fractions; ln |left / right| lies between them. None for towers, for zeros
            and for numbers of different sign.
        times: the larger absolute value divided by the smaller one, about, as text; empty if
            unknown.
    """

    sign: int | None
    reason: str
    left: str
    right: str
    method: Method
    bits: int = 0
    ln_ratio: tuple[Fraction, Fraction] | None = None
    times: str = ""

    @property
    def symbol(self) -> str:
        """`<`, `=`, `>`, or `?` if undecided."""
        return _SYMBOLS[self.sign]

    def __str__(self) -> str:
        """One line: the result and the reason."""
        return f"{self.left} {self.symbol} {self.right}: {self.reason}"

    def __bool__(self) -> NoReturn:
        """Always raises TypeError: -1 is an answer too, but it would count as true."""
        raise TypeError("a comparison is neither true nor false; use its .sign")


def compare(
    a: Operand, b: Operand, c: Operand | None = None, d: Operand | None = None
) -> Comparison:
    """Compare a^b with c^d, or two expressions, exactly.

    ``sign = sgn(a^b - c^d)``. The sign is exact for all rational a, b, c, d with real powers, and
    the computation always ends: interval logarithms of growing precision decide the order,
    arithmetic decides equality. Towers (powers with exponents too large to write out) may stay
    undecided. 0^0 is 1.

    Args:
        a: with four arguments, the left base: int, Fraction, Decimal or text. With two arguments,
            the whole left side; see `noisewise.powers.parse` for the texts that can be read.
        b: with four arguments, the left exponent. With two arguments, the whole right side.
        c: the right base.
        d: the right exponent.

    Raises:
        ValueError: for floats (0.1 is not 1/10), for text that cannot be read, and for powers that
            are not real numbers: 0 to a negative power, or a negative base with an exponent that is
            not a whole number.
        TypeError: for three arguments.

    Source: docs/powers.md; Bach, Driscoll and Shallit 1993 (equality), Baker 1966 and Laurent,
    Mignotte and Nesterenko 1995 (why it ends).

    Example:
        >>> compare(10, 11, 11, 10).sign
        1
        >>> print(compare("27^1000000", "9^1500000"))
        27^1000000 = 9^1500000: 27 = 3^3 and 9 = 3^2, so both sides are 3^3000000.
        >>> compare("10^10^100", "10^10^101").sign
        -1
    """
    if (c is None) != (d is None):
        raise TypeError("compare takes two sides, or four numbers a, b, c, d for a^b and c^d")
    if c is None or d is None:
        return compare_expressions(read(a), read(b))
    return compare_expressions(read_power(a, b), read_power(c, d))


def read(operand: Operand) -> Expression:
    """One number or text as an expression.

    Raises:
        ValueError: for floats, NaN, infinities and text that cannot be read.

    Example:
        >>> read(Fraction(3, 2)).text
        '3/2'
    """
    if isinstance(operand, Expression):
        return operand
    if isinstance(operand, str):
        return parse(operand)
    if isinstance(operand, Decimal):
        if not operand.is_finite():
            raise ValueError(f"{operand} cannot be compared; give a finite number")
        return parse(str(operand), exact=True)  # keeps 1e999999999 as a power of ten
    value = _number(operand)
    return Expression(name_rational(value), value, value, Rational(1))


def read_power(base: Operand, exponent: Operand) -> Expression:
    """base^exponent as an expression; each of the two is a number or a text."""
    x, y = read(base), read(exponent)
    notes = (*x.notes, *y.notes)
    if x.value == y.value == Rational(0):
        notes = (*notes, "0^0 counts as 1.")
    text = f"{_bracketed(x.text)}^{_bracketed(y.text)}"
    return Expression(text, power(x.value, y.value), x.value, y.value, notes)


def _bracketed(text: str) -> str:
    return text if text.replace(".", "").isdigit() else f"({text})"


def _number(operand: object) -> Rational:
    if isinstance(operand, float):
        if not math.isfinite(operand):
            raise ValueError(f"{operand!r} cannot be compared; give a finite number")
        exact = f", exactly {Fraction(operand)}" if abs(operand) < 1e300 else ""
        raise ValueError(
            f"{operand!r} is a float{exact}; give the text {str(operand)!r}, a Fraction or a "
            "Decimal instead"
        )
    if isinstance(operand, Fraction):
        return rational(operand.numerator, operand.denominator)
    if not isinstance(operand, bool):
        try:
            return Rational(operator.index(operand))  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ValueError(
        f"{operand!r} is not an int, a Fraction, a Decimal or a text; convert it to one"
    )


def compare_expressions(left: Expression, right: Expression) -> Comparison:
    """Compare two expressions."""
    found = find(left, right)
    notes = dict.fromkeys((*left.notes, *right.notes))
    reason = " ".join([found.reason, *notes])
    return Comparison(
        sign=found.sign,
        reason=reason,
        left=shorten(left.text),
        right=shorten(right.text),
        method=found.method,
        bits=found.bits,
        ln_ratio=_ends(found),
        times=_times(found),
    )


def _ends(found: Finding) -> tuple[Fraction, Fraction] | None:
    if found.ln_ratio is None or abs(found.ln_ratio.exp) > 100_000_000:
        return None
    return found.ln_ratio.ends()


def _times(found: Finding) -> str:
    """The larger absolute value divided by the smaller one, as text."""
    if found.ln_ratio is None:
        return ""
    sign = found.ln_ratio.sign
    if sign == 0:
        return "1"
    if sign is None:
        return ""
    return show_times(found.ln_ratio if sign > 0 else found.ln_ratio.negated())
