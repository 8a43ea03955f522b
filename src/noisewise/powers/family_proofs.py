"""Proofs that n^(n+m) and (n+m)^n compare as they do: for pupils, and with calculus."""

from __future__ import annotations

from fractions import Fraction

from noisewise.powers.formatting import base_and_ln, bracketed, is_shown_exactly, show_rational
from noisewise.powers.patterns import Swapped
from noisewise.powers.values import ONE, Rational

E_LOW, E_HIGH = Fraction(2718281828, 10**9), Fraction(2718281829, 10**9)


def family_proof(family: Swapped, left: str, right: str) -> list[str]:
    """The classical proofs for n^(n+m) against (n+m)^n; no lines if they do not apply.

    For whole n >= 3 and m = 1: the binomial theorem, induction, and the logarithm.

    Args:
        family: n and m.
        left: the left side as text.
        right: the right side as text.
    """
    n, m, mirrored = family
    x, y = (right, left) if mirrored else (left, right)  # n^(n+m) and (n+m)^n as text
    if n.p == 0 or (n.q == m.q == 1 and n.p < 3):
        return _first_cases(n.p, m.p, x, y)
    if n.q != 1 or m.q != 1:
        return _by_falling(n, m, x, y)
    if m == ONE:
        return [
            *_by_binomial_theorem(n, x, y), "", *_by_induction(n, x, y), "",
            *_by_logarithm(n, x, y),
        ]  # fmt: skip
    return [*_by_roots(n, m, x, y), "", "With calculus:", *_by_falling(n, m, x, y)]


def _named(n: Rational, letter: str) -> tuple[str, list[str]]:
    """A number as text that can stand as a base: digits, or a letter with its explanation."""
    if is_shown_exactly(n):
        return bracketed(n), []
    what = "smaller" if letter == "n" else "larger"
    return letter, [f"Here {letter} is the {what} base."]


def _by_binomial_theorem(n: Rational, x: str, y: str) -> list[str]:
    shown, names = _named(n, "n")
    small = "3" if n.p == 3 else f"3 < {shown}"
    return [
        "Without calculus, by the binomial theorem:",
        *names,
        f"Divide both sides by {shown}^{shown}: {x} becomes {shown}, and {y} becomes "
        f"(1 + 1/{shown})^{shown}.",
        "(1 + 1/n)^n is the sum of C(n, k) / n^k for k from 0 to n.",
        "C(n, k) / n^k = n (n-1) ... (n-k+1) / (n^k k!) is at most 1 / k!.",
        "k! = 2 * 3 * ... * k is at least 2^(k-1), because each factor is at least 2.",
        "So (1 + 1/n)^n <= 1 + (1 + 1/2 + 1/4 + ... + 1/2^(n-1)) = 3 - 1/2^(n-1) < 3.",
        f"This gives (1 + 1/{shown})^{shown} < {small}, and so {x} > {y}.",
    ]


def _by_induction(n: Rational, x: str, y: str) -> list[str]:
    shown, _ = _named(n, "n")
    return [
        "Without calculus, by induction:",
        "For n = 3: 3^4 = 81 > 64 = 4^3.",
        "Suppose n^(n+1) > (n+1)^n. As (n+1)^2 = n (n+2) + 1 > n (n+2):",
        "(n+1)^(2n+2) > n^(n+1) (n+2)^(n+1) > (n+1)^n (n+2)^(n+1).",
        "Divide by (n+1)^n: (n+1)^(n+2) > (n+2)^(n+1). That is the statement for n + 1.",
        f"So it holds for every whole n >= 3. With n = {shown}: {x} > {y}.",
    ]


