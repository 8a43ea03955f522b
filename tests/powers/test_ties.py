"""True ties and near ties, where float logarithms fail; and limits of size and memory."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import pytest

from noisewise.powers import compare
from noisewise.powers.linear_forms import Term, decide

mpmath = pytest.importorskip("mpmath")


def ties(count: int) -> Iterator[tuple[int, int, int, int]]:
    """(g^i)^(j m) = (g^j)^(i m)."""
    rng = random.Random(0)
    for _ in range(count):
        g, m = rng.randint(2, 10 ** rng.randint(1, 6)), rng.randint(1, 10 ** rng.randint(1, 9))
        i, j = rng.sample(range(1, 13), 2)
        yield g**i, j * m, g**j, i * m


def test_20000_true_ties_where_float_logarithms_fail() -> None:
    fooled = 0
    for a, b, c, d in ties(20_000):
        assert decide([Term(b, a, 1), Term(-d, c, 1)]).sign == 0
        fooled += b * math.log(a) != d * math.log(c)
    assert fooled > 3000, "the naive way must fail here, or the test shows nothing"


def test_the_same_ties_a_hair_apart_are_no_ties() -> None:
    for a, b, c, d in ties(1000):
        assert decide([Term(b, a, 1), Term(-d, c + 1, 1)]).sign == -1
        assert decide([Term(b + 1, a, 1), Term(-d, c, 1)]).sign == 1


def test_a_near_tie_of_long_bases_is_worked_out_without_the_common_factor() -> None:
    """(n^2 + 1)^100 and n^200 share 120,000 digits; their hundredth roots are short enough."""
    n = 10**60_000
    for common in (1, 100, 10**30):
        found = compare(n**2 + 1, common, n, 2 * common)
        assert found.sign == 1
        assert found.bits == 0  # no logarithm of 400,000 bits
        assert found.ln_ratio is not None
        low, high = (end * n**2 / common for end in found.ln_ratio)  # ln(1 + 1/n^2) = 1/n^2 - ...
        assert abs(low - 1) < Fraction(1, 10**9)
        assert abs(high - 1) < Fraction(1, 10**9)


@pytest.mark.parametrize("left", ["27^1000000", "(27/8)^1000000", "27^(1000000/7)"])
def test_ties_of_integers_fractions_and_roots(left: str) -> None:
    right = left.replace("27", "9").replace("8", "4").replace("1000000", "1500000")
    assert compare(left, right).sign == 0
    # pairwise multiplicatively dependent, in all the ways fractions can be
    assert compare("(4/9)^300000 * (9/4)^100000", "(2/3)^400000").sign == 0
    assert compare("(1/8)^-100001", "2^300003").sign == 0


def convergents(digits: int) -> list[tuple[int, int]]:
    """Fractions p / q with |p log 2 - q log 3| < 1 / q, up to q of so many digits."""
    with mpmath.workdps(2 * digits + 50):
        x = mpmath.log(3) / mpmath.log(2)
        p, q, p0, q0 = 1, 0, 0, 1
        found = []
        while q < 10**digits:
            term = int(mpmath.floor(x))
            p, p0, q, q0 = term * p + p0, p, term * q + q0, q
            found.append((p, q))
            x = 1 / (x - term)
    return found


def test_near_ties_from_continued_fractions() -> None:
    """2^p against 3^q: convergents lie below and above the limit by turns."""
    found = convergents(300)
    assert len(str(found[-1][1])) >= 300
    fooled = 0
    for k, (p, q) in enumerate(found):
        decision = decide([Term(p, 2, 1), Term(-q, 3, 1)])
        assert decision.sign == (-1 if k % 2 == 0 else 1)
        assert decision.bits <= max(128, 5 * q.bit_length())
        by_floats = p * math.log(2) - q * math.log(3)
        fooled += (by_floats > 0) - (by_floats < 0) != decision.sign
    assert fooled > len(found) / 4, "float logarithms must fail here"


def test_near_ties_of_fractions() -> None:
    """The same convergents as exponents of 3/2 and 2: (3/2)^q = 3^q / 2^q."""
    for k, (p, q) in enumerate(convergents(60)):
        assert compare("3/2", q, 2, p - q).sign == (1 if k % 2 == 0 else -1)


def test_a_root_and_its_decimals() -> None:
    """2^(1/3) against 150 of its digits, cut off and one unit more."""
    units = round_down_cube_root(2 * 10**450)
    assert compare(2, Fraction(1, 3), Fraction(units, 10**150), 1).sign == 1
    assert compare(2, Fraction(1, 3), Fraction(units + 1, 10**150), 1).sign == -1


def round_down_cube_root(n: int) -> int:
    low, high = 0, 1 << (n.bit_length() // 3 + 1)
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= n else (low, middle)
    return low


def test_operands_of_a_million_digits() -> None:
    """The exam question, an equal base, an equal exponent, and random-looking numbers."""
    n = 10**1_000_000 + 7
    assert compare(n, n + 1, n + 1, n).sign == 1
    assert compare(n, n, n, n + 1).sign == -1
    assert compare(n, 3, n + 1, 3).sign == -1
    assert compare(3**2_000_000, 5, 7**1_100_000, 6).sign == -1
    assert compare(3**2_000_000, 7**1_000_000, 5**1_300_000, 11**800_000).sign == 1


def test_a_tie_of_a_hundred_thousand_digits() -> None:
    g = 3**20_000 + 2
    assert compare(g**6, 10, g**4, 15).sign == 0
    assert compare(g**6, 10, g**4 + 1, 15).sign == -1


def test_a_number_of_200000_digits_is_read_from_text() -> None:
    text = "1234567890" * 20_000
    assert compare(text, text[:-1] + "1").sign == -1
    assert compare(f"{text}^2", f"{text}^3").method == "same base"


def test_towers_of_towers_never_fill_memory() -> None:
    """Under a cap of 400 MB of address space, in a process of its own."""
    resource = pytest.importorskip("resource")
    del resource
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "from noisewise.powers import compare, explain\n"
        "tower = '^'.join(['10'] * 90)\n"
        "assert compare(tower, '9^' + tower).sign == -1\n"
        "assert compare(tower, '^'.join(['10'] * 89 + ['11'])).sign == -1\n"
        "assert compare('10^10^10^10 * 2', '10^10^10^10').sign == 1\n"
        "assert compare('(-3)^10^10^10^10', '-(9^9^9^9^9)').sign == 1\n"
        "assert compare('1e99999999999999999999', '1e99999999999999999998').sign == 1\n"
        "assert compare('2^-(10^10^10)', '3^-(10^10^10)').sign == 1\n"
        "assert 'too large' in str(explain(tower, '9^' + tower))\n"
        "try:\n"
        "    compare('10^10^10 + 1', '3')\n"
        "except ValueError as error:\n"
        "    assert 'written out' in str(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
