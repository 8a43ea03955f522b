"""Finds the sign and the simplest reason for it: school arguments first, logarithms last."""

from __future__ import annotations

from typing import Literal, NamedTuple

from noisewise.powers import reals
from noisewise.powers.big_integers import exact_root
from noisewise.powers.bounds import separated
from noisewise.powers.formatting import (
    bracketed,
    is_shown_exactly,
    shorten,
    show_interval,
    show_ln,
    show_rational,
    show_value,
)
from noisewise.powers.intervals import Interval, whole
from noisewise.powers.linear_forms import Decision, decide
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.parser import Expression
from noisewise.powers.reals import RealDecision
from noisewise.powers.towers import PRECISIONS, TowerDecision, compare_products, plain_terms
from noisewise.powers.values import (
    ONE,
    Rational,
    Value,
    as_product,
    has_atoms,
    inverse,
    negative,
    rational,
)

Method = Literal[
    "computed", "sign", "against 1", "same base", "same exponent", "monotony", "common root",
    "coprime base", "logarithms", "shared exponent", "levels", "normal form", "common factors",
    "values", "common terms", "roots", "undecided",
]  # fmt: skip


class Finding(NamedTuple):
    """A sign and its reason; `comparison` adds the names of the sides."""

    sign: int | None
    method: Method
    reason: str
    bits: int = 0
    ln_ratio: Interval | None = None


class Power(NamedTuple):
    """The power a^b with rational a > 0 and b."""

    a: Rational
    b: Rational
    name: str  # a as text


def find(left: Expression, right: Expression) -> Finding:
    """The sign of left - right, and the reason for it."""
    x, y = left.value, right.value
    if x.sign != y.sign:
        names = {-1: "negative", 0: "zero", 1: "positive"}
        reason = f"the left side is {names[x.sign]} and the right side is {names[y.sign]}."
        return Finding(1 if x.sign > y.sign else -1, "sign", reason)
    if isinstance(x, Rational) and isinstance(y, Rational):
        return _computed(x, y)
    if x.sign < 0:
        return _mirrored(_positive(_stripped(left), _stripped(right)))
    return _positive(left, right)


def _stripped(side: Expression) -> Expression:
    """The absolute value of a negative side."""
    base = negative(side.base) if side.base.sign < 0 else side.base
    whole = side.exponent == ONE or side.base.sign < 0
    return Expression(side.text, negative(side.value), base if whole else ONE, side.exponent)


def _mirrored(found: Finding) -> Finding:
    sign = None if found.sign is None else -found.sign
    reason = (
        "both sides are negative, so the side with the smaller absolute value is larger. For the "
        f"absolute values: {found.reason}"
    )
    return found._replace(sign=sign, reason=reason)


def _computed(x: Rational, y: Rational) -> Finding:
    difference = x.p * y.q - y.p * x.q
    sign = (difference > 0) - (difference < 0)
    ratio = None
    if x.p and y.p:
        ratio = log_ratio(abs(x.p) * y.q, x.q * abs(y.p), 64)
    shown = [
        show_rational(v) if is_shown_exactly(v) else f"about {show_rational(v)}" for v in (x, y)
    ]
    if sign == 0 and is_shown_exactly(x):
        reason = f"both sides are {shown[0]}."
    elif sign == 0:
        reason = f"both sides are the same number, {shown[0]}."
    elif shown[0] == shown[1]:
        reason = f"both sides are {shown[0]}; computed exactly, the left side is {_more(sign)}."
    else:
        reason = f"the left side is {shown[0]} and the right side is {shown[1]}."
    return Finding(sign, "computed", reason, ln_ratio=ratio)


def _more(sign: int) -> str:
    return "larger" if sign > 0 else "smaller"


def _positive(left: Expression, right: Expression) -> Finding:
    powers = power_of(left), power_of(right)
    if powers[0] and powers[1]:
        found = _by_hand(powers[0], powers[1])
        if found is not None:
            ratio = _ratio(left.value, right.value, found.sign)
            return found._replace(ln_ratio=ratio)
    if has_atoms(left.value) or has_atoms(right.value):
        return _of_real(reals.decide(left.value, right.value), left, right)
    decision = compare_products(left.value, right.value)
    if decision.plain is not None:
        return _of_plain(decision, decision.plain, powers)
    return _of_tower(decision, left, right)


