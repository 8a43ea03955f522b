"""Best learning rates from a burst of micro-batch gradients: by the law, and directly.

Sources: `preconditioned` (the law); McCandlish et al. 2018, section 2.2 (one step to second
order). The direct way uses the optimiser's real updates: u from one half of the micro-batches, the
gradient from the other half, the Hessian from data of neither half. So N(B) = <u, g> and
D(B) = u'Hu are unbiased for any optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisewise.scaling.curvature import (
    Route,
    half_form,
    mean_hessian_product,
    noise_probes,
    probe_batches,
)
from noisewise.scaling.flat import Flat, Loss, along, gram
from noisewise.scaling.intervals import (
    Estimate,
    effective_degrees,
    fieller,
    jackknife_covariance,
    symmetric,
    t_quantile,
)
from noisewise.scaling.measurement import DirectPoint, LawPoint
from noisewise.scaling.preconditioned import second_moment_at
from noisewise.scaling.probes import Part, Probes
from noisewise.scaling.updates import Updater

__all__ = ["Burst", "direct_points", "law_points", "update_curvature"]


@dataclass(frozen=True, eq=False)
class Burst:
    """Micro-batch gradients at fixed weights, and other data for the Hessian.

    Attributes:
        flat: the parameters.
        loss: scalar mean loss.
        rows: gradients [n, p], n >= 4 and even.
        batches: data for the Hessian; no row was made from them.
        size: examples in a micro-batch.
        batch: examples per step that the optimiser's state was made with.
        route: how to compute Hessian products.
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
        """Variance sigma^2 of one example's gradient, for each coordinate, [p]."""
        return self.rows.var(0) * self.size

    @property
    def signal(self) -> Tensor:
        """Unbiased squared true gradient of each coordinate, [p]; may be negative."""
        return self.rows.mean(0).square() - self.rows.var(0) / len(self.rows)

    def product(self, v: Tensor) -> Tensor:
        """H v, averaged over the Hessian's batches, [p]."""
        return mean_hessian_product(self.flat, self.loss, self.batches, v, self.route)


def _pair_slopes(rows: Tensor, scale: Tensor) -> tuple[float, Tensor]:
    """mean_{i != j} r_i'P r_j of rows [n, p], and the same with each row left out, [n]."""
    n, products = len(rows), gram(rows, scale)
    total, own = products.sum() - products.trace(), products.diagonal()
    left_out = (total - 2 * (products.sum(1) - own)) / ((n - 1) * (n - 2))
    return float(total / (n * (n - 1))), left_out


def law_points(
    burst: Burst, updater: Updater, batches: Sequence[float], probes: int
) -> tuple[LawPoint, ...]:
    """Return the preconditioned law at several batches.

    Slope: all pairs of rows. Drift: gA'P H P gB of the two halves. Diffusion: `probes` differences
    of neighbouring rows. The interval is Fieller's, from the jackknife over rows and the spread of
    the probes, or of the Hessian's batches if that is wider.

    Args:
        burst: gradients and Hessian.
        updater: the optimiser; gives P at each batch, 1 for SGD.
        batches: examples per step, ascending.
        probes: number of noise probes, at most half the number of rows.

    Raises:
        ValueError: if the optimiser is neither SGD nor divides by a root mean square.
    """
    if updater.facts.family in ("muon", "other"):
        raise ValueError(
            f"{updater.facts.name} has no diagonal preconditioner: use direct_points() for it."
        )
    v = updater.second_moment()
    signal, variance = burst.signal, burst.variance
    tables: list[_Table] = []
    for batch in batches:
        if tables and v is None:  # SGD's P does not depend on the batch: only the noise shrinks
            tables.append(replace(tables[0], batch=float(batch)))
            continue
        at = None if v is None else second_moment_at(v, signal, variance, burst.batch, batch)
        tables.append(_law_terms(burst, float(batch), updater.preconditioner(at), probes))
    own = min(tables, key=lambda table: abs(math.log(table.batch / burst.batch)))
    return tuple(table.point(own) for table in tables)


