"""How many pictures the judge needs before it can tell anything about a set."""

from __future__ import annotations

import math
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.distance import Reference
from noisewise.quality.eight_bits import rounded

_MOST = 400  # pictures that are measured
MEASURED_FROM = 100
"""With fewer pictures, one half of them against the other half says too little."""
_CLEAR = 2.0  # floors: a damage that anybody sees should be at least so far
LEAST = 64
"""Nothing is told of fewer pictures."""


def pictures_needed(images: Tensor, generator: torch.Generator | None = None) -> int | None:
    """Return how many generated (and as many real) pictures show damage that anybody sees.

    Half of the pictures are damaged in three ways (noise of 0.1, blur of a pixel, brightness that
    varies by a third) and measured against the other half. The distance does not depend on the
    number of pictures, the floor falls as 1/n: so n follows for two floors. The middle one of the
    three counts.

    Args:
        images: real pictures, float [n, c, h, w] in [-1, 1]; at most 400 are used.
        generator: draws halves and damages; None: seed 0.

    Returns:
        A number of pictures, at least 64; None if there are fewer than 100 to measure it on.

    Example:
        >>> pictures_needed(torch.rand(120, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
        64
    """
    if len(images) < MEASURED_FROM:
        return None
    generator = generator or torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)[:_MOST]
    first, second = (rounded(images[part]) for part in order.tensor_split(2))
    reference = Reference(first)
    needed = []
    for damaged in _damages(second, generator):
        found = reference.distance(damaged)
        for_one = reference.floor_between(1000, 1000) * 1000
        needed.append(_CLEAR * for_one / found.value if found.value > 0 else math.inf)
    middle = statistics.median(needed)
    return max(LEAST, math.ceil(middle)) if math.isfinite(middle) else None


def _damages(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    noise = torch.randn(x.shape, generator=generator)
    cells = torch.randn(len(x), 1, 4, 4, generator=generator)
    cloud = F.interpolate(cells, size=x.shape[2:], mode="bicubic", align_corners=False)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return [x + 0.1 * noise, blurred, x + 0.33 * cloud]
