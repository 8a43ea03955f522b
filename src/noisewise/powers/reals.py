"""Compares numbers with e, pi, sums, large factorials or very tall towers in them.

Intervals of growing precision decide the order. Equality is found where factors or terms cancel,
and for roots of numbers and sums of roots by an exact test (radicals.py). What none of these
decides stays undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from noisewise.powers import levels, linear_forms, radicals
from noisewise.powers.hyperpowers import MAX_LEVELS, arrows
from noisewise.powers.intervals import Interval, Unresolved, quotient
from noisewise.powers.levels import Tall
from noisewise.powers.logarithms import log as log_interval
from noisewise.powers.logarithms import log_ratio, pi
from noisewise.powers.stirling import log_factorial, log_of_tower_factorial
from noisewise.powers.terms import expanded, gathered
from noisewise.powers.towers import compare_products, plain_terms
from noisewise.powers.values import (
    ONE,
    Atom,
    Constant,
    Factor,
    Factorial,
    Product,
    Rational,
    Sum,
    Tetration,
    Value,
    has_atoms,
    inverse,
    negative,
    plus,
    settled,
    times,
    written,
)

PRECISIONS = (64, 256, 1024, 4096)  # bits, tried in this order
_ROOT_PRECISIONS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
_QUICK = 2  # so many precisions are tried before terms are subtracted
_MAX_STEPS = 10_000  # factors between two factorials that are multiplied out
_MAX_STEP_BITS = 400_000
_MAX_EXACT = 200_000  # the largest n for which n! is computed in full, if nothing else decides


class RealDecision(NamedTuple):
    """A sign or None, and how it was found."""

    sign: int | None
    way: str  # "factors", "intervals", "levels", "same base", "terms", "roots", "computed", "open"
    bits: int = 0
    ln_ratio: Interval | None = None
    terms: tuple[Value, ...] = ()  # of the difference, or the quotient alone, where these decided


def decide(x: Value, y: Value) -> RealDecision:
    """The sign of x - y for positive values.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> decide(parse("e^pi").value, parse("pi^e").value).sign
        1
        >>> decide(parse("sqrt(3 + 2 * sqrt(2))").value, parse("1 + sqrt(2)").value).sign
        0
    """
    ratio = _without_factorials(times(x, inverse(y)))
    if isinstance(ratio, Rational):
        sign = (ratio.p > ratio.q) - (ratio.p < ratio.q)
        return RealDecision(sign, "factors", terms=(ratio,))
    if all(_cancels(members) for _, members in _grouped(ratio.factors)):
        return RealDecision(0, "factors", terms=(ONE,))
    if not has_atoms(ratio):
        plain = compare_products(ratio, ONE)
        log = plain.plain.value if plain.plain and plain.scale == 1 else None
        return RealDecision(plain.sign, "intervals" if plain.sign else "factors", plain.bits, log)
    for bits in PRECISIONS[:_QUICK]:
        found = _by_intervals(ratio, bits)
        if found is not None:
            return found
    for method in (_by_towers, _by_same_height, _by_exact_factorials):
        found = method(x, y)
        if found is not None:
            return found
    found = _by_difference(ratio)
    if found is not None:
        return found
    for bits in PRECISIONS[_QUICK:]:
        found = _by_intervals(ratio, bits)
        if found is not None:
            return found
    return RealDecision(None, "open", PRECISIONS[-1])


def _by_intervals(ratio: Product, bits: int) -> RealDecision | None:
    """The sign of the logarithm of a quotient; the two sides one by one if both are very large."""
    try:
        log = log_of(ratio, bits)
        if log.level == 0 and log.t.sign in (-1, 1):
            return RealDecision(log.t.sign, "intervals", bits, log.t)
        if log.level:
            return RealDecision(log.sign, "levels", bits)
    except Unresolved:
        pass
    try:
        above, below = numerator_and_denominator(ratio)
        sign = levels.compare(log_of(above, bits), log_of(below, bits), bits)
    except Unresolved:
        return None
    return None if sign is None else RealDecision(sign, "levels", bits)


def numerator_and_denominator(ratio: Product) -> tuple[Value, Value]:
    """The factors with positive exponents, and those with negative exponents inverted."""
    above = tuple(f for f in ratio.factors if f.exponent.sign > 0)
    below = tuple(Factor(f.base, negative(f.exponent)) for f in ratio.factors if f not in above)
    return settled(1, above), settled(1, below)


def _by_towers(x: Value, y: Value) -> RealDecision | None:
    """For a^X against a^^h: X against a^^(h - 1)."""
    a, b = _single(x), _single(y)
    if a is None or b is None:
        return None
    if isinstance(a.base, Tetration):
        found = None if isinstance(b.base, Tetration) else _by_towers(y, x)
        return None if found is None or found.sign is None else found._replace(sign=-found.sign)
    if not isinstance(b.base, Tetration) or a.base != b.base.base or b.exponent != ONE:
        return None
    found = decide(a.exponent, lower(b.base))
    return found._replace(way="same base")


def _by_same_height(x: Value, y: Value) -> RealDecision | None:
    """For towers such as 9^(10^^200) and 10^^201, which is 10^(10^^200): the same exponents."""
    lowered = [_lowered(value) for value in (x, y)]
    if lowered == [x, y]:
        return None
    ratio = times(lowered[0], inverse(lowered[1]))
    if isinstance(ratio, Rational):
        return RealDecision((ratio.p > ratio.q) - (ratio.p < ratio.q), "factors", terms=(ratio,))
    for bits in PRECISIONS[:_QUICK]:
        found = _by_intervals(ratio, bits)
        if found is not None:
            return found
    return None


def _lowered(value: Value) -> Value:
    """Tall towers that are a factor, written as a power: a^(a^^(h - 1))."""
    if isinstance(value, Rational):
        return value
    result: Value = Rational(value.sign)
    for factor in value.factors:
        base, part = factor.base, factor
        if isinstance(base, Tetration) and factor.exponent == ONE:
            part = Factor(base.base, lower(base))
        result = times(result, Product(1, (part,)))
    return result


def _by_exact_factorials(x: Value, y: Value) -> RealDecision | None:
    """Factorials of moderate numbers computed in full, if all else is powers of whole numbers."""
    ratio = times(x, inverse(y))
    if isinstance(ratio, Rational):
        return None
    factors = []
    for factor in ratio.factors:
        base = factor.base
        if isinstance(base, Factorial):
            n = written(base.n, 64)
            if n is None or n.p // n.q > _MAX_EXACT:
                return None
            base = math.factorial(n.p // n.q)
        factors.append(Factor(base, factor.exponent))
    plain = plain_terms(factors)
    if plain is None:
        return None
    return RealDecision(linear_forms.decide(plain[0]).sign, "computed")


def _single(value: Value) -> Factor | None:
    is_one = isinstance(value, Product) and value.sign > 0 and len(value.factors) == 1
    return value.factors[0] if is_one and isinstance(value, Product) else None


def lower(tower: Tetration) -> Value:
    """The logarithm of a tower to its own base: the tower with one level less.

    Example:
        >>> lower(Tetration(3, 60)).factors[0].base.height
        59
    """
    return arrows(Rational(tower.base), 2, Rational(tower.height - 1))


def _by_difference(ratio: Product) -> RealDecision | None:
    """The sign of numerator - denominator, if one of them is a sum or both are algebraic."""
    above, below = numerator_and_denominator(ratio)
    both = (above, below)
    algebraic = all(map(radicals.is_algebraic, both))
    if not algebraic and not any(_is_sum(side) for side in both):
        return None
    try:
        terms = gathered((*expanded(above), *map(negative, expanded(below))))
    except ValueError:
        return None
    if not terms:
        return RealDecision(0, "terms")
    sign = sign_of_sum(terms)
    way = "roots" if algebraic else "terms"
    return None if sign is None else RealDecision(sign, way, terms=tuple(terms))


def _is_sum(value: Value) -> bool:
    return isinstance(value, Product) and any(isinstance(f.base, Sum) for f in value.factors)


# ------------------------------------------------------------------------------------- sums


def sign_of_sum(terms: Sequence[Value]) -> int | None:
    """-1, 0 or 1; None if it stays open. The terms are those of `terms.gathered`.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> sign_of_sum([parse("sqrt(2)").value, parse("-141421356/10^8").value])
        1
    """
    signs = {term.sign for term in terms}
    if len(signs) < 2:
        return signs.pop() if signs else 0
    if all(map(radicals.is_algebraic, terms)):
        return _sign_of_roots(terms)
    for bits in PRECISIONS:
        try:
            found = levels.sign(_log_of_difference(terms, bits)[1])
        except Unresolved:
            continue
        if found is not None:
            return found
    return None


def _sign_of_roots(terms: Sequence[Value]) -> int | None:
    """The sign of a sum of algebraic numbers."""
    # Plain roots that are left after like terms were added cannot cancel.
    differ = all(map(radicals.is_plain_root, terms))
    limit: int | None = None
    for bits in _ROOT_PRECISIONS:
        try:
            value = radicals.add_up(terms, bits)
        except Unresolved:
            continue
        if value.sign is not None:
            return value.sign
        if not differ:
            limit = radicals.separation_bits(terms) if limit is None else limit
            size = max(abs(value.lo), abs(value.hi)).bit_length() + value.exp
            if limit is not None and size < -limit:
                return 0
    return None


def _log_of_difference(terms: Sequence[Value], bits: int) -> tuple[Tall, Tall]:
    """The logarithm of |sum|, and a number with the sign of the sum.

    Raises:
        Unresolved: if the terms nearly cancel.
    """
    above = [log_of(t, bits) for t in terms if t.sign > 0]
    below = [log_of(t, bits) for t in terms if t.sign < 0]
    plain = [levels.tall(Interval(s, s, 0)) for s in (1, -1)]
    if not below or not above:
        return levels.log_of_sum(above or below, bits), plain[0 if above else 1]
    x, y = levels.log_of_sum(above, bits), levels.log_of_sum(below, bits)
    order = levels.compare(x, y, bits)
    if not order:
        raise Unresolved
    if order < 0:
        x, y = y, x
    return levels.joined(x, y, -1, bits), plain[0 if order > 0 else 1]


# ------------------------------------------------------------------------------------- logarithms


def log_of(value: Value, bits: int) -> Tall:
    """The logarithm of |value| for a value that is not 0.

    Raises:
        Unresolved: if numbers nearly cancel.
    """
    if isinstance(value, Rational):
        return levels.tall(log_ratio(abs(value.p), value.q, bits))
    total = levels.tall(Interval(0, 0, 0))
    for head, members in _grouped(value.factors):
        if not isinstance(head, Rational) and _cancels(members):
            continue
        inner = levels.tall(Interval(0, 0, 0))
        for base, ratio in _close_joined(members):
            inner = levels.add(inner, _scaled(ratio, base, bits), bits)
        total = levels.add(total, _product(head, inner, bits), bits)
    return total


Member = tuple["int | Atom | Fraction", Rational]


def _grouped(factors: Iterable[Factor]) -> list[tuple[Value, list[Member]]]:
    """Factors with exponents of a rational quotient together: (head, [(base, ratio)])."""
    groups: list[tuple[Value, list[Member]]] = []
    for factor in factors:
        for head, members in groups:
            ratio = times(factor.exponent, inverse(head))
            if isinstance(ratio, Rational):
                members.append((factor.base, ratio))
                break
        else:
            groups.append((factor.exponent, [(factor.base, ONE)]))
    return [(head, merged) for head, members in groups if (merged := _merged(members))]


def _cancels(members: Sequence[Member]) -> bool:
    """Whether a product of rational powers of whole numbers is 1, by exact arithmetic."""
    if not all(isinstance(base, int) for base, _ in members) or len(members) < 2:
        return False
    plain = plain_terms([Factor(b, r) for b, r in members if isinstance(b, int)])
    return plain is not None and linear_forms.decide(plain[0]).sign == 0


def _merged(members: Sequence[Member]) -> list[Member]:
    found: dict[int | Atom | Fraction, Rational] = {}
    for base, ratio in members:
        found[base] = plus(found.get(base, Rational(0)), ratio)
    return [(base, ratio) for base, ratio in found.items() if ratio.p]


def _close_joined(members: Sequence[Member]) -> list[Member]:
    """Neighbours r log p - r log q become r log(p / q), which is precise for p / q near 1."""
    joined: list[Member] = []
    for base, ratio in members:
        last = joined[-1] if joined else None
        if (
            last
            and isinstance(base, int)
            and isinstance(last[0], int)
            and last[1] == negative(ratio)
        ):
            joined[-1] = Fraction(last[0], base), last[1]
        else:
            joined.append((base, ratio))
    return joined


def _scaled(ratio: Rational, base: int | Atom | Fraction, bits: int) -> Tall:
    """The number ratio * log(base)."""
    return _product(ratio, _log_of_base(base, bits), bits)


def _product(factor: Value, log: Tall, bits: int) -> Tall:
    """The product of a value and a number."""
    if isinstance(factor, Rational) and log.level == 0:
        return levels.tall(quotient(factor.p, factor.q, bits).times(log.t, bits))
    if factor == ONE:
        return log
    sign = levels.sign(log)
    if sign is None:
        raise Unresolved
    if sign == 0:
        return log
    size = levels.log(log if sign > 0 else levels.opposite(log), bits)
    product = levels.exp(levels.add(log_of(factor, bits), size, bits), bits)
    return product if sign * factor.sign > 0 else levels.opposite(product)


def _log_of_base(base: int | Atom | Fraction, bits: int) -> Tall:
    if isinstance(base, int | Fraction):
        return levels.tall(log_ratio(base.numerator, base.denominator, bits))
    if isinstance(base, Constant):
        one = Interval(1, 1, 0)
        return levels.tall(one if base.name == "e" else log_interval(pi(bits), bits))
    if isinstance(base, Factorial):
        if isinstance(base.n, Rational):
            return levels.tall(log_factorial(base.n.p // base.n.q, bits))
        return log_of_tower_factorial(log_of(base.n, bits), bits)
    if isinstance(base, Tetration):
        return _log_of_tower(base, bits)
    return _log_of_sum(base, bits)


def _log_of_sum(base: Sum, bits: int) -> Tall:
    """The logarithm of a sum above 0, with more bits if its terms nearly cancel."""
    exact = all(map(radicals.is_algebraic, base.terms))
    for inner in (p for p in _ROOT_PRECISIONS if p >= bits and (exact or p <= PRECISIONS[-1])):
        try:
            if not exact:
                return _log_of_difference(base.terms, inner)[0]
            value = radicals.add_up(base.terms, inner)
            if value.lo > 0 and value.lo.bit_length() > bits:
                return levels.tall(log_interval(value, bits))
        except Unresolved:
            continue
    raise Unresolved


@lru_cache(maxsize=64)
def _log_of_tower(tower: Tetration, bits: int) -> Tall:
    """The logarithm of a^^h, which is a^^(h - 1) * ln a."""
    ln_a = levels.tall(log_ratio(tower.base, 1, bits))
    log, levels_done = ln_a, 1  # the logarithm of a^^1
    while log.level < 3:
        # ln a^^(k+1) = e^(ln a^^k) * ln a
        log = levels.exp(levels.add(log, levels.log(ln_a, bits), bits), bits)
        levels_done += 1
        assert levels_done <= MAX_LEVELS
    # Each further level adds ln ln a, which is below 2^9 for every number a in memory, to a number
    # exp(exp(...)) of level 2 or more. That changes t by less than 2^(10 - k) for the k below.
    more = tower.height - levels_done
    k = min(log.t.lo << log.t.exp if log.t.exp >= 0 else log.t.lo >> -log.t.exp, 64 * bits)
    widening = more.bit_length() + 10 - k
    if widening > -1:
        raise Unresolved
    t = log.t.plus(Interval(-1, 1, widening), bits)
    return Tall(1, log.level + more, t)


# ------------------------------------------------------------------------------------- factorials


def _without_factorials(value: Value) -> Value:
    """Factorials whose numbers are close written as the smallest of them: 9! = 7! * 8 * 9."""
    if isinstance(value, Rational):
        return value
    found = [f.base.n for f in value.factors if isinstance(f.base, Factorial)]
    numbers = sorted(n.p // n.q for n in found if isinstance(n, Rational))
    if len(numbers) < 2:
        return value
    result: Value = Rational(value.sign)
    for factor in value.factors:
        part: Value = Product(1, (factor,))
        base = factor.base
        if isinstance(base, Factorial) and isinstance(base.n, Rational):
            n = base.n.p // base.n.q
            near = min(m for m in numbers if n - m <= _MAX_STEPS)
            if near < n and (n - near) * n.bit_length() <= _MAX_STEP_BITS:
                extra = 1
                for k in range(near + 1, n + 1):
                    extra *= k
                rest = Factor(Factorial(Rational(near)), factor.exponent)
                part = settled(1, (rest, Factor(extra, factor.exponent)))
        result = times(result, part)
    return result
