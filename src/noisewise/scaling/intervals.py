"""Values with their uncertainty: jackknife for means, Fieller for ratios, samples still needed.

Papers: Miller 1974, "The jackknife: a review"; Fieller 1954, "Some problems in interval
estimation"; Hill 1970, "Algorithm 396: Student's t-quantiles" (the expansion in 1/df);
Satterthwaite 1946 (degrees of freedom of a sum of variances).

A mean (|g|^2, tr Sigma, a curvature) has a symmetric interval from its jackknife variance. A ratio
(a noise scale, a learning rate) has Fieller's interval: it is not symmetric, and it has no upper
end if the denominator cannot be told from zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = [
    "Estimate",
    "effective_degrees",
    "fieller",
    "jackknife_covariance",
    "mean_estimate",
    "t_quantile",
]

_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A measured number and how certain it is.

    Attributes:
        value: the estimate; nan if nothing was measured, inf for a ratio whose denominator is not
            above zero (then only `low` says something).
        low: lower end of the 95 % interval.
        high: upper end; inf if the data give no upper bound.
        standard_error: standard error of the value; nan if not known.
        count: number of independent samples (blocks of micro-batches, steps, or probes).

    Example:
        >>> Estimate(2.0, 1.0, 3.0, 0.5, 10).needed(0.1)
        63
        >>> Estimate.unknown().known
        False
    """

    value: float
    low: float
    high: float
    standard_error: float = math.nan
    count: int = 0

    @classmethod
    def unknown(cls) -> Estimate:
        """Return the estimate of something not measured: no value, no bound."""
        return cls(math.nan, -math.inf, math.inf)

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return not math.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether both ends of the interval are finite."""
        return self.known and math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def relative_error(self) -> float:
        """Standard error over |value|; inf if not known."""
        if not self.known or self.value == 0 or math.isnan(self.standard_error):
            return math.inf
        return self.standard_error / abs(self.value)

    def needed(self, relative: float = 0.1) -> int | None:
        """Return how many samples give the relative standard error `relative`; None: not known.

        Raises:
            ValueError: if relative is not positive.
        """
        if not relative > 0:
            raise ValueError(f"relative is {relative}: give a number above 0, for example 0.1.")
        if not math.isfinite(self.relative_error) or not self.count:
            return None
        return max(1, math.ceil(self.count * (self.relative_error / relative) ** 2))

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate of `factor` times this number, factor positive."""
        assert factor > 0
        return Estimate(
            self.value * factor,
            self.low * factor,
            self.high * factor,
            self.standard_error * factor,
            self.count,
        )

    def to_dict(self) -> dict[str, float | int | None]:
        """Return JSON values; numbers that are not finite become None."""
        named = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "standard_error": self.standard_error,
        }
        plain: dict[str, float | int | None] = {
            name: value if math.isfinite(value) else None for name, value in named.items()
        }
        plain["count"] = self.count
        return plain

    @classmethod
    def from_dict(cls, stored: Mapping[str, float | int | None]) -> Estimate:
        """Make an estimate from what `to_dict` returned."""

        def number(name: str, missing: float) -> float:
            value = stored.get(name)
            return missing if value is None else float(value)

        # A measured number has a lower end; without an upper end its value may have been inf.
        measured = stored.get("low") is not None
        return cls(
            number("value", math.inf if measured else math.nan),
            number("low", -math.inf),
            number("high", math.inf),
            number("standard_error", math.nan),
            int(stored.get("count") or 0),
        )

    def __str__(self) -> str:
        if not self.known:
            return "not measured"
        if math.isinf(self.high):
            return f"> {self.low:.3g} (no upper bound yet)"
        return f"{self.value:.4g} ({self.low:.3g} to {self.high:.3g})"


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t with the given degrees of freedom.

    Exact for 1 and 2; otherwise an expansion in 1/df (0.5 % off at 3, better above).

    Raises:
        ValueError: for degrees below 1.

    Source: Hill 1970; Abramowitz and Stegun 26.7.5.

    Example:
        >>> round(t_quantile(10), 3)
        2.228
    """
    if degrees < 1:
        raise ValueError("An interval needs two or more independent samples.")
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 / math.sqrt(2 * 0.975 * 0.025)
    z, nu = _NORMAL_975, float(degrees)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / nu + second / nu**2 + third / nu**3 + fourth / nu**4


def jackknife_covariance(left_out: Tensor) -> Tensor:
    """Return the covariance of k statistics from their values with one sample left out.

    ``(m - 1) / m * sum_i (theta_-i - mean)(theta_-i - mean)^T``

    Args:
        left_out: float [m, k], row i computed without sample i, m >= 2.

    Returns:
        float64 [k, k].

    Raises:
        ValueError: for fewer than two samples.

    Source: Miller 1974, section 2.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
        >>> means = (x.sum() - x) / 3
        >>> bool(torch.isclose(jackknife_covariance(means[:, None])[0, 0], x.var() / 4))
        True
    """
    m = len(left_out)
    if m < 2:
        raise ValueError("An interval needs two or more independent samples.")
    away = left_out.double() - left_out.double().mean(0)
    return (m - 1) / m * away.T @ away


def mean_estimate(values: Tensor) -> Estimate:
    """Return the mean of independent values, with Student's interval.

    Args:
        values: float [m], m >= 1; a single value gives no interval.

    Raises:
        ValueError: without a value.
    """
    if not len(values):
        raise ValueError("There are no values to average: give one or more.")
    values = values.double()
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, -math.inf, math.inf, math.nan, 1)
    error = float(values.std() / math.sqrt(len(values)))
    return symmetric(mean, error**2, len(values))


def symmetric(value: float, variance: float, count: int, degrees: int | None = None) -> Estimate:
    """A value with Student's interval; `degrees` of freedom if they are not count - 1."""
    error = math.sqrt(max(0.0, variance))
    half = t_quantile(count - 1 if degrees is None else degrees) * error
    return Estimate(value, value - half, value + half, error, count)


