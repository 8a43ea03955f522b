"""Intervals hold the truth: against mpmath (and flint) at far higher precision."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisewise.powers import logarithms
from noisewise.powers.intervals import Interval, Unresolved, below, hull, quotient, whole

mpmath = pytest.importorskip("mpmath")

BITS = st.sampled_from([20, 64, 128, 333, 1000, 2500])
FIXED = st.integers(-(2**70), 2**70)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[Interval, Fraction]:
    """An interval and a number inside."""
    lo, width = draw(FIXED), draw(st.integers(0, 2**20))
    exp = draw(st.integers(-90, 90))
    inside = lo + Fraction(width * draw(st.integers(0, 16)), 16)
    return Interval(lo, lo + width, exp), inside * Fraction(2) ** exp


def holds(x: Interval, value: Fraction) -> bool:
    low, high = x.ends()
    return low <= value <= high


@settings(deadline=None)
@given(intervals(), intervals(), st.integers(2, 100))
def test_arithmetic_holds_the_exact_result(
    a: tuple[Interval, Fraction], b: tuple[Interval, Fraction], bits: int
) -> None:
    (x, p), (y, q) = a, b
    assert holds(x.plus(y, bits), p + q)
    assert holds(x.times(y, bits), p * q)
    assert holds(x.negated(), -p)
    assert holds(x.rounded(bits), p)
    assert holds(hull(x, y, bits), p)
    assert holds(hull(x, y, bits), q)
    low, high = x.fixed(bits)
    assert low <= p * 2**bits <= high
    if y.lo > 0:
        assert holds(x.over(y, bits), p / q)
    else:
        with pytest.raises(Unresolved):
            x.over(y, bits)
    if below(x, y) is not None:
        assert below(x, y) == (p < q)
    if x.sign is not None:
        assert x.sign == (p > 0) - (p < 0)


@settings(deadline=None)
@given(st.integers(-(10**60), 10**60), st.integers(1, 10**60), st.integers(8, 300))
def test_quotients_are_narrow(p: int, q: int, bits: int) -> None:
    low, high = quotient(p, q, bits).ends()
    assert low <= Fraction(p, q) <= high
    assert high - low <= abs(Fraction(p, q)) * Fraction(2) ** (3 - bits)


@settings(deadline=None)
@given(st.integers(-(10**60), 10**60), st.integers(2, 100))
def test_whole_numbers_keep_their_leading_bits(n: int, bits: int) -> None:
    found = whole(n, bits)
    assert holds(found, Fraction(n))
    assert max(abs(found.lo), abs(found.hi)) <= 2**bits


def as_mpf(m: int, exp: int) -> Any:  # noqa: ANN401 (mpmath has no types)
    return mpmath.mpf(m) * mpmath.mpf(2) ** exp


def check(found: Interval, truth: Any, bits: int, slack: int) -> None:  # noqa: ANN401 (as above)
    """The interval holds the truth and is no wider than 2^(slack - bits) of it."""
    low, high = as_mpf(found.lo, found.exp), as_mpf(found.hi, found.exp)
    assert low <= truth <= high
    assert high - low <= abs(truth) * mpmath.mpf(2) ** (slack - bits)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 2**400),
    st.one_of(st.none(), st.integers(1, 2**400)),
    st.integers(0, 9),
    st.integers(-80, 80),
    BITS,
)
def test_logarithms_hold_the_truth_and_are_narrow(
    p: int, q: int | None, apart: int, shift: int, bits: int
) -> None:
    """Also for p / q near 1, where it is the relative error that counts."""
    if q is None:
        q, shift = p + apart, 0
    with mpmath.workprec(3 * bits + 1500):
        truth = mpmath.log(mpmath.mpf(p) / q * mpmath.mpf(2) ** shift)
        found = logarithms.log_ratio(p, q, bits, shift)
        if p == q and shift == 0:
            assert found.sign == 0
        else:
            check(found, truth, bits, 4)


@pytest.mark.parametrize("bits", [64, 5000, 40000])
@pytest.mark.parametrize(("p", "q"), [(2, 1), (3, 1), (10**50 + 1, 10**50), (7, 5)])
def test_logarithms_at_high_precision(p: int, q: int, bits: int) -> None:
    """Beyond some 300 bits square roots take over: the two ways are one number."""
    with mpmath.workprec(bits + 600):
        check(logarithms.log_ratio(p, q, bits), mpmath.log(mpmath.mpf(p) / q), bits, 4)


@settings(max_examples=150, deadline=None)
@given(st.integers(-(2**40), 2**40), st.integers(-60, -28), BITS)
def test_exponentials_hold_the_truth_and_are_narrow(m: int, exp: int, bits: int) -> None:
    with mpmath.workprec(3 * bits + 200):
        truth = mpmath.exp(as_mpf(m, exp))
        check(logarithms.exp(Interval(m, m, exp), bits), truth, bits, 4)


@settings(max_examples=60, deadline=None)
@given(intervals(), BITS)
def test_logarithm_of_an_interval(a: tuple[Interval, Fraction], bits: int) -> None:
    x, p = a
    if x.lo <= 0:
        with pytest.raises(Unresolved):
            logarithms.log(x, bits)
        return
    found = logarithms.log(x, bits)
    with mpmath.workprec(3 * bits + 400):
        truth = mpmath.log(mpmath.mpf(p.numerator) / p.denominator)
        assert as_mpf(found.lo, found.exp) <= truth <= as_mpf(found.hi, found.exp)


def test_flint_and_our_own_logarithms_overlap() -> None:
    flint = pytest.importorskip("flint")
    for p, q in [(3, 2), (10**30 + 1, 10**30), (2**200, 3), (5, 5 * 2**7), (10**3000, 7)]:
        for bits in (200, 1000, 4000):
            found = logarithms.log_ratio(p, q, bits)
            with flint.ctx.workprec(bits + 3000):
                truth = flint.arb(flint.fmpq(p, q)).log()
                low = flint.arb(found.lo) * flint.arb(2) ** found.exp
                high = flint.arb(found.hi) * flint.arb(2) ** found.exp
                assert low <= truth
                assert truth <= high


def test_where_floats_fail() -> None:
    """The reason for all this: (n+1) ln n - n ln(n+1) at n = 10^17 is 38, and floats say 0."""
    n = 10**17
    assert (n + 1) * math.log(n) - n * math.log(n + 1) == 0.0
    direct = logarithms.log_ratio(n, 1, 128).times(whole(n + 1, 128), 128)
    other = logarithms.log_ratio(n + 1, 1, 128).times(whole(n, 128), 128)
    low, high = direct.plus(other.negated(), 128).ends()
    assert 38.1 < low <= high < 38.2
