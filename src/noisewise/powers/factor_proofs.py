"""Proofs by factors: both sides over coprime numbers, or powers with the same exponent together."""

from __future__ import annotations

from noisewise.powers.big_integers import remove
from noisewise.powers.bounds import bounds_of_ln
from noisewise.powers.coprime import coprime_base, valuations
from noisewise.powers.formatting import show_base, show_value, show_whole
from noisewise.powers.number_proofs import Names, by_bounds
from noisewise.powers.parser import Expression
from noisewise.powers.towers import Group, normal_form, shared_exponents
from noisewise.powers.values import (
    ONE,
    Factor,
    Product,
    Rational,
    Value,
    as_product,
    inverse,
    negative,
    plus,
    power,
    times,
)

_MAX_BASES = 8
_MAX_BITS = 3000  # of one base


def by_factors(left: Expression, right: Expression, sign: int) -> list[str]:
    """A proof for two products of powers of whole numbers; no lines if it would be too long."""
    factors = (*as_product(left.value).factors, *as_product(inverse(right.value)).factors)
    bases = [f.base for f in factors if isinstance(f.base, int)]
    if len(bases) != len(factors) or len(set(bases)) > _MAX_BASES:
        return []
    if any(n.bit_length() > _MAX_BITS for n in bases):
        return []
    if sign == 0:
        return _same_factors(left, right)
    return _by_groups(left, right, factors, sign) or _by_exponents(left, right, factors, sign)


def _same_factors(left: Expression, right: Expression) -> list[str]:
    """Equal sides: each base over coprime numbers, and the exponents that result."""
    names = Names(left, right)
    sides = [as_product(side.value) for side in (left, right)]
    bases = sorted({f.base for s in sides for f in s.factors if isinstance(f.base, int)})
    coprime = coprime_base(bases)
    lines = [*names.where]
    for n in bases:
        if n not in coprime:
            lines.append(f"{show_whole(n)} = {_over(n, coprime)}.")
    for q in coprime:
        exponents = [_exponents(side, q) for side in sides]
        shown = [" + ".join(map(show_value, terms)).replace("+ -", "- ") for terms in exponents]
        if any(exponents):
            same = (
                ""
                if shown[0] == shown[1]
                else f" on the left and {shown[1]} on the right, which are equal"
            )
            lines.append(
                f"The exponent of {show_whole(q)} is {shown[0]}{same or ' on both sides'}."
            )
    return [*lines, f"So {names.left} = {names.right}."]


def _over(n: int, coprime: list[int]) -> str:
    parts = [(q, v) for q, v in zip(coprime, valuations(n, coprime), strict=True) if v]
    return " * ".join(show_base(q) if v == 1 else f"{show_base(q)}^{v}" for q, v in parts)


def _exponents(side: Product, q: int) -> list[Value]:
    """The terms of the exponent of q, the numbers added."""
    total, others = Rational(0), []
    for factor in side.factors:
        assert isinstance(factor.base, int)
        v, _ = remove(factor.base, q)
        if not v:
            continue
        term = times(Rational(v), factor.exponent)
        if isinstance(term, Rational):
            total = plus(total, term)
        else:
            others.append(term)
    return [*([total] if total.p else []), *others]


def _by_groups(
    left: Expression, right: Expression, factors: tuple[Factor, ...], sign: int
) -> list[str]:
    """Powers with the same exponent T together: (left / right) = c^T ... with bounds of ln c."""
    groups = shared_exponents(factors)
    if any(group.sign != sign for group in groups):
        return []
    names = Names(left, right)
    lines = [
        *names.where,
        f"Powers with the same exponent together, ({names.left}) / ({names.right}) is",
    ]
    statements, parts = [], []
    for group in groups:
        base = _base_of(group)
        bounds = bounds_of_ln(base)
        if bounds is None:
            return []
        shown = show_value(base)
        tower = "" if group.tower == ONE else f"^({show_value(group.tower)})"
        parts.append(f"({shown}){tower}")
        relation = ">" if sign > 0 else "<"
        statements.append(f"{shown} {relation} 1, because {bounds.about(shown)}.")
    lines.append(f"{' * '.join(parts)}.")
    end = "above" if sign > 0 else "below"
    return [*lines, *statements, f"All these exponents are positive, so the quotient is {end} 1."]


def _base_of(group: Group) -> Value:
    """The product of the powers in a group, without its tower."""
    result: Value = ONE
    for exponent, p, q in group.terms:
        result = times(result, power(Rational(p), Rational(exponent)))
        result = times(result, power(Rational(q), Rational(-exponent)))
    return result


def _by_exponents(
    left: Expression, right: Expression, factors: tuple[Factor, ...], sign: int
) -> list[str]:
    """Over coprime bases, the exponents on one side are the larger ones."""
    sums = normal_form(factors)
    names = Names(left, right)
    if not sums:
        return []
    lines = [*names.where, f"Written over coprime bases, ({names.left}) / ({names.right}) is"]
    parts, proofs = [], []
    for q, terms in sums:
        values = [times(c, tower) for c, tower in terms]
        shown = " + ".join(map(show_value, values)).replace("+ -", "- ")
        parts.append(f"{show_base(q)}^({shown})")
        above = [v for v in values if v.sign > 0]
        below = [negative(v) for v in values if v.sign < 0]
        if len(above) == len(below) == 1:
            x, y = (_named(v) for v in (above[0], below[0]))
            inner = by_bounds(x, y, sign)
            if not inner:
                return []
            proofs += inner
        elif above and below:
            return []
    end = "positive" if sign > 0 else "negative"
    return [
        *lines,
        f"{' * '.join(parts)}.",
        *proofs,
        f"So these exponents are {end}, and the quotient is {'above' if sign > 0 else 'below'} 1.",
    ]


def _named(value: Value) -> Expression:
    return Expression(show_value(value), value, value, ONE)
