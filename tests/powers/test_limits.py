"""Huge inputs: an answer or one sentence, in little memory and few seconds.

The time is not asserted (a machine may be busy); a case that ran for minutes would meet the limit
of the test suite. The memory is measured in a process of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

_PROGRAM = """
import json, resource, sys
from noisewise.powers import compare, explain
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
left, right, full = json.loads(sys.stdin.read())
try:
    found = explain(left, right) if full else compare(left, right)
    sign = found.comparison.sign if full else found.sign
    answer = [sign, len(str(found))]
except ValueError as error:
    answer = [str(error), 0]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([*answer, (after - before) // 1024]))
"""
_CHOSEN = random.Random(1)
_LONG = "".join(str(_CHOSEN.randint(1, 9)) for _ in range(10_000))

CASES = {
    "9^9^9^9": ("9^9^9^9", "10^9^9^9", -1),
    "10^10^10!": ("10^10^10!", "10^10^11!", -1),
    "factorial of a tower": ("(10^10^10)!", "10^10^11", 1),
    "factorials of factorials": ("((100!)!)!", "(101!)!^100", 1),
    "10,000 digits": (f"{_LONG}^{_LONG}", f"{_LONG[::-1]}^{_LONG}", None),
    "10,000 digits of a family": (f"{_LONG}^({_LONG} + 1)", f"({_LONG} + 1)^{_LONG}", 1),
    "a sum of 10,000 numbers": ("+".join(map(str, range(1, 10_001))), "50005000", 0),
    "2,000 fractions": ("+".join(f"1/{k}" for k in range(1, 2001)), "8", 1),
    "200 roots": ("+".join(f"sqrt({k})" for k in range(1, 201)), "1892", 1),
    "3,000 roots": ("+".join(f"sqrt({k})" for k in range(1, 3000)), "5", "shorter"),
    "200 roots backwards": (
        "+".join(f"sqrt({k})" for k in range(1, 200)),
        "+".join(f"sqrt({k})" for k in range(199, 0, -1)),
        0,
    ),
    "90 roots in each other": ("sqrt(1 + " * 90 + "1" + ")" * 90, "1.618", 1),
    "100 brackets": ("(" * 101 + "1" + ")" * 101, "1", "levels"),
    "300 levels": ("^".join(["2"] * 300), "1", "levels"),
    "40 towers in a sum": ("+".join(f"{k}^10^10" for k in range(2, 42)), "42^10^10", -1),
    "1,000 roots multiplied": ("*".join(f"sqrt({k})" for k in range(2, 1000)), "10^4000", -1),
    "arrows": ("2" + "^" * 40 + "3", "3", "levels"),
    "many arrows of 2": ("2" + "^" * 45 + "2", "4", 0),
    "a long exponent": ("1e999999999999", "10^999999999999", 0),
    "an irrational tower": ("sqrt(2)^^40", "2", -1),
    "a difference of 10,000 digits": ("sqrt(10^20000 + 1) - 10^10000", "1", -1),
    "a sum to a high power": ("(1 + sqrt(2))^100000000000", "10^38277568530", 1),
    "e to 400 terms": (
        "e", "1" + "".join(f"+1/{k}!" for k in range(1, 200)), 1,
    ),
    "very different sizes": ("10^^200 + 1/10^^200", "10^^200", 1),
    "all percent": ("1" + "%" * 3000, "1", -1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_huge_inputs_end_in_little_memory(name: str) -> None:
    left, right, expected = CASES[name]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps([left, right, True]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, length, mebibytes = json.loads(done.stdout)
    assert mebibytes < 150
    assert length < 6000
    if isinstance(expected, str):
        assert expected in answer
        assert "\n" not in answer
        assert len(answer) < 300
    elif expected is not None:
        assert answer == expected
    else:
        assert answer == (_LONG > _LONG[::-1]) - (_LONG < _LONG[::-1])
