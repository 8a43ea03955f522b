"""Sweeps over learning rates: a grid that grows until it contains the optimum, and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

WORST = 1e3  # replaces a loss that is not finite


def parabola(log_lr: np.ndarray, values: np.ndarray) -> float:
    """Minimum of a parabola through the lowest point and its two neighbours; nan at an end.

    More points are wrong: a quadratic loss is skewed in log lr, by 20 % over 3 octaves.
    """
    i = int(np.argmin(values))
    if i in (0, len(values) - 1):
        return math.nan
    curve, slope, _ = np.polyfit(log_lr[i - 1 : i + 2] - log_lr[i], values[i - 1 : i + 2], 2)
    foot = -slope / (2 * curve) if curve > 0 else math.nan
    step = log_lr[1] - log_lr[0]
    return float(math.exp(log_lr[i] + np.clip(foot, -step, step)))


def _foot_or_edge(log_lr: np.ndarray, values: np.ndarray) -> float:
    foot = parabola(log_lr, values)
    return foot if math.isfinite(foot) else float(np.exp(log_lr[int(np.argmin(values))]))


def resampled_feet(log_lr: np.ndarray, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Minima of the mean over resampled rows of values [d, lr], [300]; may be an end of the grid.

    A minimum at an end is kept, because without it the interval is too narrow.
    """
    chosen = np.random.default_rng(seed).integers(len(values), size=(300, len(values)))
    return np.asarray([_foot_or_edge(log_lr, values[rows].mean(0)) for rows in chosen])


def optimum(log_lr: np.ndarray, values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Minimum of the mean over draws [d, lr] (nan at an end), with a 95 % bootstrap interval.

    Fewer than three draws give no interval.
    """
    foot = parabola(log_lr, values.mean(0))
    if len(values) < 3 or not math.isfinite(foot):
        return foot, math.nan, math.nan
    low, high = np.quantile(resampled_feet(log_lr, values, seed), [0.025, 0.975])
    return foot, float(low), float(high)


def lowest(found: Mapping[float, Sequence[float]]) -> float:
    """The octave with the lowest mean loss."""
    return min(found, key=lambda k: float(np.mean(found[k])))


def halves_optimum(
    found: Mapping[float, Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """The best rate of losses by octave, by the half octaves beside the best one if they are known.

    Args:
        found: losses of each draw at the rates 2^k.
        seed: of the bootstrap.

    Returns:
        The best rate and its 95 % interval; nan if the best one is an end.
    """
    best = lowest(found)
    near = [best + d for d in (-1.0, -0.5, 0.0, 0.5, 1.0) if best + d in found]
    if not {best - 0.5, best + 0.5} <= set(found):
        near = [k for k in sorted(found) if k % 1 == 0]
    return optimum(np.asarray(near) * math.log(2), np.asarray([found[k] for k in near]).T, seed)


def sweep(
    losses_at: Callable[[float], Sequence[float]],
    centre: float,
    step: float,
    first: Sequence[int],
    most: int = 60,
    margin: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Losses on the grid centre 2^(step k), widened until the optimum is `margin` points inside.

    Args:
        losses_at: gives a loss for each draw, at a learning rate.
        centre: where to start; the grid finds the optimum from any centre.
        step: octaves from one rate to the next.
        first: the first values of k, ascending.
        most: most rates; if they are used up, the optimum is outside, and the tables count it.
        margin: number of points needed beyond the lowest one, on both sides.

    Returns:
        Rates [lr] and losses [d, lr].
    """
    found: dict[int, list[float]] = {}

    def add(places: Sequence[int]) -> None:
        for k in places:
            losses = losses_at(centre * 2.0 ** (step * k))
            found[k] = [x if math.isfinite(x) else WORST for x in losses]

    add(first)
    while len(found) < most:
        places = sorted(found)
        best = int(np.argmin([np.mean(found[k]) for k in places]))
        if best < margin:
            add(range(places[0] - margin, places[0]))
        elif best >= len(places) - margin:
            add(range(places[-1] + 1, places[-1] + 1 + margin))
        else:
            break
    places = sorted(found)
    rates = centre * 2.0 ** (step * np.asarray(places, dtype=float))
    return rates, np.asarray([found[k] for k in places]).T


def at_an_edge(pairs: Sequence[Sequence[float | None]]) -> bool:
    """Whether the lowest of (rate, loss) pairs is the first or the last."""
    losses = [WORST if loss is None or not math.isfinite(loss) else loss for _, loss in pairs]
    return int(np.argmin(losses)) in (0, len(losses) - 1)
