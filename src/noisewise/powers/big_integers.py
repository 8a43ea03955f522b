"""Integers of a million digits: reading, gcd and exact roots faster than in quadratic time.

Reading by halves and p-adic roots (Brent and Zimmermann 2010, "Modern computer arithmetic",
sections 1.7 and 4.2) need only multiplication, which takes time n^1.58 in Python. If python-flint
is installed, its gcd and its reading are used: they take nearly linear time.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from types import ModuleType

_CHUNK = 400  # decimal digits that int() reads at once; Python's limit cannot be below 640
_FLINT_BITS = 20_000  # for longer numbers, a call into flint saves more than it costs


@cache
def flint() -> ModuleType | None:
    """python-flint if it is installed, else None. The results are the same with and without it.

    Example:
        >>> flint() is flint()
        True
    """
    try:
        return import_module("flint")
    except ImportError:
        return None


def read_digits(digits: str) -> int:
    """The integer with the given decimal digits.

    Args:
        digits: ASCII digits only, at least one; there is no upper limit.

    Example:
        >>> read_digits("0012")
        12
        >>> read_digits("7" * 5000) == 7 * (10**5000 - 1) // 9
        True
    """
    module = flint()
    if module is not None and len(digits) > _CHUNK:
        return int(module.fmpz(digits))
    return _read_by_halves(digits, {_CHUNK: 5**_CHUNK})


def _read_by_halves(digits: str, powers: dict[int, int]) -> int:
    """Split at _CHUNK * 2^k digits from the right, so that few powers of five are needed.

    10^k = 5^k * 2^k: with powers of five and shifts, the multiplications are a third shorter.
    """
    if len(digits) <= _CHUNK:
        return int(digits)
    low = _CHUNK
    while 2 * low < len(digits):
        low *= 2
    if low not in powers:
        powers[low] = _power_of_five(low, powers)
    high = _read_by_halves(digits[:-low], powers)
    return (high * powers[low] << low) + _read_by_halves(digits[-low:], powers)


def _power_of_five(exponent: int, powers: dict[int, int]) -> int:
    half = exponent // 2
    if half not in powers:
        powers[half] = _power_of_five(half, powers)
    return powers[half] ** 2


def gcd(a: int, b: int) -> int:
    """Greatest common divisor; by flint if it is installed and the numbers are large.

    Example:
        >>> gcd(2**40_000 * 3, 2**30_000 * 9) == 2**30_000 * 3
        True
    """
    module = flint()
    if module is not None and min(a.bit_length(), b.bit_length()) > _FLINT_BITS:
        return int(module.fmpz(a).gcd(module.fmpz(b)))
    return math.gcd(a, b)


def power(n: int, k: int) -> int:
    """The whole number n^k; by flint if it is installed and the result is large.

    Example:
        >>> power(3, 4)
        81
    """
    module = flint()
    if module is not None and n.bit_length() * k > _FLINT_BITS:
        return int(module.fmpz(n) ** k)
    return n**k


def remove(n: int, q: int) -> tuple[int, int]:
    """How often q divides n, and the quotient that remains: (v, n / q^v).

    The powers of q are squared again and again, so that about log2 v divisions are enough.

    Args:
        n: 1 or more.
        q: 2 or more.

    Example:
        >>> remove(96, 2)
        (5, 3)
    """
    if q == 2:
        v = (n & -n).bit_length() - 1
        return v, n >> v
    ladder = []  # q^(2^i) while it divides the quotient
    v, step = 0, q
    while step <= n:
        quotient, rest = divmod(n, step)
        if rest:
            break
        n, v = quotient, v + (1 << len(ladder))
        ladder.append(step)
        step *= step
    for i in range(len(ladder) - 1, -1, -1):
        quotient, rest = divmod(n, ladder[i])
        if not rest:
            n, v = quotient, v + (1 << i)
    return v, n


def exact_root(n: int, k: int) -> int | None:
    """The integer g with g^k = n, or None if there is none.

    Large roots are found modulo a power of two by Newton's iteration, which needs no division. A
    multiplication proves them.

    Args:
        n: 1 or more.
        k: 1 or more.

    Example:
        >>> exact_root(27**1000, 3) == 3**1000
        True
        >>> exact_root(28, 3) is None
        True
    """
    if k == 1 or n == 1:
        return n
    twos, odd = remove(n, 2)
    if k > n.bit_length() or twos % k:
        return None  # 2^k > n, or the exponent of 2 in n is not a multiple of k
    module = flint()
    if module is not None and n.bit_length() > _FLINT_BITS:
        root = module.fmpz(n).root(k)
        return int(root) if root**k == n else None
    bits = -(-odd.bit_length() // k)  # a root g of odd has g < 2^bits
    for candidate in _roots_mod(odd, k, bits):
        if candidate.bit_length() <= bits and candidate**k == odd:
            return candidate << (twos // k)
    return None


def _roots_mod(odd: int, k: int, bits: int) -> list[int]:
    """Numbers below 2^bits; if there is a root g, it is one of them."""
    halvings, odd_part = remove(k, 2)
    width = bits + halvings + 3  # each square root loses a bit of the modulus
    roots = [_odd_root_mod(odd, odd_part, width)]
    for _ in range(halvings):
        # Each root is 1 modulo 4; with the other sign it could not be a square again.
        roots = [r for root in roots for r in _square_roots_mod(root, width)]
        width -= 1
    mask = 1 << width
    return [r for root in roots for r in (root % mask, -root % mask)]


def _odd_root_mod(odd: int, k: int, width: int) -> int:
    """The only g with g^k = odd (mod 2^width), for odd k."""
    if k == 1:
        return odd % (1 << width)
    # y -> y + y (1 - odd y^k) / k doubles the correct bits of y = odd^(-1/k); y = 1 has one bit.
    # The lower half of the difference is zero, so that only its upper half is multiplied.
    y, have, half = 1, 1, width // 2 + 1
    while have < half:
        wider = min(2 * have, half)
        mask, low = (1 << wider) - 1, (1 << (wider - have)) - 1
        rest = ((1 - (odd & mask) * _power_mod(y, k, mask)) & mask) >> have
        y += ((y & low) * (rest * pow(k, -1, low + 1) & low) & low) << have
        have = wider
    # The last step works on g = odd y^(k-1) = 1 / y itself: g -> g + (odd - g^k) y^(k-1) / k.
    mask, full, low = (1 << half) - 1, (1 << width) - 1, (1 << (width - half)) - 1
    g = (odd & mask) * _power_mod(y, k - 1, mask) & mask
    rest = ((odd - _power_mod(g, k, full)) & full) >> half
    step = (rest * _power_mod(y & low, k - 1, low) & low) * pow(k, -1, low + 1) & low
    return g + (step << half)


def _power_mod(y: int, k: int, mask: int) -> int:
    """y^k modulo mask + 1, a power of two; unlike pow with three arguments, without division."""
    result = 1
    while k:
        if k & 1:
            result = result * y & mask
        k >>= 1
        if k:
            y = y * y & mask
    return result


def _square_roots_mod(odd: int, width: int) -> list[int]:
    """A square root of odd modulo 2^(width - 1), up to sign; none unless odd = 1 (mod 8)."""
    if odd % 8 != 1:
        return []
    # y -> y (3 - odd y^2) / 2: if odd y^2 = 1 (mod 2^h), the next y is right modulo 2^(2h - 2).
    y, have = 1, 3
    while have < width:
        have = min(2 * have - 2, width)
        mask = (1 << (have + 1)) - 1
        rest = (3 - (odd & mask) * (y * y & mask)) & mask
        y = (y * rest & mask) >> 1
    return [odd * y & ((1 << (width - 1)) - 1)]
