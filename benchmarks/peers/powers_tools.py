"""Ask one tool one question: `powers_tools.py TOOL CASE`, run by benchmarks/powers/tools.py.

It prints a JSON line {"sign": -1 | 0 | 1 | null, "seconds": [...]}. Each tool is used as its
documentation suggests for numbers that are too large to write out; the time to build the numbers
does not count. The caller stops it at the time limit.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.powers.cases import CASES, Case

MAX_REPEATS, MAX_SECONDS = 15, 1.0
Sign = int | None


def of(difference: int) -> Sign:
    """Return the sign: -1, 0 or 1."""
    return (difference > 0) - (difference < 0)


def noisewise(case: Case) -> Sign:
    """noisewise: numbers for powers, text for towers."""
    from noisewise.powers import compare

    if len(case.left) == 2:
        return compare(*case.left, *case.right).sign
    return compare("^".join(map(str, case.left)), "^".join(map(str, case.right))).sign


def integers(case: Case) -> Sign:
    """Python's integers: compute both numbers."""
    values = []
    for numbers in (case.left, case.right):
        value = numbers[-1]
        for base in reversed(numbers[:-1]):
            value = base**value
        values.append(value)
    return of(values[0] - values[1])


def float_logs(case: Case) -> Sign:
    """What most programs do: compare b log a with d log c, in floats."""
    x, y = (_float_log(numbers) for numbers in (case.left, case.right))
    return (x > y) - (x < y)


def _float_log(numbers: tuple[int, ...]) -> float:
    exponent = float(numbers[-1])
    for base in reversed(numbers[1:-1]):
        exponent = float(base) ** exponent
    return exponent * math.log(numbers[0])


def sympy(case: Case) -> Sign:
    """sympy: compare unevaluated powers."""
    import sympy as sp

    values: list[Any] = []
    for numbers in (case.left, case.right):
        value: Any = sp.Integer(numbers[-1])
        for base in reversed(numbers[:-1]):
            value = sp.Pow(base, value, evaluate=False)
        values.append(value)
    x, y = values
    if (x > y) == True:  # noqa: E712 (sympy's answer can be neither)
        return 1
    if (x < y) == True:  # noqa: E712
        return -1
    return 0 if sp.Eq(x, y) == True else None  # noqa: E712


def mpmath(case: Case) -> Sign:
    """mpmath: floats with 50 digits and exponents of any size."""
    import mpmath as mp

    with mp.workdps(50):
        x, y = (_tower(numbers, mp.mpf) for numbers in (case.left, case.right))
        return (x > y) - (x < y)


def mpmath_iv(case: Case) -> Sign:
    """mpmath: intervals of 50 digits of the logarithms."""
    from mpmath import iv as intervals

    iv: Any = intervals
    iv.dps = 50
    x, y = (
        _tower(numbers[1:], iv.mpf) * iv.log(iv.mpf(numbers[0]))
        for numbers in (case.left, case.right)
    )
    return 1 if (x > y) is True else -1 if (x < y) is True else None


def flint(case: Case) -> Sign:
    """python-flint: balls of the logarithms with rising precision, up to 16384 bits."""
    import flint as fl

    for bits in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        with fl.ctx.workprec(bits):
            x, y = (
                _tower(numbers[1:], fl.arb) * fl.arb(numbers[0]).log()
                for numbers in (case.left, case.right)
            )
            if x > y:
                return 1
            if x < y:
                return -1
    return None


def _tower(numbers: tuple[int, ...], kind: Callable[[Any], Any]) -> Any:  # noqa: ANN401 (each tool's own numbers)
    value = kind(numbers[-1])
    for base in reversed(numbers[:-1]):
        value = kind(base) ** value
    return value


TOOLS = {
    "noisewise": noisewise,
    "python int": integers,
    "float logarithms": float_logs,
    "sympy": sympy,
    "mpmath": mpmath,
    "mpmath iv": mpmath_iv,
    "python-flint arb": flint,
}


def main() -> None:
    """Answer several times, and print the answer and the times."""
    sys.set_int_max_str_digits(0)
    tool, case = TOOLS[sys.argv[1]], CASES[sys.argv[2]]()
    seconds: list[float] = []
    sign = None
    while len(seconds) < MAX_REPEATS and sum(seconds) < MAX_SECONDS:
        start = time.perf_counter()
        sign = tool(case)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"sign": sign, "seconds": seconds}))


if __name__ == "__main__":
    main()
