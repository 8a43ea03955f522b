"""Which of two powers is larger: the front door, with the reason in words."""

from __future__ import annotations

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
    """What is known about two numbers.

    Attributes:
        sign: -1, 0 or 1 as the left is smaller, equal or larger; None if undecided, which happens
            with towers only.
        reason: why, in a sentence or two.
        left: the left side, shortened where it is long.
        right: the right side.
        method: which argument decided.
        bits: precision of the intervals that decided; 0 where none was needed.
        ln_ratio: two fractions with ln |left / right| between them; None for towers and zeros, and
            for numbers of different sign.
        times: about how many times the larger is the smaller (in size), as text; empty if unknown.
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
        """`<`, `=`, `>`, or `?` where undecided."""
        return _SYMBOLS[self.sign]

    def __str__(self) -> str:
        """One line: what was found and why."""
        return f"{self.left} {self.symbol} {self.right}: {self.reason}"

    def __bool__(self) -> NoReturn:
        """Refused: -1 is an answer too."""
        raise TypeError("a comparison is neither true nor false; ask for its .sign")


def compare(
    a: Operand, b: Operand, c: Operand | None = None, d: Operand | None = None
) -> Comparison:
    """Compare a^b with c^d, or two expressions, exactly.

    ``sign = sgn(a^b - c^d)``. It is exact for all rational a, b, c, d whose powers are real, and
    it always ends: order is decided by interval logarithms of rising precision, equality by
    arithmetic. Towers (exponents too large to be written out) may stay undecided. 0^0 is 1.

    Args:
        a: with four arguments the left base: int, Fraction, Decimal, or text. With two arguments
            the left number or text as a whole; see `noisewise.powers.parse` for what is read.
        b: the left exponent; with two arguments the right number or text.
        c: the right base.
        d: the right exponent.

    Raises:
        ValueError: for floats (0.1 is not 1/10), text that cannot be read, and powers that are not
            real numbers (0 to a negative power, a negative base with a broken exponent).
        TypeError: for three arguments.

    Source: docs/powers.md; Bach, Driscoll and Shallit 1993 (equality), Baker 1966 and Laurent,
    Mignotte and Nesterenko 1995 (why it ends).

    Example:
        >>> compare(10, 11, 11, 10).sign
        1
        >>> print(compare("27^1000000", "9^1500000"))
        27^1000000 = 9^1500000: 27 = 3^3 and 9 = 3^2, so both are 3^3000000.
        >>> compare("10^10^100", "10^10^101").sign
        -1
    """
    if (c is None) != (d is None):
        raise TypeError("compare takes two texts, or four numbers: a, b, c, d for a^b and c^d")
    if c is None or d is None:
        return compare_expressions(read(a), read(b))
    return compare_expressions(read_power(a, b), read_power(c, d))


def read(operand: Operand) -> Expression:
    """One number or text as an expression.

    Raises:
        ValueError: for floats, NaN, infinities and texts that cannot be read.

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
            raise ValueError(f"{operand} is no number that can be compared")
        return parse(str(operand))  # keeps 1e999999999 as a power of ten
    value = _number(operand)
    return Expression(name_rational(value), value, value, Rational(1))


def read_power(base: Operand, exponent: Operand) -> Expression:
    """base^exponent, each given as a number or as text."""
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
        exact = (
            f"{Fraction(operand)}" if operand == operand and abs(operand) < 1e300 else "no number"
        )
        raise ValueError(
            f"{operand!r} is a float and stands for {exact}; write the text {str(operand)!r}, a "
            "Fraction or a Decimal for the number that is meant"
        )
    if isinstance(operand, Fraction):
        return rational(operand.numerator, operand.denominator)
    if not isinstance(operand, bool):
        try:
            return Rational(operator.index(operand))  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ValueError(f"{operand!r} is no int, Fraction, Decimal or text; convert it to one of them")


def compare_expressions(left: Expression, right: Expression) -> Comparison:
    """Compare what was read already."""
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
    """Of the larger over the smaller, in size."""
    if found.ln_ratio is None:
        return ""
    sign = found.ln_ratio.sign
    if sign == 0:
        return "1"
    if sign is None:
        return ""
    return show_times(found.ln_ratio if sign > 0 else found.ln_ratio.negated())
