"""The terms of a sum: those whose quotient is rational are added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from noisewise.powers import radicals
from noisewise.powers.values import (
    ONE,
    WRITTEN_BITS,
    ZERO,
    Factor,
    Product,
    Rational,
    Sum,
    Value,
    inverse,
    plus,
    settled,
    times,
    written,
)

MAX_ROOTS = 500  # irrational roots in one sum; more would take minutes
MAX_OTHERS = 50  # terms with towers, e or pi in one sum
_MAX_EXPANDED = 300  # products of terms when sums are multiplied out
_MAX_POWER = 8  # of a sum that is multiplied out


def gathered(values: Iterable[Value]) -> list[Value]:
    """The terms of a sum, with all terms added whose quotient is known to be rational.

    Raises:
        ValueError: for more than 500 different roots or 50 other terms, and for roots of numbers
            that are too long.
    """
    total, roots, others = ZERO, [], []
    for value in _flat(values):
        number = written(value, WRITTEN_BITS)
        if number is not None:
            total = plus(total, number)
        else:
            (roots if radicals.is_plain_root(value) else others).append(value)
    if len(roots) > MAX_ROOTS or len(others) > MAX_OTHERS:
        raise ValueError(
            f"this sum has more than {MAX_ROOTS} roots or {MAX_OTHERS} terms with towers, e or pi; "
            "compare a shorter one"
        )
    others = _merged(others)
    return [*radicals.like_terms([*([total] if total.p else []), *roots]), *others]


def expanded(value: Value) -> list[Value]:
    """The terms of a product of sums, multiplied out if there are not too many.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> expanded(parse("(1 + sqrt(2)) * (1 - sqrt(2))").value)
        [Rational(p=-1, q=1)]
    """
    factors = value.factors if isinstance(value, Product) else ()
    sums: list[Sum] = []
    rest: list[Factor] = []
    for factor in factors:
        base, e = factor.base, factor.exponent
        if isinstance(base, Sum) and isinstance(e, Rational) and e.q == 1 and 0 < e.p <= _MAX_POWER:
            sums += [base] * e.p
        else:
            rest.append(factor)
    if not sums:
        return [value]
    terms: list[Value] = [settled(value.sign, tuple(rest))]
    for one in sums:
        if len(terms) * len(one.terms) > _MAX_EXPANDED:
            return [value]
        terms = gathered(times(x, y) for x in terms for y in one.terms)
    return terms


def _flat(values: Iterable[Value]) -> Iterable[Value]:
    """The terms; a number times a sum becomes its terms."""
    for value in values:
        factors = value.factors if isinstance(value, Product) else ()
        sums = [f for f in factors if isinstance(f.base, Sum) and f.exponent == ONE]
        if len(sums) == 1 and isinstance(value, Product):
            rest = settled(value.sign, tuple(f for f in factors if f is not sums[0]))
            inner = sums[0].base
            assert isinstance(inner, Sum)
            if isinstance(rest, Rational):
                yield from (times(rest, term) for term in inner.terms)
                continue
        yield value


def _merged(values: Sequence[Value]) -> list[Value]:
    heads: list[tuple[Value, Rational]] = []
    for value in values:
        for i, (head, factor) in enumerate(heads):
            ratio = times(value, inverse(head))
            if isinstance(ratio, Rational):
                heads[i] = head, plus(factor, ratio)
                break
        else:
            heads.append((value, ONE))
    return [times(factor, head) for head, factor in heads if factor.p]
