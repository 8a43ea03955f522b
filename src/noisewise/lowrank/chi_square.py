"""Quantiles of chi-square far in the lower tail, in pure Python."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=256)
def chi_square_quantile(freedom: int, probability: float) -> float:
    """Return q with P(chi-square <= q) = probability, also for a very small probability.

    ``P = (x^a e^-x / Gamma(a + 1)) sum_n x^n / ((a + 1) ... (a + n))``, a = freedom / 2, x = q / 2.
    Bisection solves this for ln x; it does not underflow, even at 1e-300.

    Args:
        freedom: degrees of freedom, at least 1.
        probability: above 0, up to 0.9.

    Raises:
        ValueError: for arguments outside these ranges.

    Example:
        >>> round(chi_square_quantile(2, 0.05), 6) == round(-2 * math.log(0.95), 6)
        True
    """
    if freedom < 1 or not 0 < probability <= 0.9:
        raise ValueError(
            f"probability is {probability} and freedom is {freedom}: give 0 < probability <= 0.9 "
            "and freedom >= 1."
        )
    a, target = freedom / 2, math.log(probability)
    low, high = -2000.0, math.log(4 * freedom + 20.0)
    for _ in range(200):
        middle = (low + high) / 2
        if _log_lower_gamma(a, middle) < target:
            low = middle
        else:
            high = middle
    return 2 * math.exp(low)


def _log_lower_gamma(a: float, log_x: float) -> float:
    """Logarithm of the regularised lower incomplete gamma function."""
    x = math.exp(log_x)
    term = total = 1.0
    n = 0
    while term > 1e-17 * total and n < 100_000:
        n += 1
        term *= x / (a + n)
        total += term
    return a * log_x - x - math.lgamma(a + 1) + math.log(total)
