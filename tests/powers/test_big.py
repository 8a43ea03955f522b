"""Long integers: reading, roots, coprime bases, against Python's own (slower) ways."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers.big_integers import (
    _read_by_halves,
    exact_root,
    flint,
    gcd,
    read_digits,
    remove,
)
from noisewise.powers.coprime import (
    common_root,
    coprime_base,
    exponent_sums,
    residues_differ,
    valuations,
)

NUMBERS = st.lists(
    st.builds(
        lambda a, b, c, d: 2**a * 3**b * 6**c * 35**d,
        *(st.integers(0, 5) for _ in range(4)),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(st.text("0123456789", min_size=1, max_size=3000))
def test_reading_digits(digits: str) -> None:
    assert read_digits(digits) == int(digits)


def test_reading_more_digits_than_python_allows() -> None:
    digits = "123456789" * 3000
    expected = 123456789 * (10**27000 - 1) // (10**9 - 1)
    with pytest.raises(ValueError, match="4300"):
        int(digits)
    assert read_digits(digits) == expected
    assert _read_by_halves(digits, {400: 5**400}) == expected  # also where flint would read


@settings(deadline=None)
@given(st.integers(1, 10**40), st.integers(2, 100), st.integers(0, 40))
def test_removing_a_factor(n: int, q: int, v: int) -> None:
    found, rest = remove(n * q**v, q)
    assert found >= v
    assert rest % q
    assert rest * q**found == n * q**v


@settings(deadline=None)
@given(st.integers(1, 2**300), st.integers(1, 70), st.integers(0, 3))
def test_exact_roots(g: int, k: int, twos: int) -> None:
    g <<= twos
    assert exact_root(g**k, k) == g
    if g > 1 and k > 1:
        assert exact_root(g**k + 1, k) is None
        assert exact_root(g**k - 1, k) in (None, 1)
        assert exact_root(2 * g**k, k) is None


@pytest.mark.parametrize("k", [2, 3, 4, 6, 8, 12, 16])
def test_no_root_is_missed_among_small_numbers(k: int) -> None:
    powers = {g**k: g for g in range(1, 60)}
    for n in range(1, 3000):
        assert exact_root(n, k) == powers.get(n)


@settings(deadline=None)
@given(st.integers(1, 10**30), st.integers(1, 10**30))
def test_gcd(a: int, b: int) -> None:
    assert gcd(a, b) == math.gcd(a, b)


def test_gcd_of_long_numbers() -> None:
    a, b = 3**40_000 * 7**5, 3**30_000 * 11**9
    assert gcd(a, b) == 3**30_000
    assert flint() is None or flint().fmpz(a).gcd(b) == 3**30_000  # type: ignore[union-attr]


@settings(deadline=None)
@given(NUMBERS)
def test_coprime_base_is_coprime_and_reaches_every_number(numbers: list[int]) -> None:
    base = coprime_base(numbers)
    assert all(q > 1 for q in base)
    assert all(math.gcd(p, q) == 1 for i, p in enumerate(base) for q in base[:i])
    for n in numbers:
        found = valuations(n, base)
        assert math.prod(q**v for q, v in zip(base, found, strict=True)) == n


def test_high_powers_are_taken_out_at_once() -> None:
    """2^100000 and 2 would take as many single divisions."""
    assert coprime_base([2**100_000, 2, 3**5000, 3]) == [2, 3]


@settings(deadline=None)
@given(NUMBERS, st.lists(st.integers(-20, 20), min_size=6, max_size=6))
def test_exponent_sums_vanish_exactly_for_products_that_are_1(
    numbers: list[int], exponents: list[int]
) -> None:
    powers = list(zip(numbers, exponents, strict=False))
    above = math.prod(n**e for n, e in powers if e > 0)
    below = math.prod(n**-e for n, e in powers if e < 0)
    assert (exponent_sums(powers) == []) == (above == below)
    if residues_differ(powers):
        assert above != below


def test_residues_tell_nearly_all_differences() -> None:
    told = sum(residues_differ([(a, b), (c, -d)]) for a, b, c, d in quadruples())
    different = sum(a**b != c**d for a, b, c, d in quadruples())
    assert told == different


def quadruples() -> list[tuple[int, int, int, int]]:
    span = range(2, 9)
    return [(a, b, c, d) for a in span for b in span for c in span for d in span]


def test_common_roots_of_all_small_powers() -> None:
    for a, b, c, d in quadruples():
        found = common_root(a, b, c, d)
        assert (found is not None) == (a**b == c**d)
        if found:
            g, i, j = found
            assert (g**i, g**j) == (a, c)
            assert i * b == j * d
