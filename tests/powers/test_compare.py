"""Comparisons against Python's integers, the laws of order, and what is refused."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import compare, order, parse
from noisewise.powers.formatting import digits_of
from noisewise.powers.linear_forms import Term, decide, enclose

BASES = st.one_of(
    st.integers(1, 12),
    st.integers(1, 10**40),
    st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=50).filter(bool),
)
EXPONENTS = st.one_of(
    st.integers(-12, 12),
    st.integers(-(10**25), 10**25),
    st.fractions(min_value=-50, max_value=50, max_denominator=12),
)
POWERS = st.tuples(BASES, EXPONENTS)


def sign_of(x: object, y: object) -> int:
    return (x > y) - (x < y)  # type: ignore[operator]


def test_all_small_cases_of_the_core() -> None:
    """Linear forms in logarithms against whole numbers: 14,641 pairs of powers."""
    span = range(1, 12)
    for a, b, c, d in itertools.product(span, range(11), span, range(11)):
        assert decide([Term(b, a, 1), Term(-d, c, 1)]).sign == sign_of(a**b, c**d)


def test_all_small_cases_from_the_front_door() -> None:
    """Bases of both signs and 0, exponents of both signs, fractions as truth."""
    for a, b, c, d in itertools.product(range(-3, 5), range(-2, 4), range(-4, 4), range(-2, 3)):
        if (a == 0 and b < 0) or (c == 0 and d < 0):
            continue
        assert compare(a, b, c, d).sign == sign_of(Fraction(a) ** b, Fraction(c) ** d)


def test_a_factor_common_to_both_exponents_changes_nothing() -> None:
    """Exponents of a million: too large to write out, but the answer is known."""
    for a, b, c, d in itertools.product(range(2, 7), range(1, 5), range(2, 7), range(1, 5)):
        found = compare(a, b * 1_000_003, c, d * 1_000_003)
        assert found.sign == sign_of(a**b, c**d)
        inverted = compare(Fraction(1, a), b * 1_000_003, Fraction(1, c), d * 1_000_003)
        assert inverted.sign == -found.sign  # type: ignore[operator]


@settings(deadline=None)
@given(POWERS, POWERS)
def test_antisymmetry(x: tuple, y: tuple) -> None:
    assert compare(*x, *y).sign == -compare(*y, *x).sign  # type: ignore[operator]


@settings(deadline=None)
@given(POWERS, POWERS, POWERS)
def test_transitivity(x: tuple, y: tuple, z: tuple) -> None:
    a, b, c = sorted((x, y, z), key=InOrder)
    assert compare(*a, *b).sign in (-1, 0)
    assert compare(*b, *c).sign in (-1, 0)
    assert compare(*a, *c).sign in (-1, 0)


class InOrder:
    def __init__(self, power: tuple) -> None:
        self.power = power

    def __lt__(self, other: InOrder) -> bool:
        return compare(*self.power, *other.power).sign == -1


@settings(deadline=None)
@given(BASES, EXPONENTS, st.fractions(min_value=0, max_value=5, max_denominator=9))
def test_monotony_in_the_exponent(a: object, b: object, more: Fraction) -> None:
    found = compare(a, b + more, a, b).sign  # type: ignore[operator]
    assert found == sign_of(more, 0) * sign_of(a, 1)


@settings(deadline=None)
@given(BASES, EXPONENTS, st.fractions(min_value=0, max_value=5, max_denominator=9))
def test_monotony_in_the_base(a: object, b: object, more: Fraction) -> None:
    found = compare(a + more, b, a, b).sign  # type: ignore[operator]
    assert found == sign_of(more, 0) * sign_of(b, 0)


@settings(deadline=None)
@given(POWERS, POWERS)
def test_ln_ratio_has_the_sign_and_agrees_with_more_bits(x: tuple, y: tuple) -> None:
    found = compare(*x, *y)
    if found.ln_ratio is None:
        return
    low, high = found.ln_ratio
    assert low <= high
    assert sign_of(low, 0) == sign_of(high, 0) == found.sign
    (a, b), (c, d) = ((Fraction(p), Fraction(q)) for p, q in (x, y))
    scale = b.denominator * d.denominator
    terms = [
        Term(int(b * scale), a.numerator, a.denominator),
        Term(-int(d * scale), c.numerator, c.denominator),
    ]
    truth_low, truth_high = enclose(terms, 400).ends()
    assert low * scale <= truth_high
    assert truth_low <= high * scale


@pytest.mark.parametrize("digits", [1, 17, 100, 5000])
def test_the_exam_question_at_any_size(digits: int) -> None:
    """n^(n+1) > (n+1)^n from n = 3 on, decided at 64 bits."""
    n = 10**digits + 7
    found = compare(n, n + 1, n + 1, n)
    assert found.sign == 1
    assert found.bits in (0, 64)
    assert [compare(k, k + 1, k + 1, k).sign for k in range(5)] == [-1, -1, -1, 1, 1]


@pytest.mark.parametrize("digits", [1, 9, 100, 5000])
def test_compound_interest_at_any_size(digits: int) -> None:
    """(1 + 1/n)^n rises with n, by as little as 1 / (2 n^2), and stays below e."""
    n = 10**digits
    found = compare(1 + Fraction(1, n), n, 1 + Fraction(1, n + 1), n + 1)
    assert found.sign == -1
    assert found.bits <= max(128, 8 * n.bit_length())
    assert compare(1 + Fraction(1, n), n, "2.7182818285", 1).sign == -1
    assert compare(1 + Fraction(1, n), n, "2.593", 1).sign == 1


def test_products_roots_percent_and_factorials() -> None:
    assert compare("2^10 * 3^5", "248832").sign == 0
    assert compare("2^1000000 * 3^1000000", "6^1000000").method == "coprime base"
    assert compare("2^1000000 * 3^1000000", "6^1000000 * 5").sign == -1
    assert compare("12^100000 / 18^50000", "2^150000").sign == 0
    assert compare("8^(2/3)", "4").sign == 0
    assert compare("2^(1/2)", "3^(1/3)").sign == -1
    assert compare("sqrt(2)", "1.41421356237309504880168872420969807857").sign == -1
    assert compare("105%^14", "2").sign == -1
    assert compare("105%^15", "2").sign == 1
    assert compare("70!", "10^100").sign == 1
    assert compare("20000!", "10^77337").sign == 1
    assert compare("20000!", "10^77338").sign == -1


def test_what_every_kind_of_number_means() -> None:
    assert compare(Fraction(1, 10), 3, Decimal("0.1"), 3).sign == 0
    assert compare("0.1", "3", "1/1000", 1).sign == 0
    assert compare(np.int64(10), 11, 11, np.int32(10)).sign == 1
    assert compare(5, 4).sign == 1
    assert compare("1e3", 1000).sign == 0


def test_decimals_are_read_and_never_written_out() -> None:
    """A Decimal of ten characters may have a milliard digits."""
    assert compare(Decimal("1e999999999"), 2, 3, 4).sign == 1
    assert compare(Decimal("1e999999999"), 2, "10^1999999998", 1).sign == 0
    assert compare(Decimal("-1e-999999999"), 1, 0, 1).sign == -1
    assert compare(Decimal("0e999999999"), 1, 0, 1).sign == 0
    assert compare(Decimal("-2.50"), 3, Fraction(-5, 2), 3).sign == 0
    assert str(compare(Decimal("1e999999999"), 2, 3, 4)).startswith("(1E+999999999)^2 > 3^4")


@pytest.mark.parametrize(
    ("operands", "says"),
    [
        ((0.1, 2, 3, 4), "3602879701896397/36028797018963968"),
        ((float("inf"), 2, 3, 4), "give a finite number"),
        ((1e305, 2, 3, 4), "is a float; give the text '1e\\+305'"),
        ((np.float64(2.5), 2, 3, 4), "is a float"),
        ((True, 2, 3, 4), "not an int, a Fraction, a Decimal or a text"),
        ((None, 2), "not an int, a Fraction, a Decimal or a text"),
        ((Decimal("NaN"), 2, 3, 4), "NaN"),
        ((0, -1, 1, 1), "divides by zero"),
        ((-8, Fraction(1, 3), 1, 1), "whole exponent"),
        ((2, 3, "x", 4), "only numbers"),
    ],
)
def test_refusals_say_why(operands: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        compare(*operands)
    assert "\n" not in str(caught.value)


def test_three_operands_and_truth_values_are_refused() -> None:
    with pytest.raises(TypeError, match="two sides, or four numbers"):
        compare(2, 3, 4)
    with pytest.raises(TypeError, match=r"use its \.sign"):
        bool(compare(2, 3, 3, 2))


def test_zero_to_the_zero_is_one_and_says_so() -> None:
    found = compare(0, 0, 1, 5)
    assert found.sign == 0
    assert "0^0 counts as 1" in found.reason
    assert compare("0^0", "0^1").sign == 1


@pytest.mark.parametrize(
    ("left", "right", "method", "says"),
    [
        ("10^11", "11^10", "computed", "side is 100000000000 and the right side is 25937424601"),
        ("7^100000", "7^100001", "same base", "base 7"),
        (
            "7^100000",
            "8^100000",
            "same exponent",
            "left base is smaller, so the left side is smaller",
        ),
        ("8^100001", "7^100000", "monotony", "the left base and the left exponent are larger"),
        ("27^1000000", "9^1500000", "common root", "both sides are 3^3000000"),
        ("(4/9)^300000", "(8/27)^200000", "common root", "(2/3)^600000"),
        ("2^100000", "3^-100000", "against 1", "above 1"),
        ("(-2)^100001", "3^100000", "sign", "negative"),
        ("(-2)^100001", "(-3)^100001", "same exponent", "both sides are negative"),
        ("2^1000000", "3^630000", "logarithms", "1000000 ln 2 - 630000 ln 3"),
        ("10^1000 + 1", "10^1000", "computed", "the left side is 10^1000 + 1 and"),
        ("7^1000 + 1", "7^1000", "computed", "larger"),
        ("(1/2)^100000", "(1/2)^100001", "same base", "below 1; the left exponent is smaller"),
        ("9^10^10^10", "10^10^10^10", "shared exponent", "left base is smaller"),
        ("2^10^10^10 * 3^10^10^10", "7^10^10^10", "shared exponent", "in every group"),
        ("2^10^20 * 3^10^20", "6^10^20", "coprime base", "pairwise coprime"),
    ],
)
def test_reasons(left: str, right: str, method: str, says: str) -> None:
    found = compare(left, right)
    assert found.method == method
    assert says in found.reason
    mirrored = compare(right, left)
    assert mirrored.sign == -found.sign  # type: ignore[operator]
    assert str(found).startswith(f"{left} {found.symbol} {right}: ")


def test_times() -> None:
    assert compare("10^11", "11^10").times == "3.85543"
    assert compare("10^1000", "10^900").times == "10^100"
    assert compare("10^50 + 1", "10^50").times == "1 + 1e-50"
    assert compare("4^50000", "2^100000").times == "1"


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 2000), st.integers(1, 1000))
def test_number_of_digits_and_leading_digits(a: int, b: int) -> None:
    shown = str(a**b)
    digits, leading = digits_of([Term(b, a, 1)])
    assert digits == len(shown)
    expected = shown[:9].rstrip("0")
    assert leading.replace(".", "") == (expected or "1")


def test_digits_of_exact_powers_of_ten() -> None:
    assert digits_of([Term(1000, 10, 1)]) == (1001, "1")
    assert digits_of([Term(1, 10**30 - 1, 1)]) == (30, "9.99999999")
    assert digits_of([Term(1, 2, 1)], scale=2) == (1, "1.41421356")


def test_order() -> None:
    chain = order(["70!", "10^100", "2^333", "10^101/10"])
    assert str(chain) == "10^100 = 10^101/10 < 70! < 2^333"
    assert [step.sign for step in chain.steps] == [0, -1, -1]
    assert [e.text for e in order([3, Fraction(1, 2), "2^(1/2)"]).expressions] == [
        "1/2", "2^(1/2)", "3",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one"):
        order([])


def test_a_parsed_expression_may_be_used_again() -> None:
    left = parse("10^11")
    assert compare(left, parse("11^10")).sign == 1
