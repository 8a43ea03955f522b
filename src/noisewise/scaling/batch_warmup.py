"""A batch that grows with the training: small at first, doubled when the critical batch allows it.

Paper: Merrill et al. 2025, "Critical batch size revisited" (arXiv 2505.23971). The critical batch
is near 0 at the start, rises quickly and then levels off. So the batch begins small and doubles
each time the critical batch has passed it. They trained a language model of a billion weights to
the same loss with 43 % fewer steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from noisewise.scaling.branching import Branching

__all__ = ["BatchStage", "BatchWarmup", "batch_warmup"]

_POWER = 0.5  # of the paper, for Adam; used if no larger batch was good


@dataclass(frozen=True)
class BatchStage:
    """From so many examples on: this batch and this learning rate (the top of the schedule)."""

    examples: int
    batch: int
    lr: float


@dataclass(frozen=True)
class BatchWarmup:
    """Batch and learning rate as a function of the examples seen so far.

    Call it in a loop, and multiply the rate by your own schedule:

        while seen < total:
            now = warmup(seen)
            for group in optimizer.param_groups:
                group["lr"] = now.lr * decay(seen / total)
            step(now.batch)
            seen += now.batch

    Attributes:
        stages: in the order of examples; the first begins at 0.

    Example:
        >>> warmup = BatchWarmup((BatchStage(0, 8, 0.1), BatchStage(64, 16, 0.2)))
        >>> warmup(63).batch, warmup(64).batch, warmup.steps(128)
        (8, 16, 12)
    """

    stages: tuple[BatchStage, ...]

    def __call__(self, examples: float) -> BatchStage:
        """Return the stage after so many examples."""
        return next((s for s in reversed(self.stages) if s.examples <= examples), self.stages[0])

    def steps(self, examples: int) -> int:
        """Return the number of steps over so many examples."""
        seen = count = 0
        while seen < examples:
            seen += self(seen).batch
            count += 1
        return count

    def text(self, examples: int | None = None) -> str:
        """Return one line for each stage.

        Args:
            examples: of the whole training; then the last line counts the steps saved.
        """
        lines = [
            f"from {s.examples:>12,} examples: batch {s.batch}, learning rate {s.lr:.4g}"
            for s in self.stages
        ]
        if examples is not None:
            before, now = math.ceil(examples / self.stages[0].batch), self.steps(examples)
            lines.append(
                f"{examples:,} examples take {now:,} steps, and {before:,} with batch "
                f"{self.stages[0].batch} throughout"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"stages": [asdict(s) for s in self.stages]}


def batch_warmup(
    found: Branching | Sequence[Branching],
    *,
    batch: int | None = None,
    most: int | None = None,
    power: float | None = None,
) -> BatchWarmup:
    """Return a schedule that doubles the batch when the critical batch has passed it.

    Between two checkpoints the critical batch lies on a line over the examples. Before the first
    it is not known, so the batch stays; after the last it stays as well. If it is smaller at a
    later checkpoint, the smaller one counts from the beginning, because the batch never shrinks.

    Args:
        found: from `branch`, at one or more checkpoints of one training, with `seen`.
        batch: to begin with; None: the batch of the training.
        most: largest batch; None: no limit but the critical batch.
        power: the rate grows by (B / batch)^power; None: as the best rates of the branches did, or
            0.5 (the paper's, for Adam) if no larger batch was good.

    Raises:
        ValueError: without a branching, without `seen`, for branchings of different trainings, or
            numbers that cannot be used.

    Source: Merrill et al. 2025, arXiv 2505.23971, section 4.

    Example:
        >>> from noisewise.scaling.intervals import Estimate
        >>> first = Branching(64, 0.1, 4096, 0, 0.8, 1.0, (), Estimate(64, 64, 128))
        >>> later = Branching(64, 0.1, 4096, 10_000, 0.8, 1.0, (), Estimate(300, 256, 512))
        >>> [(s.examples, s.batch, round(s.lr, 3)) for s in batch_warmup([first, later]).stages]
        [(0, 64, 0.1), (2712, 128, 0.141), (8136, 256, 0.2)]
    """
    points = (found,) if isinstance(found, Branching) else tuple(found)
    if not points:
        raise ValueError("There are no branches: give what branch() found at one or more times.")
    if any(math.isnan(p.seen) for p in points):
        raise ValueError(
            "When these branches were made is not known: give branch(seen=), the examples before."
        )
    if len({(p.batch0, p.lr0) for p in points}) > 1:
        raise ValueError(
            "These branches are of trainings with different batches or rates: give those of one."
        )
    points = tuple(sorted(points, key=lambda p: p.seen))
    batch0, lr0 = points[0].batch0, points[0].lr0
    start = batch0 if batch is None else batch
    if start < 1 or (most is not None and most < start):
        raise ValueError(
            f"The batch cannot grow from {start} to {most}: give a start of 1 or more, and more "
            "at the end."
        )
    if power is None:
        powers = [p.power for p in points if not math.isnan(p.power)]
        power = median(powers) if powers else _POWER
    elif not math.isfinite(power):
        raise ValueError(f"power is {power}: give a number such as 0.5.")
    known = _rising([(p.seen, p.critical.value) for p in points if p.critical.known])
    stages = [BatchStage(0, start, lr0 * (start / batch0) ** power)]
    size = 2 * start
    while (most is None or size <= most) and (at := _reached(known, size)) is not None:
        at = max(at, stages[-1].examples)
        stages = [s for s in stages if s.examples < at]
        stages.append(BatchStage(at, size, lr0 * (size / batch0) ** power))
        size *= 2
    return BatchWarmup(tuple(stages))


def _rising(known: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The critical batch as far as every later checkpoint allows it: the batch never shrinks."""
    found, least = [], math.inf
    for seen, critical in reversed(known):
        least = min(least, critical)
        found.append((seen, least))
    return found[::-1]


def _reached(known: Sequence[tuple[float, float]], batch: int) -> int | None:
    """Examples after which the critical batch is at least so large; None: never."""
    before: tuple[float, float] | None = None
    for seen, critical in known:
        if critical >= batch:
            if before is None or critical == before[1]:
                return math.ceil(seen)
            along = (batch - before[1]) / (critical - before[1])
            return math.ceil(before[0] + along * (seen - before[0]))
        before = (seen, critical)
    return None