@dataclass(frozen=True, eq=False)
class _Table:
    """One batch of the law, with the data for its intervals."""

    batch: float
    slope: float
    drift: float
    left_out: Tensor  # slope and drift with each row left out, [n, 2]
    drifts: Tensor  # drift without each of the Hessian's batches, [k]
    noise: Probes  # of one example's noise

    @property
    def diffusion(self) -> float:
        return self.noise.mean / self.batch

    @property
    def curvature(self) -> float:
        return self.drift + self.diffusion

    def without(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Slope and curvature without each row, without each probe, and without each batch."""
        noise = self.noise.values
        rest = (noise.sum() - noise) / max(1, len(noise) - 1)
        all_rows = torch.tensor(self.slope, dtype=torch.float64)
        return (
            (self.left_out[:, 0], self.left_out[:, 1] + self.diffusion),
            (all_rows, self.drift + rest / self.batch),
            (all_rows, self.drifts + self.noise.left_out() / self.batch),
        )

    def point(self, own: _Table) -> LawPoint:
        """This batch's point of the law, with its ratio to the batch `own`."""
        covariance = jackknife_covariance(self.left_out)
        parts = _parts([curvature for _, curvature in self.without()])
        covariance[1, 1] = sum(v for v, _ in parts)
        count = min(len(self.left_out), max(2, len(self.noise.values)))
        lr = fieller(self.slope, self.curvature, covariance, count, effective_degrees(parts))
        noise = self.noise.estimate().scaled(1 / self.batch)
        return LawPoint(
            self.batch, self.slope, self.drift, self.diffusion, lr, self._ratio(own), noise
        )

    def _ratio(self, own: _Table) -> Estimate:
        if self is own:
            return Estimate(1.0, 1.0, 1.0)
        if min(self.slope, own.slope, self.curvature, own.curvature) <= 0:
            return Estimate.unknown()
        value = self.slope / self.curvature / (own.slope / own.curvature)
        logs = [
            ((slope / curvature).log() - (slope_0 / curvature_0).log())
            for (slope, curvature), (slope_0, curvature_0) in zip(
                self.without(), own.without(), strict=True
            )
        ]
        parts = _parts(logs)
        variance = sum(v for v, _ in parts)
        if not math.isfinite(variance):  # one row changes the sign: no bound
            return Estimate(value, 0.0, math.inf)
        half = t_quantile(effective_degrees(parts)) * math.sqrt(variance)
        return Estimate(value, value * math.exp(-half), value * math.exp(min(half, 50.0)))


def _parts(left_out: Sequence[Tensor]) -> list[Part]:
    """Variances of a number from rows, and from probes or batches; nan if not known.

    To leave out a batch is to leave out its probes, so only the larger of the two counts.
    """
    rows, probes, batches = (
        (float(jackknife_covariance(x[:, None])[0, 0]) if len(x) > 1 else 0.0, len(x) - 1)
        for x in left_out
    )
    return [rows, probes if batches[0] <= probes[0] else batches]


def _law_terms(burst: Burst, batch: float, scale: Tensor, probes: int) -> _Table:
    """Terms of the law for one preconditioner."""
    slope, slopes = _pair_slopes(burst.rows, scale)
    flat, loss, at, route = burst.flat, burst.loss, burst.batches, burst.route
    form = half_form(flat, loss, burst.halves, at, route, scale)
    drifts = torch.empty(len(burst.rows), dtype=torch.float64)
    for start, side in enumerate(form.sides):
        rest = (side.sum() - side) / (len(side) - 1)
        drifts[start::2] = form.mean + (rest - side.mean())
    pairs = [(burst.rows[2 * i], burst.rows[2 * i + 1]) for i in range(probes)]
    noise = noise_probes(flat, loss, pairs, at, burst.size, scale, route)
    left_out = torch.stack([slopes, drifts], 1)
    return _Table(batch, slope, form.mean, left_out, form.left_out(), noise)


def direct_points(
    burst: Burst, updater: Updater, draws: int = 4, largest: int | None = None
) -> tuple[DirectPoint, ...]:
    """Return N(B), D(B) and N / D for the optimiser's own updates, at size, 2 size, 4 size, ...

    Args:
        burst: gradients and Hessian.
        updater: any optimiser; its second moment, if it has one, is converted to each batch
            (`second_moment_at`), because the state was made at `burst.batch`.
        draws: most updates per half at each batch; each costs a product with the Hessian.
        largest: most rows per batch; None: a quarter of all rows, so each half has two.

    Raises:
        ValueError: for fewer than 8 rows.
    """
    n = len(burst.rows)
    if n < 8:
        raise ValueError(
            f"{n} micro-batches are too few for two halves with groups: use 8 or more."
        )
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
    slopes, updates, shared = [], [], 0.0
    for own, other in ((first, second), (second, first)):
        num = min(draws, len(own) // rows)
        made = [updater.update(own[i * rows : (i + 1) * rows].mean(0), v) for i in range(num)]
        mean = other.mean(0).double()
        slopes += [float(u.double() @ mean) for u in made]
        # All slopes of this half share the mean gradient of the other half, and its error.
        toward = along(other, sum(made, torch.zeros_like(made[0])) / num)
        shared += float(toward.var() / len(toward)) / 4
        updates += made
    curvatures = probe_batches(burst.flat, burst.loss, updates, burst.batches, burst.route)
    curvature = curvatures.estimate()
    n = len(slopes)
    pairs = torch.stack([torch.tensor(slopes, dtype=torch.float64), curvatures.values])
    covariance = torch.cov(pairs) / n
    covariance[0, 0] += shared
    covariance[1, 1] = curvature.standard_error**2
    slope = symmetric(float(pairs[0].mean()), float(covariance[0, 0]), n)
    degrees = min(n - 1, curvatures.spread()[1])
    lr = fieller(slope.value, curvature.value, covariance, n, degrees)
    return DirectPoint(rows * burst.size, slope, curvature, lr)


def update_curvature(burst: Burst, updates: Iterable[Tensor]) -> Estimate:
    """Return u'Hu of given updates on the Hessian's batches; each update is one probe."""
    found = probe_batches(burst.flat, burst.loss, updates, burst.batches, burst.route)
    return found.estimate()
