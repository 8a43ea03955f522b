"""Level three of an explanation: an argument that can be checked by hand, if there is one."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from noisewise.powers.bounds import bounds_of_ln
from noisewise.powers.comparison import Comparison
from noisewise.powers.factor_proofs import by_factors
from noisewise.powers.family_proofs import family_proof
from noisewise.powers.formatting import (
    bracketed,
    in_full,
    is_shown_exactly,
    shorten,
    show_ln,
    show_rational,
)
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.number_proofs import (
    Names,
    by_bounds,
    by_difference,
    by_digits,
    by_quotient,
    by_roots,
)
from noisewise.powers.parser import Expression
from noisewise.powers.patterns import swapped
from noisewise.powers.reasons import Power, common_root_reason, order, power_of
from noisewise.powers.values import ONE, Rational, inverse, rational, times
from noisewise.powers.witness import find_witness

_MAX_LINE = 250  # characters of a line with bounds
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
    reason = found.reason if found.reason.startswith("ln") else _capital(found.reason)
    if found.sign is None:
        return [reason]
    return _by_method(left, right, found, found.sign, reason)


def _by_method(
    left: Expression, right: Expression, found: Comparison, sign: int, reason: str
) -> list[str]:
    method = found.method
    if method == "computed":
        return _computed(left, right, found, sign, reason)
    if method == "logarithms":
        return _logarithms(left, right, found, sign, reason)
    if method == "sign":
        return [reason, *by_bounds(left, right, sign)]
    if method in ("values", "levels"):
        return _by_decimals_or_ratio(left, right, sign) or [reason]
    if method == "roots":
        return by_roots(left, right)
    if method == "common terms":
        return by_difference(left, right, sign) or [reason]
    if method == "common factors":
        return by_quotient(left, right) or [reason]
    if method == "common root":
        return [reason, "A power of a power multiplies the exponents: (g^i)^b = g^(i b)."]
    if method in ("coprime base", "normal form", "shared exponent"):
        return by_factors(left, right, sign) or [reason]
    return [reason, *_ordered(left, right, method)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _larger(found: Comparison) -> str:
    return "left" if found.sign == 1 else "right"


def _computed(
    left: Expression, right: Expression, found: Comparison, sign: int, reason: str
) -> list[str]:
    """Both sides were computed in full."""
    if all(in_full(side.value) for side in (left, right)):
        return _in_full(left, right, sign)
    if sign == 0:
        return _equal_powers(left, right) or by_digits(left, right)
    sides = _sides(left, right)
    if sides:
        lines = _by_witness(*sides, found) or _by_decimals(*sides, found)
        if lines:
            return [reason, *lines]
    return by_digits(left, right) or _by_decimals_or_ratio(left, right, sign) or [reason]


def _in_full(left: Expression, right: Expression, sign: int) -> list[str]:
    """Both sides with all their digits, as one chain: 2^3 = 8 < 9 = 3^2."""
    names, values = Names(left, right), (in_full(left.value), in_full(right.value))
    parts = []
    for name, value in zip((names.left, names.right), values, strict=True):
        assert value
        shown = show_rational(value)
        exact = is_shown_exactly(value)
        parts.append([name] if not exact or shown == name else [name, shown])
    chain = [" = ".join(parts[0]), " = ".join(reversed(parts[1]))]
    if sign == 0:
        chain = list(dict.fromkeys((*parts[0], *reversed(parts[1]))))
    relation = {-1: " < ", 0: " = ", 1: " > "}[sign]
    about = [
        f"{name} is about {show_rational(value)}."
        for name, value in zip((names.left, names.right), values, strict=True)
        if value and not is_shown_exactly(value)
    ]
    return [
        *names.where,
        *about,
        *_cross_multiplied(left, right),
        f"{relation.join(chain)}.",
    ]


def _equal_powers(left: Expression, right: Expression) -> list[str]:
    """Two equal powers by their common root; no lines if they are no powers."""
    powers = power_of(left), power_of(right)
    if not powers[0] or not powers[1]:
        return []
    a, c = powers[0], powers[1]
    if ONE in (a.b, c.b) or order(a.a, ONE) <= 0 or order(c.a, ONE) <= 0:
        return []
    tie = common_root_reason(a, c)
    if not tie:
        return []
    return [_capital(tie), "A power of a power multiplies the exponents: (g^i)^b = g^(i b)."]


def _logarithms(
    left: Expression, right: Expression, found: Comparison, sign: int, reason: str
) -> list[str]:
    sides = _sides(left, right)
    lines = (_by_witness(*sides, found) or _by_decimals(*sides, found)) if sides else []
    lines = lines or _by_decimals_or_ratio(left, right, sign)
    rule = f"The larger side has the larger logarithm: the {_larger(found)} side."
    return [reason, *([rule] if left.value.sign > 0 else []), *lines]


def _by_decimals_or_ratio(left: Expression, right: Expression, sign: int) -> list[str]:
    """Decimals of both sides; if they would be long, a few of the logarithm of the quotient."""
    lines = by_bounds(left, right, sign)
    if lines and max(map(len, lines)) <= _MAX_LINE:
        return lines
    return _by_ratio(left, right, sign) or lines


def _by_ratio(left: Expression, right: Expression, sign: int) -> list[str]:
    """Decimal bounds of ln(left / right); no lines if it is too large or too small for that."""
    names = Names(left, right)
    if left.value.sign != right.value.sign or not sign:
        return []
    ratio = times(left.value, inverse(right.value))
    if ratio == ONE:
        return []
    bounds = bounds_of_ln(ratio)
    if bounds is None:
        return []
    name = f"({names.left}) / ({names.right})"
    which = "left" if bounds.is_above else "right"
    return [*names.where, f"{bounds.about(name)}, so the {which} absolute value is larger."]


def _ordered(left: Expression, right: Expression, method: str) -> list[str]:
    """The numbers behind "same base", "same exponent", "larger base" and "above 1"."""
    powers = power_of(left), power_of(right)
    if not powers[0] or not powers[1]:
        return []
    a, c = powers[0], powers[1]
    if method == "against 1":
        return [line for side in (a, c) for line in _beside_1(side)]
    lines = []
    for x, y, what in ((a.a, c.a, "bases"), (a.b, c.b, "exponents")):
        relation = {-1: "<", 0: "=", 1: ">"}[order(x, y)]
        if all(map(is_shown_exactly, (x, y))) and relation != "=":
            lines.append(f"The {what}: {show_rational(x)} {relation} {show_rational(y)}.")
        elif relation != "=":
            difference = rational(x.p * y.q - y.p * x.q, x.q * y.q)
            if is_shown_exactly(difference):
                lines.append(
                    f"The left of the {what} minus the right one is {show_rational(difference)}."
                )
    return lines


def _beside_1(side: Power) -> list[str]:
    """Why a power is above or below 1."""
    if not is_shown_exactly(side.a) or not is_shown_exactly(side.b):
        return []
    base, exponent = order(side.a, ONE), side.b.sign
    a, b = bracketed(side.a), bracketed(side.b)
    signs = {-1: "<", 0: "=", 1: ">"}
    if side.b == ONE:
        return [f"{show_rational(side.a)} {signs[base]} 1."]
    if base == 0:
        return [f"1^{b} = 1."]
    return [
        f"{show_rational(side.a)} {signs[base]} 1 and {show_rational(side.b)} {signs[exponent]} 0, "
        f"so {a}^{b} {signs[base * exponent]} 1."
    ]


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
    relation = "<" if products[1].p < products[2].p else ">"
    return [f"Multiplied by {scale}, the two sides are {first} {relation} {second}."]


def _sides(left: Expression, right: Expression) -> tuple[_Side, _Side] | None:
    """Both sides as powers with base > 1 and exponent > 0, all numbers of moderate size."""
    found = []
    for side, letter, where in ((left, "a", "the left base"), (right, "c", "the right base")):
        base, exponent = side.base, side.exponent
        if not (isinstance(base, Rational) and isinstance(exponent, Rational)):
            return None
        if base.p <= base.q or exponent.p <= 0 or max(base.bits, exponent.bits) >= 3000:
            return None
        if not is_shown_exactly(exponent):
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
    if not all(map(_is_exact, (power, reached))):
        return []
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


def _is_exact(x: Fraction) -> bool:
    return is_shown_exactly(Rational(*x.as_integer_ratio()))


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
