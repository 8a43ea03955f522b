"""The questions of `tools.py` and their answers. Only the standard library is needed."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import NamedTuple


class Case(NamedTuple):
    """A tower a^b^c... on each side, and the exact sign of left - right."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    sign: int


def exam(n: int) -> Case:
    """n^(n+1) against (n+1)^n with n >= 3: the left side is larger."""
    return Case((n, n + 1), (n + 1, n), 1)


def tie(digits: int) -> Case:
    """(g^6)^10 = (g^4)^15, where g^6 has about the given number of digits."""
    g = random.Random(0).getrandbits(int(digits / 6 * 3.3219)) | 1
    return Case((g**6, 10), (g**4, 15), 0)


def near(digits: int) -> Case:
    """2^p against 3^q, p / q a convergent of log 3 / log 2; q has the given number of digits."""
    with localcontext() as context:
        context.prec = 2 * digits + 60
        x = Decimal(3).ln() / Decimal(2).ln()
        p, q, p0, q0, k = 1, 0, 0, 1, 0
        while q < 10 ** (digits - 1):
            term = int(x)
            p, p0, q, q0 = term * p + p0, p, term * q + q0, q
            x, k = 1 / (x - term), k + 1
    return Case((2, p), (3, q), -1 if k % 2 else 1)


CASES: dict[str, Callable[[], Case]] = {
    "n^(n+1), n = 10^6": lambda: exam(10**6),
    "n^(n+1), n = 10^8": lambda: exam(10**8),
    "n^(n+1), n = 10^17": lambda: exam(10**17),
    "n^(n+1), n of 10^5 digits": lambda: exam(10 ** (10**5) + 7),
    "n^(n+1), n of 10^6 digits": lambda: exam(10 ** (10**6) + 7),
    "27^(10^6) = 9^(1.5 10^6)": lambda: Case((27, 10**6), (9, 3 * 10**6 // 2), 0),
    "1000^(2 10^9) = 100^(3 10^9)": lambda: Case((1000, 2 * 10**9), (100, 3 * 10**9), 0),
    "8^(10^12) = 4^(1.5 10^12)": lambda: Case((8, 10**12), (4, 3 * 10**12 // 2), 0),
    "tie, bases of 10^3 digits": lambda: tie(10**3),
    "tie, bases of 10^5 digits": lambda: tie(10**5),
    "tie, bases of 10^6 digits": lambda: tie(10**6),
    "near tie, 10 digits": lambda: near(10),
    "near tie, 50 digits": lambda: near(50),
    "near tie, 300 digits": lambda: near(300),
    "10^10^100 < 10^10^101": lambda: Case((10, 10, 100), (10, 10, 101), -1),
    "10^10^10^4 < 10^10^10^5": lambda: Case((10, 10, 10, 4), (10, 10, 10, 5), -1),
    "10^10^10^10 < 10^10^10^11": lambda: Case((10, 10, 10, 10), (10, 10, 10, 11), -1),
    "9^10^10^10 < 10^10^10^10": lambda: Case((9, 10, 10, 10), (10, 10, 10, 10), -1),
}
