"""How far a teacher's pictures in few steps are from its own: what a generator is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from noisewise.diffusion import DPMPP_2M
from noisewise.quality.enough import LEAST
from noisewise.quality.judge import Judge
from noisewise.training.models.models import Teacher

STEPS = (1, 2, 4, 8, 18)
_MOST = 256  # pictures of each
_FEATURES = 2  # network calls: what judging a picture takes
_FRESH = 2_000_000  # number of the first picture: those of the reference and of the choices differ

Row = tuple[int, float, float]


def affordable_steps(num_images: int, calls: float) -> tuple[tuple[int, ...], int]:
    """Which numbers of steps can be measured in so many network calls, and on how many pictures.

    Args:
        num_images: at most.
        calls: for all of it.

    Example:
        >>> affordable_steps(1000, 20_000), affordable_steps(1000, 1000)
        (((1, 2, 4, 8, 18), 256), ((1, 2, 4), 76))
        >>> affordable_steps(1000, 10)
        ((), 0)
    """
    most, steps = min(num_images, _MOST), STEPS
    least = min(most, LEAST)
    while steps:
        affordable = min(most, int(calls / (sum(steps) + _FEATURES * len(steps))))
        if affordable >= least:
            return steps, affordable
        steps = steps[:-1]
    return (), 0


@torch.no_grad()
def teacher_steps(
    teacher: Teacher,
    judge: Judge,
    steps: Sequence[int],
    num_images: int,
    group: int,
    guidance: float,
    clock: Callable[[], float],
) -> tuple[Row, ...]:
    """Draw with DPM-Solver++(2M) in few steps, and measure.

    Args:
        teacher: draws over the range of its own sampler.
        judge: its own pictures.
        steps: numbers of noise levels.
        num_images: pictures of each.
        group: pictures at once.
        guidance: of the teacher, as of its own pictures.
        clock: seconds that only increase.

    Returns:
        (steps, floors at 500 pictures, milliseconds a picture) of each.
    """
    found = []
    for count in steps:
        calls = teacher.sampler.calls_for(count, DPMPP_2M, 1.0)
        start, parts = clock(), []
        for first in range(0, num_images, group):
            size = min(group, num_images - first)
            drawn: Tensor = teacher.draw(0, _FRESH + first, size, None, calls, DPMPP_2M, guidance)
            parts.append(drawn.float().cpu())
        each = (clock() - start) / num_images
        floors = judge.measure(torch.cat(parts)).at_standard
        found.append((count, float(f"{floors:.4g}"), float(f"{1000 * each:.4g}")))
    return tuple(found)


def in_words(rows: Sequence[Row]) -> str:
    """How far the teacher is, in one line without times; "" if nothing was measured.

    Example:
        >>> in_words([(1, 30.0, 3.0), (2, 12.5, 6.1)])
        'its teacher in 1, 2 steps: 30, 12.5 floors'
    """
    if not rows:
        return ""
    steps, floors = ", ".join(str(row[0]) for row in rows), ", ".join(f"{r[1]:.3g}" for r in rows)
    return f"its teacher in {steps} steps: {floors} floors"


def worth(rows: Sequence[Row], floors: float) -> str:
    """How many of the teacher's steps draw pictures as near to its own.

    Args:
        rows: of the teacher, by steps.
        floors: of a generator.

    Example:
        >>> rows = [(1, 30.0, 3.0), (4, 5.0, 12.0), (18, 1.0, 54.0)]
        >>> worth(rows, 40.0), worth(rows, 6.0), worth(rows, 0.9)
        ('fewer than 1 step', 'more than 1 step and fewer than 4', '18 steps or more')
    """
    reached = [steps for steps, own, _ in rows if floors <= own]
    if not reached:
        least = rows[0][0]
        return f"fewer than {least} step{'s' * (least > 1)}"
    best = max(reached)
    later = [steps for steps, _, _ in rows if steps > best]
    if not later:
        return f"{best} steps or more"
    if floors == next(own for steps, own, _ in rows if steps == best):
        return f"{best} step{'s' * (best > 1)}"
    return f"more than {best} step{'s' * (best > 1)} and fewer than {min(later)}"
