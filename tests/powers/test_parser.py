"""What is read, what it means, and where a mistake is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import PowersSyntaxError, parse
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
        ("1,000^2", 2, "write 1000000 or 1_000_000"),
        ("n^2", 1, "'n' is a name"),
        ("2^x", 3, "'x' is a name"),
        ("2^^3", 3, "2\\^2\\^2"),
        ("5!!", 2, "brackets"),
        ("(1/2)!", 6, "whole number"),
        ("(-3)!", 5, "whole number"),
        ("1000000!", 8, "factorials are computed up to"),
        ("1/0", 2, "divides by zero"),
        ("0^-1", 2, "divides by zero"),
        ("2 + (-8)^(1/3)", 9, "whole exponent"),
        ("10^10^10 + 1", 10, "written out"),
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
@given(st.text(alphabet="0123456789^*/+-()!%. e_n", max_size=12))
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
