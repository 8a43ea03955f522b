"""Finds the numeric statements in a proof and decides with mpmath whether they are true.

A statement is a chain such as `ln(2^3) < 2.1 < 5/2`. Numbers are evaluated exactly where they are
rational and of moderate size, else by mpmath with 200 digits; towers by repeated logarithms. The
code shares nothing with noisewise.powers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath

mp = mpmath.mp
Number = Any  # a Fraction, a Big or an mpf
DIGITS = 200
_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[0-9]+|e-[0-9]+)?)|(?P<ln>ln\[[0-9]+\]|ln(?![a-z]))"
    r"|(?P<about>is about|, about)|(?P<rel><=|>=|<|>|=)|(?P<op>\^{1,3}|[-+*/^()!|])"
    r"|(?P<space>\s+)|(?P<word>[A-Za-z]+)|(?P<other>.)"
)
RELATIONS = {"<", ">", "=", "<=", ">=", "is about", ", about"}


class Unreadable(Exception):
    """Not an expression of numbers alone."""


@dataclass
class Big:
    """exp(exp(...x)) with `level` exponentials."""

    level: int
    x: Number

    @staticmethod
    def of(x: Number) -> Big:
        return x if isinstance(x, Big) else Big(0, _mp(x))

    def log(self) -> Big:
        return Big(self.level - 1, self.x) if self.level else Big(0, mp.log(self.x))

    def exp(self) -> Big:
        if self.level == 0 and abs(self.x) < 10**5:
            return Big(0, mp.exp(self.x))
        return Big(self.level + 1, self.x)


def _mp(x: Number) -> Number:
    if isinstance(x, Fraction):
        return mp.mpf(x.numerator) / x.denominator
    return mp.mpf(x)


def add(x: Number, y: Number) -> Number:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x + y
    a, b = Big.of(x), Big.of(y)
    if a.level == b.level == 0:
        return a.x + b.x
    if a.level < b.level:
        a, b = b, a
    if b.level == 0 and a.level == 1 and a.x < 10**6:
        return mp.exp(a.x) + b.x
    if b.level and a.level == b.level and a.x == b.x:
        raise Unreadable
    return a  # the other one is far too small to be seen


def times(x: Number, y: Number) -> Number:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x * y
    a, b = Big.of(x), Big.of(y)
    if a.level == b.level == 0:
        return a.x * b.x
    if b.level == 0 and b.x == 0:
        return Fraction(0)
    if (a.level == 0 and a.x < 0) or (b.level == 0 and b.x < 0):
        raise Unreadable
    return Big.of(add(a.log(), b.log())).exp()


def power(x: Number, y: Number) -> Number:
    if isinstance(x, Fraction) and isinstance(y, Fraction) and y.denominator == 1:
        size = max(x.numerator.bit_length(), x.denominator.bit_length()) * abs(y.numerator)
        if size < 200_000:
            return x ** int(y)
    a = Big.of(x)
    if a.level == 0 and a.x <= 0:
        if isinstance(y, Fraction) and y.denominator == 1 and a.x < 0:
            return a.x ** int(y)
        raise Unreadable
    log = Big.of(a.log())
    if log.level == 0 and log.x == 0:
        return Fraction(1)
    if log.level == 0 and log.x < 0:
        product = times(-log.x, y)
        if isinstance(product, Big) and product.level:
            return Fraction(0)
        return mp.exp(-Big.of(product).x)
    b = Big.of(y)
    if b.level == 0 and b.x < 0:
        product = Big.of(times(log, -b.x))
        return Fraction(0) if product.level else mp.exp(-product.x)
    return plain(Big.of(times(log, y)).exp())


def plain(x: Big) -> Number:
    return x if x.level else x.x


def compare(x: Number, y: Number) -> int:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return (x > y) - (x < y)
    a, b = Big.of(x), Big.of(y)
    while a.level or b.level:
        if (a.level == 0 and a.x <= 0) or (b.level == 0 and b.x <= 0):
            return 1 if a.level else -1
        a, b = a.log(), b.log()
    difference = a.x - b.x
    if abs(difference) <= mp.mpf(10) ** (-DIGITS + 60) * max(abs(a.x), abs(b.x)):
        return 0
    return 1 if difference > 0 else -1


class Reader:
    """Reads and evaluates an expression."""

    def __init__(self, tokens: list[tuple[str, str]], names: dict[str, Number]) -> None:
        self.tokens, self.names, self.at = [*tokens, ("end", "")], names, 0

    def next(self) -> str:
        return self.tokens[self.at][1]

    def take(self, *shown: str) -> str:
        if self.next() in shown and self.tokens[self.at][0] != "end":
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def sum(self) -> Number:
        total = self.product()
        while sign := self.take("+", "-"):
            right = self.product()
            if sign == "-" and isinstance(right, Big) and right.level:
                raise Unreadable
            total = add(total, right if sign == "+" else times(Fraction(-1), right))
        return total

    def product(self) -> Number:
        total = self.signed()
        while True:
            if self.take("*"):
                total = times(total, self.signed())
            elif self.take("/"):
                total = times(total, power(self.signed(), Fraction(-1)))
            elif self.tokens[self.at][0] == "ln":
                total = times(total, self.signed())
            else:
                return total

    def signed(self) -> Number:
        if self.take("-"):
            return times(Fraction(-1), self.signed())
        return self.power()

    def power(self) -> Number:
        kind, shown = self.tokens[self.at]
        if kind == "ln":
            self.at += 1
            count = int(shown[3:-1]) if "[" in shown else 1
            return self.logarithm(self.power(), count)
        base = self.atom()
        while self.take("!"):
            base = factorial(base)
        if self.take("^"):
            return power(base, self.signed())
        if self.take("^^"):
            return tower(base, self.signed())
        if self.take("^^^"):
            result = base
            for _ in range(int(self.signed()) - 1):
                result = tower(base, result)
            return result
        return base

    def logarithm(self, x: Number, count: int) -> Number:
        value = Big.of(x)
        steps = min(count, value.level)
        value = Big(value.level - steps, value.x)
        for _ in range(count - steps):
            if value.level == 0 and value.x <= 0:
                raise Unreadable
            value = value.log()
        return plain(value)

    def atom(self) -> Number:
        kind, shown = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return Fraction(shown)
        if shown == "(":
            value = self.sum()
            if not self.take(")"):
                raise Unreadable
            return value
        if shown == "|":
            value = self.sum()
            if not self.take("|"):
                raise Unreadable
            return times(Fraction(-1), value) if compare(value, Fraction(0)) < 0 else value
        if shown == "sqrt":
            return power(self.atom(), Fraction(1, 2))
        if shown in self.names:
            return self.names[shown]
        raise Unreadable


def factorial(x: Number) -> Number:
    if isinstance(x, Fraction) and x.denominator == 1 and x < 2000:
        return Fraction(int(mpmath.factorial(int(x)))) if x < 100 else _exact_factorial(int(x))
    if isinstance(x, Big) and x.level:
        raise Unreadable
    return plain(Big(0, mp.loggamma(_mp(x) + 1)).exp())


def _exact_factorial(n: int) -> Fraction:
    total = 1
    for k in range(2, n + 1):
        total *= k
    return Fraction(total)


def tower(base: Number, height: Number) -> Number:
    """base^^height, the last levels at once: ln a changes nothing that can be seen there."""
    value, left = base, int(height) - 1
    while left:
        value, left = power(base, value), left - 1
        if isinstance(value, Big) and value.level >= 4:
            return Big(value.level + left, value.x)
    return value


def cut(line: str) -> list[list[tuple[str, str]]]:
    """The pieces of a line between words, each a list of tokens."""
    pieces: list[list[tuple[str, str]]] = [[]]
    for match in _TOKEN.finditer(line):
        kind = str(match.lastgroup)
        if kind == "space":
            continue
        if kind == "other":
            pieces.append([])
        else:
            pieces[-1].append((kind, match[0]))
    return pieces


def statements(line: str, names: dict[str, Number]) -> list[bool]:
    """Whether each relation between two numbers in a line is true."""
    found: list[bool] = []
    for piece in cut(line):
        places = [i for i, (_, shown) in enumerate(piece) if shown in RELATIONS]
        for n, place in enumerate(places):
            start = places[n - 1] + 1 if n else 0
            end = places[n + 1] if n + 1 < len(places) else len(piece)
            left = _longest(piece[start:place], names, from_end=True)
            right = _longest(piece[place + 1 : end], names, from_end=False)
            if left is not None and right is not None:
                found.append(_holds(left, piece[place][1], right))
    return found


def _longest(tokens: list[tuple[str, str]], names: dict[str, Number], from_end: bool) -> Number:
    """The value of the longest expression at an end of the tokens; None if there is none."""
    for k in range(len(tokens)):
        chosen = tokens[k:] if from_end else tokens[: len(tokens) - k]
        before = tokens[k - 1] if from_end and k else ("word", "")
        after = ("word", "") if from_end or not k else tokens[len(tokens) - k]
        if (before[0] == "op" and before[1] not in ")|") or (
            after[0] == "op" and after[1] not in "(|"
        ):
            continue  # in the middle of an expression
        reader = Reader(chosen, names)
        try:
            value = reader.sum()
        except (Unreadable, ZeroDivisionError, ValueError):
            continue
        if reader.at == len(chosen):
            return value
    return None


def _holds(left: Number, relation: str, right: Number) -> bool:
    if "about" in relation:
        a, b = Big.of(left), Big.of(right)
        while a.level or b.level:
            a, b = a.log(), b.log()
        return abs(a.x - b.x) <= mp.mpf(10) ** -5 * abs(b.x)
    order = compare(left, right)
    return {"<": order < 0, ">": order > 0, "=": order == 0, "<=": order <= 0, ">=": order >= 0}[
        relation
    ]


def value_of(text: str) -> Number:
    """The value of an expression as people type it.

    Raises:
        Unreadable: if it is none.
    """
    reader = Reader(cut(text)[0], constants())
    value = reader.sum()
    if reader.next():
        raise Unreadable(text)
    return value


def constants() -> dict[str, Number]:
    with mp.workdps(DIGITS):
        googol = Fraction(10**100)
        return {
            "e": +mp.e, "pi": +mp.pi, "googol": googol, "googolplex": power(Fraction(10), googol),
        }  # fmt: skip
