"""Reads expressions such as `10^11`, `27**1000000`, `1.5^(2/3)`, `2^10 * 3^5`, `10^10^100`.

    sum      = product (("+" | "-") product)*
    product  = joined (("*" | "/") signed)*
    joined   = signed power?                          2π = 2 * π, only directly after a number
    signed   = ("-" | "+") signed | power
    power    = suffixed (arrows signed)?              so 2^3^2 = 2^9 and -2^2 = -4
    suffixed = atom ("!" | "%" | superscripts)*
    atom     = number | fraction | "(" sum ")" | name | function "(" sum ")" | root sign suffixed

`^` is a power, `^^` or `↑↑` a tower of equal numbers (hyperpowers.py). Values are computed while
reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from noisewise.powers import hyperpowers, sums
from noisewise.powers.big_integers import read_digits
from noisewise.powers.tokens import (
    ROOTS,
    SUPER_MINUS,
    SUPERSCRIPTS,
    PowersSyntaxError,
    Token,
    cut,
    fraction_of,
    literal,
)
from noisewise.powers.values import (
    ONE,
    WRITTEN_BITS,
    ZERO,
    Constant,
    Factorial,
    Rational,
    Value,
    atom,
    inverse,
    is_whole,
    negative,
    plus,
    power,
    rational,
    times,
    written,
)

MAX_DEPTH = 100  # levels of brackets, signs and exponents
MAX_FACTORIAL = 20_000  # the largest n for which n! is computed at once; it has 77,000 digits

_GOOGOL = Rational(10**100)
NAMES: dict[str, Value] = {
    "e": atom(Constant("e")),
    "pi": atom(Constant("pi")),
    "\u03c0": atom(Constant("pi")),
    "googol": _GOOGOL,
    "googolplex": power(Rational(10), _GOOGOL),
}
FUNCTIONS = ("sqrt", "cbrt", "exp")
_JOINED = {"e", "pi", "\u03c0"}  # 2e = 2 * e


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


def parse(text: str, exact: bool = False) -> Expression:
    """Read an expression.

    Args:
        text: see the grammar at the top of this module.
        exact: whether a program wrote the text, so that 1.000 can only mean 1.

    Raises:
        PowersSyntaxError: a ValueError that names the position of the mistake. It is also raised
            if a number does not exist (1/0), may mean two things (1,5), or is too large.

    Example:
        >>> parse("2^3^2").value
        Rational(p=512, q=1)
        >>> parse("2 ^ (3").value
        Traceback (most recent call last):
        ...
        noisewise.powers.tokens.PowersSyntaxError: '2 ^ (3' cannot be read at position 7: ...
    """
    return _Reader(text, exact).read()


@dataclass(frozen=True)
class _Part:
    """A value, with its base and exponent if it is written as a power."""

    value: Value
    power: tuple[Value, Value] | None = None


@dataclass
class _Reader:
    text: str
    exact: bool
    tokens: list[Token] = field(default_factory=list)
    at: int = 0
    depth: int = 0
    notes: list[str] = field(default_factory=list)

    def read(self) -> Expression:
        self.tokens.extend(cut(self.text))
        part = self.sum()
        kind, shown, position = self.tokens[self.at]
        if kind != "end":
            raise self.wrong(position, _unexpected(kind, shown))
        base, exponent = part.power or (part.value, ONE)
        return Expression(self.text, part.value, base, exponent, tuple(dict.fromkeys(self.notes)))

    def wrong(self, position: int, reason: str) -> PowersSyntaxError:
        return PowersSyntaxError(self.text, position, reason)

    def take(self, kind: str, *shown: str) -> Token | None:
        token = self.tokens[self.at]
        if token.kind == kind and (not shown or token.text in shown):
            self.at += 1
            return token
        return None

    def sum(self) -> _Part:
        left = self.product()
        terms, first = [left.value], self.tokens[self.at]
        while found := self.take("sign", "+", "-"):
            right = self.product().value
            terms.append(right if found.text == "+" else negative(right))
        return left if len(terms) == 1 else _Part(self.certain(first, lambda: sums.add(terms)))

    def certain(self, token: Token, compute: Callable[[], Value]) -> Value:
        """A computed value; what cannot be computed is a mistake at the token."""
        try:
            return compute()
        except ValueError as error:
            raise self.wrong(token.position, str(error)) from None

    def product(self) -> _Part:
        left = self.joined()
        factors = [left.value]
        while found := self.take("sign", "*", "/"):
            right = self.signed() if found.text == "/" else self.joined()
            if found.text == "/" and right.value == ZERO:
                raise self.wrong(found.position, "this divides by zero")
            factors.append(right.value if found.text == "*" else inverse(right.value))
        return left if len(factors) == 1 else _Part(_multiplied(factors))

    def joined(self) -> _Part:
        """A signed power, or a number directly before e, pi or a root sign: their product."""
        start = self.at
        part = self.signed()
        last, token = self.tokens[self.at - 1], self.tokens[self.at]
        is_number = last.kind in ("number", "fraction") and all(
            t.kind == "sign" for t in self.tokens[start : self.at - 1]
        )
        if is_number and (token.kind == "root" or token.text.lower() in _JOINED):
            return _Part(times(part.value, self.power().value))
        return part

    def signed(self) -> _Part:
        found = self.take("sign", "-", "+")
        if found is None:
            return self.power()
        with_depth = self.inside(found, self.signed)
        return _Part(negative(with_depth.value)) if found.text == "-" else with_depth

    def inside(self, token: Token, read: Callable[[], _Part]) -> _Part:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(
                token.position, f"more than {MAX_DEPTH} levels of brackets, signs and exponents"
            )
        part = read()
        self.depth -= 1
        return part

    def power(self) -> _Part:
        base = self.suffixed()
        found = self.take("arrow")
        if found is None:
            return base
        if self.tokens[self.at].kind == "arrow":
            second = self.tokens[self.at].position
            raise self.wrong(second, "two signs for a power; write ^ or ** or ^^ without spaces")
        exponent = self.inside(found, self.signed).value
        count = len(found.text)
        if count == 1:
            return self.raised(base.value, exponent, found)
        return _Part(self.certain(found, lambda: hyperpowers.arrows(base.value, count, exponent)))

    def raised(self, base: Value, exponent: Value, token: Token) -> _Part:
        if base == ZERO == exponent:
            self.notes.append("0^0 counts as 1.")
        return _Part(self.certain(token, lambda: power(base, exponent)), (base, exponent))

    def suffixed(self) -> _Part:
        part = self.atom()
        while True:
            token = self.tokens[self.at]
            if token.kind == "super":
                self.at += 1
                digits = token.text.removeprefix(SUPER_MINUS)
                size = read_digits("".join(str(SUPERSCRIPTS.index(d)) for d in digits))
                exponent = Rational(-size if digits != token.text else size)
                part = self.raised(part.value, exponent, token)
            elif found := self.take("sign", "!"):
                if twice := self.take("sign", "!"):
                    raise self.wrong(
                        twice.position - 1, "'!!' has two meanings; write (5!)! with brackets"
                    )
                part = _Part(self.factorial(part.value, found))
            elif self.take("sign", "%"):
                part = _Part(times(part.value, rational(1, 100)))
            else:
                return part

    def factorial(self, value: Value, token: Token) -> Value:
        if value.sign < 0 or not is_whole(value):
            raise self.wrong(token.position, "'!' needs a whole number of 0 or more before it")
        n = written(value, WRITTEN_BITS)
        if n is None or n.p // n.q > MAX_FACTORIAL:
            return atom(Factorial(value if n is None else Rational(n.p // n.q)))
        return Rational(math.factorial(n.p // n.q))

    def atom(self) -> _Part:
        token = self.tokens[self.at]
        name = token.text.lower()
        if token.kind in ("number", "fraction"):
            return _Part(self.number())
        if found := self.take("root"):
            inner = self.inside(found, self.suffixed)
            return self.root(inner.value, ROOTS[found.text], found)
        if token.kind == "name" and name in NAMES:
            self.at += 1
            return _Part(NAMES[name])
        if token.kind == "name" and name in FUNCTIONS:
            self.at += 1
            inner = self.brackets(name).value
            if name == "exp":
                return self.raised(NAMES["e"], inner, token)
            return self.root(inner, 2 if name == "sqrt" else 3, token)
        if token.kind == "sign" and token.text == "(":
            return self.brackets()
        raise self.wrong(token.position, _missing(token.kind, token.text))

    def root(self, value: Value, degree: int, token: Token) -> _Part:
        if degree == 3 and value.sign < 0:
            return _Part(negative(power(negative(value), rational(1, 3))))
        if value.sign < 0:
            raise self.wrong(token.position, "a negative number has no real root of an even degree")
        return self.raised(value, rational(1, degree), token)

    def brackets(self, name: str = "") -> _Part:
        opened = self.take("sign", "(")
        if opened is None:
            raise self.wrong(
                self.tokens[self.at].position, f"{name} needs a bracket, as in {name}(2)"
            )
        part = self.inside(opened, self.sum)
        if self.take("sign", ")") is None:
            kind, shown, position = self.tokens[self.at]
            missing = f"the bracket at position {opened.position} is not closed"
            raise self.wrong(position, missing if kind == "end" else _unexpected(kind, shown))
        return part

    def number(self) -> Value:
        """Digits, a fraction that is one character, or both: 2½."""
        token = self.tokens[self.at]
        value: Value = ZERO
        if token.kind == "number":
            self.at += 1
            value = self.digits(token)
            if self.take("sign", "\u2044"):
                below = self.take("number")
                q = self.digits(below) if below else ZERO
                if not (isinstance(value, Rational) and isinstance(q, Rational) and q.p):
                    raise self.wrong(token.position, "a fraction needs two numbers, not 0 below")
                return times(value, inverse(q))
        fraction = self.take("fraction")
        if fraction is None:
            return value
        if not (isinstance(value, Rational) and value.q == 1):
            raise self.wrong(fraction.position, "a fraction can only follow a whole number")
        return plus(value, rational(*fraction_of(fraction.text)))

    def digits(self, token: Token) -> Value:
        found = literal(self.text, token, self.exact)
        if found.note:
            self.notes.append(found.note)
        value: Value = rational(read_digits(found.before + found.after), 10 ** len(found.after))
        if found.exponent:
            size = read_digits(found.exponent.lstrip("+-"))
            tens = Rational(-size if found.exponent[0] == "-" else size)
            value = times(value, power(Rational(10), tens))
        return value


def _multiplied(values: list[Value]) -> Value:
    """The product of values; by halves, because long numbers are multiplied fastest in pairs."""
    while len(values) > 1:
        pairs = [times(x, y) for x, y in zip(values[::2], values[1::2], strict=False)]
        values = pairs + (values[-1:] if len(values) % 2 else [])
    return values[0]


def _missing(kind: str, shown: str) -> str:
    """What is wrong with a token that stands where a number must stand."""
    if kind == "end":
        return "a number is missing at the end"
    if kind == "name":
        return _name(shown)
    return f"a number is missing before {shown[:20]!r}"


def _name(shown: str) -> str:
    if shown.lower() == "x":
        return "'x' is a name, and only numbers can be compared; write * for a product"
    return (
        f"{shown[:40]!r} is a name, and only numbers can be compared; the known names are e, pi, "
        "sqrt, cbrt, exp, googol and googolplex"
    )


def _unexpected(kind: str, shown: str) -> str:
    """What is wrong with a token behind a complete expression."""
    if kind == "name" and shown.lower() not in {*NAMES, *FUNCTIONS}:
        return _name(shown)
    if shown == ")":
        return "')' closes no bracket"
    return f"{shown[:20]!r} is not expected here; write * for a product, with brackets if needed"
