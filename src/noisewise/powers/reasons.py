"""Finds the sign and the plainest true reason for it: human arguments first, logarithms last."""

from __future__ import annotations

from typing import Literal, NamedTuple

from noisewise.powers.big_integers import exact_root
from noisewise.powers.formatting import SHOWN_DIGITS, shorten, show_interval, show_rational
from noisewise.powers.intervals import Interval, whole
from noisewise.powers.linear_forms import Decision, decide
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.parser import Expression
from noisewise.powers.towers import PRECISIONS, TowerDecision, compare_products, plain_terms
from noisewise.powers.values import (
    ONE,
    Rational,
    Value,
    as_product,
    inverse,
    negative,
    rational,
)

Method = Literal[
    "computed", "sign", "against 1", "same base", "same exponent", "monotony", "common root",
    "coprime base", "logarithms", "shared exponent", "levels", "normal form", "undecided",
]  # fmt: skip


class Finding(NamedTuple):
    """A sign with its reason, before it is put into words for the outside."""

    sign: int | None
    method: Method
    reason: str
    bits: int = 0
    ln_ratio: Interval | None = None


class Power(NamedTuple):
    """The power a^b with rational a > 0 and b."""

    a: Rational
    b: Rational
    name: str  # of a


def find(left: Expression, right: Expression) -> Finding:
    """The sign of left - right and why."""
    x, y = left.value, right.value
    if x.sign != y.sign:
        names = {-1: "negative", 0: "zero", 1: "positive"}
        reason = f"the left side is {names[x.sign]} and the right side {names[y.sign]}."
        return Finding(1 if x.sign > y.sign else -1, "sign", reason)
    if isinstance(x, Rational) and isinstance(y, Rational):
        return _computed(x, y)
    if x.sign < 0:
        return _mirrored(_positive(_stripped(left), _stripped(right)))
    return _positive(left, right)


def _stripped(side: Expression) -> Expression:
    """The same without its sign."""
    base = negative(side.base) if side.base.sign < 0 else side.base
    whole = side.exponent == ONE or side.base.sign < 0
    return Expression(side.text, negative(side.value), base if whole else ONE, side.exponent)


def _mirrored(found: Finding) -> Finding:
    sign = None if found.sign is None else -found.sign
    reason = f"both sides are negative; of their sizes this is true: {found.reason}"
    return found._replace(sign=sign, reason=reason)


def _computed(x: Rational, y: Rational) -> Finding:
    difference = x.p * y.q - y.p * x.q
    sign = (difference > 0) - (difference < 0)
    ratio = None
    if x.p and y.p:
        ratio = log_ratio(abs(x.p) * y.q, x.q * abs(y.p), 64)
    if sign == 0:
        return Finding(0, "computed", f"both sides are {show_rational(x)}.", ln_ratio=ratio)
    symbol = ">" if sign > 0 else "<"
    shown = show_rational(x), show_rational(y)
    if max(x.bits, y.bits) < 3.32 * SHOWN_DIGITS:
        reason = f"worked out, {shown[0]} {symbol} {shown[1]}."
    elif shown[0] != shown[1]:
        reason = f"worked out, about {shown[0]} {symbol} {shown[1]}."
    else:
        reason = f"worked out, both are about {shown[0]}, and the left is {_more(sign)}."
    return Finding(sign, "computed", reason, ln_ratio=ratio)


def _more(sign: int) -> str:
    return "larger" if sign > 0 else "smaller"


def _positive(left: Expression, right: Expression) -> Finding:
    powers = _power(left), _power(right)
    if powers[0] and powers[1]:
        found = _by_hand(powers[0], powers[1])
        if found is not None:
            ratio = _ratio(left.value, right.value, found.sign)
            return found._replace(ln_ratio=ratio)
    decision = compare_products(left.value, right.value)
    if decision.plain is not None:
        return _of_plain(decision, decision.plain, powers)
    return _of_tower(decision, left, right)


def _power(side: Expression) -> Power | None:
    """The side as a^b with ordinary positive a and b not 0, if it was written so."""
    a, b = side.base, side.exponent
    if isinstance(a, Rational) and isinstance(b, Rational) and a.p > 0 and b.p:
        shown = show_rational(a)
        return Power(a, b, shorten(side.text) if b == ONE and "e" in shown else shown)
    return None


def _ratio(x: Value, y: Value, sign: int | None) -> Interval | None:
    """ln(x / y) in an interval of certain sign where one precision gives it."""
    plain = plain_terms((*as_product(x).factors, *as_product(inverse(y)).factors))
    if plain is None or sign is None:
        return None
    if sign == 0:
        return Interval(0, 0, 0)
    return decide(plain[0]).value.over(whole(plain[1], 64), 64)


# --------------------------------------------------------------------------------- plain reasons


def order(x: Rational, y: Rational) -> int:
    """-1, 0 or 1 as x is below, equal to or above y."""
    difference = x.p * y.q - y.p * x.q
    return (difference > 0) - (difference < 0)


def _by_hand(left: Power, right: Power) -> Finding | None:
    """A reason that needs no logarithm, where there is one."""
    above = [order(side.a, ONE) * side.b.sign for side in (left, right)]
    if above[0] != above[1]:
        words = {-1: "below 1", 0: "equal to 1", 1: "above 1"}
        reason = f"the left side is {words[above[0]]} and the right side {words[above[1]]}."
        return Finding(1 if above[0] > above[1] else -1, "against 1", reason)
    if above[0] == 0:
        return Finding(0, "against 1", "both sides are 1.")
    bases, exponents = order(left.a, right.a), order(left.b, right.b)
    if bases == 0:
        return _same_base(left, right, exponents)
    if exponents == 0:
        return _same_exponent(left, right, bases)
    return _monotone(left, right, bases, exponents)


