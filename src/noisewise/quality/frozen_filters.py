"""The frozen filters of the random features: the same numbers on every machine and release.

Weights come from a counter (splitmix64, Steele, Lea and Flood 2014) and exact integer arithmetic,
so they do not depend on torch or NumPy, and no random state is used or changed.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

NUM_FIRST, NUM_SECOND = 16, 24  # filters of the two layers at each scale
NUM_OCTAVES = 3  # scales of noisewise-1
_SEED = 0x6E6F697365776973  # "noisewis" in ASCII
_SHAPES = ((NUM_FIRST, 4, 5, 2 * NUM_FIRST // 3), (NUM_SECOND, NUM_FIRST, 3, NUM_SECOND // 2))


def weights_sha256() -> str:
    """Return the SHA-256 of the weights (float32, little-endian, in the order of the layers).

    Example:
        >>> weights_sha256()[:16]
        'ab7ac86ec77300cb'
    """
    digest = hashlib.sha256()
    for octave in range(NUM_OCTAVES):
        for weight in filters(octave):
            digest.update(weight.astype("<f4").tobytes())
    return digest.hexdigest()


@cache
def filters(octave: int) -> tuple[np.ndarray, np.ndarray]:
    """The two filter banks of a scale, float32 [out, in, k, k]; every filter has norm 1."""
    start = octave * sum(outputs * inputs * k * k for outputs, inputs, k, _ in _SHAPES)
    banks = []
    for outputs, inputs, kernel, num_balanced in _SHAPES:
        shape = (outputs, inputs, kernel, kernel)
        values = _whole_normals(start, int(np.prod(shape)))
        banks.append(_filters(values, shape, num_balanced))
        start += int(np.prod(shape))
    return banks[0], banks[1]


def _filters(values: np.ndarray, shape: tuple[int, ...], num_balanced: int) -> np.ndarray:
    """Filters of norm 1; the first `num_balanced` sum to 0 over each input channel.

    All numbers are whole until the last division, and the sums of squares stay below 2^53, so the
    result does not depend on the order of summation or on the library.
    """
    values = values.reshape(shape)
    window = shape[2] * shape[3]
    balanced = values * window - values.sum((2, 3), keepdims=True)
    whole = np.concatenate([balanced[:num_balanced], values[num_balanced:]])
    squares = (whole * whole).sum((1, 2, 3), keepdims=True)
    assert squares.max() < 2**53
    return (whole / np.sqrt(squares.astype(np.float64))).astype(np.float32)


def _whole_normals(start: int, count: int) -> np.ndarray:
    """Return `count` numbers of a fixed sequence, from position `start` on, int64 [count].

    Each is a sum of four 12-bit uniform numbers, about normal, in [-8190, 8190]. Source: splitmix64
    (Steele, Lea and Flood 2014) of a counter.
    """
    counter = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(_SEED) + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    parts = [(z >> np.uint64(shift)) & np.uint64(4095) for shift in (4, 20, 36, 52)]
    return np.stack(parts).astype(np.int64).sum(0) - 2 * 4095
