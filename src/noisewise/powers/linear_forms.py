"""The exact sign of sum E_i log(p_i / q_i); the computation always ends.

1. Two terms with close bases and opposite exponents are rewritten:
   E log a - F log c = E log(a / c) + (E - F) log c, where log(a / c) is computed from a - c. So
   n^(n+1) against (n+1)^n needs only 64 bits for any n.
2. The sum is enclosed in intervals of 64, 128, 256, ... bits.
3. If the sign stays open, exact arithmetic decides whether the sum is 0 (coprime.py). A sum that is
   not 0 is computed with whole numbers if the powers have up to a few million digits; a common
   factor of all exponents is divided out first.
4. A sum of two logarithms that is not 0 has at least the size exp(-C log a log c log^2 b) (Laurent,
   Mignotte and Nesterenko 1995); for any number of logarithms there is a positive lower bound too
   (Baker 1966). So step 2 ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from noisewise.powers.big_integers import power
from noisewise.powers.coprime import common_root, exponent_sums, residues_differ
from noisewise.powers.intervals import Interval, whole
from noisewise.powers.logarithms import log_ratio

FIRST_BITS = 64
_TIE_BITS = 128  # from this precision on, test whether the sum is 0; most signs are found before
_EXACT_BITS = 512  # from this precision on, whole numbers of moderate size are computed instead
_MODERATE = 8_000_000  # bits of both sides together: the moderate size
_WORTH_BITS = 16  # whole numbers of this many times the precision are faster than a logarithm
_LONG = 200_000  # gcds are slow if all bases together have more bits
_MAX_PAIRED = 200  # in a longer sum no pair of close bases is looked for
_CLOSE_BITS = 12  # two bases are close if they agree in this many leading bits


class Term(NamedTuple):
    """exponent * log(p / q) with any whole exponent, p >= 1 and q >= 1."""

    exponent: int
    p: int
    q: int


class Decision(NamedTuple):
    """A sign, and how it was found."""

    sign: int
    bits: int  # of the interval that decided; 0 if exact arithmetic decided
    value: Interval  # contains the sum
    root: tuple[int, int, int] | None = None  # (g, i, j) if two powers are equal
    worked: bool = False  # whether whole numbers were computed to find that both sides are equal


def decide(terms: Sequence[Term]) -> Decision:
    """The sign of a linear form in logarithms with whole coefficients.

    Example:
        >>> decide([Term(11, 10, 1), Term(-10, 11, 1)]).sign
        1
        >>> decide([Term(1000000, 27, 1), Term(-1500000, 9, 1)]).root
        (3, 3, 2)
    """
    # Without the common factor of all exponents the sign is the same, and the powers are shorter.
    common = math.gcd(*(term.exponent for term in terms))
    if common <= 1:
        return _decided(terms)
    found = _decided([Term(e // common, p, q) for e, p, q in terms])
    bits = max(found.bits, FIRST_BITS)
    return found._replace(value=found.value.times(whole(common, bits), bits))


def _decided(terms: Sequence[Term]) -> Decision:
    terms = _merged(terms)
    written = _close_together(terms)
    if not written:
        return Decision(0, 0, Interval(0, 0, 0))
    bits, known_to_differ = FIRST_BITS, False
    while True:
        value = enclose(written, bits)
        if value.sign is not None:
            return Decision(value.sign, bits, value)
        if bits >= _TIE_BITS and not known_to_differ:
            tie, root = _is_zero(terms)
            if tie:
                worked = root is None and _better_exact(terms)
                return Decision(0, 0, Interval(0, 0, 0), root, worked)
            known_to_differ = True
        if bits >= _EXACT_BITS and _size(terms) <= max(_MODERATE, _WORTH_BITS * bits):
            return _exact(terms)
        bits *= 2


def enclose(terms: Sequence[Term], bits: int) -> Interval:
    """An interval that contains the sum, with each term computed to `bits` bits.

    Example:
        >>> enclose([Term(1, 3, 1), Term(-1, 2, 1)], 64).sign
        1
    """
    total = Interval(0, 0, 0)
    for exponent, p, q in terms:
        total = total.plus(whole(exponent, bits).times(log_ratio(p, q, bits), bits), bits)
    return total


def _merged(terms: Sequence[Term]) -> list[Term]:
    """One term for each base; terms of 0 are left out."""
    exponents: dict[tuple[int, int], int] = {}
    for exponent, p, q in terms:
        exponents[p, q] = exponents.get((p, q), 0) + exponent
    return [Term(e, p, q) for (p, q), e in exponents.items() if e and p != q]


def _size(terms: Sequence[Term]) -> int:
    """About how many bits all powers have together."""
    return sum(abs(e) * max(p.bit_length(), q.bit_length()) for e, p, q in terms)


def _better_exact(terms: Sequence[Term]) -> bool:
    """Whether the bases are too long for gcds, but the powers short enough to compute."""
    bases = sum(p.bit_length() + q.bit_length() for _, p, q in terms)
    return bases > _LONG and _size(terms) <= _MODERATE


def _exact(terms: Sequence[Term]) -> Decision:
    """The sign from the whole numbers on both sides."""
    left = right = 1
    for exponent, p, q in terms:
        above, below = (p, q) if exponent > 0 else (q, p)
        left *= power(above, abs(exponent))
        right *= power(below, abs(exponent))
    sign = (left > right) - (left < right)
    return Decision(sign, 0, log_ratio(left, right, FIRST_BITS))


def _close_together(terms: list[Term]) -> list[Term]:
    """The terms, with one pair of close bases and opposite exponents rewritten."""
    if len(terms) > _MAX_PAIRED:
        return terms
    for i, (e, p, q) in enumerate(terms):
        for j, (f, r, s) in enumerate(terms[:i]):
            if (e > 0) != (f > 0) and _close(p * s, q * r):
                # e log(p/q) + f log(r/s) = e log(ps / qr) + (e + f) log(r/s)
                others = [term for k, term in enumerate(terms) if k not in (i, j)]
                new = [Term(e, p * s, q * r), Term(e + f, r, s)]
                return [*others, *(t for t in new if t.exponent and t.p != t.q)]
    return terms


def _close(a: int, b: int) -> bool:
    return abs(a - b) << _CLOSE_BITS < max(a, b)


def _is_zero(terms: Sequence[Term]) -> tuple[bool, tuple[int, int, int] | None]:
    """Whether the product of the powers is 1, and the common root if there are two powers."""
    powers: dict[int, int] = {}
    for exponent, p, q in terms:
        powers[p] = powers.get(p, 0) + exponent
        powers[q] = powers.get(q, 0) - exponent
    powers = {n: exponent for n, exponent in powers.items() if exponent and n > 1}
    if residues_differ(list(powers.items())):
        return False, None
    if len(powers) == 2:
        (a, b), (c, d) = powers.items()
        if b * d > 0:
            return False, None
        root = common_root(a, abs(b), c, abs(d))
        return root is not None, root
    if _better_exact(terms):
        return _exact(terms).sign == 0, None
    return not exponent_sums(list(powers.items())), None
