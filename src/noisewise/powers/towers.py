"""Compares towers: powers whose exponents are powers again.

    a^X against c^Y:   log X + log log a   against   log Y + log log c,   and so on, level by level.

There are four methods: exponents that are multiples of each other are grouped, which leaves exact
linear forms in logarithms; intervals of growing precision in `levels`; a normal form over coprime
bases, where a^X = c^Y holds if and only if a = g^i, c = g^j and i X = j Y, a question with one
level less; and writing out exponents of up to a million digits. They do not decide every question
about towers; if none of them does, the answer is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from noisewise.powers import levels
from noisewise.powers.coprime import coprime_base, valuations
from noisewise.powers.intervals import Interval, Unresolved, quotient
from noisewise.powers.levels import Tall
from noisewise.powers.linear_forms import Decision, Term, decide, enclose
from noisewise.powers.logarithms import log as log_interval
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.values import (
    EAGER_BITS,
    ONE,
    WRITTEN_BITS,
    Factor,
    Rational,
    Value,
    as_product,
    inverse,
    negative,
    plus,
    rational,
    settled,
    times,
    written,
)

PRECISIONS = (64, 256, 1024, 4096)  # bits, tried in this order
_MAX_COPRIME_BITS = 200_000  # of all bases together; above this, no normal form is tried


class TowerDecision(NamedTuple):
    """A sign or None, and how it was found."""

    sign: int | None
    way: str  # "plain", "shared exponent", "levels", "normal form", "open"
    bits: int = 0
    plain: Decision | None = None  # if all exponents are rational numbers
    scale: int = 1  # the value of the plain decision is scale * ln(x / y)


def plain_terms(factors: Sequence[Factor]) -> tuple[list[Term], int] | None:
    """(terms, scale) of a product without towers: sum E log n = (sum of the terms) / scale.

    The scale is the common denominator of the exponents; it makes them whole.
    """
    scale = 1
    for factor in factors:
        if not isinstance(factor.exponent, Rational) or not isinstance(factor.base, int):
            return None
        if scale % factor.exponent.q:
            scale *= factor.exponent.q
    terms = [
        Term(f.exponent.p * (scale // f.exponent.q), f.base, 1)
        for f in factors
        if isinstance(f.exponent, Rational) and isinstance(f.base, int)
    ]
    return _fractions(terms), scale


def _fractions(terms: Sequence[Term]) -> list[Term]:
    """Joins neighbours E log p - E log q into E log(p / q), which is precise for p / q near 1."""
    joined: list[Term] = []
    for term in terms:
        last = joined[-1] if joined else None
        if last and last.q == 1 and last.exponent == -term.exponent:
            joined[-1] = Term(last.exponent, last.p, term.p)
        else:
            joined.append(term)
    return joined


# Answers that were found before: without them, the number of questions doubles with every level.
Memo = dict[tuple[str, Value, Value], Any]


def compare_products(x: Value, y: Value, memo: Memo | None = None) -> TowerDecision:
    """The sign of log x - log y for positive values.

    Args:
        x: a value above 0.
        y: a value above 0.
        memo: answers found so far; for the recursion.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> compare_products(parse("10^10^10^10").value, parse("10^10^10^11").value).sign
        -1
    """
    memo = {} if memo is None else memo
    key = ("compare", x, y)
    if key not in memo:
        memo[key] = TowerDecision(0, "normal form") if x == y else _compared(x, y, memo)
    return memo[key]


def _compared(x: Value, y: Value, memo: Memo) -> TowerDecision:
    factors = (*as_product(x).factors, *as_product(inverse(y)).factors)
    plain = plain_terms(factors)
    if plain is not None:
        return _plain(plain)
    groups = shared_exponents(factors, memo)
    signs = {group.sign for group in groups}
    if len(signs) < 2:
        return TowerDecision(signs.pop() if signs else 0, "shared exponent")
    sign = _by_levels(groups, PRECISIONS[0])
    if sign is not None:
        return TowerDecision(sign, "levels", PRECISIONS[0])
    sums = normal_form(factors, memo)
    sign = None if sums is None else _by_normal_form(sums, memo)
    if sign is not None:
        return TowerDecision(sign, "normal form")
    return _by_rising_precision(factors, groups)


def _by_rising_precision(factors: Sequence[Factor], groups: Sequence[Group]) -> TowerDecision:
    for bits in PRECISIONS[1:]:
        sign = _by_levels(groups, bits)
        if sign is not None:
            return TowerDecision(sign, "levels", bits)
    out = [Factor(f.base, written(f.exponent, WRITTEN_BITS) or f.exponent) for f in factors]
    plain = plain_terms(out)
    return TowerDecision(None, "open", PRECISIONS[-1]) if plain is None else _plain(plain)


def _plain(plain: tuple[list[Term], int]) -> TowerDecision:
    terms, scale = plain
    found = decide(terms)
    return TowerDecision(found.sign, "plain", found.bits, found, scale)


# ------------------------------------------------------------------------------- shared exponents


class Group(NamedTuple):
    """tower * (sum of c log n over the terms): tower > 0, and the sum has this sign, never 0."""

    tower: Value
    terms: list[Term]
    sign: int


def shared_exponents(factors: Sequence[Factor], memo: Memo | None = None) -> list[Group]:
    """The sum of E log n, grouped by exponents that are rational multiples of each other.

    The sign of each group's sum of logarithms is exact; groups with the sum 0 are left out.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> x = parse("10^10^10^10 * 9^-10^10^10")
        >>> [group.sign for group in shared_exponents(as_product(x.value).factors)]
        [1]
    """
    memo = {} if memo is None else memo
    heads: list[tuple[Value, list[Factor]]] = []
    for factor in factors:
        for head, members in heads:
            ratio = constant_ratio(factor.exponent, head, memo)
            if ratio is not None:
                members.append(Factor(factor.base, ratio))
                break
        else:
            heads.append((factor.exponent, [Factor(factor.base, ONE)]))
    groups = []
    for head, members in heads:
        plain = plain_terms(members)
        assert plain is not None
        terms, scale = plain
        sign = decide(terms).sign * head.sign
        if sign:
            if head.sign < 0:  # make the tower positive and change the sign of the sum
                head, terms = negative(head), [Term(-e, p, q) for e, p, q in terms]
            # The tower takes the common denominator of the terms.
            groups.append(Group(times(head, Rational(1, scale)), terms, sign))
    return groups


# ------------------------------------------------------------------------------------- intervals


def _by_levels(groups: Sequence[Group], bits: int) -> int | None:
    """The sign of the sum of all groups: positive groups against negative groups."""
    try:
        above = [_log_of_group(group, bits) for group in groups if group.sign > 0]
        below = [_log_of_group(group, bits) for group in groups if group.sign < 0]
        return levels.compare(levels.log_of_sum(above, bits), levels.log_of_sum(below, bits), bits)
    except Unresolved:
        return None


def _log_of_group(group: Group, bits: int) -> Tall:
    """The logarithm of |tower * sum of c log n|."""
    value = enclose(group.terms, bits)
    if value.sign is None:
        raise Unresolved  # the sum is not 0, so more bits will decide
    value = value if value.sign > 0 else value.negated()
    return levels.add(log_of(group.tower, bits), levels.tall(log_interval(value, bits)), bits)


def log_of(value: Value, bits: int) -> Tall:
    """The logarithm of |value| for a value that is not 0.

    Raises:
        Unresolved: if terms of opposite signs nearly cancel.
    """
    if isinstance(value, Rational):
        return levels.tall(log_ratio(abs(value.p), value.q, bits))
    result = levels.tall(Interval(0, 0, 0))
    # Without the groups, log (7/3)^T would be T ln 7 - T ln 3, which no precision can tell from 0.
    for group in shared_exponents(value.factors):
        result = levels.add(result, _term(group, bits), bits)
    return result


def _term(group: Group, bits: int) -> Tall:
    """The tower times its sum of c log n."""
    if isinstance(group.tower, Rational):
        factor = quotient(group.tower.p, group.tower.q, bits)
        return levels.tall(factor.times(enclose(group.terms, bits), bits))
    size = levels.exp(_log_of_group(group, bits), bits)
    return size if group.sign > 0 else levels.opposite(size)


# ----------------------------------------------------------------------------------- normal form

Sums = list[tuple[int, list[tuple[Rational, Value]]]]  # (q, terms (coefficient, tower or ONE))


def normal_form(factors: Sequence[Factor], memo: Memo | None = None) -> Sums | None:
    """A product over the coprime base of its bases: q^(sum of coefficient * tower) for each q.

    Towers with a rational ratio become one term, and sums of 0 are left out. An empty list means
    that the product is 1. None if the bases are too large.
    """
    memo = {} if memo is None else memo
    bases = [f.base for f in factors if isinstance(f.base, int)]
    if len(bases) < len(factors) or sum(n.bit_length() for n in bases) > _MAX_COPRIME_BITS:
        return None
    base = coprime_base(bases)
    rows = [valuations(n, base) for n in bases]
    places, heads = _heads([f.exponent for f in factors], memo)
    sums = []
    for j, q in enumerate(base):
        totals = [Rational(0)] * len(heads)
        for row, (head, ratio) in zip(rows, places, strict=True):
            totals[head] = plus(totals[head], _product(Rational(row[j]), ratio))
        gathered = [(c, tower) for c, tower in zip(totals, heads, strict=True) if c.p]
        if gathered:
            sums.append((q, gathered))
    return sums


def _heads(
    exponents: Sequence[Value], memo: Memo
) -> tuple[list[tuple[int, Rational]], list[Value]]:
    """Each exponent as (index of a head, ratio to that head), and the list of heads."""
    places: list[tuple[int, Rational]] = []
    heads: list[Value] = []
    for given in exponents:
        ratio: Rational | None = None
        tower = ONE if isinstance(given, Rational) else given
        for k, head in enumerate(heads):
            ratio = constant_ratio(tower, head, memo)
            if ratio is not None:
                places.append((k, ratio))
                break
        else:
            places.append((len(heads), ONE))
            heads.append(tower)
        if isinstance(given, Rational):
            place, ratio = places[-1]
            places[-1] = (place, _product(ratio, given))
    return places, heads


def _product(x: Rational, y: Rational) -> Rational:
    return rational(x.p * y.p, x.q * y.q)


def constant_ratio(x: Value, y: Value, memo: Memo | None = None) -> Rational | None:
    """The quotient x / y if it can be shown to be rational, else None.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> constant_ratio(parse("4^10^20").value, parse("2^(2*10^20 - 1)").value)
        Rational(p=2, q=1)
    """
    if isinstance(x, Rational) and isinstance(y, Rational):
        return _product(x, Rational(y.q, y.p) if y.p > 0 else Rational(-y.q, -y.p))
    if x == y:
        return ONE
    if x == negative(y):
        return Rational(-1)
    memo = {} if memo is None else memo
    key = ("ratio", x, y)
    if key not in memo:
        memo[key] = _ratio(x, y, memo)
    return memo[key]


def _ratio(x: Value, y: Value, memo: Memo) -> Rational | None:
    a, b = as_product(x), as_product(inverse(y))
    sums = normal_form((*a.factors, *b.factors), memo)
    if sums is None:
        return None
    factors = []
    for q, terms in sums:
        if len(terms) != 1 or terms[0][1] != ONE:
            return None
        factors.append(Factor(q, terms[0][0]))
    return written(settled(a.sign * b.sign, tuple(factors)), EAGER_BITS)


def _by_normal_form(sums: Sums, memo: Memo) -> int | None:
    """The common sign of all sums that are not 0; None if there is none."""
    signs = {_sign_of_sum(terms, memo) for _, terms in sums}
    if None in signs or len(signs - {0}) > 1:
        return None
    return sum(s for s in signs if s)


def _sign_of_sum(terms: Sequence[tuple[Rational, Value]], memo: Memo) -> int | None:
    """The sign of a sum of coefficient * tower; None if it stays open."""
    values = [times(c, tower) for c, tower in terms]
    signs = {value.sign for value in values}
    if len(signs) == 1:
        return signs.pop()
    if len(values) == 2:
        # x - y is a question with one level less, so it has an exact answer more often.
        x, y = values if values[0].sign > 0 else reversed(values)
        return compare_products(x, negative(y), memo).sign
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
