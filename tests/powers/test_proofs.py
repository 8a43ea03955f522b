"""Every number in every proof is true: the statements are read and checked with mpmath."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

pytest.importorskip("mpmath")
from noisewise.powers import explain, parse
from noisewise.powers.values import Rational, Value
from proof_statements import DIGITS, Number, Unreadable, constants, mp, statements, value_of

LETTER = re.compile(r"Here (\w) is the (left|right|smaller|larger) (base|side)")


def names_of(left: str, right: str, lines: list[str]) -> dict[str, Number]:
    """The letters that a proof explains."""
    names = constants()
    for line in lines:
        for letter, which, what in LETTER.findall(line):
            if what == "side":
                names[letter] = value_of(left if which == "left" else right)
                continue
            bases = [_number(parse(text).base) for text in (left, right)]
            index = {"left": 0, "right": 1}.get(which)
            if index is None:
                index = bases.index(min(bases) if which == "smaller" else max(bases))
            names[letter] = bases[index]
    return names


def _number(value: Value) -> Fraction:
    assert isinstance(value, Rational)
    return Fraction(value.p, value.q)


def check(left: str, right: str) -> tuple[str, int]:
    """The method of a comparison and how many numeric statements its proof has; all are true."""
    found = explain(left, right, levels=["proof"])
    lines = [line for step in found.steps for line in step.lines]
    count = 0
    with mp.workdps(DIGITS):
        names = names_of(left, right, lines)
        for line in lines:
            truths = statements(line, names)
            assert all(truths), f"{left} against {right}: {line}"
            count += len(truths)
            if "about" not in line:
                assert not re.search(r"\d+e\d+", line), line  # rounded numbers prove nothing
            assert "too tall" not in line
    return found.comparison.method, count


CASES = [
    ("sqrt(2)^sqrt(2)", "2"),
    ("(10^100)^(10^100 + 1)", "(10^100 + 1)^(10^100)"),
    ("(10^100)^(10^100 + 5)", "(10^100 + 3)^(10^100)"),
    ("2^259", "2^258 * 2"),
    ("(2^13)^20", "(2^26)^10"),
    ("2^259", "2^259 - 1"),
    ("3^200", "3^200 + 1/2"),
    ("27^1000000", "9^1500000"),
    ("2^1000000", "3^630000"),
    ("2^10000000 * 5^3", "3^6309297"),
    ("12^1000000 * 18^1000000", "6^3000000"),
    ("2^100000 * 3^100000", "6^100000"),
    ("10^10^10^10", "10^10^10^11"),
    ("6^10^10^10", "7^10^10^10"),
    ("6^10^10^10 * 5^10^10^10", "7^10^10^10 * 4^10^10^10"),
    ("4^10^10^10", "2^(2 * 10^10^10)"),
    ("e^pi", "pi^e"),
    ("(1 + 1/1000)^1000", "e"),
    ("sqrt(2) + sqrt(3)", "sqrt(10)"),
    ("sqrt(3 + 2 * sqrt(2))", "1 + sqrt(2)"),
    ("sqrt(8) + sqrt(2)", "3 * sqrt(2)"),
    ("(sqrt(5) + 2)^(1/3) - (sqrt(5) - 2)^(1/3)", "1"),
    ("sqrt(2) - sqrt(3)", "sqrt(3) - sqrt(2)"),
    ("300000!", "300000^300000"),
    ("1000000!", "10^5565708"),
    ("(e^2 - 1)/(e - 1)", "e + 1"),
    ("2^^60", "3^^58"),
    ("3^^^3", "10^^1000"),
    ("googol!", "googolplex"),
    ("-3^100", "-2^150"),
    ("-(3^100000)", "-(2^150000)"),
    ("(1/2)^3", "3^(1/2)"),
    ("7^100001", "7^100000"),
    ("(7/2)^(1/3)", "(8/3)^(1/3)"),
    ("(1/2)^10^10^10", "(1/3)^10^10^10"),
    ("e^(pi * sqrt(163))", "262537412640768744"),
    ("70!", "10^100"),
    ("0^3", "2^5"),
    ("2^-100000", "3^-70000"),
    ("1.0001^100000000", "e^10000"),
    ("3 * 10^10^20", "2 * 10^10^20"),
    ("3 * 10^10^10^10", "2 * 10^10^10^10"),
    ("12^1000000 * 18^1000000", "5^3000000"),
    ("sqrt(10^60 + 1) + sqrt(10^60 + 7)", "2 * sqrt(10^60 + 4)"),
    ("sqrt(5 + 2 * sqrt(6)) * sqrt(5 - 2 * sqrt(6))", "1"),
    ("e + " + " + ".join(f"1/{k}^3" for k in range(2, 60)), "e + 1/5"),
    ("2^100 + e + 10^10^10", "2^100 + pi + 10^10^10"),
    ("10^10^10 + 10^9 + 1", "10^10^10"),
    ("1/3", "0.333"),
    ("2^0.5", "1.41"),
    ("pi", "22/7"),
    ("10^-3", "0.001"),
]


@pytest.mark.parametrize(("left", "right"), CASES, ids=lambda text: text[:30])
def test_every_statement_is_true_and_there_is_one(left: str, right: str) -> None:
    _, count = check(left, right)
    assert count >= 1
    _, count = check(right, left)
    assert count >= 1


def _random_side(chosen: random.Random, kind: str) -> str:
    """A side of a kind that leads to one of the proofs."""

    def n(high: int) -> int:
        return chosen.randint(2, high)

    return {
        "small": f"{n(30)}^{n(30)}",
        "negative": f"-{n(30)}^{n(30)}",
        "fraction": f"({n(99)}/{n(99)})^{n(40)}",
        "root": f"{n(99)}^({n(40)}/{n(40)})",
        "long": f"{n(10**6)}^{n(10**6)}",
        "very long": f"(10^{n(90)} + {n(10**5)})^(10^{n(90)} + {n(10**5)})",
        "inverse": f"{n(999)}^(-{n(10**4)})",
        "product": f"{n(99)}^{n(10**5)} * {n(99)}^{n(10**5)} / {n(99)}^{n(10**5)}",
        "digits": f"{n(10**9)}^{n(9)} * {n(10**9)}^{n(9)}",
        "irrational": f"sqrt({n(30)})^sqrt({n(30)})",
        "tower": f"{n(12)}^{n(12)}^{n(12)}^{n(12)}",
        "arrows": f"{n(9)}^^{n(200)}",
        "sum": f"sqrt({n(99)}) + sqrt({n(99)}) - sqrt({n(99)})",
        "constants": f"(e + {n(9)})^(pi / {n(9)})",
        "factorial": f"{n(10**7)}!",
        "factorials": f"{n(10**3)}! / {n(10**3)}!",
    }[kind]


KINDS = (
    "small", "negative", "fraction", "root", "long", "very long", "inverse", "product", "digits",
    "irrational", "tower", "arrows", "sum", "constants", "factorial", "factorials",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_random_proofs_are_true(kind: str) -> None:
    chosen = random.Random(kind)
    with_numbers = 0
    for _ in range(12):
        other = kind if chosen.random() < 0.7 else chosen.choice(KINDS)
        left, right = _random_side(chosen, kind), _random_side(chosen, other)
        with_numbers += check(left, right)[1] > 0
    assert with_numbers >= 11


def test_the_checker_finds_mistakes() -> None:
    with mp.workdps(DIGITS):
        names = constants()
        assert statements("So ln(2^3) < 2.1 < 5/2, and 2^3 < 9.", names) == [True] * 3
        assert statements("2^46 > 3^30, because 1 > 2", names) == [False, False]
        assert statements("ln ln(10^10^10) < 23.8", names) == [False]
        assert statements("ln[3](10^10^10^10) < 23.9", names) == [True]
        assert statements("x is about 3", names) == []
        assert statements("1000 ln 2 is about 693.147", names) == [True]
        assert statements("1000 ln 2 is about 693.247", names) == [False]
        with pytest.raises(Unreadable):
            value_of("2 +")
