"""The numbers that can be compared: rationals, and products of powers too large to write out.

A value is a `Rational` or a `Product`. A product has a sign and factors b^E; an exponent E is again
a rational or a product. A base b is a whole number of 2 or more, or an `Atom`: e, pi, a sum, the
factorial of a large number, or a tall tower of equal numbers. So 10^10^100 is a product of one
factor: 10 with the exponent 10^100. Values of at most `EAGER_BITS` bits are computed at once; all
others keep their form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from noisewise.powers.big_integers import exact_root, gcd

EAGER_BITS = 1 << 16  # numbers of up to about 20,000 digits are computed at once
WRITTEN_BITS = 4_000_000  # up to 1.2 million digits are written out for a sum or as a last resort
_REDUCED_BITS = 20_000  # larger fractions stay unreduced: a gcd would cost more than it saves

_SMALL_PRIMES = (2, 3, 5, 7, 11, 13)


@dataclass(frozen=True, slots=True)
class Rational:
    """p / q with q >= 1, in lowest terms unless the numbers are large."""

    p: int
    q: int = 1

    @property
    def sign(self) -> int:
        """-1, 0 or 1."""
        return (self.p > 0) - (self.p < 0)

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return divides(self.q, self.p)

    @property
    def bits(self) -> int:
        """Bits of the longer of p and q."""
        return max(self.p.bit_length(), self.q.bit_length())


@dataclass(frozen=True, slots=True)
class Constant:
    """The number e, or the number pi."""

    name: Literal["e", "pi"]


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum above 0 of two or more terms other than 0; `noisewise.powers.sums` builds it."""

    terms: tuple[Rational | Product, ...]


@dataclass(frozen=True, slots=True)
class Factorial:
    """n! for a whole n that is too large to compute n!."""

    n: Rational | Product


@dataclass(frozen=True, slots=True)
class Tetration:
    """base^base^...^base with `height` bases, of 2 or more: a tower too tall to write down."""

    base: int
    height: int


Atom = Constant | Sum | Factorial | Tetration


@dataclass(frozen=True, slots=True)
class Factor:
    """base^exponent, with a whole base of 2 or more or an atom, and an exponent that is not 0."""

    base: int | Atom
    exponent: Rational | Product


@dataclass(frozen=True, slots=True)
class Product:
    """sign * (product of the factors); sign is -1 or 1."""

    sign: int
    factors: tuple[Factor, ...]

    @property
    def is_plain(self) -> bool:
        """Whether every base is a whole number and every exponent is a rational number."""
        return all(
            isinstance(f.base, int) and isinstance(f.exponent, Rational) for f in self.factors
        )


Value = Rational | Product
ZERO, ONE = Rational(0), Rational(1)


def rational(p: int, q: int = 1) -> Rational:
    """The fraction p / q with the sign in p; reduced unless the numbers are large.

    Example:
        >>> rational(6, -4)
        Rational(p=-3, q=2)
    """
    if q < 0:
        p, q = -p, -q
    if q > 1 and max(p.bit_length(), q.bit_length()) <= _REDUCED_BITS:
        common = gcd(p, q)
        p, q = p // common, q // common
    elif q > 1 and divides(q, p):
        p, q = p // q, 1
    return Rational(p, q)


def divides(q: int, p: int) -> bool:
    """Whether q divides p. For long numbers, small primes mostly give the answer without division.

    Example:
        >>> divides(10**9000, 10**9001), divides(10**9000, 10**9001 + 5)
        (True, False)
    """
    if q == 1:
        return True
    if q.bit_length() > _REDUCED_BITS and any(q % r == 0 and p % r for r in _SMALL_PRIMES):
        return False
    return p % q == 0


def as_product(value: Value) -> Product:
    """A value other than 0 as a product.

    Example:
        >>> as_product(Rational(-3, 2)).factors
        (Factor(base=3, exponent=Rational(p=1, q=1)), Factor(base=2, exponent=Rational(p=-1, q=1)))
    """
    if isinstance(value, Product):
        return value
    assert value.p
    factors = [Factor(abs(value.p), ONE), Factor(value.q, Rational(-1))]
    return Product(value.sign, tuple(f for f in factors if f.base != 1))


def atom(base: Atom) -> Product:
    """An atom as a value.

    Example:
        >>> atom(Constant("e")).sign
        1
    """
    return Product(1, (Factor(base, ONE),))


def has_atoms(value: Value) -> bool:
    """Whether an atom stands anywhere in a value.

    Example:
        >>> has_atoms(power(Rational(2), atom(Constant("pi")))), has_atoms(ONE)
        (True, False)
    """
    if isinstance(value, Rational):
        return False
    return any(not isinstance(f.base, int) or has_atoms(f.exponent) for f in value.factors)


def times(x: Value, y: Value) -> Value:
    """The product x * y."""
    if isinstance(x, Rational) and isinstance(y, Rational) and x.bits + y.bits <= WRITTEN_BITS:
        return rational(x.p * y.p, x.q * y.q)
    if ZERO in (x, y):
        return ZERO
    a, b = as_product(x), as_product(y)
    return settled(a.sign * b.sign, (*a.factors, *b.factors))


def inverse(x: Value) -> Value:
    """1 / x, for x other than 0."""
    if isinstance(x, Rational):
        assert x.p
        return Rational(x.q, x.p) if x.p > 0 else Rational(-x.q, -x.p)
    return Product(x.sign, tuple(Factor(f.base, negative(f.exponent)) for f in x.factors))


