"""Reads expressions such as `10^11`, `27**1000000`, `1.5^(2/3)`, `2^10 * 3^5`, `10^10^100`.

    sum      = product (("+" | "-") product)*
    product  = signed (("*" | "/") signed)*
    signed   = ("-" | "+") signed | power
    power    = suffixed ("^" signed)?                 so 2^3^2 = 2^9 and -2^2 = -4
    suffixed = atom ("!" | "%" | superscripts)*
    atom     = digits | "(" sum ")" | "sqrt" "(" sum ")"

Values are computed while reading. A sum needs numbers that can be written out as fractions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from noisewise.powers.big_integers import read_digits
from noisewise.powers.values import (
    ONE,
    WRITTEN_BITS,
    ZERO,
    Rational,
    Value,
    inverse,
    negative,
    plus,
    power,
    rational,
    times,
    written,
)

MAX_DEPTH = 100  # levels of brackets, signs and exponents
MAX_FACTORIAL = 200_000  # the largest n for which n! is computed; it has about a million digits
_AROUND = 24  # characters shown on each side of a mistake

_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_SUPER_MINUS = "\u207b"
_TOKEN = re.compile(
    r"(?P<number>(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)"
    rf"|(?P<super>{_SUPER_MINUS}?[{_SUPERSCRIPTS}]+)"
    r"|(?P<sign>\*\*|[-+*/^()!%\u00d7\u00b7\u22c5\u00f7\u2212])"
    r"|(?P<name>[^\W\d_]\w*)|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)
_SAME = {"**": "^", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/", "\u2212": "-"}


class PowersSyntaxError(ValueError):
    """A text that cannot be read, and the place of the mistake.

    Attributes:
        position: the position of the first wrong character, counted from 1.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        """Describe the mistake and show the text around it."""
        start, end = max(0, position - 1 - _AROUND), position - 1 + _AROUND
        shown = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
        super().__init__(f"{shown!r} cannot be read at position {position}: {reason}")
        self.position = position


@dataclass(frozen=True)
class Expression:
    """A text and the number that it stands for.

    Attributes:
        text: the text as written.
        value: the number.
        base: b if the text is a power b^e, else the number itself.
        exponent: e if the text is a power b^e, else 1.
        notes: the conventions that were needed, one sentence each.
    """

    text: str
    value: Value
    base: Value
    exponent: Value
    notes: tuple[str, ...] = ()


def parse(text: str) -> Expression:
    """Read an expression.

    Args:
        text: see the grammar at the top of this module.

    Raises:
        PowersSyntaxError: a ValueError that names the position of the mistake. It is also raised
            if a number does not exist (1/0) or a sum is too large to compute.

    Example:
        >>> parse("2^3^2").value
        Rational(p=512, q=1)
        >>> parse("2 ^ (3").value
        Traceback (most recent call last):
        ...
        noisewise.powers.parser.PowersSyntaxError: '2 ^ (3' cannot be read at position 7: ...
    """
    return _Reader(text).read()


@dataclass(frozen=True)
class _Part:
    """A value, with its base and exponent if it is written as a power."""

    value: Value
    power: tuple[Value, Value] | None = None


