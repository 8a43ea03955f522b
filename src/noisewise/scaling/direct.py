"""eta*(B) from a burst of micro-batch gradients: by the preconditioned law, and by no law at all.

Sources: `preconditioned` (the law); McCandlish et al. 2018, section 2.2 (one step to second
order). The direct route takes the optimiser's real updates: u from one half of the micro-batches,
the gradient from the other half, the Hessian from data that neither half has seen, so that
N(B) = <u, g> and D(B) = u'Hu are unbiased for whatever the optimiser does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisewise.scaling.curvature import Route, mean_hessian_product, quadratic_form
from noisewise.scaling.flat import Flat, Loss
from noisewise.scaling.intervals import (
    Estimate,
    fieller,
    jackknife_covariance,
    mean_estimate,
    t_quantile,
)
from noisewise.scaling.measurement import DirectPoint, LawPoint
from noisewise.scaling.preconditioned import second_moment_at
from noisewise.scaling.updates import Updater

__all__ = ["Burst", "direct_points", "law_points"]


@dataclass(frozen=True, eq=False)
class Burst:
    """Micro-batch gradients at one place, and other data for the Hessian.

    Attributes:
        flat: the parameters.
        loss: scalar mean loss.
        rows: gradients [n, p], n >= 4 and even.
        batches: for the Hessian; no row was made from them.
        size: examples in a micro-batch.
        batch: examples a step that the optimiser's state was made at.
        route: of Hessian products.
    """

    flat: Flat
    loss: Loss
    rows: Tensor
    batches: Sequence[object]
    size: float
    batch: float
    route: Route = "double_backward"

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Two disjoint halves of the rows."""
        return self.rows[::2], self.rows[1::2]

    @property
    def variance(self) -> Tensor:
        """sigma^2 of one example for each coordinate, [p]."""
        return self.rows.var(0) * self.size

    @property
    def signal(self) -> Tensor:
        """Squared true gradient of each coordinate, unbiased, so that it may be negative, [p]."""
        return self.rows.mean(0).square() - self.rows.var(0) / len(self.rows)

    def product(self, v: Tensor) -> Tensor:
        """H v, averaged over the Hessian's batches, [p]."""
        return mean_hessian_product(self.flat, self.loss, self.batches, v, self.route)


def _pair_slopes(scaled: Tensor) -> tuple[float, Tensor]:
    """mean_{i != j} r_i.r_j of rows [n, p], and the same with each row left out, [n]."""
    n, exact = len(scaled), scaled.double()
    gram = (exact @ exact.T).cpu()
    total, own = gram.sum() - gram.trace(), gram.diagonal()
    left_out = (total - 2 * (gram.sum(1) - own)) / ((n - 1) * (n - 2))
    return float(total / (n * (n - 1))), left_out


def law_points(
    burst: Burst, updater: Updater, batches: Sequence[float], probes: int
) -> tuple[LawPoint, ...]:
    """Return the preconditioned law at several batches.

    Slope: all pairs of rows. Drift: gA'P H P gB of the two halves. Diffusion: `probes` differences
    of neighbouring rows. The interval is Fieller's, from the jackknife over rows and the spread of
    the probes.

    Args:
        burst: gradients and Hessian.
        updater: the optimiser; its P at each batch, 1 for SGD.
        batches: where, ascending.
        probes: of the noise, at most half the number of rows.

    Raises:
        ValueError: if the optimiser is neither SGD nor one that divides by a root mean square.
    """
    if updater.facts.family in ("muon", "other"):
        raise ValueError(
            f"{updater.facts.name} has no diagonal preconditioner: only direct_points fits it."
        )
    v = updater.second_moment()
    signal, variance = burst.signal, burst.variance
    tables: list[_Table] = []
    for batch in batches:
        if tables and v is None:  # SGD's P knows no batch: only the noise shrinks
            tables.append(replace(tables[0], batch=float(batch)))
            continue
        at = None if v is None else second_moment_at(v, signal, variance, burst.batch, batch)
        tables.append(_law_terms(burst, float(batch), updater.preconditioner(at), probes))
    own = min(tables, key=lambda table: abs(math.log(table.batch / burst.batch)))
    return tuple(table.point(own) for table in tables)


