"""Towers: against whole numbers where they are small, and questions with known answers."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import compare, levels, order, parse
from noisewise.powers.intervals import Interval, Unresolved
from noisewise.powers.levels import Tall, tall
from noisewise.powers.towers import compare_products, constant_ratio, normal_form
from noisewise.powers.values import Factor, Product, Rational, as_product

mpmath = pytest.importorskip("mpmath")


def tower(*numbers: int) -> Product:
    """a^b^c, its exponents kept as towers even where they are small."""
    base, *rest = numbers
    exponent = Rational(rest[0]) if len(rest) == 1 else tower(*rest)
    return Product(1, (Factor(base, exponent),))


def test_small_towers_against_whole_numbers() -> None:
    """a^(b^c) with factors, all as towers; the truth from whole exponents of the same bases."""
    rng = random.Random(1)
    ties = 0
    for _ in range(1500):
        a, b, c, d, e, f = (rng.randint(2, 5) for _ in range(6))
        k = rng.choice([1, 1, 2, 3, 4, 9, 27])
        left = Product(1, (*tower(a, b, c).factors, Factor(a, Rational(k))))
        right = Product(1, (*tower(d, e, f).factors, Factor(rng.choice([2, d]), Rational(k))))
        base = right.factors[1].base
        assert isinstance(base, int)
        x, y = a ** (b**c + k), d ** (e**f) * base**k
        found = compare_products(left, right)
        assert found.sign == (x > y) - (x < y)
        ties += x == y
    assert ties > 5


def test_ties_of_towers_are_seen_level_by_level() -> None:
    """(g^i)^(h^X) = (g^j)^(h^Y) where i h^X = j h^Y, with exponents of any size."""
    for big in (10**20, 10**200):
        assert compare(f"4^(2^{big})", f"2^(2^({big}+1))").sign == 0
        assert compare(f"2^(4^{big})", f"4^(2^(2*{big} - 1))").sign == 0
        assert compare(f"2^(4^{big})", f"4^(2^(2*{big} - 2))").sign == 1
        assert compare(f"8^(3^{big})", f"2^(3^({big}+1))").sign == 0
        assert compare(f"3^(2^(4^{big}))", f"3^(4^(2^(2*{big} - 1)))").sign == 0
    assert compare("(10^10^10)^(10^10)", "10^(10^20)").sign == 0
    assert compare("2^10^10^20 * 3^10^10^20", "6^10^10^20").sign == 0


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("10^10^100", "10^10^101"),
        ("9^10^10^10^10", "10^10^10^10^10"),
        ("10^10^10^10", "10^10^10^10 * 2"),
        ("2^2^2^2^2^2", "3^3^3^3^3"),
        ("4^4^4^4^4", "2^2^2^2^2^2^2"),
        ("6^10^10^10", "6.000001^10^10^10"),
        ("(1/3)^10^10^10", "(1/2)^10^10^10"),
        ("3^10^-10^100", "3^10^-10^99"),
        ("2^10^10^10 * 3^10^10^10", "7^10^10^10"),
        ("2^10^10^10 * 3^10^10^9", "3^10^10^10"),
        ("-(10^10^101)", "-(10^10^100)"),
        ("2^3^10^10", "3^3^10^10"),
        ("10^10^10^9.9", "10^10^10^10"),
        ("2^(2^(1/2))", "2.6651441426902251887"),
        ("2.6651441426902251886", "2^(2^(1/2))"),
        ("(10^100 + 1)^10^10^10", "(10^100 + 2)^10^10^10"),
        ("10^10^1000000", "10^10^1000001"),
        ("10^100", "2^(7/3)^10^10^10"),
        ("2^(3/7)^10^10^10", "1.0001"),
        ("3^(1.5^10^10^10)", "3^(1.5^10^10^11 / 2^10^10^9)"),
    ],
)
def test_known_orders(smaller: str, larger: str) -> None:
    assert compare(smaller, larger).sign == -1
    assert compare(larger, smaller).sign == 1
    assert compare(smaller, smaller).sign == 0


def test_signs_and_parity_of_towers() -> None:
    assert compare("(-2)^10^10^10", "0").sign == 1
    assert compare("(-2)^11^10^10", "0").sign == -1
    assert compare("(-1)^3^3^3^3", "-1").sign == 0
    assert compare("0^10^10^10", "0").sign == 0
    with pytest.raises(ValueError, match="whole exponent"):
        parse("(-2)^2^-10^10^10")


def test_what_is_common_is_taken_away_before_anything_is_compared() -> None:
    p = 10**40
    assert compare(f"2^3^(10^{p})", f"2^(3^(10^{p}) * (1 + 1/10^2000))").sign == -1
    assert compare("2^(2^10^4000) * 3^(3^10^4000)", "3^(3^10^4000) * 5").sign == 1
    x, y = "3^(7^(10^5000))", "5^(11^(10^5000))"
    assert compare(f"2^({x}) * 5^({y})", f"5^({y}) * 2^({x}) * 7^(1/10^2000)").sign == -1


def test_undecided_is_said_with_its_reason_and_no_sign_is_made_up() -> None:
    """The square roots of 2 and 3 as exponents, against their sum to 2000 decimals."""
    scale = 10**2100
    roots = math.isqrt(2 * scale**2) + math.isqrt(3 * scale**2)
    left = "2^(2^(1/2)) * 2^(3^(1/2))"
    near = compare(left, f"2^({roots // 10**2000}/{scale // 10**2000})")
    assert near.sign == 1
    found = compare(left, f"2^({roots // 10**100}/{scale // 10**100})")
    assert found.sign is None
    assert found.symbol == "?"
    assert "undecided" in found.reason
    assert found.ln_ratio is None
    with pytest.raises(ValueError, match="no order was found"):
        order([left, f"2^({roots // 10**100}/{scale // 10**100})"])


def test_constant_ratios() -> None:
    x, y = parse("4^10^20").value, parse("2^(2*10^20 - 1)").value
    assert constant_ratio(x, y) == Rational(2)
    assert constant_ratio(x, parse("3^10^20").value) is None
    sums = normal_form((*as_product(x).factors, *as_product(x).factors))
    assert sums == [(4, [(Rational(2 * 10**20), Rational(1))])]


LEVEL_ONE = st.fractions(min_value=4200, max_value=9000, max_denominator=50)


@settings(deadline=None, max_examples=15)
@given(LEVEL_ONE, LEVEL_ONE, st.sampled_from([1, -1]))
def test_sums_of_exponentials_against_mpmath(a: object, b: object, sign: int) -> None:
    """e^a + e^b and e^a - e^b, kept as exponentials because they are too large."""
    bits = 64
    x, y = (levels.exp(tall(_interval(v)), bits) for v in (a, b))
    assert x.level == y.level == 1
    y = y if sign > 0 else levels.opposite(y)
    with mpmath.workprec(14000):
        truth = mpmath.exp(_mpf(a)) + sign * mpmath.exp(_mpf(b))
        if truth == 0:
            with pytest.raises(Unresolved):
                levels.add(x, y, bits)
            return
        found = levels.add(x, y, bits)
        if found.level == 0:
            return
        assert found.sign == mpmath.sign(truth)
        log = mpmath.log(abs(truth))
        low, high = (mpmath.mpf(m) * mpmath.mpf(2) ** found.t.exp for m in (found.t.lo, found.t.hi))
        assert low <= log <= high
        assert high - low < mpmath.mpf(2) ** -40


def _interval(v: object) -> Interval:
    from noisewise.powers.intervals import quotient

    return quotient(v.numerator, v.denominator, 200)  # type: ignore[attr-defined]


def _mpf(v: object) -> object:
    return mpmath.mpf(v.numerator) / v.denominator  # type: ignore[attr-defined]


def test_levels_are_compared_across_heights() -> None:
    three, four = Interval(3, 3, 0), Interval(4, 4, 0)
    assert levels.compare(Tall(1, 9, three), Tall(1, 8, four), 64) == 1  # e^3 > 4
    assert levels.compare(Tall(1, 9, three), Tall(1, 7, Interval(100, 100, 40)), 64) == -1
    assert levels.compare(Tall(-1, 3, three), Tall(1, 1, Interval(-5, -5, 0)), 64) == -1
    assert levels.compare(Tall(-1, 3, three), Tall(-1, 3, four), 64) == 1
    assert levels.compare(Tall(1, 2, three), Tall(1, 2, three), 64) is None
    assert levels.compare(Tall(1, 1, Interval(-1, 1, 0)), tall(Interval(1, 1, 0)), 64) is None


def test_questions_do_not_double_with_every_level() -> None:
    """6 and 12 have two coprime parts: asked naively, sixty levels would be 2^60 questions."""
    six, twelve = "^".join(["6"] * 60), "^".join(["12"] * 60)
    assert compare(six, twelve).sign == -1
    assert compare(f"6^{six}", f"12^{six}").sign == -1
    assert compare(f"(6*{six})^{six}", f"(12*{six})^{six}").sign == -1
    nested = "(2^3^10^10^10 * 6^10^10^10)"
    for _ in range(12):
        nested = f"(6^{nested} * 12^{nested})" if len(nested) < 3000 else nested
    assert compare(nested, f"{nested} * 2").sign == -1
