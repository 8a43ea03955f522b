"""Puts any number of powers in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import pairwise

from noisewise.powers.comparison import Comparison, Operand, compare_expressions, read
from noisewise.powers.formatting import shorten
from noisewise.powers.parser import Expression


@dataclass(frozen=True)
class Chain:
    """Powers from the smallest to the largest.

    Attributes:
        expressions: the smallest first; equal ones in the order in which they were given.
        steps: the comparison of each expression with the next one.
    """

    expressions: tuple[Expression, ...]
    steps: tuple[Comparison, ...]

    def __str__(self) -> str:
        """One line: `a < b = c < d`."""
        shown = [shorten(expression.text) for expression in self.expressions]
        pairs = zip(self.steps, shown[1:], strict=True)
        return shown[0] + "".join(f" {step.symbol} {text}" for step, text in pairs)


def order(operands: Iterable[Operand]) -> Chain:
    """Sort numbers and texts by size, exactly.

    Args:
        operands: at least one; each is anything that `compare` takes as a side.

    Raises:
        ValueError: for operands that cannot be read, and if a comparison of two towers stays
            undecided.

    Example:
        >>> print(order(["70!", "10^100", "2^333", "10^101/10"]))
        10^100 = 10^101/10 < 70! < 2^333
    """
    read_ones = [read(operand) for operand in operands]
    if not read_ones:
        raise ValueError("nothing to put in order; give at least one number")
    ordered = sorted(read_ones, key=cmp_to_key(_certain))
    neighbours = pairwise(ordered)
    return Chain(tuple(ordered), tuple(compare_expressions(x, y) for x, y in neighbours))


def _certain(x: Expression, y: Expression) -> int:
    found = compare_expressions(x, y)
    if found.sign is None:
        raise ValueError(f"no order was found for {found.left} and {found.right}: {found.reason}")
    return found.sign
