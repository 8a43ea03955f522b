"""Sums of numbers that need not be rational: equal terms cancel, and the sign is exact.

A sum of roots is 0 or not by proof (radicals.py). For other sums, terms with a rational quotient
are added first; what remains is compared by intervals, and is undecided if these always touch 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from noisewise.powers import reals
from noisewise.powers.terms import gathered
from noisewise.powers.values import ZERO, Sum, Value, atom, negative


class UndecidedError(ValueError):
    """The sign of a sum stayed open."""


def add(values: Iterable[Value]) -> Value:
    """The sum of values.

    Raises:
        ValueError: for more than 500 different roots or 50 other terms, for roots of numbers that
            are too long, and if it stays open whether the sum is 0 (`UndecidedError`).

    Example:
        >>> from noisewise.powers.parser import parse
        >>> add([parse("sqrt(8)").value, parse("-sqrt(2)").value]) == parse("sqrt(2)").value
        True
    """
    terms = gathered(values)
    if not terms:
        return ZERO
    if len(terms) == 1:
        return terms[0]
    sign = reals.sign_of_sum(terms)
    if sign is None:
        raise UndecidedError(
            "it stayed open whether this sum is above or below 0; compare its terms on two sides"
        )
    if sign == 0:
        return ZERO
    return atom(Sum(tuple(terms))) if sign > 0 else negative(atom(Sum(tuple(map(negative, terms)))))
