"""Numbers with e, pi, sums, large factorials and tall towers: against mpmath and exact laws."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import pytest

from noisewise.powers import compare, order, parse
from noisewise.powers.bounds import decimals_of, leading_digits
from noisewise.powers.logarithms import pi
from noisewise.powers.radicals import evaluate, like_terms, separation_bits, whole_root
from noisewise.powers.reals import log_of
from noisewise.powers.stirling import bernoulli, log_factorial

mpmath = pytest.importorskip("mpmath")


def sign(left: str, right: str) -> int | None:
    forwards, backwards = compare(left, right).sign, compare(right, left).sign
    assert backwards == (None if forwards is None else -forwards)
    return forwards


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("e^pi", "pi^e", 1),
        ("pi", "22/7", -1),
        ("pi", "355/113", -1),
        ("e", "2.718281828", 1),
        ("(1 + 1/1000)^1000", "e", -1),
        ("(1 + 1/1000)^1001", "e", 1),
        ("e^(pi * sqrt(163))", "262537412640768744", -1),
        ("pi^4 + pi^5", "e^6", -1),  # they agree to seven digits
        ("e^pi - pi", "20", -1),
        ("sqrt(2) + sqrt(3)", "pi", 1),
        ("sqrt(2)^sqrt(2)", "2", -1),
        ("(sqrt(2)^sqrt(2))^sqrt(2)", "2", 0),
        ("sqrt(2) + sqrt(3)", "sqrt(10)", -1),
        ("sqrt(8) + sqrt(2)", "3 * sqrt(2)", 0),
        ("sqrt(3 + 2 * sqrt(2))", "1 + sqrt(2)", 0),
        ("sqrt(2) + sqrt(3)", "sqrt(5 + 2 * sqrt(6))", 0),
        ("1/(sqrt(2) - 1)", "sqrt(2) + 1", 0),
        ("(1 + sqrt(2))^2", "3 + 2 * sqrt(2)", 0),
        ("(1 + sqrt(2))^2", "3 + 2 * sqrt(2) + 1/10^50", -1),
        ("cbrt(sqrt(5) + 2) - cbrt(sqrt(5) - 2)", "1", 0),
        ("cbrt(2) * cbrt(4)", "2", 0),
        ("sqrt(2) * sqrt(8)", "4", 0),
        ("sqrt(12) / sqrt(3)", "2", 0),
        ("2^(1/3) + 2^(2/3)", "(2^(1/3) + 1) * 2^(1/3)", 0),
        ("sqrt(sqrt(2) + 1)^2", "sqrt(2) + 1", 0),
        ("sqrt(10^60 + 1) + sqrt(10^60 + 7)", "2 * sqrt(10^60 + 4)", -1),
        ("sqrt(10^60 + 1) + sqrt(10^60 + 7)", "sqrt(10^60 + 3) + sqrt(10^60 + 5)", -1),
        ("e^2 * e^3", "e^5", 0),
        ("e + pi", "pi + e", 0),
        ("1/(e + pi)", "1/(pi + e)", 0),
        ("(e^2 - 1)/(e - 1)", "e + 1", 0),
        ("(pi + 1)^2", "pi^2 + 2 * pi + 1", 0),
        ("2^(2 * e)", "4^e", 0),
        ("300000!", "300000 * 299999!", 0),
        ("1000000! / 999998!", "999999 * 1000000", 0),
        ("1000000!", "10^5565708", 1),
        ("1000000!", "10^5565709", -1),
        ("(10^100)!", "10^(10^102)", -1),
        ("googol!", "googolplex", 1),
        ("googol!", "googol^googol", -1),
        ("googolplex!", "10^10^10^100", 1),
        ("googolplex", "googolplex + 1", -1),
        ("googolplex + e", "googolplex + pi", -1),
        ("googolplex - 1", "googolplex", -1),
        ("10^10^10", "10^10^10 + 1/10^10^10", -1),
        ("2^^5", "10^19728", 1),
        ("2^^5", "10^19729", -1),
        ("2^^60", "3^^58", 1),
        ("2^^1000000", "3^^999998", 1),
        ("2^^1000000", "3^^999999", -1),
        ("3^^^3", "10^^7625597484980", 1),
        ("3^^^3", "10^^7625597484990", -1),
        ("10^(10^^200)", "10^^201", 0),
        ("10^(10^^50)", "10^^51", 0),
        ("10^(10^(10^^80))", "10^^82", 0),
        ("9^(10^^200)", "10^^201", -1),
        ("(10^^200)^2", "10^^200", 1),
        ("10^^200 + 10^^199", "10^^200", 1),
        ("10^^101 - 10^^100", "10^^101", -1),
        ("2^^^4", "2^^65536", 0),
    ],
)  # fmt: skip
def test_known_answers(left: str, right: str, expected: int) -> None:
    assert sign(left, right) == expected


def test_digits_of_the_issue() -> None:
    found = decimals_of(parse("sqrt(2)^sqrt(2)").value, 2)
    assert found == (0, "1.63", "1.64")
    assert leading_digits(parse("sqrt(2)^sqrt(2)").value) == (1, "1.63252691")


@pytest.mark.parametrize("seed", range(6))
def test_random_sums_against_mpmath(seed: int) -> None:
    """Sums of roots, e and pi, with some that nearly cancel."""
    chosen = random.Random(seed)
    with mpmath.workdps(120):
        for _ in range(25):
            texts, values = [], []
            for _ in range(2):
                terms = [
                    (chosen.choice([-3, -1, 1, 2]), chosen.randint(2, 40), chosen.choice([2, 3]))
                    for _ in range(chosen.randint(1, 5))
                ]
                rest = chosen.choice([("", 0), (" + e", mpmath.e), (" - pi", -mpmath.pi)])
                texts.append(" + ".join(f"({c}) * {n}^(1/{k})" for c, n, k in terms) + rest[0])
                values.append(mpmath.fsum(c * mpmath.root(n, k) for c, n, k in terms) + rest[1])
            difference = values[0] - values[1]
            if abs(difference) < mpmath.mpf(10) ** -100:
                assert sign(*texts) == 0
            else:
                assert sign(*texts) == (1 if difference > 0 else -1)


def test_near_ties_of_roots_are_decided_by_more_digits() -> None:
    """Best approximations p/q of sqrt(2) + sqrt(3): the sign follows from exact arithmetic."""
    low, high = (end for end in evaluate(parse("sqrt(2) + sqrt(3)").value, 700).ends())
    for digits in (10, 50, 150):
        below = int(low * 10**digits)
        assert int(high * 10**digits) == below
        assert sign("sqrt(2) + sqrt(3)", f"{below}/10^{digits}") == 1
        assert sign("sqrt(2) + sqrt(3)", f"{below + 1}/10^{digits}") == -1


def test_products_of_sums_are_equal_however_they_are_written() -> None:
    chosen = random.Random(1)
    for _ in range(15):
        a, b, c, d = (chosen.randint(2, 30) for _ in range(4))
        product = f"(sqrt({a}) + sqrt({b})) * (sqrt({c}) - {d})"
        terms = f"sqrt({a * c}) - {d} * sqrt({a}) + sqrt({b * c}) - {d} * sqrt({b})"
        assert sign(product, terms) == 0
        assert sign(product, f"{terms} + 1/10^30") == -1
        nested = f"sqrt({a + b} + 2 * sqrt({a * b}))"
        assert sign(nested, f"sqrt({a}) + sqrt({b})") == 0


def test_the_separation_bound_holds() -> None:
    """For sums that are not 0, computed with mpmath."""
    chosen = random.Random(2)
    with mpmath.workdps(400):
        for _ in range(60):
            numbers = [(chosen.randint(-9, 9) or 1, chosen.randint(2, 50)) for _ in range(3)]
            exact = mpmath.fsum(c * mpmath.sqrt(n) for c, n in numbers)
            terms = [parse(f"({c}) * sqrt({n})").value for c, n in numbers]
            size = abs(exact - mpmath.nint(exact))
            whole = parse(f"{-int(mpmath.nint(exact))}").value
            bits = separation_bits([*terms, whole] if size else terms)
            assert bits is not None
            if size > mpmath.mpf(10) ** -300:
                assert size > mpmath.mpf(2) ** -bits


def test_like_terms_find_every_rational_quotient() -> None:
    texts = ("sqrt(12)", "sqrt(27)", "-sqrt(75)")  # 2, 3 and -5 times sqrt(3)
    assert like_terms([parse(text).value for text in texts]) == []
    texts = ("12^(1/4)", "-(144)^(1/8)", "9^(1/6)", "-3^(1/3)")
    assert like_terms([parse(text).value for text in texts]) == []
    assert len(like_terms([parse("sqrt(2)").value, parse("sqrt(3)").value])) == 2


def test_whole_roots() -> None:
    chosen = random.Random(3)
    for _ in range(200):
        n, k = chosen.randrange(10 ** chosen.randint(1, 60)), chosen.randint(1, 9)
        g = whole_root(n, k)
        assert g**k <= n < (g + 1) ** k


def test_pi_and_factorials_lie_in_their_intervals() -> None:
    with mpmath.workprec(1200):
        for bits in (64, 200, 1000):
            low, high = pi(bits).ends()
            assert low < Fraction(*_parts(mpmath.pi)) < high
            assert high - low < Fraction(1, 2 ** (bits - 4))
        for n in (1000, 200_001, 10**9, 10**40):
            for bits in (64, 300, 1000):
                low, high = log_factorial(n, bits).ends()
                assert low < Fraction(*_parts(mpmath.loggamma(n + 1))) < high
                assert n < 10**5 or high - low < high / 2 ** (bits - 12)
    assert [bernoulli(n) for n in (2, 4, 12)] == [
        Fraction(1, 6), Fraction(-1, 30), Fraction(-691, 2730),
    ]  # fmt: skip


def _parts(x: object) -> tuple[int, int]:
    """A number of mpmath as a fraction."""
    _, mantissa, exponent, _ = (+x)._mpf_  # type: ignore[attr-defined, operator]
    return (mantissa << exponent, 1) if exponent >= 0 else (mantissa, 1 << -exponent)


def test_stirling_meets_the_exact_factorial() -> None:
    assert compare("20001!", "20001 * 20000!").sign == 0
    assert compare("20001!", "20001 * 20000! + 1").sign == -1
    assert compare("20001!", "20001 * 20000! - 1").sign == 1
    assert compare("30000! / 20000!", "30000!").sign == -1


def test_large_numbers_are_put_in_order() -> None:
    texts = [
        "googolplex",
        "10^^4",
        "3^^4",
        "googol!",
        "2^^6",
        "10^100!",
        "e^e^e^e^e",
        "100!!".replace("!!", "!"),
    ]
    chain = order(texts)
    assert [step.sign for step in chain.steps] == [-1] * (len(texts) - 1)
    assert [e.text for e in chain.expressions] == [
        "100!", "3^^4", "googolplex", "googol!", "10^100!", "2^^6", "e^e^e^e^e", "10^^4",
    ]  # fmt: skip


def test_logarithms_of_towers_follow_each_other() -> None:
    """a^^h grows with a and with h."""
    heights = (51, 52, 60, 10**6, 10**30)
    by_base = [[f"{a}^^{h}" for a in (2, 3, 4, 10)] for h in heights]
    by_height = [[f"{a}^^{h}" for h in heights] for a in (2, 3, 10)]
    for texts in (*by_base, *by_height):
        for x, y in pairwise(texts):
            assert compare(x, y).sign == -1
    assert log_of(parse("10^^1000").value, 64).level > 990


def test_undecided_is_said_and_never_guessed() -> None:
    for left, right in (("e^(2 * pi) - e^pi", "e^pi * (e^pi - 1)"),):
        assert compare(left, right).sign in (0, None)
    found = compare("(e^e + 1)^(1/2)", "(e^(2 * e) + 2 * e^e + 1)^(1/4)")
    assert found.sign in (0, None)
    if found.sign is None:
        assert found.reason.startswith("undecided")
    with pytest.raises(ValueError, match="stayed open"):
        parse("(e^e + 1)^(1/2) - (e^(2 * e) + 2 * e^e + 1)^(1/4)")
