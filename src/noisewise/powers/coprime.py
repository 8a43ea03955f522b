"""Whether a product of integer powers is 1, decided by arithmetic alone and without factoring.

Numbers n_1, ..., n_k are written over a coprime base: pairwise coprime q_j > 1 with
n_i = prod_j q_j^v_ij. It is found by greatest common divisors (Bach, Driscoll and Shallit 1993,
"Factor refinement"). As coprime numbers are multiplicatively independent,

    prod_i n_i^E_i = 1    if and only if    sum_i v_ij E_i = 0 for every j.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from noisewise.powers.big_integers import exact_root, gcd, power, remove

# A product whose residue differs from 1 is not 1: most inequalities are proved by these alone.
_PRIMES = (2**61 - 1, 2**89 - 1, 2**107 - 1)


def coprime_base(numbers: Iterable[int]) -> list[int]:
    """Pairwise coprime numbers above 1, of whose powers each given number is a product.

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
                # q does not divide n, so common is a proper divisor of it; the smallest goes first.
                del base[i]
                waiting += [n, q // common, common]
                n = 1
        if n > 1:
            base.append(n)
    return sorted(base)


def valuations(n: int, base: Sequence[int]) -> list[int]:
    """How often each number of a coprime base goes into n.

    Example:
        >>> valuations(720, [2, 3, 5])
        [4, 2, 1]
    """
    found = []
    for q in base:
        v, n = remove(n, q)
        found.append(v)
    assert n == 1, "the base does not reach this number"
    return found


def exponent_sums(powers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A product of integer powers over the coprime base of its bases; what vanishes is left out.

    Args:
        powers: pairs (n, E): n >= 1, E any whole number; the product is prod n^E.

    Returns:
        Pairs (q_j, sum_i v_ij E_i) without zeros: none are left if and only if the product is 1.

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
            # Fermat: a power depends on the exponent modulo prime - 1 only.
            power = pow(n % prime, abs(exponent) % (prime - 1), prime)
            if n % prime == 0:
                break  # the residue says nothing here
            if exponent > 0:
                left = left * power % prime
            else:
                right = right * power % prime
        else:
            if left != right:
                return True
    return False


def common_root(a: int, b: int, c: int, d: int) -> tuple[int, int, int] | None:
    """For a^b = c^d: (g, i, j) with a = g^i and c = g^j; None where a^b and c^d differ.

    With t = gcd(b, d), equality means a^(b/t) = c^(d/t); as b/t and d/t are coprime, d/t divides
    every exponent in a's factorisation: a = g^(d/t), and then c = g^(b/t).

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
    # A root of the larger degree is the cheaper one; beyond the number of bits there is none.
    if i > a.bit_length() or j > c.bit_length():
        return None
    g = exact_root(a, i) if i >= j else exact_root(c, j)
    if g is None or (power(g, j) != c if i >= j else power(g, i) != a):
        return None
    return g, i, j