def negative(x: Value) -> Value:
    """-x."""
    if isinstance(x, Rational):
        return Rational(-x.p, x.q)
    return Product(-x.sign, x.factors)


def plus(x: Rational, y: Rational) -> Rational:
    """The sum x + y."""
    if x.q == y.q:
        return rational(x.p + y.p, x.q)
    return rational(x.p * y.q + y.p * x.q, x.q * y.q)


def settled(sign: int, factors: tuple[Factor, ...]) -> Value:
    """A product with equal bases merged and towers cancelled; a number if the result is small."""
    merged: dict[int | Atom, Rational] = {}
    towers: list[Factor] = []
    for factor in factors:
        if isinstance(factor.exponent, Rational):
            old = merged.get(factor.base, ZERO)
            merged[factor.base] = plus(old, factor.exponent)
        elif (opposite := Factor(factor.base, negative(factor.exponent))) in towers:
            towers.remove(opposite)
        else:
            towers.append(factor)
    plain = [Factor(n, e) for n, e in merged.items() if e.p and n != 1]
    product = Product(sign, (*plain, *towers))
    return written(product, EAGER_BITS) or product


def written(value: Value, limit: int) -> Rational | None:
    """The value as one fraction of at most `limit` bits; None if it is longer or not rational.

    Example:
        >>> written(Product(1, (Factor(2, Rational(10)),)), 100)
        Rational(p=1024, q=1)
    """
    if isinstance(value, Rational):
        return value
    above = below = 0
    for factor in value.factors:
        if not isinstance(factor.base, int):
            return None
        exponent = written(factor.exponent, limit) if _may_be_short(factor, limit) else None
        if exponent is None or not exponent.is_whole:
            return None
        size = abs(exponent.p // exponent.q) * factor.base.bit_length()
        above, below = (above + size, below) if exponent.p > 0 else (above, below + size)
        if above + below > limit:
            return None
    p, q = value.sign, 1
    for factor in value.factors:
        exponent = written(factor.exponent, limit)
        assert exponent is not None
        assert isinstance(factor.base, int)
        power = factor.base ** abs(exponent.p // exponent.q)
        p, q = (p * power, q) if exponent.p > 0 else (p, q * power)
    return rational(p, q)


def _may_be_short(factor: Factor, limit: int) -> bool:
    """False if the exponent is so long that the power has more than `limit` bits."""
    if isinstance(factor.exponent, Rational):
        return True
    return written(factor.exponent, limit.bit_length() + 8) is not None


def power(base: Value, exponent: Value) -> Value:
    """base^exponent. 0^0 is 1, as in Python and in combinatorics.

    Raises:
        ValueError: for 0 to a negative power, and for a negative base with an exponent that is not
            a whole number.
    """
    if exponent == ZERO:
        return ONE
    sign = exponent.sign
    if base == ZERO:
        if sign < 0:
            raise ValueError("0 to a negative power divides by zero")
        return ZERO
    if base == ONE:
        return ONE
    result_sign = 1
    if base.sign < 0:
        result_sign = -1 if is_odd(exponent) else 1
        base = negative(base)
    if isinstance(base, Rational) and isinstance(exponent, Rational):
        root = _root(base, exponent)
        if root is not None:
            base, exponent = root
    factors = tuple(Factor(f.base, _scaled(f.exponent, exponent)) for f in as_product(base).factors)
    return settled(result_sign, factors)


def _scaled(exponent: Value, by: Value) -> Value:
    if exponent == ONE:
        return by
    return negative(by) if exponent == Rational(-1) else times(exponent, by)


def _root(base: Rational, exponent: Rational) -> tuple[Rational, Rational] | None:
    """(root, p) for base^(p / k) if the k-th root of the base is rational: 8^(2/3) = 2^2."""
    k = exponent.q
    if k == 1 or k > base.bits or base.bits > EAGER_BITS or math.gcd(exponent.p, k) > 1:
        return None
    p, q = exact_root(base.p, k), exact_root(base.q, k)
    return None if p is None or q is None else (Rational(p, q), Rational(exponent.p))


def is_odd(exponent: Value) -> bool:
    """Whether the exponent of a negative base is odd.

    Raises:
        ValueError: if it is not a whole number, or cannot be shown to be one.
    """
    if isinstance(exponent, Rational):
        if not exponent.is_whole:
            raise ValueError(
                "a negative base needs a whole exponent; for an odd root write -(8^(1/3)) "
                "instead of (-8)^(1/3)"
            )
        return exponent.p // exponent.q % 2 == 1
    if not is_whole(exponent):
        raise ValueError(
            "a negative base needs a whole exponent, and this exponent cannot be shown to be "
            "whole; use a positive base"
        )
    return all(_is_odd_base(factor.base) for factor in exponent.factors)


def _is_odd_base(base: int | Atom) -> bool:
    """Whether a base that is a whole number is odd; factorials are even."""
    if isinstance(base, int):
        return base % 2 == 1
    if isinstance(base, Tetration):
        return base.base % 2 == 1
    return isinstance(base, Sum) and sum(map(is_odd, base.terms)) % 2 == 1


def is_whole(value: Value) -> bool:
    """Whether a value is certainly a whole number: all its exponents are whole and positive."""
    if isinstance(value, Rational):
        return value.is_whole
    return all(
        f.exponent.sign > 0 and is_whole(f.exponent) and _is_whole_base(f.base)
        for f in value.factors
    )


def _is_whole_base(base: int | Atom) -> bool:
    if isinstance(base, Sum):
        return all(map(is_whole, base.terms))
    return not isinstance(base, Constant)