@dataclass(frozen=True, eq=False)
class _Table:
    """One batch of the law, with what its intervals are made from."""

    batch: float
    slope: float
    drift: float
    left_out: Tensor  # slope and drift with each row left out, [n, 2]
    noise: Tensor  # probes of one example's noise, [k]

    @property
    def diffusion(self) -> float:
        return float(self.noise.mean()) / self.batch

    def logs(self) -> tuple[Tensor, Tensor]:
        """Ln lr with each row, and each probe, left out; nan where it is not positive."""
        rest = (self.noise.sum() - self.noise) / max(1, len(self.noise) - 1)
        rows = self.left_out[:, 0] / (self.left_out[:, 1] + self.diffusion)
        probes = self.slope / (self.drift + rest / self.batch)
        return rows.log(), probes.log()

    def point(self, own: _Table) -> LawPoint:
        """This batch's point of the law, its ratio taken to the batch `own`."""
        covariance = jackknife_covariance(self.left_out)
        if len(self.noise) > 1:
            covariance[1, 1] += self.noise.var() / len(self.noise) / self.batch**2
        count = min(len(self.left_out), max(2, len(self.noise)))
        lr = fieller(self.slope, self.drift + self.diffusion, covariance, count)
        return LawPoint(
            self.batch, self.slope, self.drift, self.diffusion, lr, self._ratio(own, count)
        )

    def _ratio(self, own: _Table, count: int) -> Estimate:
        curvatures = self.drift + self.diffusion, own.drift + own.diffusion
        if min(self.slope, own.slope, *curvatures) <= 0:
            return Estimate(math.nan, 0.0, math.inf)
        value = self.slope / curvatures[0] / (own.slope / curvatures[1])
        variance = 0.0
        for mine, theirs in zip(self.logs(), own.logs(), strict=True):
            if len(mine) > 1:
                variance += float(jackknife_covariance((mine - theirs)[:, None])[0, 0])
        if not math.isfinite(variance):  # a row decides the sign: no bound
            return Estimate(value, 0.0, math.inf)
        half = t_quantile(count - 1) * math.sqrt(variance)
        return Estimate(value, value * math.exp(-half), value * math.exp(min(half, 50.0)))


def _law_terms(burst: Burst, batch: float, scale: Tensor, probes: int) -> _Table:
    """The terms of the law for one preconditioner."""
    slope, slopes = _pair_slopes(burst.rows * scale.sqrt())
    first, second = burst.halves
    along = [
        scale.double() * burst.product(scale * half.mean(0)).double() for half in (second, first)
    ]
    sides = [half.double() @ h for half, h in zip((first, second), along, strict=True)]
    drift = float((sides[0].mean() + sides[1].mean()) / 2)
    drifts = torch.empty(len(burst.rows), dtype=torch.float64)
    for start, side in enumerate(sides):
        rest = (side.sum() - side) / (len(side) - 1)
        drifts[start::2] = drift + (rest - side.mean()).cpu()
    noise = torch.tensor(
        [
            0.5 * burst.size * quadratic_form(
                burst.flat, burst.loss, burst.batches[i % len(burst.batches)],
                scale * (burst.rows[2 * i] - burst.rows[2 * i + 1]), burst.route,
            )
            for i in range(probes)
        ],
        dtype=torch.float64,
    )  # fmt: skip
    return _Table(batch, slope, drift, torch.stack([slopes, drifts], 1), noise)


def direct_points(
    burst: Burst, updater: Updater, draws: int = 4, largest: int | None = None
) -> tuple[DirectPoint, ...]:
    """Return N(B), D(B) and N / D for the optimiser's own updates, at size, 2 size, 4 size, ...

    Args:
        burst: gradients and Hessian.
        updater: any optimiser; where it keeps a second moment, that of the batch is put in place
            (`second_moment_at`), since the state was made at `burst.batch`.
        draws: updates a half at each batch, at most; each costs a product with the Hessian.
        largest: rows a batch at most; None: a quarter of all, so that there are two a half.

    Raises:
        ValueError: if there are fewer than 8 rows.
    """
    n = len(burst.rows)
    if n < 8:
        raise ValueError(f"{n} micro-batches cannot be halved and grouped: use 8 or more.")
    v, points, rows = updater.second_moment(), [], 1
    while rows <= (largest or n // 4):
        batch = rows * burst.size
        at = v
        if v is not None:
            at = second_moment_at(v, burst.signal, burst.variance, burst.batch, batch)
        points.append(_direct_point(burst, updater, at, rows, draws))
        rows *= 2
    return tuple(points)


def _direct_point(
    burst: Burst, updater: Updater, v: Tensor | None, rows: int, draws: int
) -> DirectPoint:
    first, second = burst.halves
    slopes, curvatures, shared = [], [], 0.0
    for own, other in ((first, second), (second, first)):
        updates = []
        for i in range(min(draws, len(own) // rows)):
            u = updater.update(own[i * rows : (i + 1) * rows].mean(0), v)
            updates.append(u)
            slopes.append(float(u.double() @ other.mean(0).double()))
            at = burst.batches[len(curvatures) % len(burst.batches)]
            curvatures.append(quadratic_form(burst.flat, burst.loss, at, u, burst.route))
        # All slopes of this half share the other half's mean gradient, and its error.
        along = other.double() @ torch.stack(updates).mean(0).double()
        shared += float(along.var() / len(along)) / 4
    pairs = torch.tensor([slopes, curvatures], dtype=torch.float64).T
    covariance = torch.cov(pairs.T) / len(pairs)
    covariance[0, 0] += shared
    slope, curvature = mean_estimate(pairs[:, 0]), mean_estimate(pairs[:, 1])
    lr = fieller(slope.value, curvature.value, covariance, len(pairs))
    return DirectPoint(rows * burst.size, slope, curvature, lr)


def update_curvature(burst: Burst, updates: Sequence[Tensor]) -> Estimate:
    """Return u'Hu of given updates on the Hessian's batches, one probe an update."""
    probes = [
        quadratic_form(
            burst.flat, burst.loss, burst.batches[i % len(burst.batches)], u, burst.route
        )
        for i, u in enumerate(updates)
    ]
    return mean_estimate(torch.tensor(probes, dtype=torch.float64))
