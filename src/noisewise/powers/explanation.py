"""Explains a comparison on three levels: compute it, see the pattern, prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from noisewise.powers.bounds import as_tens, decimals_of, leading_digits
from noisewise.powers.comparison import Comparison, Operand, compare_expressions, read, read_power
from noisewise.powers.formatting import (
    digits_of,
    in_full,
    is_shown_exactly,
    scientific,
    shorten,
    show_interval,
    show_rational,
    tens_of,
)
from noisewise.powers.parser import Expression
from noisewise.powers.patterns import pattern
from noisewise.powers.proofs import proof
from noisewise.powers.towers import plain_terms
from noisewise.powers.values import Rational, Value, as_product, is_whole

Level = Literal["compute", "pattern", "proof"]
LEVELS: tuple[Level, ...] = ("compute", "pattern", "proof")
_MAX_COUNT_DIGITS = 100  # a number of digits that is longer than this is rounded
_MAX_PLAIN_DIGITS = 9  # before the point; longer numbers are shown with a power of ten
_TITLES: dict[Level, str] = {
    "compute": "Compute it",
    "pattern": "See the pattern",
    "proof": "Prove it",
}


@dataclass(frozen=True)
class Step:
    """One level of an explanation.

    Attributes:
        level: "compute", "pattern" or "proof".
        title: a heading.
        lines: plain text, one line below the other.
    """

    level: Level
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """A comparison and the steps that explain it.

    Attributes:
        comparison: the result.
        steps: the levels that were asked for; a level without anything to show is left out.
    """

    comparison: Comparison
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """As text: the result, then each step under its title."""
        parts = [f"{self.comparison.left} {self.comparison.symbol} {self.comparison.right}"]
        for step in self.steps:
            parts += ["", step.title, *(f"  {line}".rstrip() for line in step.lines)]
        return "\n".join(parts)


def explain(
    a: Operand,
    b: Operand,
    c: Operand | None = None,
    d: Operand | None = None,
    levels: Sequence[Level] = LEVELS,
) -> Explanation:
    """Explain a^b against c^d, or one expression against another.

    compute: both sides with all digits; of long numbers, the number of digits and the first digits.
    pattern: a table that shows the answer. proof: an argument that can be checked by hand, if there
    is one; for the family n^(n+m) against (n+m)^n, the classical proof.

    Args:
        a: see `noisewise.powers.compare`.
        b: see `noisewise.powers.compare`.
        c: see `noisewise.powers.compare`.
        d: see `noisewise.powers.compare`.
        levels: some of "compute", "pattern" and "proof", in the order to show them.

    Raises:
        ValueError: for operands that cannot be compared, and for unknown levels.
        TypeError: for three operands.

    Example:
        >>> print(explain("3^4", "4^3", levels=["proof"]))
        3^4 > 4^3
        <BLANKLINE>
        Prove it
          Divide both sides by 3^3: 3^4 becomes 3, and 4^3 becomes (1 + 1/3)^3.
          For every t > 0, ln(1 + t) < t. With t = 1/n: n ln(1 + 1/n) < 1.
          So (1 + 1/n)^n < e = 2.718... for every n.
          This gives (1 + 1/3)^3 < e < 3, and so 3^4 > 4^3.
          The same holds for every m > 0: n^(n+m) > (n+m)^n if n >= 3, as ln t / t falls for t > e.
    """
    if (c is None) != (d is None):
        raise TypeError("explain takes two sides, or four numbers a, b, c, d for a^b and c^d")
    unknown = [level for level in levels if level not in LEVELS]
    if unknown:
        raise ValueError(f"there is no level {unknown[0]!r}; choose from {', '.join(LEVELS)}")
    if c is None or d is None:
        left, right = read(a), read(b)
    else:
        left, right = read_power(a, b), read_power(c, d)
    found = compare_expressions(left, right)
    steps = []
    for level in levels:
        if level == "compute":
            lines = _computed(left, right, found)
        elif level == "pattern":
            lines = pattern(left, right, found)
        else:
            lines = proof(left, right, found)
        if lines:
            steps.append(Step(level, _TITLES[level], tuple(lines)))
    return Explanation(found, tuple(steps))


def _computed(left: Expression, right: Expression, found: Comparison) -> list[str]:
    lines = [describe(left), describe(right)]
    if found.sign and found.times:
        sides = ("left", "right") if found.sign * left.value.sign > 0 else ("right", "left")
        lines.append(f"The {sides[0]} side divided by the {sides[1]} side is about {found.times}.")
    return lines


def describe(side: Expression) -> str:
    """One side in digits; of a long number, how many digits it has and the first ones.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> describe(parse("11^10"))
        '11^10 = 25937424601 (11 digits)'
        >>> describe(parse("7^100000"))
        '7^100000 has 84510 digits and begins with 636797611'
    """
    text = shorten(side.text)
    short = in_full(side.value)
    if short is not None:
        shown = show_rational(short)
        length = len(shown.lstrip("-"))
        count = f" ({length} digits)" if short.q == 1 and length > 5 else ""
        relation = "=" if is_shown_exactly(short) else "is about"
        return f"{text}{count}" if shown == text else f"{text} {relation} {shown}{count}"
    plain = plain_terms(as_product(side.value).factors)
    if plain is None:
        return f"{text} {_about(side.value)}"
    tens = tens_of(*plain)
    sign = "-" if side.value.sign < 0 else ""
    if abs(scientific(tens)[1]) > _MAX_COUNT_DIGITS:
        return f"{text} is about {sign}10^({show_interval(tens)})"
    return f"{text} {_by_digits(side.value, *digits_of(*plain))}"


def _about(value: Value) -> str:
    """What is said of a number that is no product of rational powers."""
    sign = "-" if value.sign < 0 else ""
    found = leading_digits(value)
    if found:
        return _by_digits(value, *found)
    near = decimals_of(value, 9)
    if near:
        return f"lies between {near.low} and {near.high}"
    tower = as_tens(value)
    if tower:
        end = ", too large to write out" if tower.count("^") > 1 else ""
        return f"is about {sign}{tower}{end}"
    return "is too large: it is above 10^10^10^10^10^10^10^10^10^10"


def _by_digits(value: Value, digits: int, leading: str) -> str:
    """The number of digits and the first ones, or a decimal."""
    sign = "-" if value.sign < 0 else ""
    if is_whole(value):
        count = Rational(digits)
        about = "" if is_shown_exactly(count) else "about "
        first = leading.replace(".", "")
        return f"has {about}{show_rational(count)} digits and begins with {sign}{first}"
    return f"is about {sign}{_decimal(digits, leading)}"


def _decimal(digits: int, leading: str) -> str:
    """The leading digits "d.ddd" as a number with that many digits before the point."""
    if 1 <= digits <= _MAX_PLAIN_DIGITS:
        shown = leading.replace(".", "").ljust(digits, "0")
        rest = shown[digits:]
        return f"{shown[:digits]}.{rest}" if rest else shown[:digits]
    return f"{leading} * 10^{show_rational(Rational(digits - 1))}"
