"""Random numbers of pictures: those of picture i of a seed depend on the seed and on i alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Streams of random numbers that a picture of a seed has; see `picture_noise`.
START = 0  # the noise that a picture starts from
SECOND_CALL = 1
LABEL = 2
WINDOWS = 2**31  # where the windows of a larger picture lie
WALK = 3  # and above: the noise that a stochastic sampler, or a generator of several calls, adds


def picture_noise(
    seed: int, start: int, count: int, shape: tuple[int, ...], stream: int = START
) -> Tensor:
    """Standard normal noise for pictures start, start + 1, ..., [count, *shape].

    The noise of a picture depends on (seed, its number, stream) alone; streams are independent.

    Example:
        >>> a, b = picture_noise(0, 0, 4, (1, 8, 8)), picture_noise(0, 2, 1, (1, 8, 8))
        >>> torch.equal(a[2:3], b)
        True
    """
    out = torch.empty(count, *shape)
    for i in range(count):
        torch.randn(shape, generator=generator_of(seed, start + i, stream), out=out[i])
    return out


def generator_of(seed: int, number: int, stream: int) -> torch.Generator:
    """The random numbers of a stream of a picture."""
    words = np.random.SeedSequence((seed, number, stream)).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


def picture_labels(seed: int, start: int, count: int, histogram: tuple[int, ...]) -> Tensor:
    """Labels for pictures start, start + 1, ..., drawn as often as the histogram says, int64.

    Example:
        >>> picture_labels(0, 0, 4, (0, 5, 0))
        tensor([1, 1, 1, 1])
    """
    edges = np.cumsum(histogram) / sum(histogram)
    words = [
        np.random.SeedSequence((seed, start + i, LABEL)).generate_state(1)[0] for i in range(count)
    ]
    drawn = np.searchsorted(edges, np.array(words) / 2**32, side="right")
    return torch.from_numpy(drawn.astype(np.int64))
