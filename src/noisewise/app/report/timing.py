"""Times per picture of several ways to draw, taken in turns: what else runs slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

_PICTURES = 16  # of a turn
_ROUNDS = 5
_LONGEST = 3.0  # seconds of a way; a slow one takes fewer turns


def times_in_turns(
    draws: Sequence[Callable[[int], object]],
    num_images: int = _PICTURES,
    rounds: int = _ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds per picture of each way.

    Args:
        draws: each draws so many pictures, and returns when they are there.
        num_images: of a turn.
        rounds: turns of each way; a way that has taken some seconds has no more.
        clock: seconds on any steady clock; given by tests.

    Example:
        >>> ticks = iter([0, 16, 16, 48, 48, 64, 64, 96])
        >>> times_in_turns([lambda n: n, lambda n: n], 16, 2, lambda: next(ticks) / 100)
        [0.01, 0.02]
    """
    taken: list[list[float]] = [[] for _ in draws]
    for _ in range(rounds):
        for draw, found in zip(draws, taken, strict=True):
            if sum(found) > _LONGEST:
                continue
            start = clock()
            draw(num_images)
            found.append(clock() - start)
    return [round(median(found) / num_images, 9) for found in taken]
