"""Comparing powers whose exponents are powers again, as far as it goes.

    a^X against c^Y:   log X + log log a   against   log Y + log log c,   and so on downwards.

Three ways take turns: intervals of rising precision in `levels`; a normal form over coprime bases,
where a^X = c^Y holds if and only if a = g^i, c = g^j and i X = j Y, which is a question of one level
less; and writing exponents out where they have up to a million digits. Not every question about
towers is decided by these: then the answer is None, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from noisewise.powers import levels
from noisewise.powers.coprime import coprime_base, valuations
from noisewise.powers.intervals import Interval, Unresolved, quotient
from noisewise.powers.levels import Tall
from noisewise.powers.linear_forms import Decision, Term, decide
from noisewise.powers.logarithms import log as log_interval
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.values import (
    EAGER_BITS,
    ONE,
    WRITTEN_BITS,
    Factor,
    Product,
    Rational,
    Value,
    as_product,
    inverse,
    negative,
    plus,
    settled,
    times,
    written,
)

PRECISIONS = (64, 256, 1024, 4096)  # bits, one after the other
_MAX_COPRIME_BITS = 200_000  # of all bases together where a normal form is tried


class TowerDecision(NamedTuple):
    """A sign or None, and how it was found."""

    sign: int | None
    way: str  # "levels", "normal form", "written out", "open"
    bits: int = 0
    plain: Decision | None = None  # where exponents could be written out


def plain_terms(factors: Sequence[Factor]) -> list[Term] | None:
    """Terms of a product without towers, the exponents brought to whole numbers.

    All exponents are multiplied by their common denominator: the sign stays.
    """
    scale = 1
    for factor in factors:
        if not isinstance(factor.exponent, Rational):
            return None
        if scale % factor.exponent.q:
            scale *= factor.exponent.q
    return [
        Term(f.exponent.p * (scale // f.exponent.q), f.base, 1)
        for f in factors
        if isinstance(f.exponent, Rational)
    ]


def compare_products(x: Value, y: Value) -> TowerDecision:
    """The sign of log x - log y for positive values.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> compare_products(parse("10^10^10^10").value, parse("10^10^10^11").value).sign
        -1
    """
    factors = (*as_product(x).factors, *as_product(inverse(y)).factors)
    terms = plain_terms(factors)
    if terms is not None:
        found = decide(terms)
        return TowerDecision(found.sign, "written out", found.bits, found)
    sign = _by_levels(factors, PRECISIONS[0])
    if sign is not None:
        return TowerDecision(sign, "levels", PRECISIONS[0])
    sums = normal_form(factors)
    if sums is not None:
        found = _by_normal_form(sums)
        if found is not None:
            return found
    return _by_rising_precision(factors, sums)


def _by_rising_precision(factors: Sequence[Factor], sums: Sums | None) -> TowerDecision:
    for bits in PRECISIONS[1:]:
        sign = _by_levels(factors, bits)
        if sign is None and sums is not None:
            flat = [Factor(q, _scaled(c, e)) for q, terms in sums for c, e in terms]
            sign = _by_levels(flat, bits)
        if sign is not None:
            return TowerDecision(sign, "levels", bits)
    out = [Factor(f.base, written(f.exponent, WRITTEN_BITS) or f.exponent) for f in factors]
    terms = plain_terms(out)
    if terms is not None:
        found = decide(terms)
        return TowerDecision(found.sign, "written out", found.bits, found)
    return TowerDecision(None, "open", PRECISIONS[-1])


# ------------------------------------------------------------------------------------- intervals


def _by_levels(factors: Sequence[Factor], bits: int) -> int | None:
    """The sign of sum E log n: all positive terms against all negative ones."""
    above = [f for f in factors if f.exponent.sign > 0]
    below = [f for f in factors if f.exponent.sign < 0]
    if not above or not below:
        return bool(above) - bool(below)
    try:
        x = levels.log_of_sum([_log_of_term(f, bits) for f in above], bits)
        y = levels.log_of_sum([_log_of_term(f, bits) for f in below], bits)
    except Unresolved:
        return None
    return levels.compare(x, y, bits)


def _log_of_term(factor: Factor, bits: int) -> Tall:
    """log(|E| log n)."""
    log_log = levels.tall(log_interval(log_ratio(factor.base, 1, bits), bits))
    return levels.add(log_of(factor.exponent, bits), log_log, bits)


def log_of(value: Value, bits: int) -> Tall:
    """log |value|, for a value other than 0.

    Raises:
        Unresolved: where terms of opposite signs nearly cancel.
    """
    if isinstance(value, Rational):
        return levels.tall(log_ratio(abs(value.p), value.q, bits))
    result = levels.tall(Interval(0, 0, 0))
    for factor in value.factors:
        result = levels.add(result, _term(factor, bits), bits)
    return result


def _term(factor: Factor, bits: int) -> Tall:
    """E log n."""
    if isinstance(factor.exponent, Rational):
        exponent = quotient(factor.exponent.p, factor.exponent.q, bits)
        return levels.tall(exponent.times(log_ratio(factor.base, 1, bits), bits))
    size = levels.exp(_log_of_term(factor, bits), bits)
    return size if factor.exponent.sign > 0 else levels.opposite(size)


# ----------------------------------------------------------------------------------- normal form

Sums = list[tuple[int, list[tuple[Rational, Value]]]]  # (q, terms (coefficient, tower or ONE))


def normal_form(factors: Sequence[Factor]) -> Sums | None:
    """A product over the coprime base of its bases: q^(sum of coefficient * tower), zeros left out.

    Towers of rational ratio are gathered in one. No sum left means that the product is 1. None
    where the bases are too large for it.
    """
    if sum(f.base.bit_length() for f in factors) > _MAX_COPRIME_BITS:
        return None
    base = coprime_base(f.base for f in factors)
    rows = [valuations(f.base, base) for f in factors]
    sums = []
    for j, q in enumerate(base):
        terms = [
            (Rational(row[j]), factor.exponent)
            for row, factor in zip(rows, factors, strict=True)
            if row[j]
        ]
        gathered = _gathered(terms)
        if gathered:
            sums.append((q, gathered))
    return sums


def _gathered(terms: Sequence[tuple[Rational, Value]]) -> list[tuple[Rational, Value]]:
    """A sum of coefficient * tower with towers of rational ratio put together."""
    groups: list[tuple[Rational, Value]] = []
    for given, exponent in terms:
        coefficient, tower = given, exponent
        if isinstance(tower, Rational):
            coefficient, tower = _product(coefficient, tower), ONE
        for k, (have, head) in enumerate(groups):
            ratio = constant_ratio(tower, head)
            if ratio is not None:
                groups[k] = (plus(have, _product(coefficient, ratio)), head)
                break
        else:
            groups.append((coefficient, tower))
    return [(c, tower) for c, tower in groups if c.p]


def _product(x: Rational, y: Rational) -> Rational:
    found = times(x, y)
    assert isinstance(found, Rational)
    return found


def constant_ratio(x: Value, y: Value) -> Rational | None:
    """x / y where the two are seen to be a rational multiple of each other.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> constant_ratio(parse("4^10^20").value, parse("2^(2*10^20 - 1)").value)
        Rational(p=2, q=1)
    """
    if isinstance(x, Rational) and isinstance(y, Rational):
        return _product(x, Rational(y.q, y.p) if y.p > 0 else Rational(-y.q, -y.p))
    a, b = as_product(x), as_product(inverse(y))
    sums = normal_form((*a.factors, *b.factors))
    if sums is None:
        return None
    factors = []
    for q, terms in sums:
        if len(terms) != 1 or terms[0][1] != ONE:
            return None
        factors.append(Factor(q, terms[0][0]))
    return written(settled(a.sign * b.sign, tuple(factors)), EAGER_BITS)


def _by_normal_form(sums: Sums) -> TowerDecision | None:
    """A decision where the sums agree in sign, or are ordinary numbers all of them."""
    flat = [Factor(q, c) for q, terms in sums for c, tower in terms if tower == ONE]
    if len(flat) == sum(len(terms) for _, terms in sums):
        terms = plain_terms(flat)
        assert terms is not None
        found = decide(terms)
        return TowerDecision(found.sign, "normal form", found.bits, found)
    signs = {_sign_of_sum(terms) for _, terms in sums}
    if len(signs) == 1 and None not in signs:
        return TowerDecision(signs.pop(), "normal form")
    if signs <= {0, 1} or signs <= {0, -1}:
        return TowerDecision(sum(s for s in signs if s), "normal form")
    return None


def _sign_of_sum(terms: Sequence[tuple[Rational, Value]]) -> int | None:
    """The sign of a sum of coefficient * tower; None where it stays open."""
    values = [_scaled(c, tower) for c, tower in terms]
    signs = {value.sign for value in values}
    if len(signs) == 1:
        return signs.pop()
    if len(values) == 2:
        # x - y is a question of one level less, and has an exact answer more often.
        x, y = values if values[0].sign > 0 else reversed(values)
        return compare_products(x, negative(y)).sign
    for bits in PRECISIONS[:2]:
        try:
            above = [log_of(v, bits) for v in values if v.sign > 0]
            below = [log_of(v, bits) for v in values if v.sign < 0]
            found = levels.compare(
                levels.log_of_sum(above, bits), levels.log_of_sum(below, bits), bits
            )
        except Unresolved:
            continue
        if found is not None:
            return found
    return None


def _scaled(coefficient: Rational, tower: Value) -> Value:
    return times(coefficient, tower)


_ = Product
