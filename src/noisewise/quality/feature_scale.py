"""The scale on which features are compared: fitted to real pictures, the same for all others.

Papers: Perronnin et al. 2010, "Improving the Fisher kernel" (power normalisation); Jégou and Chum
2012, "Negative evidences and co-occurrences" (whitening of image features); Ledoit and Wolf 2004
for why the small variances of few pictures are not trusted.

Features of pictures have a few directions in which pictures differ greatly, such as brightness and
layout. These set the noise of a distance, and small faults in all other directions drown in it. So
the large directions are scaled down, and the others are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

MOST_FITTED = 500  # pictures; more make the scale slower, not better
_LEAST_DEVIATION = 0.1  # share of the mean deviation; features that vary less are not scaled up
_USUAL = 1 / 200  # share of all variance; directions with more than this are scaled down
_POWER = 0.25  # of the variance: 0 does nothing, 0.5 makes the large directions equal
_NEGLIGIBLE = 0.02  # directions with less than this share of the usual variance are left alone


@dataclass(frozen=True, eq=False)
class FeatureScale:
    """``z = signed root of (x - mean) / deviation``, then large directions of z are scaled down.

    A direction with variance v is multiplied by ``(1 + v / u)^-1/4``, where u is a 200th of all
    variance. Whoever measures must fit the scale to other pictures than those he measures:
    in-sample, pictures look nearer to each other than they are.

    Attributes:
        mean, deviation: of each feature, [d].
        centre: mean of z, [d].
        directions: large directions of z, orthonormal rows, [r, d].
        factors: by which they are multiplied, [r].
        unit: root mean square of the scaled z.
    """

    mean: Tensor
    deviation: Tensor
    centre: Tensor
    directions: Tensor
    factors: Tensor
    unit: float

    @classmethod
    def fit(cls, features: Tensor, measured: Tensor) -> Self:
        """Fit the scale.

        Args:
            features: of real pictures, float [n, d], n >= 2; at most 500 are used.
            measured: of other real pictures, [m, d]: they get a root mean square of 1. (In-sample
                it would be too small, and much so with few pictures.)

        Example:
            >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
            >>> scale = FeatureScale.fit(x[:50], x[50:])
            >>> round(float(scale(x[50:]).square().mean()), 4)
            1.0
        """
        features = features[:MOST_FITTED]
        mean, deviation = features.mean(0), features.std(0)
        least = (_LEAST_DEVIATION * deviation.mean()).clamp_min(1e-6)
        deviation = (deviation.square() + least.square()).sqrt()
        z = _rooted((features - mean) / deviation)
        centre = z.mean(0)
        directions, variances, total = _principal(z - centre)
        usual = max(_USUAL * total, 1e-12)
        kept = variances > _NEGLIGIBLE * usual
        factors = (1 + variances[kept] / usual).pow(-_POWER)
        unscaled = cls(mean, deviation, centre, directions[kept], factors.float(), 1.0)
        unit = float(unscaled(measured).square().mean().sqrt())
        return cls(mean, deviation, centre, directions[kept], factors.float(), max(unit, 1e-6))

    def __call__(self, features: Tensor) -> Tensor:
        """Return features on this scale, float32 [n, d]."""
        z = _rooted((features - self.mean) / self.deviation) - self.centre
        along = z @ self.directions.T
        return (z + along * (self.factors - 1) @ self.directions) / self.unit


def _rooted(z: Tensor) -> Tensor:
    """The signed root, so that no single feature of a picture dominates."""
    return z.sign() * z.abs().sqrt()


def _principal(z: Tensor) -> tuple[Tensor, Tensor, float]:
    """Principal directions [r, d], their variances [r], and the variance in all directions."""
    gram = (z @ z.T).double() / (len(z) - 1)
    values, vectors = torch.linalg.eigh(gram)
    positive = values > 1e-9 * values.amax().clamp_min(1e-12)
    values, vectors = values[positive].flip(0), vectors[:, positive].flip(1)
    lengths = (values * (len(z) - 1)).sqrt()
    directions = (vectors.T @ z.double() / lengths[:, None]).float()
    return directions, values, float(values.sum())
