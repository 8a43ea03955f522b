"""Level three of an explanation: an argument that can be checked by hand, where there is one."""

from __future__ import annotations

from fractions import Fraction

from noisewise.powers.comparison import Comparison
from noisewise.powers.formatting import in_full, shorten, show_rational
from noisewise.powers.logarithms import log_ratio
from noisewise.powers.parser import Expression
from noisewise.powers.patterns import Swapped, swapped
from noisewise.powers.values import Rational
from noisewise.powers.witness import find_witness

_E_LOW, _E_HIGH = Fraction(2718281828, 10**9), Fraction(2718281829, 10**9)
_MAX_DECIMALS = 40  # of logarithms in a proof for people
Four = tuple[Fraction, Fraction, Fraction, Fraction]


def proof(left: Expression, right: Expression, found: Comparison) -> list[str]:
    """Lines of a proof of what was found; at least its reason."""
    family = swapped(left, right)
    if family:
        lines = family_proof(family, shorten(left.text), shorten(right.text))
        if lines:
            return lines
    lines = [_capital(found.reason)]
    if found.method == "common root":
        lines.append("A power of a power multiplies the exponents: (g^i)^b = g^(i b).")
    if found.method == "coprime base":
        lines.append("Coprime numbers have no prime in common, so equal exponents are needed, too.")
    numbers = _four(left, right)
    if numbers is not None and found.sign and found.method in ("logarithms", "computed"):
        if all(in_full(side.value) for side in (left, right)):
            return lines  # all digits are there
        lines += _by_witness(numbers, found) or _by_decimals(numbers, found)
    return lines


def _capital(text: str) -> str:
    return text if text.startswith("ln") else text[:1].upper() + text[1:]


def _four(left: Expression, right: Expression) -> Four | None:
    """a, b, c, d with a, c > 1 and b, d > 0, both bases and exponents of moderate size."""
    values = (left.base, left.exponent, right.base, right.exponent)
    if not all(isinstance(v, Rational) and v.p > 0 and v.bits < 3000 for v in values):
        return None
    a, b, c, d = (Fraction(v.p, v.q) for v in values if isinstance(v, Rational))
    return (a, b, c, d) if a > 1 and c > 1 else None


def _by_witness(numbers: Four, found: Comparison) -> list[str]:
    """The proof by two small powers."""
    a, b, c, d = numbers if found.sign == 1 else (*numbers[2:], *numbers[:2])
    witness = find_witness(a, b, c, d, max(found.bits, 64))
    if witness is None or (witness.j, witness.k) == (b, d):
        return []
    j, k = witness
    x, y, z, w = (_bracketed(v) for v in (a, b, c, d))
    power, reached = b / j, b * k / j
    return [
        f"A short proof: {x}^{j} > {z}^{k}, as {_show(a**j)} > {_show(c**k)}.",
        f"To the power {_show(power)}: {x}^{y} > {z}^{_bracketed(reached)}, and "
        f"{_show(reached)} {'=' if reached == d else '>'} {w}.",
    ]


def _show(x: Fraction) -> str:
    return show_rational(Rational(x.numerator, x.denominator))


def _bracketed(x: Fraction) -> str:
    shown = _show(x)
    return shown if shown.isdigit() else f"({shown})"


def _by_decimals(numbers: Four, found: Comparison) -> list[str]:
    """Decimals of the two logarithms, as many as it takes."""
    a, b, c, d = numbers if found.sign == 1 else (*numbers[2:], *numbers[:2])
    for decimals in range(3, _MAX_DECIMALS):
        scale = 10**decimals
        low = _ends(a, decimals)[0] * scale // 1
        high = -(-_ends(c, decimals)[1] * scale // 1)
        if b * low > d * high:
            return [
                f"ln {_bracketed(a)} > {_point(int(low), decimals)} and ln {_bracketed(c)} < "
                f"{_point(int(high), decimals)}: these decimals decide."
            ]
    return []


def _ends(x: Fraction, decimals: int) -> tuple[Fraction, Fraction]:
    return log_ratio(x.numerator, x.denominator, 4 * decimals + 32).ends()


def _point(units: int, decimals: int) -> str:
    whole, rest = divmod(units, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}"


# ------------------------------------------------------------------------------------- the family


def family_proof(family: Swapped, left: str, right: str) -> list[str]:
    """n^(n+m) against (n+m)^n: the classical proofs; none where they do not apply."""
    n, m, mirrored = family
    x, y = (right, left) if mirrored else (left, right)  # n^(n+m) and (n+m)^n as written
    if n.p == 0 or (n.q == m.q == 1 and n.p < 3):
        return _first_cases(n.p, m.p, x, y)
    shown = show_rational(n)
    if n == Rational(n.p) and m == Rational(1):
        return [
            f"Divide {x} and {y} by {shown}^{shown}: this leaves {shown} and (1 + 1/{shown})"
            f"^{shown}.",
            "For t > 0, ln(1 + t) < t; with t = 1/n, (1 + 1/n)^n < e = 2.718... at every n.",
            f"So (1 + 1/{shown})^{shown} < e < {'3' if n.p == 3 else f'3 < {shown}'}, and {x} > "
            f"{y}.",
            "For steps m beyond 1: ln t / t falls for t > e, so n^(n+m) > (n+m)^n for all n >= 3.",
        ]
    return _by_falling(n, m, x, y)


def _first_cases(n: int, m: int, x: str, y: str) -> list[str]:
    if n == 0:
        return [f"{x} = 0, and {y} = 1, as every number to the power 0 is 1."]
    if n == 1:
        return [f"{x} = 1 and {y} = {m + 1}."]
    if m <= 2:
        values = f"{2 ** (2 + m)} and {(2 + m) ** 2}"
        return [f"{x} and {y} are {values}, worked out."]
    return [
        f"With k = {m}: {x} = 4 * 2^k and {y} = (k + 2)^2. At k = 3 these are 32 and 25.",
        "One more k doubles the first and multiplies the second by ((k+3)/(k+2))^2 <= (6/5)^2 < 2.",
        f"So {x} > {y}.",
    ]


def _by_falling(n: Rational, m: Rational, x: str, y: str) -> list[str]:
    """Ln t / t rises up to t = e and falls from there on; n > 0."""
    assert n.p > 0
    low, high = Fraction(n.p, n.q), Fraction(n.p, n.q) + Fraction(m.p, m.q)
    if low < _E_HIGH and high > _E_LOW:
        return []
    falls = low >= _E_HIGH
    verb, relation = ("falls for t > e", ">") if falls else ("rises for t < e", "<")
    shown, more = show_rational(n), show_rational(Rational(high.numerator, high.denominator))
    return [
        f"Let f(t) = ln t / t. Its derivative (1 - ln t) / t^2 shows that it {verb} = 2.718...",
        f"So ln {shown} / {shown} {relation} ln {more} / {more}, as {shown} < {more}.",
        f"Multiply by {shown} * {more}: ln of {x} {relation} ln of {y}.",
    ]
