"""What a calibration costs, before it starts, and how to make it fit into a time.

The unit is one gradient of a micro-batch. A product with the Hessian costs about two to three of
them; both are timed on the first micro-batch. To save time, first the laws that serve only for
comparison go, then some batches of the law, then probes; each makes the result less certain, and
the intervals say so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from noisewise.scaling.curvature import Route, quadratic_form
from noisewise.scaling.flat import Flat, Loss, gradient
from noisewise.scaling.optimizer_facts import Family

__all__ = ["Plan", "Speed", "fitted", "measured_speed"]

_POWER = 24  # most products of the power iteration for the sharpest direction
_LEAST_ROWS = 8  # micro-batches that a law needs


@dataclass(frozen=True)
class Plan:
    """How much a calibration measures.

    Attributes:
        rows: micro-batches whose gradients are computed.
        kept: micro-batches for the Hessian.
        probes: probes of each trace.
        law: batches of the measured law; 0: the law is not measured.
        draws: the optimiser's own updates at each batch; 0: not measured.
        compare: whether the laws for comparison are measured too.
        sharpest: whether the sharpest direction is searched.
    """

    rows: int
    kept: int
    probes: int
    law: int
    draws: int
    compare: bool
    sharpest: bool

    @property
    def products(self) -> int:
        """Products with the Hessian."""
        found = self.probes + 2 * self.kept  # noise and signal
        found += 2 * self.probes  # tr H, real updates
        if self.sharpest:
            found += (_POWER + 2) * self.kept
        if self.compare:
            found += self.probes + (2 + 8 + self.law) * self.kept
        found += self.law * (2 * self.kept + self.probes)
        sizes = max(1, int(math.log2(max(1, self.rows // 4))) + 1)
        return found + 2 * self.draws * sizes

    def seconds(self, speed: Speed) -> float:
        """About how long it takes."""
        return self.rows * speed.gradient + self.products * speed.product


@dataclass(frozen=True)
class Speed:
    """Seconds of one gradient, and of one product with the Hessian."""

    gradient: float
    product: float


def measured_speed(flat: Flat, loss: Loss, batch: object, route: Route) -> Speed:
    """Time one gradient and one product, after one of each to warm up.

    Raises:
        ValueError: as the gradient and the product do.
    """
    taken = []
    direction = gradient(flat, loss, batch)
    if not float(direction.norm()) > 0:
        direction = direction + 1
    for once in (
        lambda: float(gradient(flat, loss, batch)[0]),  # a number: waits for a device
        lambda: quadratic_form(flat, loss, batch, direction, route),
    ):
        once()
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return Speed(*taken)


def fitted(full: Plan, family: Family, speed: Speed, seconds: float | None) -> Plan:
    """Return the largest plan that takes at most so long.

    Args:
        full: what would be measured without a limit.
        family: an optimiser without a law needs its own updates.
        speed: of this model on this machine.
        seconds: the limit; None: no limit.

    Raises:
        ValueError: if the smallest plan takes longer.

    Example:
        >>> full = Plan(56, 8, 16, 7, 8, compare=True, sharpest=False)
        >>> fitted(full, "adam", Speed(0.01, 0.02), 2.0).compare
        False
    """
    if seconds is None or full.seconds(speed) <= seconds:
        return full
    smaller = list(_smaller(full, family))
    for plan in smaller:
        if plan.seconds(speed) <= seconds:
            return plan
    least = smaller[-1].seconds(speed)
    raise ValueError(
        f"The smallest calibration takes about {least:.3g} seconds here, more than the "
        f"{seconds:g} allowed: give seconds={math.ceil(least)}, smaller micro-batches, or use "
        "watch()."
    )


def _smaller(full: Plan, family: Family) -> Iterator[Plan]:
    own = family in ("muon", "other")  # only their own updates say anything
    draws = (min(4, full.draws), 2) if own else (min(2, full.draws), 0)
    plan = replace(full, compare=False)
    yield plan
    plan = replace(plan, draws=draws[0])
    yield plan
    for law, probes, kept in _steps(full):
        last = replace(plan, law=law, probes=probes, kept=kept, draws=draws[1])
        yield replace(last, rows=full.rows)
    for rows in (full.rows // 2, full.rows // 4, _LEAST_ROWS):
        rows = max(_LEAST_ROWS, rows - rows % 2)
        yield replace(last, rows=rows, probes=min(last.probes, rows // 2))
    yield replace(last, rows=_LEAST_ROWS, probes=min(last.probes, 4), sharpest=False)


def _steps(full: Plan) -> Sequence[tuple[int, int, int]]:
    """(batches of the law, probes, batches of the Hessian), ever fewer."""
    law = min(full.law, 5), min(full.law, 3)
    probes = (full.probes, min(full.probes, 8), min(full.probes, 4))
    return [
        (law[0], probes[0], full.kept),
        (law[0], probes[1], full.kept),
        (law[0], probes[1], 4),
        (law[1], probes[1], 4),
        (law[1], probes[2], 4),
    ]
