"""The sign of sum E_i log(p_i / q_i), exact, and guaranteed to be found.

1. Two terms with close bases and opposite exponents are rewritten,
   E log a - F log c = E log(a / c) + (E - F) log c, where log(a / c) is found from a - c: so
   n^(n+1) against (n+1)^n needs 64 bits at any n.
2. The sum is enclosed at 64, 128, 256, ... bits.
3. While that leaves the sign open, arithmetic decides whether the sum is 0 (coprime.py).
   A sum that is not 0, of powers of some million digits once the factor that all exponents share
   is taken out, is worked out.
4. If it is not, it is at least exp(-C log a log c log^2 b) in size for two logarithms (Laurent,
   Mignotte and Nesterenko 1995), and bounded away from 0 for any number of them (Baker 1966), so
   that step 2 ends.
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
_LOOK_FOR_TIE_BITS = 128  # most sums are decided before anybody asks whether they are 0
_WORK_OUT_BITS = 512  # precision beyond which numbers of moderate size are rather worked out
_WORKED_OUT = 8_000_000  # bits of both sides together that are of moderate size
_WORTH_BITS = 16  # a product of so many times the bits is worked out sooner than a logarithm
_LONG = 200_000  # bits of all bases from which on their gcds are slow
_CLOSE_BITS = 12  # bases that agree in so many leading bits are close


class Term(NamedTuple):
    """exponent * log(p / q); exponent any whole number, p and q at least 1."""

    exponent: int
    p: int
    q: int


class Decision(NamedTuple):
    """A sign, and what it rests on."""

    sign: int
    bits: int  # of the interval that decided; 0 where arithmetic did
    value: Interval  # encloses the sum
    root: tuple[int, int, int] | None = None  # (g, i, j) of a tie of two powers
    worked: bool = False  # a tie that was seen by working both sides out


def decide(terms: Sequence[Term]) -> Decision:
    """The sign of a linear form in logarithms with whole coefficients.

    Example:
        >>> decide([Term(11, 10, 1), Term(-10, 11, 1)]).sign
        1
        >>> decide([Term(1000000, 27, 1), Term(-1500000, 9, 1)]).root
        (3, 3, 2)
    """
    # A factor that all exponents share changes no sign, and may make powers short enough.
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
        if bits >= _LOOK_FOR_TIE_BITS and not known_to_differ:
            tie, root = _is_zero(terms)
            if tie:
                worked = root is None and _better_worked_out(terms)
                return Decision(0, 0, Interval(0, 0, 0), root, worked)
            known_to_differ = True
        if bits >= _WORK_OUT_BITS and _size(terms) <= max(_WORKED_OUT, _WORTH_BITS * bits):
            return _worked_out(terms)
        bits *= 2


def enclose(terms: Sequence[Term], bits: int) -> Interval:
    """An interval around the sum, each term to `bits` bits.

    Example:
        >>> enclose([Term(1, 3, 1), Term(-1, 2, 1)], 64).sign
        1
    """
    total = Interval(0, 0, 0)
    for exponent, p, q in terms:
        total = total.plus(whole(exponent, bits).times(log_ratio(p, q, bits), bits), bits)
    return total


def _merged(terms: Sequence[Term]) -> list[Term]:
    """Terms of one base taken together; what is 0 left out."""
    exponents: dict[tuple[int, int], int] = {}
    for exponent, p, q in terms:
        exponents[p, q] = exponents.get((p, q), 0) + exponent
    return [Term(e, p, q) for (p, q), e in exponents.items() if e and p != q]


def _size(terms: Sequence[Term]) -> int:
    """Bits of all powers together, about."""
    return sum(abs(e) * max(p.bit_length(), q.bit_length()) for e, p, q in terms)


def _better_worked_out(terms: Sequence[Term]) -> bool:
    """Whether bases are too long for gcds, and the powers are not too long to be worked out."""
    bases = sum(p.bit_length() + q.bit_length() for _, p, q in terms)
    return bases > _LONG and _size(terms) <= _WORKED_OUT


def _worked_out(terms: Sequence[Term]) -> Decision:
    """The sign from the whole numbers themselves."""
    left = right = 1
    for exponent, p, q in terms:
        above, below = (p, q) if exponent > 0 else (q, p)
        left *= power(above, abs(exponent))
        right *= power(below, abs(exponent))
    sign = (left > right) - (left < right)
    return Decision(sign, 0, log_ratio(left, right, FIRST_BITS))


def _close_together(terms: list[Term]) -> list[Term]:
    """Rewrite one pair of close bases whose exponents have opposite signs."""
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
    """Whether the product of the powers is 1, and the common root where there are two of them."""
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
    if _better_worked_out(terms):
        return _worked_out(terms).sign == 0, None
    return not exponent_sums(list(powers.items())), None