def power_of(side: Expression) -> Power | None:
    """The side as a^b with rational a > 0 and b not 0, if it is written as such a power."""
    a, b = side.base, side.exponent
    if isinstance(a, Rational) and isinstance(b, Rational) and a.p > 0 and b.p:
        has_text = b == ONE and not is_shown_exactly(a)
        return Power(a, b, shorten(side.text) if has_text else show_rational(a))
    return None


def _ratio(x: Value, y: Value, sign: int | None) -> Interval | None:
    """An interval that contains ln(x / y) and has its sign; None for towers."""
    if has_atoms(x) or has_atoms(y):
        return None
    plain = plain_terms((*as_product(x).factors, *as_product(inverse(y)).factors))
    if plain is None or sign is None:
        return None
    if sign == 0:
        return Interval(0, 0, 0)
    return decide(plain[0]).value.over(whole(plain[1], 64), 64)


# ------------------------------------------------------------------- reasons without logarithms


def order(x: Rational, y: Rational) -> int:
    """-1 if x < y, 0 if x = y, 1 if x > y."""
    difference = x.p * y.q - y.p * x.q
    return (difference > 0) - (difference < 0)


def _by_hand(left: Power, right: Power) -> Finding | None:
    """A reason that needs no logarithm; None if there is none."""
    above = [order(side.a, ONE) * side.b.sign for side in (left, right)]
    if above[0] != above[1]:
        words = {-1: "below 1", 0: "equal to 1", 1: "above 1"}
        reason = f"the left side is {words[above[0]]} and the right side is {words[above[1]]}."
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
        what = f"{_exact(left.a)} and the exponent{_exact(left.b)}" if _exact(left.a) else ""
        reason = (
            f"both sides are the same power, with the base{what}."
            if what
            else ("both sides are the same power.")
        )
        return Finding(0, "same base", reason)
    grows = order(left.a, ONE)
    sign = exponents * grows
    reason = (
        f"both sides have the same base{_exact(left.a)}, which is "
        f"{'above' if grows > 0 else 'below'} 1; the left exponent is {_more(exponents)}, so the "
        f"left side is {_more(sign)}."
    )
    return Finding(sign, "same base", reason)


def _same_exponent(left: Power, right: Power, bases: int) -> Finding:
    sign = bases * left.b.sign
    kind = "positive" if left.b.sign > 0 else "negative"
    reason = (
        f"both sides have the same exponent{_exact(left.b)}, which is {kind}; the left base is "
        f"{_more(bases)}, so the left side is {_more(sign)}."
    )
    return Finding(sign, "same exponent", reason)


def _exact(x: Rational) -> str:
    """The number behind a space, or nothing if it is too long to show all of it."""
    return f" {show_rational(x)}" if is_shown_exactly(x) else ""


def _monotone(left: Power, right: Power, bases: int, exponents: int) -> Finding | None:
    """A reason if one side has the larger base and exponent, bases > 1 and exponents > 0."""
    plain = all(order(s.a, ONE) > 0 and s.b.sign > 0 for s in (left, right))
    if not plain or bases != exponents:
        return None
    reason = (
        "both bases are above 1 and both exponents are positive; the left base and the left "
        f"exponent are {_more(bases)}, so the left side is {_more(bases)}."
    )
    return Finding(bases, "monotony", reason)


# ---------------------------------------------------------------------- reasons with logarithms


def _of_plain(
    decision: TowerDecision, plain: Decision, powers: tuple[Power | None, Power | None]
) -> Finding:
    if plain.sign == 0:
        tie = _tie(powers, plain.root) if powers[0] and powers[1] else None
        zero = Interval(0, 0, 0)
        if tie:
            return Finding(0, "common root", tie, ln_ratio=zero)
        if plain.worked:
            reason = "computed exactly, both sides are equal."
            return Finding(0, "computed", reason, ln_ratio=zero)
        reason = (
            "written as products of powers of pairwise coprime numbers (found by greatest common "
            "divisors), both sides have the same exponents."
        )
        return Finding(0, "coprime base", reason, ln_ratio=zero)
    ratio = plain.value.over(whole(decision.scale, 64), 64)
    if plain.bits == 0:
        reason = f"computed exactly, the left side is {_more(plain.sign)}."
        return Finding(plain.sign, "computed", reason, 0, ratio)
    form = _form(powers)
    side = "positive" if plain.sign > 0 else "negative"
    reason = (
        f"{form} is about {show_interval(ratio)} and proved to be {side} (with intervals of "
        f"{plain.bits} bits)."
    )
    return Finding(plain.sign, "logarithms", reason, plain.bits, ratio)