def _by_logarithm(n: Rational, x: str, y: str) -> list[str]:
    shown, _ = _named(n, "n")
    small = "3" if n.p == 3 else f"3 < {shown}"
    return [
        "With the logarithm:",
        "For every t > 0, ln(1 + t) < t. With t = 1/n: n ln(1 + 1/n) < 1.",
        "So (1 + 1/n)^n < e < 2.72 for every n.",
        f"This gives (1 + 1/{shown})^{shown} < e < {small}, and so {x} > {y}.",
        "The same holds for every m > 0: n^(n+m) > (n+m)^n if n >= 3, as ln t / t falls for t > e.",
    ]


def _by_roots(n: Rational, m: Rational, x: str, y: str) -> list[str]:
    larger = Rational(n.p + m.p)
    (p, names), (q, more) = _named(n, "n"), _named(larger, "N")
    return [
        "Without calculus, by roots:",
        *names,
        *more,
        "For k >= 3, k^(k+1) > (k+1)^k. For k = 3: 3^4 = 81 > 64 = 4^3. If it holds for k,",
        "(k+1)^(2k+2) > k^(k+1) (k+2)^(k+1) > (k+1)^k (k+2)^(k+1), so it holds for k + 1.",
        "Take the root of degree k (k+1): k^(1/k) > (k+1)^(1/(k+1)).",
        "So these roots fall from k = 3 on: 3^(1/3) > 4^(1/4) > 5^(1/5) > ...",
        f"That gives {p}^(1/{p}) > {q}^(1/{q}). Raise both to the power {p} * {q}: {x} > {y}.",
    ]


def _first_cases(n: int, m: int, x: str, y: str) -> list[str]:
    if n == 0:
        return [f"{x} = 0, and {y} = 1, because every number to the power 0 is 1; 0 < 1."]
    if n == 1:
        larger = Rational(m + 1)
        shown = f"{show_rational(larger)} = {y}" if is_shown_exactly(larger) else y
        return [f"{x} = 1 < {shown}."]
    if m == 1:
        return [f"{x} = 8 < 9 = {y}."]
    if m == 2:
        return [f"{x} = 16 = {y}."]
    k = show_rational(Rational(m)) if is_shown_exactly(Rational(m)) else "the larger base minus 2"
    return [
        f"With k = {k}: {x} = 4 * 2^k and {y} = (k + 2)^2.",
        "For k = 3 these are 32 and 25, so the first is larger.",
        "Each step from k to k + 1 multiplies the first by 2 and the second by ((k+3)/(k+2))^2.",
        "For k >= 3 that is at most (6/5)^2 = 1.44 < 2, so the first stays larger.",
        f"So {x} > {y}.",
    ]


def _by_falling(n: Rational, m: Rational, x: str, y: str) -> list[str]:
    """The proof with ln t / t, which rises up to t = e and falls after it; n > 0."""
    assert n.p > 0
    low, high = Fraction(n.p, n.q), Fraction(n.p, n.q) + Fraction(m.p, m.q)
    if low < E_HIGH and high > E_LOW:
        return []
    falls = low >= E_HIGH
    larger = Rational(high.numerator, high.denominator)
    p, ln_p = base_and_ln(n, "n")
    q, ln_q = base_and_ln(larger, "N")
    names = [
        show_rational(v) if is_shown_exactly(v) else letter
        for v, letter in ((n, "n"), (larger, "N"))
    ]
    letters = {"n": "Here n is the smaller base.", "N": "Here N is the larger base."}
    order = " < ".join(("e", *names) if falls else (*names, "e"))
    slope, sign = ("negative for t > e", ">") if falls else ("positive for t < e", "<")
    goes = "falls" if falls else "rises"
    return [
        *(letters[name] for name in (p, q) if name in letters),
        "Let f(t) = ln t / t for t > 0. Its derivative is (1 - ln t) / t^2.",
        f"With 2.718281828 < e < 2.718281829, it is {slope}, so f {goes} there.",
        f"As {order}: {ln_p} / {p} {sign} {ln_q} / {q}.",
        f"Multiply by {p} * {q}: {q} {ln_p} {sign} {p} {ln_q}.",
        f"That is ln({x}) {sign} ln({y}), so {x} {sign} {y}.",
    ]
