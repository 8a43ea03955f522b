"""Proofs that rest on numbers: decimal bounds of two sides, digits, and exact differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from noisewise.powers import radicals
from noisewise.powers.bounds import decimals_of, logarithm, separated
from noisewise.powers.formatting import (
    is_shown_exactly,
    shorten,
    show_rational,
    show_value,
)
from noisewise.powers.intervals import Interval
from noisewise.powers.parser import Expression
from noisewise.powers.reals import numerator_and_denominator
from noisewise.powers.sums import add
from noisewise.powers.terms import expanded, gathered
from noisewise.powers.values import (
    ONE,
    WRITTEN_BITS,
    Product,
    Rational,
    Sum,
    Value,
    inverse,
    negative,
    times,
    written,
)

_MAX_ALL_DIGITS = 1000  # two equal numbers of so many digits are shown in full
_MAX_SUM = 200  # characters of a sum that is written out


class Names:
    """The two sides by their texts, or by letters where the texts are too long.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> Names(parse("2^3"), parse("3" * 100)).where
        ['Here R is the right side.']
    """

    def __init__(self, left: Expression, right: Expression) -> None:
        """Choose the names."""
        shown = [" ".join(side.text.split()) for side in (left, right)]
        full = [shorten(text) == text for text in shown]
        self.left = shown[0] if full[0] else "L"
        self.right = shown[1] if full[1] else "R"
        sides = (("L", "left"), ("R", "right"))
        self.where = [
            f"Here {letter} is the {side} side."
            for (letter, side), is_full in zip(sides, full, strict=True)
            if not is_full
        ]

    def sorted(self, sign: int) -> tuple[str, str]:
        """The names of the smaller and the larger side."""
        return (self.left, self.right) if sign < 0 else (self.right, self.left)


def by_bounds(left: Expression, right: Expression, sign: int) -> list[str]:
    """Decimal bounds of both sides or of their logarithms; no lines if the sides are too close."""
    names, sides = Names(left, right), (left.value, right.value)
    if sides[0].sign != sides[1].sign or not sides[0].sign:
        return _of_signs(left, right)
    negated = sides[0].sign < 0
    if negated:
        sides = negative(sides[0]), negative(sides[1])
        sign = -sign
    smaller, larger = sides if sign < 0 else (sides[1], sides[0])
    found = separated(smaller, larger)
    if found is None:
        return []
    low, high = found
    x, y = names.sorted(sign)
    if negated:
        x, y = f"|{x}|", f"|{y}|"
    lines = [*names.where]
    if low.logs == 1:
        lines.append("The natural logarithm keeps the order, and ln(a^b) = b ln a.")
    elif low.logs > 1:
        lines += [
            f"The natural logarithm, taken {low.logs} times, keeps the order; ln(a^b) = b ln a.",
            *([f"ln[{low.logs}] stands for ln taken {low.logs} times."] if low.logs > 6 else []),
        ]
    lines += [
        f"{bounds.about(name)}."
        for bounds, name in ((low, x), (high, y))
        if f"{name} = {bounds.low}" != bounds.about(name) or name != bounds.low
    ]
    f_x, f_y = logarithm(low.logs, x), logarithm(low.logs, y)
    middle = dict.fromkeys((low.high, high.low))
    chain = [f_x if low.low != low.high else low.high, *middle, f_y]
    if high.low == high.high:
        chain[-1] = high.low
    lines.append(f"So {' < '.join(dict.fromkeys(chain))}, and {x} < {y}.")
    if negated:
        lines.append(
            f"Both are negative, so {names.left} {'<' if sign > 0 else '>'} {names.right}."
        )
    return lines


def _of_signs(left: Expression, right: Expression) -> list[str]:
    """The signs of two sides; decimals where a sign comes from a sum."""
    names = Names(left, right)
    lines = [*names.where]
    for side, name in ((left, names.left), (right, names.right)):
        word = {-1: "<", 0: "=", 1: ">"}[side.value.sign]
        found = None
        for decimals in (3, 10, 30):
            found = found or decimals_of(side.value, decimals) if _has_sum(side.value) else None
        lines.append(f"{found.about(name)}." if found else f"{name} {word} 0.")
    return lines


def _has_sum(value: Value) -> bool:
    return isinstance(value, Product) and any(isinstance(f.base, Sum) for f in value.factors)


def by_difference(left: Expression, right: Expression, sign: int) -> list[str]:
    """The exact difference of two sides as a sum, after common factors and denominators cancel.

    No lines if the difference is not short, or does not show the sign.
    """
    names = Names(left, right)
    ratio = times(left.value, inverse(right.value))
    if not isinstance(ratio, Product) or ratio.sign < 0:
        return []
    sides = numerator_and_denominator(ratio)
    lines, shown = [*names.where], [f"({names.left})", f"({names.right})"]
    if sides != (left.value, right.value):
        shown = [_sum_text([side]) for side in sides]
        lines.append(
            f"Without common factors and denominators the sides are {shown[0]} and {shown[1]}."
        )
        shown = [f"({side})" for side in shown]
    try:
        multiplied = [expanded(side) for side in sides]
        terms = gathered((*multiplied[0], *map(negative, multiplied[1])))
    except ValueError:
        return []
    if not terms and sign == 0:
        return [*lines, _same_terms(shown, gathered(multiplied[0]))]
    difference = _sum_text(terms)
    exact = all(not isinstance(t, Rational) or is_shown_exactly(t) for t in terms)
    if not sign or not exact or len(difference) > _MAX_SUM:
        return []
    end = f"{shown[0]} - {shown[1]} = {difference}"
    if len({term.sign for term in terms}) == 1:
        return [*lines, "Equal terms of both sides cancel:", f"{end} {'>' if sign > 0 else '<'} 0."]
    for decimals in (3, 10, 30):
        bounds = decimals_of(add(terms), decimals)
        if bounds and bounds.low != "0" != bounds.high:
            return [
                *lines,
                "Equal terms of both sides cancel:",
                f"{end}.",
                f"{bounds.about(difference)}.",
            ]
    return []


def _sum_text(terms: Sequence[Value]) -> str:
    return " + ".join(map(show_value, terms)).replace("+ -", "- ")


def _same_terms(shown: Sequence[str], terms: Sequence[Value]) -> str:
    """Both sides are the same sum."""
    text = _sum_text(terms)
    if len(text) > _MAX_SUM:
        return "Multiplied out, every term of one side is a term of the other side."
    plain = [name[1:-1] for name in shown]
    return f"{' = '.join(dict.fromkeys((plain[0], text, plain[1])))}."


def by_quotient(left: Expression, right: Expression) -> list[str]:
    """The quotient of two sides after cancelling."""
    names = Names(left, right)
    ratio = times(left.value, inverse(right.value))
    if not isinstance(ratio, Rational) or not is_shown_exactly(ratio):
        return []
    sign = "<" if ratio.p < ratio.q else ">"
    shown = show_rational(ratio)
    end = "" if ratio == ONE else f" {sign} 1"
    return [
        *names.where,
        f"What both sides share cancels: ({names.left}) / ({names.right}) = {shown}{end}.",
    ]


# ------------------------------------------------------------------------------------- digits


def by_digits(left: Expression, right: Expression) -> list[str]:
    """Two long numbers that were computed: all digits if equal, else a short difference.

    Both sides are multiplied by their denominators first. No lines if nothing short can be shown.
    """
    x, y = (written(side.value, WRITTEN_BITS) for side in (left, right))
    if x is None or y is None:
        return []
    names = Names(left, right)
    common = Rational(x.q * y.q)
    if not is_shown_exactly(common):
        return []
    times_common = "" if common == ONE else f"{show_rational(common)} * "
    left_name, right_name = (
        f"{times_common}({name})" if times_common else name for name in (names.left, names.right)
    )
    difference = Rational(x.p * y.q - y.p * x.q)
    if difference.p == 0:
        return [*names.where, *_all_digits(left_name, right_name, x.p * y.q)]
    if not is_shown_exactly(difference):
        return []
    relation = ">" if difference.p > 0 else "<"
    return [
        *names.where,
        "Computed in full:",
        f"({left_name}) - ({right_name}) = {show_rational(difference)} {relation} 0.",
    ]


def _all_digits(left: str, right: str, n: int) -> list[str]:
    digits = _count_digits(abs(n))
    if digits <= _MAX_ALL_DIGITS:
        return [f"{left} = {n} = {right}."]
    first, last = abs(n) // 10 ** (digits - 12), abs(n) % 10**12
    return [
        f"Computed in full, both sides are the same whole number of {digits} digits; it begins "
        f"with {'-' if n < 0 else ''}{first} and ends with {last:012d}."
    ]


def _count_digits(n: int) -> int:
    digits = max(1, int(n.bit_length() * math.log10(2)))
    while 10**digits <= n:
        digits += 1
    return digits


# ------------------------------------------------------------------------------------- roots


def by_roots(left: Expression, right: Expression) -> list[str]:
    """A proof that two sums of roots are equal: a power of both sides, or the separation bound."""
    lines = by_difference(left, right, 0)
    return lines or _by_power(left, right) or _by_power(right, left) or _by_separation(left, right)


def _by_power(root: Expression, other: Expression) -> list[str]:
    """For a root of a sum: both sides to that power have the same terms."""
    value = root.value
    if not (isinstance(value, Product) and value.sign > 0 and len(value.factors) == 1):
        return []
    base, exponent = value.factors[0].base, value.factors[0].exponent
    if not (isinstance(base, Sum) and isinstance(exponent, Rational) and exponent.p == 1):
        return []
    k = exponent.q
    terms = _terms(other.value)
    if k > 4 or len(terms) > 6 or not all(map(radicals.is_plain_root, (*terms, *base.terms))):
        return []
    raised: list[Value] = [ONE]
    for _ in range(k):
        raised = gathered(times(a, b) for a in raised for b in terms)
    if gathered((*raised, *map(negative, base.terms))):
        return []
    names = Names(root, other)
    shown = _sum_text(raised)
    return [
        *names.where,
        f"Both sides are positive. Raise both to the power {k}:",
        f"({names.right})^{k} = {shown} = ({names.left})^{k}.",
        f"So {names.left} = {names.right}.",
    ]


def _terms(value: Value) -> list[Value]:
    if isinstance(value, Product) and len(value.factors) == 1 and value.sign > 0:
        base = value.factors[0].base
        if isinstance(base, Sum) and value.factors[0].exponent == ONE:
            return list(base.terms)
    return [value]


def _by_separation(left: Expression, right: Expression) -> list[str]:
    terms = gathered((left.value, negative(right.value)))
    bits = radicals.separation_bits(terms)
    if bits is None:
        return []
    names = Names(left, right)
    power = math.ceil(bits * math.log10(2)) + 1
    size = radicals.add_up(terms, bits + 64)
    assert _below_ten_to(size, power)
    return [
        *names.where,
        f"Let d = ({names.left}) - ({names.right}). Computed with {bits + 64} bits, "
        f"|d| < 10^(-{power}).",
        f"But such a number is 0 or at least 2^(-{bits}) > 10^(-{power}) (the separation bound of",
        "Burnikel, Funke, Mehlhorn, Schirra and Schmitt 2001, from the degrees of the roots and",
        "the size of the numbers). So d = 0.",
    ]


def _below_ten_to(x: Interval, power: int) -> bool:
    low, high = x.ends()
    return max(abs(low), abs(high)) < Fraction(1, 10**power)