def _form(powers: tuple[Power | None, Power | None]) -> str:
    """The difference of the two logarithms as text: in full for short powers."""
    left, right = powers
    is_exact = all(
        p and is_shown_exactly(p.b) and (is_shown_exactly(p.a) or p.b == ONE) for p in powers
    )
    if left and right and is_exact:
        shown = [show_rational(left.b), left.name, show_rational(right.b), right.name]
        if right.b.sign > 0 and sum(map(len, shown)) < 60:
            terms = [
                show_ln(p.name) if p.b == ONE else f"{bracketed(p.b)} {show_ln(p.name)}"
                for p in (left, right)
            ]
            return " - ".join(terms)
    return "ln(left / right)"


def common_root_reason(left: Power, right: Power) -> str | None:
    """Why two equal powers are equal, by their common root; None if there is none."""
    return _tie((left, right), None)


def _tie(
    powers: tuple[Power | None, Power | None], known: tuple[int, int, int] | None
) -> str | None:
    """The common root g in words: a = g^i and c = g^j, with b / d = j / i in lowest terms."""
    left, right = powers
    assert left
    assert right
    a, b, c, d = left.a, left.b, right.a, right.b
    names = ["the left base is", "the right base is"]
    if b.sign != d.sign:
        c, d = Rational(c.q, c.p), Rational(-d.p, d.q)
        names[1] = "1 / (the right base) is"
    fraction = rational(b.p * d.q, b.q * d.p)
    i, j = fraction.q, fraction.p
    if known and a.q == 1 and known[1] == i:
        root = Rational(known[0])
    else:
        p, q = exact_root(a.p, i), exact_root(a.q, i)
        if p is None or q is None:
            return None
        root = Rational(p, q)
    g = bracketed(root) if is_shown_exactly(root) else "g"
    parts = [
        f"{show_rational(base)} = {g}^{n}"
        if is_shown_exactly(base)
        else f"{name} {g}^{n}".removesuffix("^1")
        for name, base, n in zip(names, (a, c), (i, j), strict=True)
        if n != 1 or g == "g"
    ]
    start = "" if g != "g" else f"the bases have a common root g, about {show_rational(root)}: "
    whole = rational(b.p * i, b.q)
    both = f"{g}^{bracketed(whole)}" if is_shown_exactly(whole) else f"the same power of {g}"
    return f"{start}{' and '.join(parts)}, so both sides are {both}."


def _of_tower(decision: TowerDecision, left: Expression, right: Expression) -> Finding:
    sign, bits = decision.sign, decision.bits
    shown = f"{shorten(left.text)} and {shorten(right.text)}"
    if sign == 0:
        reason = "written with the same bases, both sides have the same exponents."
        return Finding(0, "normal form", reason)
    if sign is None:
        reason = (
            f"undecided: the repeated logarithms of {shown} agree to {PRECISIONS[-1]} bits, "
            "nothing proves that the two numbers are equal, and their exponents cannot be written "
            "out as fractions of up to a million digits."
        )
        return Finding(None, "undecided", reason, bits)
    method: Method = "normal form"
    if decision.way == "shared exponent":
        method = "shared exponent"
        reason = _same_tower(left, right, sign) or (
            "the powers are grouped by exponents that are multiples of each other; without the "
            f"common positive exponent of its group, the left side is {_more(sign)} in every group."
        )
    elif decision.way == "levels":
        method = "levels"
        reason = _by_bounds(left.value, right.value, sign, bits)
    else:
        reason = (
            f"written with the same bases, no exponent on the left is {_more(-sign)} and at least "
            f"one is {_more(sign)}."
        )
    return Finding(sign, method, reason, bits)


