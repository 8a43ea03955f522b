"""Medians with bootstrap intervals, their ratios, and tables.

There are two sources of noise: runs (training seeds) and values within a run (sample seeds). Runs
are resampled first, then the values of each run (Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Median with a bootstrap interval."""

    median: float
    low: float
    high: float
    num_runs: int
    num_values: int

    def __str__(self) -> str:
        """The text for a table."""
        return f"{figure(self.median)} [{figure(self.low)}, {figure(self.high)}]"


def figure(value: float | None) -> str:
    """A number with three significant figures; a dash if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def _resampled_medians(runs: Sequence[Sequence[float]], resamples: int, seed: int) -> np.ndarray:
    """Medians over resampled runs, each with resampled values: both sources of noise."""
    rng = np.random.default_rng(seed)
    known = [np.asarray(run) for run in runs]
    # First medians[run, draw] of resampled values, then the median over resampled runs.
    inner = np.stack(
        [
            np.median(run[rng.integers(len(run), size=(resamples * len(runs), len(run)))], axis=1)
            for run in known
        ]
    ).reshape(len(runs), resamples, len(runs))
    chosen = rng.integers(len(runs), size=(resamples, len(runs)))
    draw, place = np.indices(chosen.shape)
    return np.median(inner[chosen, draw, place], axis=1)


def _nonempty(runs: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(run) for run in runs if len(run)]


def summarise(
    runs: Sequence[Sequence[float]], level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Summary | None:
    """Median over runs of each run's median, with a percentile interval; None without values.

    Args:
        runs: one list per training run, with one value per sample seed.
        level: coverage of the interval; with three runs it is never wider than their range.
        resamples: number of bootstrap draws.
        seed: seed of the bootstrap.
    """
    kept = _nonempty(runs)
    if not kept:
        return None
    median = statistics.median(statistics.median(run) for run in kept)
    draws = _resampled_medians(kept, resamples, seed)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Summary(median, float(low), float(high), len(kept), sum(len(run) for run in kept))


def ratio(
    runs: Sequence[Sequence[float]],
    base: Sequence[Sequence[float]],
    level: float = 0.95,
    resamples: int = 1000,
) -> Summary | None:
    """Ratio of two medians, with the interval from independent resamples of both."""
    kept, below = _nonempty(runs), _nonempty(base)
    upper, lower = summarise(kept, resamples=1), summarise(below, resamples=1)
    if upper is None or lower is None or lower.median <= 0:
        return None
    draws = _resampled_medians(kept, resamples, 0) / _resampled_medians(below, resamples, 1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    values = upper.num_values + lower.num_values
    return Summary(upper.median / lower.median, float(low), float(high), upper.num_runs, values)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table with aligned columns; None becomes a dash, a float three figures."""
    shown = [list(columns)]
    for row in rows:
        assert len(row) == len(columns), (row, columns)
        shown.append([_entry(value) for value in row])
    widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |"
        for row in shown
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _entry(value: object) -> str:
    if value is None:
        return "-"
    return figure(value) if isinstance(value, float) else str(value)
