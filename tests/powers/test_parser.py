"""What is read, what it means, and where a mistake is."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import PowersSyntaxError, compare, parse
from noisewise.powers.values import Rational


def value(text: str) -> Fraction:
    found = parse(text).value
    assert isinstance(found, Rational)
    return Fraction(found.p, found.q)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2^3^2", 512),
        ("(2^3)^2", 64),
        ("2**3**2", 512),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^-2", Fraction(1, 4)),
        ("2^-2^2", Fraction(1, 16)),
        ("--3", 3),
        ("+3", 3),
        ("1/3/5", Fraction(1, 15)),
        ("2 - 3 - 4", -5),
        ("2 * 3 + 4 / 8", Fraction(13, 2)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1_000_000", 10**6),
        ("1.5e3", 1500),
        ("1.5E-3", Fraction(3, 2000)),
        ("5%", Fraction(1, 20)),
        ("110%^2", Fraction(121, 100)),
        ("5!", 120),
        ("2^3!", 64),
        ("(2^2)!", 24),
        ("0!", 1),
        ("2\u00b9\u2070", 1024),
        ("2\u207b\u00b2", Fraction(1, 4)),
        ("6\u00d77", 42),
        ("7\u22122", 5),
        ("6\u00f74", Fraction(3, 2)),
        ("sqrt(49/4)", Fraction(7, 2)),
        ("8^(1/3)", 2),
        ("(8/27)^(-2/3)", Fraction(9, 4)),
        ("0^0", 1),
        ("0^5", 0),
        ("(1 + 1/10)^2", Fraction(121, 100)),
        ("1,000", 1000),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("1,00,00,000", 10**7),
        ("1'000'000", 10**6),
        ("1\u2019000", 1000),
        ("1 000 000", 10**6),
        ("1\u202f000\u202f000", 10**6),
        ("1\u00a0000 + 1", 1001),
        ("1_000.5", Fraction(2001, 2)),
        ("0.000", 0),
        ("1000.000", 1000),
        ("2.718", Fraction(1359, 500)),
        ("1.000e3", 1000),
        ("\uff12\uff3e\uff13", 8),
        ("\u00bd", Fraction(1, 2)),
        ("2\u00bd", Fraction(5, 2)),
        ("\u2153 + \u2154", 1),
        ("4^\u00bd", 2),
        ("1\u20442", Fraction(1, 2)),
        ("2^(3\u20441)", 8),
        ("\u221a9", 3),
        ("\u221a(16 + 9)", 5),
        ("2\u221a9", 6),
        ("-2\u221a9", -6),
        ("\u221a9^3", 27),
        ("\u221a\u221a16", 2),
        ("\u221b27", 3),
        ("\u221b(-27)", -3),
        ("\u221c16", 2),
        ("cbrt(-8)", -2),
        ("cbrt(27/8)", Fraction(3, 2)),
        ("Sqrt(4)", 2),
        ("\u221a3!^2", 6),
        ("2\u21913", 8),
        ("2\u02c63", 8),
        ("2^^3", 16),
        ("2\u2191\u21914", 65536),
        ("3^^0", 1),
        ("(1/2)^^2 * 2^(1/2)", 1),
        ("0^^3", 0),
        ("0^^4", 1),
        ("2^^^3", 65536),
        ("2" + "^" * 30 + "2", 4),
        ("googol", 10**100),
        ("Googol / 10^99", 10),
        ("3 \u00d7 4 \u00b7 5 \u22c5 2 \u2013 20 \u2212 1", 99),
        ("5\u2215 2", Fraction(5, 2)),
        ("sqrt(8) - 2 * sqrt(2)", 0),
        ("e/e", 1),
        ("exp(0) + pi^0", 2),
        ("10^10^10 + 1 - 10^10^10", 1),
        ("googolplex - googolplex", 0),
        ("cbrt(2)^3", 2),
        ("(1 + sqrt(2)) - sqrt(2)", 1),
        ("sqrt(1/2) - sqrt(2)/2", 0),
    ],
)
def test_values(text: str, expected: Fraction | int) -> None:
    assert value(text) == expected


@st.composite
def sums(draw: st.DrawFn, depth: int = 3) -> str:
    """Python's own grammar, where it means the same."""
    if depth == 0 or draw(st.booleans()):
        return str(draw(st.integers(0, 99)))
    left, right = draw(sums(depth - 1)), draw(sums(depth - 1))
    sign = draw(st.sampled_from(["+", "-", "*"]))
    return f"({left}) {sign} {right}" if draw(st.booleans()) else f"{left} {sign} -({right})"


