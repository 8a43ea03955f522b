"""The error of a mean of probes if the Hessian is known from a few batches only.

Paper: Miller 1974, "The jackknife: a review"; Satterthwaite 1946 (degrees of freedom).

Each probe uses one of k batches, in turn. Two things vary: the probe, and the Hessian from batch to
batch. Leaving out one probe at a time shows only the first. Leaving out one batch with all its
probes shows both, but from only k samples. The larger of the two variances counts. Quantities from
the same batches (tr(Sigma H) and g'Hg) vary together, so they are left out together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.scaling.intervals import (
    Estimate,
    effective_degrees,
    fieller,
    jackknife_covariance,
    mean_estimate,
    symmetric,
)

__all__ = ["HalfForm", "Probes", "noise_scale"]

Part = tuple[float, int]  # a variance and its degrees of freedom


@dataclass(frozen=True, eq=False)
class Probes:
    """One number per probe.

    Attributes:
        values: float64 [m], probe i on batch i % batches.
        batches: number k of the Hessian's batches.
    """

    values: Tensor
    batches: int

    @property
    def mean(self) -> float:
        """Mean of all probes."""
        return float(self.values.mean())

    def left_out(self) -> Tensor:
        """Return the mean without each batch and its probes, [k]; a batch may have no probe."""
        place = torch.arange(len(self.values)) % self.batches
        sums = torch.zeros(self.batches, dtype=torch.float64).index_add_(0, place, self.values)
        counts = torch.bincount(place, minlength=self.batches)
        rest = len(self.values) - counts
        return torch.where(rest > 0, (self.values.sum() - sums) / rest.clamp_min(1), self.mean)

    def spread(self) -> Part:
        """Return the variance of the mean: from the probes, or from the batches if larger."""
        m, by_batch = len(self.values), 0.0
        by_probe = float(self.values.var()) / m if m > 1 else 0.0
        if 1 < self.batches < m:  # otherwise each probe has its own batch: they vary together
            by_batch = float(jackknife_covariance(self.left_out()[:, None])[0, 0])
        return max((by_probe, m - 1), (by_batch, self.batches - 1))

    def estimate(self) -> Estimate:
        """Return the mean with Student's interval; `needed` assumes as many more batches."""
        if len(self.values) < 2:
            return mean_estimate(self.values)
        variance, degrees = self.spread()
        return symmetric(self.mean, variance, len(self.values), degrees)


@dataclass(frozen=True, eq=False)
class HalfForm:
    """gA'H gB of two independent halves.

    Attributes:
        by_batch: its value with the Hessian of each batch, float64 [k].
        rows: its variance from the rows on both sides, and the degrees of freedom.
        sides: each row of A along H gB, and each row of B along H gA, float64.
    """

    by_batch: Tensor
    rows: Part
    sides: tuple[Tensor, Tensor]

    @property
    def mean(self) -> float:
        """Mean over the batches."""
        return float(self.by_batch.mean())

    @property
    def count(self) -> int:
        """Number of rows in the smaller half."""
        return min(map(len, self.sides))

    def left_out(self) -> Tensor:
        """Return the mean without each batch, [k]."""
        return (self.by_batch.sum() - self.by_batch) / max(1, len(self.by_batch) - 1)

    def parts(self) -> list[Part]:
        """Return the variance from the rows, and from the batches (0 with a single batch)."""
        k = len(self.by_batch)
        return [self.rows, (float(self.by_batch.var()) / k if k > 1 else 0.0, k - 1)]

    def estimate(self) -> Estimate:
        """Return the value with Student's interval."""
        parts = self.parts()
        variance = sum(v for v, _ in parts)
        return symmetric(self.mean, variance, self.count, effective_degrees(parts))


def noise_scale(noise: Probes, drift: HalfForm) -> Estimate:
    """Return tr(Sigma H) / g'Hg by Fieller; both use the same batches, so they vary together.

    Differences of micro-batches are uncorrelated with their means if the noise is symmetric, so the
    rows add nothing to the covariance.

    Source: McCandlish et al. 2018, equation 2.8; Fieller 1954.
    """
    if len(noise.values) < 2:
        value = noise.mean / drift.mean if drift.mean > 0 else math.inf
        return Estimate(value, 0.0, math.inf)
    v_top, degrees = noise.spread()
    bottom = drift.parts()
    v_bottom = sum(v for v, _ in bottom)
    shared = 0.0
    if noise.batches > 1:
        both = torch.stack([noise.left_out(), drift.left_out()], 1)
        most = math.sqrt(v_top * v_bottom)
        shared = max(-most, min(most, float(jackknife_covariance(both)[0, 1])))
    covariance = torch.tensor([[v_top, shared], [shared, v_bottom]], dtype=torch.float64)
    degrees = min(degrees, effective_degrees(bottom))
    count = min(len(noise.values), drift.count)
    return fieller(noise.mean, drift.mean, covariance, count, degrees)
