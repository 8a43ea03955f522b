"""Explains a comparison at three levels: compute it, see the pattern, prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from noisewise.powers.comparison import Comparison, Operand, compare_expressions, read, read_power
from noisewise.powers.formatting import (
    digits_of,
    in_full,
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
from noisewise.powers.values import Rational, as_product, is_whole

Level = Literal["compute", "pattern", "proof"]
LEVELS: tuple[Level, ...] = ("compute", "pattern", "proof")
_MAX_COUNT_DIGITS = 100  # where counting the digits takes more digits, the count is rounded
_TITLES: dict[Level, str] = {
    "compute": "Compute it",
    "pattern": "See the pattern",
    "proof": "Prove it",
}


@dataclass(frozen=True)
class Step:
    """One level of an explanation.

    Attributes:
        level: which of the three.
        title: a heading.
        lines: plain text, to be shown one below the other.
    """

    level: Level
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """A comparison and the steps that explain it."""

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

    compute: both sides, with all digits while they are few, else their number and the first ones;
    pattern: a table of neighbours, in which the answer is seen; proof: an argument that can be
    checked by hand where there is one, for the family n^(n+m) against (n+m)^n the classical one.

    Args:
        a: see `noisewise.powers.compare`.
        b: the same.
        c: the same.
        d: the same.
        levels: which of "compute", "pattern" and "proof", in the order wanted.

    Raises:
        ValueError: for operands that cannot be compared, and levels that do not exist.
        TypeError: for three operands.

    Example:
        >>> print(explain("3^4", "4^3", levels=["proof"]))
        3^4 > 4^3
        <BLANKLINE>
        Prove it
          Divide 3^4 and 4^3 by 3^3: this leaves 3 and (1 + 1/3)^3.
          For t > 0, ln(1 + t) < t; with t = 1/n, (1 + 1/n)^n < e = 2.718... at every n.
          So (1 + 1/3)^3 < e < 3, and 3^4 > 4^3.
          For steps m beyond 1: ln t / t falls for t > e, so n^(n+m) > (n+m)^n for all n >= 3.
    """
    if (c is None) != (d is None):
        raise TypeError("explain takes two texts, or four numbers: a, b, c, d for a^b and c^d")
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
        larger = "left" if found.sign > 0 else "right"
        if left.value.sign < 0:
            larger = "left" if found.sign < 0 else "right"
        size = " in size" if left.value.sign < 0 else ""
        other = "right" if larger == "left" else "left"
        lines.append(f"The {larger} side is about {found.times} times the {other} one{size}.")
    return lines


def describe(side: Expression) -> str:
    """One side in digits, as far as that helps.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> describe(parse("11^10"))
        '11^10 = 25937424601 (11 digits)'
        >>> describe(parse("7^100000"))
        '7^100000 has 84510 digits and begins with 6.36797611'
    """
    text = shorten(side.text)
    short = in_full(side.value)
    if short is not None:
        shown = show_rational(short)
        length = len(shown.lstrip("-"))
        count = f" ({length} digits)" if short.q == 1 and length > 5 else ""
        relation = "is about" if short.q > 1 and "/" not in shown else "="
        return f"{text}{count}" if shown == text else f"{text} {relation} {shown}{count}"
    plain = plain_terms(as_product(side.value).factors)
    if plain is None:
        return f"{text} is too tall: even its number of digits cannot be written out"
    tens = tens_of(*plain)
    sign = "-" if side.value.sign < 0 else ""
    if abs(scientific(tens)[1]) > _MAX_COUNT_DIGITS:
        return f"{text} is about {sign}10^({show_interval(tens)})"
    digits, leading = digits_of(*plain)
    if is_whole(side.value):
        return f"{text} has {_count(digits)} digits and begins with {sign}{leading}"
    return f"{text} is about {sign}{leading} * 10^{_count(digits - 1)}"


def _count(n: int) -> str:
    return show_rational(Rational(n))
