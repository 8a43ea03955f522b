"""Decides whether a product of integer powers is 1, by exact arithmetic and without factoring.

The numbers n_1, ..., n_k are written over a coprime base: pairwise coprime q_j > 1 with
n_i = prod_j q_j^v_ij. Greatest common divisors find this base (Bach, Driscoll and Shallit 1993,
"Factor refinement"). Coprime numbers are multiplicatively independent, so

    prod_i n_i^E_i = 1    if and only if    sum_i v_ij E_i = 0 for every j.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from noisewise.powers.big_integers import exact_root, gcd, power, remove

# If a residue of the product differs from 1, the product is not 1. This proves most inequalities.
_PRIMES = (2**61 - 1, 2**89 - 1, 2**107 - 1)


def coprime_base(numbers: Iterable[int]) -> list[int]:
    """Pairwise coprime numbers above 1; each given number is a product of powers of them.

    Args:
        numbers: whole numbers of 1 or more.

    Example:
        >>> coprime_base([4, 6, 45])
        [2, 3, 5]
    """
    base: list[int] = []
    waiting = [n for n in numbers if n > 1]
    waiting.reverse()
    while waiting:
        n = waiting.pop()
        for i, q in enumerate(base):
            if n == 1:
                break
            _, n = remove(n, q)
            common = gcd(n, q)
            if common > 1:
                # q does not divide n, so common is a proper divisor of q. The smallest goes first.
                del base[i]
                waiting += [n, q // common, common]
                n = 1
        if n > 1:
            base.append(n)
    return sorted(base)


def valuations(n: int, base: Sequence[int]) -> list[int]:
    """How often each number of a coprime base divides n.

    Example:
        >>> valuations(720, [2, 3, 5])
        [4, 2, 1]
    """
    found = []
    for q in base:
        v, n = remove(n, q)
        found.append(v)
    assert n == 1, "n is not a product of powers of the base"
    return found


def exponent_sums(powers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A product of integer powers, written over the coprime base of its bases.

    Args:
        powers: pairs (n, E) with n >= 1 and any whole number E; the product is prod n^E.

    Returns:
        Pairs (q_j, sum_i v_ij E_i); sums of 0 are left out. The list is empty if and only if the
        product is 1.

    Example:
        >>> exponent_sums([(27, 1000000), (9, -1500000)])
        []
        >>> exponent_sums([(12, 1), (18, -1)])
        [(2, 1), (3, -1)]
    """
    base = coprime_base(n for n, _ in powers)
    sums = [0] * len(base)
    for n, exponent in powers:
        for j, v in enumerate(valuations(n, base)):
            sums[j] += v * exponent
    return [(q, total) for q, total in zip(base, sums, strict=True) if total]


def residues_differ(powers: Sequence[tuple[int, int]]) -> bool:
    """Whether residues prove that prod n^E is not 1; False proves nothing.

    Example:
        >>> residues_differ([(3, 2), (2, -3)])
        True
        >>> residues_differ([(9, 1), (3, -2)])
        False
    """
    for prime in _PRIMES:
        left = right = 1
        for n, exponent in powers:
            # Fermat: the power depends only on the exponent modulo prime - 1.
            power = pow(n % prime, abs(exponent) % (prime - 1), prime)
            if n % prime == 0:
                break  # residues modulo this prime decide nothing
            if exponent > 0:
                left = left * power % prime
            else:
                right = right * power % prime
        else:
            if left != right:
                return True
    return False


def common_root(a: int, b: int, c: int, d: int) -> tuple[int, int, int] | None:
    """For a^b = c^d: (g, i, j) with a = g^i and c = g^j; None if a^b and c^d differ.

    With t = gcd(b, d), equality means a^(b/t) = c^(d/t). As b/t and d/t are coprime, d/t divides
    every exponent in the factorisation of a. So a = g^(d/t), and then c = g^(b/t).

    Args:
        a: base of the left side, 2 or more.
        b: its exponent, 1 or more.
        c: base of the right side, 2 or more.
        d: its exponent, 1 or more.

    Example:
        >>> common_root(27, 1000000, 9, 1500000)
        (3, 3, 2)
        >>> common_root(2, 3, 3, 2) is None
        True
    """
    t = math.gcd(b, d)
    i, j = d // t, b // t
    # The root of the larger degree is cheaper; if the degree exceeds the bits, there is no root.
    if i > a.bit_length() or j > c.bit_length():
        return None
    g = exact_root(a, i) if i >= j else exact_root(c, j)
    if g is None or (power(g, j) != c if i >= j else power(g, i) != a):
        return None
    return g, i, j
