"""Explanations: what they show is true, and is what the question asks for."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb, factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import compare, crossing, explain, explain_order, parse
from noisewise.powers.crossing import excess
from noisewise.powers.explanation import describe
from noisewise.powers.witness import find_witness, simplest_between

mpmath = pytest.importorskip("mpmath")


def lines(level: str, *operands: object) -> str:
    found = explain(*operands, levels=[level])  # type: ignore[arg-type, list-item]
    return "\n".join(line for step in found.steps for line in step.lines)


def test_three_levels_of_the_exam_question() -> None:
    found = explain("10^11", "11^10")
    assert [step.level for step in found.steps] == ["compute", "pattern", "proof"]
    assert found.comparison.sign == 1
    text = str(found)
    assert "10^11 = 100000000000 (12 digits)" in text
    assert "11^10 = 25937424601 (11 digits)" in text
    assert re.search(r"2 +8 +< +9", text)
    assert re.search(r"3 +81 +> +64", text)
    assert "2.293166287411..." in text
    assert "(1 + 1/10)^10 < e < 3 < 10" in text


def test_every_row_of_the_family_table_is_true() -> None:
    for m in (1, 2, 3, 5, 11):
        row = r"^ *(\d) +(\d+) +([<=>]) +(\d+) +([0-9.]+)$"
        rows = re.findall(row, lines("pattern", m + 4, 4, 4, m + 4), flags=re.M)
        assert [n for n, *_ in rows] == list("12345678")
        for n, x, symbol, y, quotient in rows:
            k = int(n)
            assert 0 <= Fraction(int(x), int(y)) - Fraction(quotient) < Fraction(1, 1000)
            assert (int(x), int(y)) == (k ** (k + m), (k + m) ** k)
            assert symbol == "<=>"[(int(x) > int(y)) - (int(x) < int(y)) + 1]


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_proofs_of_the_family_say_what_is_true(n: int, m: int) -> None:
    """Also with the sides exchanged."""
    sign = compare(n, n + m, n + m, n).sign
    assert sign == (n ** (n + m) > (n + m) ** n) - (n ** (n + m) < (n + m) ** n)
    text = lines("proof", n, n + m, n + m, n)
    assert text
    if n >= 3:
        assert f"{n}^{n + m} > {n + m}^{n}" in text or f"ln {n} / {n} > ln {n + m}" in text
    assert str(explain(n + m, n, n, n + m)).startswith(f"{n + m}^{n} ")


def test_the_family_over_fractions() -> None:
    assert "falls" in lines("proof", "7/2", "9/2", "9/2", "7/2")
    assert "rises" in lines("proof", "3/2", "5/2", "5/2", "3/2")
    assert compare("3/2", "5/2", "5/2", "3/2").sign == -1
    assert lines("proof", "5/2", "7/2", "7/2", "5/2")  # e lies between: another way


FACTORS = st.fractions(min_value=Fraction(10, 9), max_value=30, max_denominator=9)
COUNTS = st.integers(1, 400)


@settings(deadline=None)
@given(FACTORS, COUNTS, FACTORS, COUNTS)
def test_witnesses_prove_what_they_claim(a: Fraction, b: int, c: Fraction, d: int) -> None:
    if a**b < c**d:
        a, b, c, d = c, d, a, b
    found = find_witness(a, Fraction(b), c, Fraction(d), 64)
    if a**b == c**d:
        assert found is None
    elif found:
        assert a**found.j > c**found.k
        assert Fraction(found.k, found.j) >= Fraction(d, b)
        assert found.j <= b  # no longer than the statement itself


@settings(deadline=None)
@given(
    st.fractions(min_value=Fraction(1, 99), max_value=99, max_denominator=99),
    st.fractions(min_value=0, max_value=1, max_denominator=99),
)
def test_the_simplest_fraction(low: Fraction, width: Fraction) -> None:
    found = simplest_between(low, low + width)
    assert low <= found <= low + width
    for q in range(1, found.denominator):
        assert -(-low * q // 1) > (low + width) * q


def test_the_simplest_fraction_between_neighbours_of_600_digits() -> None:
    """Consecutive Fibonacci numbers: their continued fraction has as many terms as can be."""
    a, b = 1, 1
    while b < 10**600:
        a, b = b, a + b
    low, high = sorted((Fraction(b, a), Fraction(a + b, b)))
    assert simplest_between(low, high) == Fraction(b, a)
    between = simplest_between(low + Fraction(1, 9 * a * b), high)
    assert low < between <= high
    assert between.denominator <= b


def test_bases_near_1_neither_fill_memory_nor_take_for_ever() -> None:
    """One factor 1000 is worth ln 1000 / ln(1 + t) factors 1 + t, about 6.9 / t."""
    text = str(explain("1000^10", "(1+1/10^9)^(10^10)"))
    assert "ln 1000 > 6.907755278" in text  # a power to the 7,000,000,000 is no short proof
    assert "10 * 6.907755278 > 10000000000 * 0.000000001" in text
    assert compare(1000, 1, 1 + Fraction(1, 10**9), 6907755282).sign == 1
    assert compare(1000, 1, 1 + Fraction(1, 10**9), 6907755283).sign == -1
    assert "^6907755282 <= 1000^1 < " in text
    table = lines("pattern", "1000^10", "(1+1/10^30)^(10^33)")
    for j in range(1, 7):
        k = int(re.findall(rf"\^(\d+) <= 1000\^{j} <", table)[0])
        assert compare(1000, j, 1 + Fraction(1, 10**30), k).sign == 1
        assert compare(1000, j, 1 + Fraction(1, 10**30), k + 1).sign == -1


def test_no_proof_divides_by_zero() -> None:
    text = lines("proof", "0^(1/2)", "(1/2)^0")
    assert "ln 0" not in text
    assert "0^(1/2) = 0" in text
    assert "(1/2)^0 = 1" in text


def test_a_short_proof_of_a_long_comparison() -> None:
    text = lines("proof", "2^1000000", "3^630000")
    assert "2^46 > 3^29" in text
    assert 2**46 == 70368744177664 > 3**29 == 68630377364883
    assert Fraction(29, 46) > Fraction(630000, 1000000)


def test_explanations_of_other_kinds() -> None:
    assert "both sides are 3^3000000" in lines("proof", "27^1000000", "9^1500000")
    assert "27^2 = 9^3" in lines("pattern", "27^1000000", "9^1500000")
    assert "1431364 digits" in lines("compute", "27^1000000", "9^1500000")
    assert "too large" in lines("compute", "10^10^10^10^10", "9^10^10^10^10")
    assert "ln ln of both" in lines("pattern", "3^3^3^3^3", "2^2^2^2^2^2")
    assert "10^" in lines("compute", "5^-100000", "4^-100000")
    assert "right side divided by the left" in lines("compute", "(-2)^100001", "(-3)^100001")
    assert "is about 10^(1e200)" in lines("compute", "10^(10^200 + 1)", "2")
    assert "0^5 = 0" in lines("compute", "0^5", "5^0")
    assert "Multiplied by 6, the two sides are 3 > 2" in lines("proof", "1/2", "1/3")
    assert "2^(2^(1/2)) is about 2.66514414" in lines("compute", "2^(2^(1/2))", "3")
    assert "is about 10^(10)" not in lines("compute", "sqrt(2)^sqrt(2)", "2")
    assert lines("pattern", "6^10^10^10", "7^10^10^10 / 2") == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sqrt(2)^sqrt(2)", "is about 1.63252691"),
        ("sqrt(2) - sqrt(3)", "is about -0.317837245"),
        ("e^pi", "is about 23.1406926"),
        ("1000000!", "has 5565709 digits and begins with 826393168"),
        ("googol", "has 101 digits and begins with 1"),
        ("3^3^3^3", "has 3638334640025 digits and begins with 125801429"),
        ("10^10^10^10", "is about 10^10^(1e10), too large to write out"),
        ("-10^10^10^10", "is about -10^10^(1e10), too large"),
        ("1/10^10^10^10", "is about 1 / 10^10^(1e10), too small"),
        ("2^^9", "is about 10^10^10^10^10^(19727.8), too large"),
        ("10^^20", "is too large to write out: it is above 10^10^10"),
        ("1/10^^20", "is too small to write out"),
        ("1 + 1/10^^20", "lies between 0.999999999 and 1.000000001"),
        ("3^5", "= 243"),
    ],
)
def test_a_number_is_described_by_its_size(text: str, says: str) -> None:
    assert says in describe(parse(text))


def test_the_series_of_examples_begins_at_1() -> None:
    table = lines("pattern", "10^11", "11^10")
    rows = re.findall(r"(\d+) +(\d+) +([<>]) +(\d+)", table)
    assert [f"{x}{symbol}{y}" for _, x, symbol, y in rows[:4]] == [
        "1<2", "8<9", "81>64", "1024>625",
    ]  # fmt: skip
    assert rows[-1] == ("10", str(10**11), ">", str(11**10))
    assert "From n = 3 on the left side is larger" in table


def test_proofs_for_pupils_without_calculus() -> None:
    text = lines("proof", "10^11", "11^10")
    binomial, induction, logarithm = text.split("\n\n")
    assert "(1 + 1/10)^10 < 3 < 10" in binomial
    assert "3 - 1/2^(n-1) < 3" in binomial
    assert "3^4 = 81 > 64 = 4^3" in induction
    assert "ln" not in binomial + induction
    assert "ln(1 + t) < t" in logarithm
    roots, calculus = lines("proof", "10^15", "15^10").split("\n\n")
    assert "10^(1/10) > 15^(1/15)" in roots
    assert "ln" not in roots
    assert "15 ln 10 > 10 ln 15" in calculus


@pytest.mark.parametrize("n", range(1, 60))
def test_the_steps_of_those_proofs_hold(n: int) -> None:
    """Each inequality of the binomial theorem, the induction and the roots, with whole numbers."""
    assert sum(Fraction(comb(n, k), n**k) for k in range(n + 1)) == (1 + Fraction(1, n)) ** n
    assert all(Fraction(comb(n, k), n**k) <= Fraction(1, factorial(k)) for k in range(n + 1))
    assert all(factorial(k) >= 2 ** (k - 1) for k in range(1, n + 1))
    assert 1 + sum(Fraction(1, 2 ** (k - 1)) for k in range(1, n + 1)) == 3 - Fraction(2, 2**n)
    assert (n + 1) ** 2 == n * (n + 2) + 1
    if n >= 3:
        middle = n ** (n + 1) * (n + 2) ** (n + 1)
        assert (n + 1) ** (2 * n + 2) > middle > (n + 1) ** n * (n + 2) ** (n + 1)


def test_small_powers_are_multiplied_step_by_step() -> None:
    text = lines("compute", "10^11", "11^10")
    assert "a 1 and 11 zeros" in text
    for x, y, z in re.findall(r"(\d+) \* (\d+) = (\d+)", text):
        assert int(x) * int(y) == int(z)
    assert "2357947691 * 11 = 25937424601" in text


def test_a_chain_is_explained_step_by_step() -> None:
    found = explain_order(["2^333", "70!", "10^100"])
    assert str(found.chain) == "10^100 < 70! < 2^333"
    assert [e.comparison.sign for e in found.explanations] == [-1, -1]
    assert all(e.steps[0].level == "proof" for e in found.explanations)
    with pytest.raises(ValueError, match="no level"):
        explain_order(["2", "3"], levels=["prove"])  # type: ignore[list-item]


def test_bases_too_long_to_show_get_a_letter() -> None:
    """Python writes no integer of more than 4300 digits, and leading digits prove nothing."""
    n = 7**6000
    assert "4 * 2^k" in lines("proof", 2, n, n, 2)
    assert " = 1 < " in lines("proof", 1, n, n, 1)
    assert "(1 + 1/(10^5000))^(10^5000) < e < 3 < (10^5000)" in lines(
        "proof", 10**5000, 10**5000 + 1, 10**5000 + 1, 10**5000
    )
    assert "(1 + 1/n)^n < e < 3 < n" in lines("proof", n, n + 1, n + 1, n)
    assert "As e < n < N: ln n / n > ln N / N." in lines("proof", n, n + 2, n + 2, n)
    g = 3**200 + 2
    assert "a^2 = c^3" in lines("pattern", g**6, 10**6, g**4, 15 * 10**5)
    text = lines("proof", g**6, 10**6, g, 6 * 10**6)
    assert "the left base is g^6 and the right base is g, so both sides are g^6000000" in text
    assert "3^4001 > a^20" in lines("proof", g, 20000, 3, 4001000)
    assert "ln(70!) > 230.439 > 100 * 2.303 > 100 ln 10" in lines("proof", "70!", "10^100")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_every_small_question_has_an_explanation(a: int, b: int, c: int, d: int) -> None:
    found = explain(a, b, c, d)
    assert found.comparison.sign == (a**b > c**d) - (a**b < c**d)
    assert {step.level for step in found.steps} >= {"compute", "proof"}


def test_bad_levels_and_three_operands_are_refused() -> None:
    with pytest.raises(ValueError, match="no level 'prove'"):
        explain("2^3", "3^2", levels=["prove"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="two sides, or four numbers"):
        explain(2, 3, 4)


def test_crossing_against_mpmath() -> None:
    with mpmath.workdps(330):
        truth = mpmath.findroot(lambda x: (x + 1) * mpmath.log(x) - x * mpmath.log(x + 1), 2.3)
        assert crossing(300) == mpmath.nstr(truth, 330)[:302]
    assert crossing(30).startswith("2.29316628741186103150802829125")


@pytest.mark.parametrize("m", [1, 3, 10, "1/2", "1/1000", 10**6])
def test_crossing_lies_between_its_last_digit_and_the_next(m: int | str) -> None:
    found, step = Fraction(crossing(25, m=m)), Fraction(m)
    assert excess(found, step) <= 0 < excess(found + Fraction(1, 10**25), step)
    assert 1 < found < Fraction(2719, 1000)


def test_crossing_at_two_is_exact() -> None:
    """2^4 = 4^2."""
    assert crossing(10, m=2) == "2.0000000000"
    assert crossing(0) == "2"
    assert excess(Fraction(2), Fraction(2)) == 0


def test_more_digits_begin_with_the_same() -> None:
    long = crossing(1200)
    assert long.startswith(crossing(40))
    with localcontext() as context:
        context.prec = 60
        x = Decimal(long[:60])
        difference = (x + 1) * x.ln() - x * (x + 1).ln()
        assert abs(difference) < Decimal(10) ** -55


@pytest.mark.parametrize(
    ("digits", "m", "says"),
    [(-1, 1, "decimals"), (10**6, 1, "decimals"), (5, 0, "from 1/1000"), (5, 0.5, "float")],
)
def test_crossing_refuses(digits: int, m: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        crossing(digits, m=m)  # type: ignore[arg-type]


def test_expressions_may_be_explained_again() -> None:
    assert explain(parse("2^5"), "5^2").comparison.sign == 1