def effective_degrees(parts: Sequence[tuple[float, int]]) -> int:
    """Return the effective degrees of freedom of a sum of variances with different degrees.

    ``(sum V_i)^2 / sum (V_i^2 / df_i)``, rounded down, at least 1.

    Args:
        parts: (V_i, df_i); parts without variance or without degrees do not count.

    Raises:
        ValueError: if no part has degrees of freedom.

    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components".

    Example:
        >>> effective_degrees([(1.0, 10), (1.0, 10)]), effective_degrees([(1.0, 99), (50.0, 3)])
        (20, 3)
    """
    if not any(degrees > 0 for _, degrees in parts):
        raise ValueError("An interval needs two or more independent samples.")
    known = [(v, degrees) for v, degrees in parts if v > 0 and degrees > 0]
    if not known:
        return max(degrees for _, degrees in parts)
    share = sum(v for v, _ in known)
    return max(1, math.floor(1 / sum((v / share) ** 2 / degrees for v, degrees in known) + 1e-9))


def fieller(
    numerator: float,
    denominator: float,
    covariance: Tensor,
    count: int,
    degrees: int | None = None,
) -> Estimate:
    """Return a ratio of two means whose true values are positive, with Fieller's 95 % interval.

    The set of all theta with ``(a - theta b)^2 <= t^2 (V_aa - 2 theta V_ab + theta^2 V_bb)``. If b
    cannot be told from zero, there is no upper bound, and the value itself may be inf.

    Args:
        numerator: mean a.
        denominator: mean b.
        covariance: of (a, b), float [2, 2].
        count: number of independent samples, at least 2.
        degrees: degrees of freedom of the covariance; None: count - 1.

    Returns:
        Ratio, low (not below 0) and high (inf without an upper bound).

    Raises:
        ValueError: for fewer than two samples.

    Source: Fieller 1954, section 2.

    Example:
        >>> import torch
        >>> wide = fieller(4.0, 1.0, torch.tensor([[0.01, 0.0], [0.0, 1.0]]), 30)
        >>> wide.value, round(wide.low, 1), wide.high
        (4.0, 1.3, inf)
    """
    t2 = t_quantile(count - 1 if degrees is None else degrees) ** 2
    (v_aa, v_ab), (_, v_bb) = covariance.double().tolist()
    value = numerator / denominator if denominator > 0 else math.inf
    quadratic = denominator**2 - t2 * v_bb
    linear = numerator * denominator - t2 * v_ab
    constant = numerator**2 - t2 * v_aa
    inside = linear**2 - quadratic * constant
    if inside < 0:  # every ratio is possible: neither mean can be told from zero
        return Estimate(value, 0.0, math.inf, math.nan, count)
    root = math.sqrt(inside)
    if quadratic > 0 and denominator > 0:
        low, high = (linear - root) / quadratic, (linear + root) / quadratic
        error = math.sqrt(max(0.0, v_aa - 2 * value * v_ab + value**2 * v_bb)) / denominator
        return Estimate(value, max(0.0, low), high, error, count)
    if constant <= 0:
        return Estimate(value, 0.0, math.inf, math.nan, count)
    # The set lies outside two roots of opposite sign; only its positive part can be true.
    roots = ((linear - root) / quadratic, (linear + root) / quadratic) if quadratic else (0.0, 0.0)
    return Estimate(value, max(0.0, *roots), math.inf, math.nan, count)
