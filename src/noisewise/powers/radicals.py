"""Sums of roots: like terms are added, and a sum is proved to be 0 or not.

Real roots such that no quotient of two of them is rational are linearly independent over the
rational numbers (Besicovitch 1940 for roots of coprime numbers, Mordell 1953 and Siegel 1972 for
all real ones). So a sum of plain roots is 0 only if all its terms cancel.

For roots of sums there is a bound below which the sum can only be 0 (Burnikel, Funke, Mehlhorn,
Schirra and Schmitt 2001, "A separation bound for real algebraic expressions").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from noisewise.powers.big_integers import exact_root
from noisewise.powers.coprime import coprime_base, valuations
from noisewise.powers.intervals import Interval, Unresolved, quotient, whole
from noisewise.powers.values import (
    ZERO,
    Factor,
    Product,
    Rational,
    Sum,
    Value,
    plus,
    rational,
    settled,
    times,
)

MAX_BASE_BITS = 200_000  # of all bases under roots together; longer ones would take minutes
_MAX_WRITTEN_BITS = 1 << 20  # of the rational factor of a term
_MAX_DEGREE = 64  # roots of a higher degree are evaluated by logarithms
_MAX_POWER = 1 << 20  # larger exponents are evaluated by logarithms


# ------------------------------------------------------------------------------------- like terms


def is_plain_root(value: Value) -> bool:
    """Whether a value is c * (product of roots of whole numbers) with a c of moderate length."""
    if isinstance(value, Rational):
        return True
    if not value.is_plain:
        return False
    size = 0
    for base, exponent in _plain_factors(value):
        size += abs(exponent.p) // exponent.q * base.bit_length()
    return size <= _MAX_WRITTEN_BITS


def _plain_factors(value: Product) -> Iterable[tuple[int, Rational]]:
    for factor in value.factors:
        assert isinstance(factor.base, int)
        assert isinstance(factor.exponent, Rational)
        yield factor.base, factor.exponent


def like_terms(values: Sequence[Value]) -> list[Value]:
    """The same sum with all terms added whose quotient is rational; terms of 0 are left out.

    Args:
        values: plain roots, see `is_plain_root`.

    Raises:
        ValueError: if the numbers under the roots are too long.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> like_terms([parse("sqrt(8)").value, parse("-2 * sqrt(2)").value])
        []
    """
    roots = [
        (n, e)
        for value in values
        if isinstance(value, Product)
        for n, e in _plain_factors(value)
        if not e.is_whole
    ]
    bases = {n for n, _ in roots}
    if sum(n.bit_length() for n in bases) > MAX_BASE_BITS:
        raise ValueError(
            "the numbers under the roots of a sum have more than 60,000 digits together; compare "
            "one term at a time"
        )
    degree = math.lcm(*(e.q for _, e in roots))
    coprime = _without_roots(coprime_base(bases), degree)
    known = {n: [(j, v) for j, v in enumerate(valuations(n, coprime)) if v] for n in bases}
    sums: dict[_Key, Rational] = {}
    for value in values:
        factor, key = _split(value, coprime, known, degree)
        sums[key] = plus(sums.get(key, ZERO), factor)
    return [_joined(factor, key, coprime, degree) for key, factor in sums.items() if factor.p]


_Key = tuple[tuple[int, int], ...]  # pairs (j, k): the root q_j^(k / degree)


def _without_roots(base: Iterable[int], degree: int) -> list[int]:
    """Each number replaced by its root of the largest degree that is made of primes of `degree`."""
    found = []
    for q in base:
        for k in _primes(degree):
            while (root := exact_root(q, k)) is not None:
                q = root
        found.append(q)
    return found


def _primes(n: int) -> list[int]:
    """The small primes that divide n; a degree of more than a million has no exact root here."""
    found, k = [], 2
    while k * k <= n and k < 1000:
        if n % k == 0:
            found.append(k)
            while n % k == 0:
                n //= k
        k += 1
    return [*found, n] if n > 1 else found


def _split(
    value: Value, coprime: Sequence[int], known: dict[int, list[tuple[int, int]]], degree: int
) -> tuple[Rational, _Key]:
    """A plain root as c * prod q_j^(k_j / degree) with 0 < k_j < degree: c and the (j, k_j)."""
    if isinstance(value, Rational):
        return value, ()
    exponents: dict[int, int] = {}
    p, q = value.sign, 1
    for n, exponent in _plain_factors(value):
        if exponent.is_whole:
            k = exponent.p // exponent.q
            p, q = (p * n**k, q) if k > 0 else (p, q * n**-k)
        else:
            scaled = exponent.p * (degree // exponent.q)
            for j, v in known[n]:
                exponents[j] = exponents.get(j, 0) + v * scaled
    key = []
    for j, e in sorted(exponents.items()):
        k, rest = divmod(e, degree)
        p, q = (p * coprime[j] ** k, q) if k > 0 else (p, q * coprime[j] ** -k)
        if rest:
            key.append((j, rest))
    return rational(p, q), tuple(key)


def _joined(factor: Rational, key: _Key, coprime: Sequence[int], degree: int) -> Value:
    roots = tuple(Factor(coprime[j], rational(k, degree)) for j, k in key)
    return times(factor, settled(1, roots)) if roots else factor


# ------------------------------------------------------------------------------------- evaluation


def is_algebraic(value: Value) -> bool:
    """Whether `evaluate` can compute the value: roots of moderate degree of numbers and sums."""
    if isinstance(value, Rational):
        return True
    for factor in value.factors:
        e = factor.exponent
        if not isinstance(e, Rational) or e.q > _MAX_DEGREE or abs(e.p) > _MAX_POWER:
            return False
        if isinstance(factor.base, Sum):
            if not all(map(is_algebraic, factor.base.terms)):
                return False
        elif not isinstance(factor.base, int):
            return False
    return True


@lru_cache(maxsize=64)
def evaluate(value: Value, bits: int) -> Interval:
    """An interval of about `bits` bits around an algebraic value; roots by whole numbers.

    Raises:
        Unresolved: if terms below a root nearly cancel.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> low, high = evaluate(parse("sqrt(2)").value, 64).ends()
        >>> low**2 < 2 < high**2 and high - low < Fraction(1, 2**60)
        True
    """
    if isinstance(value, Rational):
        return quotient(value.p, value.q, bits)
    result = Interval(value.sign, value.sign, 0)
    for factor in value.factors:
        assert isinstance(factor.exponent, Rational)
        p, q = factor.exponent.p, factor.exponent.q
        inner = bits + abs(p).bit_length() + 8
        if isinstance(factor.base, int):
            base = whole(factor.base, inner)
        else:
            assert isinstance(factor.base, Sum)
            base = add_up(factor.base.terms, inner)
            if base.lo <= 0:
                raise Unresolved
        root = _root(_power(base, abs(p), inner), q, inner)
        result = result.times(root, bits + 4) if p > 0 else result.over(root, bits + 4)
    return result.rounded(bits + 4)


def add_up(terms: Iterable[Value], bits: int) -> Interval:
    """An interval around a sum of algebraic values, each computed to `bits` bits."""
    total = Interval(0, 0, 0)
    for term in terms:
        total = total.plus(evaluate(term, bits), bits + 8)
    return total


def _power(x: Interval, k: int, bits: int) -> Interval:
    result = Interval(1, 1, 0)
    while k:
        if k & 1:
            result = result.times(x, bits)
        k >>= 1
        if k:
            x = x.times(x, bits)
    return result


def _root(x: Interval, k: int, bits: int) -> Interval:
    """The k-th root of every number in x, for x > 0."""
    if k == 1:
        return x
    shift = max(0, k * (bits + 2) - x.lo.bit_length())
    shift += (x.exp - shift) % k
    low, high = whole_root(x.lo << shift, k), whole_root(x.hi << shift, k) + 1
    return Interval(low, high, (x.exp - shift) // k).rounded(bits)


def whole_root(n: int, k: int) -> int:
    """The largest g with g^k <= n, for n >= 0.

    Example:
        >>> whole_root(27, 3), whole_root(26, 3)
        (3, 2)
    """
    while k % 2 == 0:
        n, k = math.isqrt(n), k // 2
    if k == 1 or n == 0:
        return n
    x = 1 << -(-n.bit_length() // k)  # above the root; Newton's steps fall until they reach it
    while True:
        y = ((k - 1) * x + n // x ** (k - 1)) // k
        if y >= x:
            return x
        x = y


# ---------------------------------------------------------------------------------- separation


def separation_bits(terms: Iterable[Value]) -> int | None:
    """A b such that a sum of algebraic values is 0 or at least 2^-b in size; None if b is huge.

    With E = U / L for algebraic integers U, L whose conjugates are at most 2^u and 2^v in size, and
    D the product of the degrees of all different roots: |E| >= 2^-(v + u (D - 1)).

    Example:
        >>> from noisewise.powers.parser import parse
        >>> separation_bits([parse("sqrt(2)").value, parse("-7/5").value])
        8
    """
    roots: dict[tuple[int | Sum, int], int] = {}
    u, v = _sizes(terms, roots)
    degree = 1
    for k in roots.values():
        degree *= k
        if degree > 1 << 24:
            return None
    return math.ceil(max(u, 0) * (degree - 1) + v)


Sizes = tuple[Fraction, Fraction]


def _sizes(terms: Iterable[Value], roots: dict[tuple[int | Sum, int], int]) -> Sizes:
    """(u, v) of a sum."""
    parts = [_size(term, roots) for term in terms]
    v = sum((part[1] for part in parts), Fraction(0))
    u = max(part[0] - part[1] for part in parts) + v + (len(parts) - 1).bit_length()
    return u, v


def _size(value: Value, roots: dict[tuple[int | Sum, int], int]) -> Sizes:
    """(u, v) of a product."""
    if isinstance(value, Rational):
        return Fraction(value.p.bit_length()), Fraction((value.q - 1).bit_length())
    u = v = Fraction(0)
    for factor in value.factors:
        base, e = factor.base, factor.exponent
        assert isinstance(e, Rational)
        if isinstance(base, int):
            above, below = Fraction(base.bit_length()), Fraction(0)
        else:
            assert isinstance(base, Sum)
            above, below = _sizes(base.terms, roots)
        if e.p < 0:
            above, below = below, above
        above, below = above * abs(e.p), below * abs(e.p)
        if e.q > 1:
            roots[base, e.q] = e.q
            # The root of U / L is (U L^(k-1))^(1/k) / L, or U / (U^(k-1) L)^(1/k).
            if above >= below:
                above = (above + (e.q - 1) * below) / e.q
            else:
                below = ((e.q - 1) * above + below) / e.q
        u, v = u + above, v + below
    return u, v
