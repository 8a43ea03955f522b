"""Level three of an explanation: an argument that can be checked by hand, if there is one."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from noisewise.powers.comparison import Comparison
from noisewise.powers.formatting import (
    base_and_ln,
    bracketed,
    in_full,
    is_shown_exactly,
    shorten,
    show_ln,
    show_rational,
)
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.parser import Expression
from noisewise.powers.patterns import Swapped, swapped
from noisewise.powers.values import ONE, Rational
from noisewise.powers.witness import find_witness

_E_LOW, _E_HIGH = Fraction(2718281828, 10**9), Fraction(2718281829, 10**9)
_MAX_DECIMALS = 40  # of logarithms in a proof for people


class _Side(NamedTuple):
    """One side as base^exponent with base > 1 and exponent > 0, and the text of the base."""

    base: Fraction
    exponent: Fraction
    name: str  # of the base
    where: str = ""  # a sentence that says what the name stands for

    @property
    def ln(self) -> str:
        return f"ln {self.name}" if self.where else show_ln(self.name)

    def times_ln(self) -> str:
        return self.ln if self.exponent == 1 else f"{_bracketed(self.exponent)} {self.ln}"

    def times(self, number: str) -> str:
        return number if self.exponent == 1 else f"{_bracketed(self.exponent)} * {number}"

    def power(self, exponent: Fraction | int) -> str:
        if exponent == 1:
            return self.name
        is_bare = self.where or self.name.isdigit()
        return f"{self.name if is_bare else f'({self.name})'}^{_bracketed(Fraction(exponent))}"


def proof(left: Expression, right: Expression, found: Comparison) -> list[str]:
    """The lines of a proof; at least the reason of the comparison."""
    family = swapped(left, right)
    if family:
        lines = family_proof(family, shorten(left.text), shorten(right.text))
        if lines:
            return lines
    lines = [found.reason if found.reason.startswith("ln") else _capital(found.reason)]
    if found.method == "common root":
        lines.append("A power of a power multiplies the exponents: (g^i)^b = g^(i b).")
    if found.method == "coprime base":
        lines += [
            "Products with the same bases and the same exponents are equal.",
            "The converse is also true: coprime numbers have no prime factor in common.",
        ]
    if found.method == "logarithms":
        lines.append(f"The larger side has the larger logarithm: the {_larger(found)} side.")
    if not found.sign or found.method not in ("logarithms", "computed"):
        return lines
    if all(in_full(side.value) for side in (left, right)):
        return lines + _cross_multiplied(left, right)
    sides = _sides(left, right)
    return lines + (_by_witness(*sides, found) or _by_decimals(*sides, found) if sides else [])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _larger(found: Comparison) -> str:
    return "left" if found.sign == 1 else "right"


def _cross_multiplied(left: Expression, right: Expression) -> list[str]:
    """Both fractions times the product of their denominators; no lines if these agree."""
    x, y = in_full(left.value), in_full(right.value)
    assert x
    assert y
    if x.q == y.q:
        return []
    products = Rational(x.q * y.q), Rational(x.p * y.q), Rational(y.p * x.q)
    if not all(is_shown_exactly(n) for n in products):
        return []
    scale, first, second = (show_rational(n) for n in products)
    return [f"Multiplied by {scale}, the two sides are {first} and {second}."]


def _sides(left: Expression, right: Expression) -> tuple[_Side, _Side] | None:
    """Both sides as powers with base > 1 and exponent > 0, all numbers of moderate size."""
    found = []
    for side, letter, where in ((left, "a", "the left base"), (right, "c", "the right base")):
        base, exponent = side.base, side.exponent
        if not (isinstance(base, Rational) and isinstance(exponent, Rational)):
            return None
        if base.p <= base.q or exponent.p <= 0 or max(base.bits, exponent.bits) >= 3000:
            return None
        numbers = Fraction(base.p, base.q), Fraction(exponent.p, exponent.q)
        if is_shown_exactly(base):
            found.append(_Side(*numbers, show_rational(base)))
        elif exponent == ONE:
            found.append(_Side(*numbers, shorten(side.text)))
        else:
            found.append(_Side(*numbers, letter, f"Here {letter} is {where}."))
    return found[0], found[1]


def _by_witness(left: _Side, right: _Side, found: Comparison) -> list[str]:
    """A proof by two small powers."""
    x, y = (left, right) if found.sign == 1 else (right, left)
    witness = find_witness(x.base, x.exponent, y.base, y.exponent, max(found.bits, 64))
    if witness is None or (witness.j, witness.k) == (x.exponent, y.exponent):
        return []
    j, k = witness
    power, reached = x.exponent / j, x.exponent * k / j
    lines = [
        *(side.where for side in (left, right) if side.where),
        f"A short proof: {x.power(j)} > {y.power(k)}, because {_values(x.base**j, y.base**k)}.",
    ]
    if power != 1:
        lines.append(
            f"Raise both sides to the power {_show(power)}: {x.power(x.exponent)} > "
            f"{y.power(reached)}."
        )
    if reached != y.exponent:
        lines.append(
            f"{_show(reached)} > {_show(y.exponent)}, so {x.power(x.exponent)} > "
            f"{y.power(y.exponent)}."
        )
    return lines


def _values(larger: Fraction, smaller: Fraction) -> str:
    """How two numbers compare: their digits, as many as are shown."""
    numbers = [Rational(*v.as_integer_ratio()) for v in (larger, smaller)]
    shown = [show_rational(n) for n in numbers]
    if all(is_shown_exactly(n) for n in numbers):
        return f"{shown[0]} > {shown[1]}"
    if shown[0] != shown[1]:
        return f"these numbers are about {shown[0]} and {shown[1]}"
    return f"both numbers are about {shown[0]}, and the first is larger"


def _show(x: Fraction) -> str:
    return show_rational(Rational(*x.as_integer_ratio()))


def _bracketed(x: Fraction) -> str:
    return bracketed(Rational(*x.as_integer_ratio()))


def _by_decimals(left: _Side, right: _Side, found: Comparison) -> list[str]:
    """A proof by decimals of the two logarithms, as few as are needed."""
    x, y = (left, right) if found.sign == 1 else (right, left)
    for decimals in range(3, _MAX_DECIMALS):
        scale = 10**decimals
        low = _ends(x.base, decimals)[0] * scale // 1
        high = -(-_ends(y.base, decimals)[1] * scale // 1)
        if x.exponent * low > y.exponent * high:
            below, above = _point(int(low), decimals), _point(int(high), decimals)
            chain = dict.fromkeys((x.times_ln(), x.times(below), y.times(above), y.times_ln()))
            return [
                *(side.where for side in (left, right) if side.where),
                f"{x.ln} > {below} and {y.ln} < {above}.",
                f"So {' > '.join(chain)}.",
            ]
    return []


def _ends(x: Fraction, decimals: int) -> tuple[Fraction, Fraction]:
    return log_ratio(x.numerator, x.denominator, 4 * decimals + 32).ends()


def _point(units: int, decimals: int) -> str:
    whole, rest = divmod(units, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}"


# ------------------------------------------------------------------------------------- the family


def family_proof(family: Swapped, left: str, right: str) -> list[str]:
    """The classical proofs for n^(n+m) against (n+m)^n; no lines if they do not apply.

    Args:
        family: n and m.
        left: the left side as text.
        right: the right side as text.
    """
    n, m, mirrored = family
    x, y = (right, left) if mirrored else (left, right)  # n^(n+m) and (n+m)^n as text
    if n.p == 0 or (n.q == m.q == 1 and n.p < 3):
        return _first_cases(n.p, m.p, x, y)
    if not (n == Rational(n.p) and m == ONE):
        return _by_falling(n, m, x, y)
    shown = show_rational(n) if is_shown_exactly(n) else "n"
    return [
        *([] if shown != "n" else ["Here n is the smaller base."]),
        f"Divide both sides by {shown}^{shown}: {x} becomes {shown}, and {y} becomes "
        f"(1 + 1/{shown})^{shown}.",
        "For every t > 0, ln(1 + t) < t. With t = 1/n: n ln(1 + 1/n) < 1.",
        "So (1 + 1/n)^n < e = 2.718... for every n.",
        f"This gives (1 + 1/{shown})^{shown} < e < {'3' if n.p == 3 else f'3 < {shown}'}, and so "
        f"{x} > {y}.",
        "The same holds for every m > 0: n^(n+m) > (n+m)^n if n >= 3, as ln t / t falls for t > e.",
    ]


def _first_cases(n: int, m: int, x: str, y: str) -> list[str]:
    if n == 0:
        return [f"{x} = 0, and {y} = 1, because every number to the power 0 is 1."]
    if n == 1:
        larger = Rational(m + 1)
        shown = f"= {show_rational(larger)}" if is_shown_exactly(larger) else "> 1"
        return [f"{x} = 1 and {y} {shown}."]
    if m <= 2:
        return [f"{x} = {2 ** (2 + m)} and {y} = {(2 + m) ** 2}."]
    k = show_rational(Rational(m)) if is_shown_exactly(Rational(m)) else "the larger base minus 2"
    return [
        f"With k = {k}: {x} = 4 * 2^k and {y} = (k + 2)^2.",
        "For k = 3 these are 32 and 25, so the first is larger.",
        "Each step from k to k + 1 multiplies the first by 2 and the second by ((k+3)/(k+2))^2.",
        "For k >= 3 that is at most (6/5)^2 = 1.44 < 2, so the first stays larger.",
        f"So {x} > {y}.",
    ]


def _by_falling(n: Rational, m: Rational, x: str, y: str) -> list[str]:
    """The proof with ln t / t, which rises up to t = e and falls after it; n > 0."""
    assert n.p > 0
    low, high = Fraction(n.p, n.q), Fraction(n.p, n.q) + Fraction(m.p, m.q)
    if low < _E_HIGH and high > _E_LOW:
        return []
    falls = low >= _E_HIGH
    larger = Rational(high.numerator, high.denominator)
    p, ln_p = base_and_ln(n, "n")
    q, ln_q = base_and_ln(larger, "N")
    names = [
        show_rational(v) if is_shown_exactly(v) else letter
        for v, letter in ((n, "n"), (larger, "N"))
    ]
    letters = {"n": "Here n is the smaller base.", "N": "Here N is the larger base."}
    order = " < ".join(("e", *names) if falls else (*names, "e"))
    slope, sign = ("negative for t > e", ">") if falls else ("positive for t < e", "<")
    return [
        *(letters[name] for name in (p, q) if name in letters),
        "Let f(t) = ln t / t for t > 0. Its derivative is (1 - ln t) / t^2.",
        f"With e = 2.718281828..., it is {slope}, so f {'falls' if falls else 'rises'} there.",
        f"As {order}: {ln_p} / {p} {sign} {ln_q} / {q}.",
        f"Multiply by {p} * {q}: {q} {ln_p} {sign} {p} {ln_q}.",
        f"That is ln({x}) {sign} ln({y}), so {x} {sign} {y}.",
    ]
