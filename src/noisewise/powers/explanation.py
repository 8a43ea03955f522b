"""Explains a comparison on three levels: compute it, see the pattern, prove it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
from noisewise.powers.intervals import Unresolved
from noisewise.powers.ordering import Chain, order
from noisewise.powers.parser import Expression
from noisewise.powers.patterns import pattern
from noisewise.powers.proofs import proof
from noisewise.powers.reals import log_of
from noisewise.powers.towers import plain_terms
from noisewise.powers.values import Rational, Value, as_product, inverse, is_whole

Level = Literal["compute", "pattern", "proof"]
LEVELS: tuple[Level, ...] = ("compute", "pattern", "proof")
_MAX_COUNT_DIGITS = 100  # a number of digits that is longer than this is rounded
_TALL = 8  # a number whose logarithm has so many exponentials is above 10^^10
_MAX_PLAIN_DIGITS = 9  # before the point; longer numbers are shown with a power of ten
_MAX_FACTORS, _MAX_PRODUCT = 12, 10**12  # of a power that is multiplied step by step
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


@dataclass(frozen=True)
class ChainExplanation:
    """Powers in order, and an explanation of each against the next one.

    Attributes:
        chain: the order.
        explanations: one for each pair of neighbours.
    """

    chain: Chain
    explanations: tuple[Explanation, ...]

    def __str__(self) -> str:
        """As text: the order, then each explanation."""
        return "\n\n".join(map(str, (self.chain, *self.explanations)))


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
        >>> print(explain("2^3", "3^2", levels=["proof"]))
        2^3 < 3^2
        <BLANKLINE>
        Prove it
          2^3 = 8 < 9 = 3^2.
    """
    if (c is None) != (d is None):
        raise TypeError("explain takes two sides, or four numbers a, b, c, d for a^b and c^d")
    _check(levels)
    if c is None or d is None:
        left, right = read(a), read(b)
    else:
        left, right = read_power(a, b), read_power(c, d)
    return _explained(left, right, levels)


def explain_order(
    operands: Iterable[Operand], levels: Sequence[Level] = ("proof",)
) -> ChainExplanation:
    """Put numbers in order and explain each neighbour against the next one.

    Args:
        operands: at least two; each is anything that `compare` takes as a side.
        levels: see `explain`.

    Raises:
        ValueError: see `explain` and `noisewise.powers.order`.

    Example:
        >>> print(explain_order(["3^2", "2^3", "5"]))
        5 < 2^3 < 3^2
        <BLANKLINE>
        5 < 2^3
        <BLANKLINE>
        Prove it
          5 < 8 = 2^3.
        <BLANKLINE>
        2^3 < 3^2
        <BLANKLINE>
        Prove it
          2^3 = 8 < 9 = 3^2.
    """
    _check(levels)
    chain = order(operands)
    pairs = pairwise(chain.expressions)
    return ChainExplanation(chain, tuple(_explained(x, y, levels) for x, y in pairs))


def _check(levels: Sequence[Level]) -> None:
    unknown = [level for level in levels if level not in LEVELS]
    if unknown:
        raise ValueError(f"there is no level {unknown[0]!r}; choose from {', '.join(LEVELS)}")


def _explained(left: Expression, right: Expression, levels: Sequence[Level]) -> Explanation:
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
    lines = [describe(left), *multiplied(left), describe(right), *multiplied(right)]
    if found.sign and found.times:
        sides = ("left", "right") if found.sign * left.value.sign > 0 else ("right", "left")
        lines.append(f"The {sides[0]} side divided by the {sides[1]} side is about {found.times}.")
    return lines


def multiplied(side: Expression) -> list[str]:
    """A small power of a whole number, multiplied step by step; else nothing.

    Example:
        >>> from noisewise.powers.parser import parse
        >>> multiplied(parse("3^4")), multiplied(parse("10^4"))
        (['  3 * 3 = 9, 9 * 3 = 27, 27 * 3 = 81'], ['  a 1 and 4 zeros'])
    """
    a, b, value = side.base, side.exponent, side.value
    if not (isinstance(a, Rational) and isinstance(b, Rational) and isinstance(value, Rational)):
        return []
    if (a.q, b.q, value.q) != (1, 1, 1) or a.p < 2 or b.p < 2:
        return []
    if a.p == 10:
        return [f"  a 1 and {b.p} zeros"]
    if b.p > _MAX_FACTORS or value.p >= _MAX_PRODUCT:
        return []
    steps = [f"{a.p ** (k - 1)} * {a.p} = {a.p**k}" for k in range(2, b.p + 1)]
    return [f"  {', '.join(steps[k : k + 3])}" for k in range(0, len(steps), 3)]


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
    below = as_tens(inverse(value))
    if below:
        return f"is about {sign}1 / {below}, too small to write out"
    if _is_tall(value):
        return "is too large to write out: it is above 10^10^10^10^10^10^10^10^10^10"
    if _is_tall(inverse(value)):
        return "is too small to write out: it is below 1 / 10^10^10^10^10^10^10^10^10^10"
    return "has a size that was not found: its parts nearly cancel"


def _is_tall(value: Value) -> bool:
    """Whether |value| is above 10^^10, known from its logarithm."""
    try:
        log = log_of(value, 64)
    except Unresolved:
        return False
    return log.sign > 0 and log.level >= _TALL


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
    if -3 <= digits <= 0:
        return f"0.{'0' * -digits}{leading.replace('.', '')}"
    return f"{leading} * 10^{show_rational(Rational(digits - 1))}"