def _of_real(found: RealDecision, left: Expression, right: Expression) -> Finding:
    """The reason of a comparison with e, pi, sums, large factorials or very tall towers."""
    sign, bits = found.sign, found.bits
    if sign is None:
        reason = (
            f"undecided: {shorten(left.text)} and {shorten(right.text)} agree to {bits} bits, and "
            "no rule shows that they are equal."
        )
        return Finding(None, "undecided", reason, bits)
    zero = Interval(0, 0, 0)
    ratio = found.ln_ratio if sign else zero
    shown = " + ".join(show_value(term) for term in found.terms).replace("+ -", "- ")
    if found.way == "factors" and not found.terms:
        reason = "what both sides share cancels, and the rest is 1."
        return Finding(sign, "common factors", reason, ln_ratio=ratio)
    if found.way == "factors":
        reason = f"what both sides share cancels; the left side divided by the right is {shown}."
        return Finding(sign, "common factors", reason, ln_ratio=ratio)
    if found.way == "computed":
        what = "both sides are equal" if sign == 0 else f"the left side is {_more(sign)}"
        return Finding(sign, "computed", f"computed exactly, {what}.", ln_ratio=ratio)
    if found.way == "terms" and sign == 0:
        return Finding(0, "common terms", "both sides have the same terms.", ln_ratio=zero)
    if found.way == "terms":
        reason = f"equal terms cancel; the left side is {_more(sign)}, by {shorten(shown)}."
        reason = reason.replace("by -", "by ") if sign < 0 else reason
        return Finding(sign, "common terms", reason)
    if found.way == "roots" and sign == 0:
        reason = (
            "both sides are the same number: the difference is smaller than any number of this "
            "form that is not 0."
        )
        return Finding(0, "roots", reason, ln_ratio=zero)
    if found.way in ("intervals", "roots"):
        reason = _by_bounds(left.value, right.value, sign, bits, ratio)
        return Finding(sign, "values", reason, bits, ratio)
    if found.way == "same base":
        reason = f"both sides are powers of the same base, and the left exponent is {_more(sign)}."
        if sign == 0:
            reason = "both sides are powers of the same base with the same exponent."
        return Finding(sign, "same base", reason)
    return Finding(sign, "levels", _by_bounds(left.value, right.value, sign, bits), bits)


def _by_bounds(x: Value, y: Value, sign: int, bits: int, ratio: Interval | None = None) -> str:
    """Bounds of both sides or of their logarithms in words, for x, y > 0."""
    found = separated(*((x, y) if sign < 0 else (y, x)))
    if found is None:
        how = f" (with intervals of {bits} bits)" if bits else ""
        if ratio is not None and ratio.sign == sign:
            what = (
                f"{show_interval(ratio)} and proved to be {'positive' if sign > 0 else 'negative'}"
            )
            return f"ln(left / right) is about {what}{how}."
        return f"the left side is proved to be {_more(sign)}{how}."
    below, above = found
    sides = ("left", "right") if sign < 0 else ("right", "left")
    low, high = (
        f"{word} {bound}" if bounds.low != bounds.high else bound
        for word, bounds, bound in (("below", below, below.high), ("above", above, above.low))
    )
    if below.logs == 0:
        return f"the {sides[0]} side is {low} and the {sides[1]} side is {high}."
    times = "" if below.logs == 1 else f", taken {below.logs} times,"
    return (
        f"logarithms keep the order; the natural logarithm{times} is {low} on the {sides[0]} and "
        f"{high} on the {sides[1]}."
    )


def _same_tower(left: Expression, right: Expression, sign: int) -> str:
    """The reason for rational bases above 0 under the same positive tower; else nothing."""
    a, b, c, d = left.base, left.exponent, right.base, right.exponent
    if not (isinstance(a, Rational) and isinstance(c, Rational)) or b != d:
        return ""
    if min(a.sign, c.sign, b.sign) <= 0:
        return ""
    return (
        f"both sides have the same positive exponent; the left base is {_more(sign)}, so the left "
        f"side is {_more(sign)}."
    )
