"""The law that worked on real nets: Adam as descent with a measured diagonal preconditioner.

Source: our own, from McCandlish et al. 2018 (appendix C, preconditioned noise scale) and Kingma and
Ba 2015. In a steady state Adam divides by sqrt(v_B) + eps, and v_B = g^2 + sigma^2 / B follows for
every batch from the measurement at one batch:

    P_B = 1 / (sqrt(v_B) + eps),      v_B = v_b * (g^2 + sigma^2 / B) / (g^2 + sigma^2 / b)
    lr*(B) = g'P_B g / (g'P_B H P_B g + E (P_B xi_B)'H (P_B xi_B)),     Cov xi_B = Sigma / B

The curvature of the noise is probed with differences of micro-batch gradients, which include its
correlations. The law does not assume Gaussian or independent noise or a mean field, and it fits no
constant. P = 1 gives SGD's law with the Hessian-weighted B_noise.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.scaling.laws import checked_batch

__all__ = ["Preconditioned", "second_moment_at"]


def second_moment_at(
    v: Tensor, g2: Tensor, sigma2: Tensor, batch: float, new_batch: float
) -> Tensor:
    """Return Adam's v for another batch size than the one it was measured at.

    ``v (g^2 + sigma^2 / B') / (g^2 + sigma^2 / B)``: never negative, and v itself at B' = B.

    Args:
        v: second moment at `batch`, [p], bias-corrected (exp_avg_sq / (1 - beta2^t)).
        g2: squared true gradient [p]; negative estimates count as 0.
        sigma2: variance of one example's gradient [p].
        batch: examples per step that v was averaged at.
        new_batch: examples per step to convert it to.

    Raises:
        ValueError: for a batch that is not positive.

    Example:
        >>> one = torch.ones(1)
        >>> second_moment_at(2 * one, 0 * one, one, 64, 256).item()  # pure noise: a quarter
        0.5
    """
    signal = g2.clamp_min(0)
    now = signal + sigma2 / checked_batch(batch)
    then = signal + sigma2 / checked_batch(new_batch)
    return torch.where(now > 0, v * then / now.clamp_min(torch.finfo(v.dtype).tiny), v)


@dataclass(frozen=True)
class Preconditioned:
    """A law in a table of measured batch sizes: lr* = slope / (drift + diffusion).

    Between the batches each term is interpolated in logarithms; outside it is extrapolated from the
    last two (`covers` says whether a batch is inside).

    Assumes: a quadratic loss over one step; v near its steady value at each batch.

    Args:
        batches: two or more, ascending.
        slopes: E[u]'g at each batch; u is the update per unit of learning rate.
        drifts: E[u]'H E[u].
        diffusions: E[(u - E u)'H (u - E u)].

    Raises:
        ValueError: for fewer than two batches, lists of unequal length, or batches that do not
            ascend.

    Example:
        >>> sgd = Preconditioned((10.0, 1000.0), (1.0, 1.0), (2.0, 2.0), (20.0, 0.2))
        >>> sgd.lr(10), round(sgd.lr(100), 9)
        (0.045454545454545456, 0.25)
    """

    batches: tuple[float, ...]
    slopes: tuple[float, ...]
    drifts: tuple[float, ...]
    diffusions: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the table."""
        lengths = {len(self.batches), len(self.slopes), len(self.drifts), len(self.diffusions)}
        if len(lengths) != 1 or len(self.batches) < 2:
            raise ValueError("A measured law needs two or more batches, and lists of equal length.")
        if list(self.batches) != sorted(set(self.batches)):
            raise ValueError("The batches of a measured law must ascend.")
        checked_batch(self.batches[0])

    def covers(self, batch: float) -> bool:
        """Whether the batch is inside the measured range."""
        return self.batches[0] <= batch <= self.batches[-1]

    def _at(self, values: tuple[float, ...], batch: float) -> float:
        """Interpolate in log-log; linearly if a value is not positive."""
        i = min(max(1, bisect_left(self.batches, batch)), len(self.batches) - 1)
        left, right = values[i - 1], values[i]
        x0, x1 = math.log(self.batches[i - 1]), math.log(self.batches[i])
        share = (math.log(batch) - x0) / (x1 - x0)
        if left > 0 and right > 0:
            return left * (right / left) ** share
        return left + share * (right - left)

    def terms(self, batch: float) -> tuple[float, float, float]:
        """Return slope, drift and diffusion at a batch."""
        batch = checked_batch(batch)
        return (
            self._at(self.slopes, batch),
            self._at(self.drifts, batch),
            self._at(self.diffusions, batch),
        )

    def lr(self, batch: float) -> float:
        """Return slope / (drift + diffusion); inf if the curvature is not positive."""
        slope, drift, diffusion = self.terms(batch)
        return slope / (drift + diffusion) if drift + diffusion > 0 else math.inf

    def gain(self, batch: float) -> float:
        """Return slope^2 / (2 (drift + diffusion))."""
        slope, drift, diffusion = self.terms(batch)
        return slope**2 / (2 * (drift + diffusion)) if drift + diffusion > 0 else math.inf