@settings(deadline=None)
@given(sums())
def test_the_same_as_python(text: str) -> None:
    assert value(text) == eval(text)  # the text is our own and holds digits and signs only


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "a number is missing"),
        ("()", 2, "a number is missing before '\\)'"),
        ("\u00b2", 1, "a number is missing before"),
        ("2^", 3, "a number is missing at the end"),
        ("*2", 1, "a number is missing before '\\*'"),
        ("2 3", 3, "write \\* for a product"),
        ("2(3)", 2, "write \\* for a product"),
        ("(2^3", 5, "position 1 is not closed"),
        ("2^3)", 4, "closes no bracket"),
        ("1,5", 2, "write a point before decimals"),
        ("0,125", 2, "write a point before decimals"),
        ("1,0000", 2, "several meanings"),
        ("1,00", 2, "several meanings"),
        ("12,34,567,89", 3, "several meanings"),
        ("1.000", 2, "may mean 1 or 1000"),
        ("123.000^2", 4, "may mean 123 or 123000"),
        ("1.000.000", 2, "has one of them"),
        ("1.000,5", 2, "mixes separators"),
        ("1,000 000", 2, "mixes separators"),
        ("1234 567", 6, "write \\* for a product"),
        ("2 ,3", 3, "cannot stand here"),
        ("1/2\u03c0", 4, "write \\* for a product, with brackets"),
        ("2^3\u03c0", 4, "with brackets"),
        ("2^3\u221a2", 4, "with brackets"),
        ("2 x 3", 3, "write \\* for a product"),
        ("\u221e", 1, "infinity is no number"),
        ("ln(2)", 1, "the known names are e, pi, sqrt"),
        ("\u221a(-2)", 1, "no real root"),
        ("\u221a2 - \u221a3 + sqrt(\u221a2 - \u221a3)", 11, "no real root"),
        ("(-2)^\u03c0", 5, "whole exponent"),
        ("2^^-1", 2, "the number of levels"),
        ("2^^(1/2)", 2, "the number of levels"),
        ("3^^^4", 2, "more levels than can be counted"),
        ("1.5^^100", 4, "a whole number of 0 or more"),
        ("2 ^ ^ 3", 5, "without spaces"),
        ("2.5\u00bd", 4, "follow a whole number"),
        ("1\u20440", 1, "not 0 below"),
        ("e!", 2, "whole number"),
        ("1/(sqrt(8) - 2 * sqrt(2))", 2, "divides by zero"),
        ("+".join(f"sqrt({k})" for k in range(1, 1400)), 8, "compare a shorter one"),
        ("n^2", 1, "'n' is a name"),
        ("2^x", 3, "'x' is a name"),
        ("5!!", 2, "brackets"),
        ("(1/2)!", 6, "whole number"),
        ("(-3)!", 5, "whole number"),
        ("1/0", 2, "divides by zero"),
        ("0^-1", 2, "divides by zero"),
        ("2 + (-8)^(1/3)", 9, "whole exponent"),
        ("1__0", 2, "underscore"),
        ("2 $ 3", 3, "no meaning"),
        ("sqrt 2", 6, "needs a bracket"),
        ("(" * 500, 101, "more than 100 levels"),
        ("^".join(["2"] * 300), 202, "more than 100 levels"),
        ("-" * 500 + "1", 101, "more than 100 levels"),
        ("7" * 1000 + "x", 1001, "'x' is a name"),
    ],
)
def test_mistakes_have_a_position(text: str, position: int, says: str) -> None:
    with pytest.raises(PowersSyntaxError, match=says) as caught:
        parse(text)
    assert caught.value.position == position
    assert f"position {position}" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.text(alphabet="0123456789^*/+-()!%. e_n,'\u00bd\u221a\u03c0\u2191\u00b2", max_size=12))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    position = 1
    try:
        parse(text)
    except PowersSyntaxError as error:
        position = error.position
    assert 1 <= position <= len(text) + 1


def test_base_and_exponent_are_kept() -> None:
    found = parse("(10^11)")
    assert (found.base, found.exponent) == (Rational(10), Rational(11))
    plain = parse("3 * 10^11")
    assert plain.exponent == Rational(1)
    assert parse("0^0").notes == ("0^0 counts as 1.",)


def test_what_was_guessed_is_said() -> None:
    assert parse("1,000^2").notes == ("1,000 is read as 1000.",)
    assert parse("1,000,000").notes == ()
    assert parse("1,000.0").notes == ()
    assert "1,000 is read as 1000." in compare("1,000", "2^10").reason


def test_a_program_may_write_1_000() -> None:
    assert compare(Decimal("1.000"), 1).sign == 0
    assert parse("1.000", exact=True).value == Rational(1)
