"""Compares powers of any size exactly.

Only the standard library is needed. If python-flint is installed, it is used for very long numbers.
"""

from __future__ import annotations

from noisewise.powers.comparison import Comparison, compare
from noisewise.powers.crossing import crossing
from noisewise.powers.explanation import (
    ChainExplanation,
    Explanation,
    Step,
    explain,
    explain_order,
)
from noisewise.powers.ordering import Chain, order
from noisewise.powers.parser import Expression, parse
from noisewise.powers.tokens import PowersSyntaxError

__all__ = [
    "Chain",
    "ChainExplanation",
    "Comparison",
    "Explanation",
    "Expression",
    "PowersSyntaxError",
    "Step",
    "compare",
    "crossing",
    "explain",
    "explain_order",
    "order",
    "parse",
]