def _same_base(left: Power, right: Power, exponents: int) -> Finding:
    if exponents == 0:
        return Finding(0, "same base", "both sides are the same power.")
    grows = order(left.a, ONE)
    sign = exponents * grows
    reason = (
        f"the base {show_rational(left.a)} is the same and {'above' if grows > 0 else 'below'} 1, "
        f"and the left exponent is the {_more(exponents)} one."
    )
    return Finding(sign, "same base", reason)


def _same_exponent(left: Power, right: Power, bases: int) -> Finding:
    sign = bases * left.b.sign
    kind = "positive" if left.b.sign > 0 else "negative"
    reason = (
        f"the exponent {show_rational(left.b)} is the same and {kind}, and the left base is the "
        f"{_more(bases)} one."
    )
    return Finding(sign, "same exponent", reason)


def _monotone(left: Power, right: Power, bases: int, exponents: int) -> Finding | None:
    """Larger base and larger exponent, both bases above 1 and both exponents positive."""
    plain = all(order(s.a, ONE) > 0 and s.b.sign > 0 for s in (left, right))
    if not plain or bases != exponents:
        return None
    reason = f"both the base and the exponent are {_more(bases)} on the left, and bases exceed 1."
    return Finding(bases, "monotony", reason)


# -------------------------------------------------------------------------- reasons of decisions


def _of_plain(
    decision: TowerDecision, plain: Decision, powers: tuple[Power | None, Power | None]
) -> Finding:
    if plain.sign == 0:
        tie = _tie(powers, plain.root) if powers[0] and powers[1] else None
        zero = Interval(0, 0, 0)
        if tie:
            return Finding(0, "common root", tie, ln_ratio=zero)
        if plain.worked:
            reason = "worked out to the last digit, both sides are the same."
            return Finding(0, "computed", reason, ln_ratio=zero)
        reason = (
            "written over pairwise coprime numbers (found by greatest common divisors), both sides "
            "have the same exponents."
        )
        return Finding(0, "coprime base", reason, ln_ratio=zero)
    ratio = plain.value.over(whole(decision.scale, 64), 64)
    if plain.bits == 0:
        reason = f"worked out to the last digit, the left is {_more(plain.sign)}."
        return Finding(plain.sign, "computed", reason, 0, ratio)
    form = _form(powers)
    side = "positive" if plain.sign > 0 else "negative"
    reason = f"{form} is about {show_interval(ratio)}, certainly {side} ({plain.bits} bits)."
    return Finding(plain.sign, "logarithms", reason, plain.bits, ratio)


def _form(powers: tuple[Power | None, Power | None]) -> str:
    """The linear form in words, where both sides are short powers."""
    left, right = powers
    if left and right:
        shown = [show_rational(left.b), left.name, show_rational(right.b), right.name]
        if right.b.sign > 0 and sum(map(len, shown)) < 60:
            b, a, d, c = (t if t.isdigit() else f"({t})" for t in shown)
            return f"{b} ln {a} - {d} ln {c}".replace(" 1 ln", " ln").removeprefix("1 ")
    return "ln(left / right)"


def _tie(
    powers: tuple[Power | None, Power | None], known: tuple[int, int, int] | None
) -> str | None:
    """With a = g^i, c = g^j: b / d = j / i in lowest terms."""
    left, right = powers
    assert left
    assert right
    a, b, c, d = left.a, left.b, right.a, right.b
    if b.sign != d.sign:
        c, d = Rational(c.q, c.p), Rational(-d.p, d.q)
    fraction = rational(b.p * d.q, b.q * d.p)
    i, j = fraction.q, fraction.p
    if known and a.q == 1 and known[1] == i:
        root = Rational(known[0])
    else:
        p, q = exact_root(a.p, i), exact_root(a.q, i)
        if p is None or q is None:
            return None
        root = Rational(p, q)
    whole = rational(b.p * i, b.q)
    g = show_rational(root)
    g = f"({g})" if root.q != 1 else g
    shown = show_rational(whole)
    total = shown if whole.q == 1 and whole.p > 0 else f"({shown})"
    parts = [f"{show_rational(base)} = {g}^{n}" for base, n in ((a, i), (c, j)) if n != 1]
    return f"{' and '.join(parts)}, so both are {g}^{total}."


def _of_tower(decision: TowerDecision, left: Expression, right: Expression) -> Finding:
    sign, bits = decision.sign, decision.bits
    shown = f"{shorten(left.text)} and {shorten(right.text)}"
    if sign == 0:
        reason = "over a common root both sides have the same exponent, level by level."
        return Finding(0, "normal form", reason)
    if sign is None:
        reason = (
            f"undecided: the iterated logarithms of {shown} agree to {PRECISIONS[-1]} bits, they "
            "are not seen to be equal, and their exponents have more than a million digits."
        )
        return Finding(None, "undecided", reason, bits)
    method: Method = "normal form"
    if decision.way == "shared exponent":
        method = "shared exponent"
        reason = (
            "the exponents are multiples of one another; without the common one the left side is "
            f"the {_more(sign)}."
        )
    elif decision.way == "levels":
        method = "levels"
        reason = (
            f"taking logarithms on both sides, again and again, the left stays {_more(sign)} "
            f"(intervals of {bits} bits)."
        )
    else:
        reason = f"over common roots the left exponents are {_more(sign)}, level by level."
    return Finding(sign, method, reason, bits)