@dataclass
class _Reader:
    text: str
    tokens: list[tuple[str, str, int]] = field(default_factory=list)
    at: int = 0
    depth: int = 0
    notes: list[str] = field(default_factory=list)

    def read(self) -> Expression:
        for match in _TOKEN.finditer(self.text):
            kind, shown, position = str(match.lastgroup), match[0], match.start() + 1
            if kind == "other":
                raise self.wrong(position, _foreign(shown))
            if kind != "space":
                self.tokens.append((kind, _SAME.get(shown, shown), position))
        self.tokens.append(("end", "", len(self.text) + 1))
        part = self.sum()
        kind, shown, position = self.tokens[self.at]
        if kind != "end":
            raise self.wrong(position, _unexpected(kind, shown))
        base, exponent = part.power or (part.value, ONE)
        return Expression(self.text, part.value, base, exponent, tuple(dict.fromkeys(self.notes)))

    def wrong(self, position: int, reason: str) -> PowersSyntaxError:
        return PowersSyntaxError(self.text, position, reason)

    def take(self, *signs: str) -> tuple[str, int] | None:
        kind, shown, position = self.tokens[self.at]
        if kind == "sign" and shown in signs:
            self.at += 1
            return shown, position
        return None

    def sum(self) -> _Part:
        left = self.product()
        while found := self.take("+", "-"):
            sign, position = found
            right = self.product()
            x, y = (self.number(part.value, position, sign) for part in (left, right))
            left = _Part(plus(x, y if sign == "+" else Rational(-y.p, y.q)))
        return left

    def number(self, value: Value, position: int, sign: str) -> Rational:
        found = written(value, WRITTEN_BITS)
        if found is None:
            raise self.wrong(
                position,
                f"{sign!r} needs two numbers that can be written out as fractions of up to a "
                "million digits, and one of these cannot; compare one term at a time, or leave out "
                "the small one",
            )
        return found

    def product(self) -> _Part:
        left = self.signed()
        while found := self.take("*", "/"):
            sign, position = found
            right = self.signed()
            if sign == "/" and right.value == ZERO:
                raise self.wrong(position, "this divides by zero")
            factor = right.value if sign == "*" else inverse(right.value)
            left = _Part(times(left.value, factor))
        return left

    def signed(self) -> _Part:
        found = self.take("-", "+")
        if found is None:
            return self.power()
        with_depth = self.inside(found[1], self.signed)
        return _Part(negative(with_depth.value)) if found[0] == "-" else with_depth

    def inside(self, position: int, read: Callable[[], _Part]) -> _Part:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(
                position, f"more than {MAX_DEPTH} levels of brackets, signs and exponents"
            )
        part = read()
        self.depth -= 1
        return part

    def power(self) -> _Part:
        base = self.suffixed()
        found = self.take("^")
        if found is None:
            return base
        doubled = self.take("^")
        if doubled:
            raise self.wrong(doubled[1], "two '^' in a row; write the tower 2^^3 as 2^2^2")
        exponent = self.inside(found[1], self.signed)
        return self.raised(base.value, exponent.value, found[1])

    def raised(self, base: Value, exponent: Value, position: int) -> _Part:
        if base == ZERO == exponent:
            self.notes.append("0^0 counts as 1.")
        try:
            return _Part(power(base, exponent), (base, exponent))
        except ValueError as error:
            raise self.wrong(position, str(error)) from None

    def suffixed(self) -> _Part:
        part = self.atom()
        while True:
            kind, shown, position = self.tokens[self.at]
            if kind == "super":
                self.at += 1
                digits = shown.removeprefix(_SUPER_MINUS)
                size = read_digits("".join(str(_SUPERSCRIPTS.index(d)) for d in digits))
                exponent = Rational(-size if digits != shown else size)
                part = self.raised(part.value, exponent, position)
            elif found := self.take("!"):
                if self.take("!"):
                    raise self.wrong(found[1], "'!!' has two meanings; write (5!)! with brackets")
                part = _Part(self.factorial(part.value, found[1]))
            elif self.take("%"):
                part = _Part(times(part.value, rational(1, 100)))
            else:
                return part

    def factorial(self, value: Value, position: int) -> Value:
        n = written(value, WRITTEN_BITS)
        if n is None or not n.is_whole or n.p < 0:
            raise self.wrong(position, "'!' needs a whole number of 0 or more before it")
        if n.p // n.q > MAX_FACTORIAL:
            raise self.wrong(
                position,
                f"factorials are computed up to {MAX_FACTORIAL}!; for larger n, n! lies between "
                "(n/3)^n and (n/2)^n",
            )
        return Rational(math.factorial(n.p // n.q))

    def atom(self) -> _Part:
        kind, shown, position = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            return _Part(self.literal(shown, position))
        if kind == "name" and shown.lower() == "sqrt":
            self.at += 1
            return self.raised(self.brackets().value, rational(1, 2), position)
        if kind == "sign" and shown == "(":
            return self.brackets()
        raise self.wrong(position, _missing(kind, shown))

    def brackets(self) -> _Part:
        opened = self.take("(")
        if opened is None:
            raise self.wrong(self.tokens[self.at][2], "sqrt needs a bracket, as in sqrt(2)")
        part = self.inside(opened[1], self.sum)
        if self.take(")") is None:
            kind, shown, position = self.tokens[self.at]
            missing = f"the bracket at position {opened[1]} is not closed"
            raise self.wrong(position, missing if kind == "end" else _unexpected(kind, shown))
        return part

    def literal(self, shown: str, position: int) -> Value:
        if re.search(r"_(?![0-9])", shown):
            raise self.wrong(
                position + shown.index("_"), "an underscore must stand between two digits"
            )
        number, _, exponent = shown.replace("_", "").lower().partition("e")
        before, _, after = number.partition(".")
        value: Value = rational(read_digits(before + after), 10 ** len(after))
        if exponent:
            size = read_digits(exponent.lstrip("+-"))
            tens = Rational(-size if exponent[0] == "-" else size)
            value = times(value, power(Rational(10), tens))
        return value


def _foreign(shown: str) -> str:
    if shown in ",;'":
        return f"{shown!r} cannot stand in a number; write 1000000 or 1_000_000, and 0.5"
    return f"{shown!r} has no meaning here"


def _missing(kind: str, shown: str) -> str:
    """What is wrong with a token that stands where a number must stand."""
    if kind == "end":
        return "a number is missing at the end"
    if kind == "name":
        return f"{shown!r} is a name, and only numbers can be compared"
    return f"a number is missing before {shown[:20]!r}"


def _unexpected(kind: str, shown: str) -> str:
    """What is wrong with a token behind a complete expression."""
    if kind == "name":
        return f"{shown!r} is a name, and only numbers can be compared"
    if shown == ")":
        return "')' closes no bracket"
    return f"{shown[:20]!r} is not expected here; write * for a product"
