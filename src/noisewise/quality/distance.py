"""The distance of one set of pictures from another, with its interval and its floor.

Papers: Gretton et al. 2012, "A kernel two-sample test" (the unbiased MMD); Binkowski et al. 2018,
"Demystifying MMD GANs" (its cubic kernel, KID); Rubin 1981, "The Bayesian bootstrap"; Chernozhukov
et al. 2018, "Double/debiased machine learning" (fitting on one fold and measuring on the other).

The distance is the squared MMD with the kernel ``k(x, y) = (x.y / d + 1)^3`` of features on a
`FeatureScale`. For two samples of one distribution its mean is 0, so it can be negative, and it
does not grow if there are few pictures. It is not an FID: compare it only with distances that use
the same extractor and reference.

The scale must be fitted to other real pictures than those that are measured, or real pictures look
different from the reference. So the reference has two folds: each is measured on the scale of the
other one, and the distance is the mean of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from noisewise.quality.eight_bits import rounded
from noisewise.quality.feature_scale import FeatureScale
from noisewise.quality.features import Extractor, extract, extractor_name
from noisewise.quality.kernel import between, frechet, mmd, resampling_weights, within
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.wasserstein import sliced_wasserstein, wasserstein_1d

__all__ = [
    "Distance",
    "Reference",
    "distance",
    "floor",
    "frechet",
    "mmd",
    "sliced_wasserstein",
    "wasserstein_1d",
]

NUM_RESAMPLES = 200  # resamples for the interval, and splits of each fold for the floor
COVERAGE = 0.95
FLOOR = 0.975  # quantile; the reference has its own luck, so fewer than this stay below
_MAX_REFERENCE = 2000
_FEWEST = 8  # pictures of a reference


@dataclass(frozen=True)
class Distance:
    """A distance, its interval, and its floor.

    Attributes:
        value: unbiased squared MMD; its mean is 0 for pictures from the reference's distribution.
        low: lower end of the 95 % interval (for new draws of both sets of pictures, with the
            scale fixed).
        high: upper end of it.
        floor: real pictures of these numbers stay below this distance from each other at least 95
            times in 100; a value below it means that no difference from real pictures was found.
        num_a: number of judged pictures.
        num_b: number of reference pictures.
        extractor: name of the features; distances with other features cannot be compared.
        resamples: the values behind the interval, float64 [200]. Sets of the same number of
            pictures are resampled alike, so differences of two distances can be paired.
    """

    value: float
    low: float
    high: float
    floor: float
    num_a: int
    num_b: int
    extractor: str
    resamples: Tensor = field(repr=False, compare=False)

    @property
    def ratio(self) -> float:
        """The value divided by the floor; up to about 1 no difference from real was found."""
        return self.value / self.floor if self.floor > 0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict, ready for json.dumps; without the resamples."""
        named = [item.name for item in fields(self) if item.name != "resamples"]
        return {name: getattr(self, name) for name in named}


class _Fold:
    """One half of a reference, on the scale of the other half."""

    def __init__(self, features: Tensor, others: Tensor, seed: int) -> None:
        """Measure the half against itself: resampled, and split at random."""
        self.scale = FeatureScale.fit(others, features)
        self.features = self.scale(features)
        self.weights = resampling_weights(len(features), NUM_RESAMPLES, _seeded(2 * seed + 1))
        self.within = within(self.weights, self.features)
        self.splits = _splits(self.features, _seeded(2 * seed + 2))

    def distances(self, features: Tensor, weights: Tensor) -> Tensor:
        """The distance of pictures, and its resamples, [1 + resamples]."""
        a = self.scale(features)
        values = within(weights, a) + self.within
        return values - 2 * between(weights, a, self.weights, self.features)


class Reference:
    """Real pictures, measured once, so that many distances to them are cheap.

    Scales, kernel sums and the floor are computed once, here; a distance then costs only the
    features of the judged pictures. `state` holds everything as tensors, without any picture, so a
    model can be judged on a machine that does not have the pictures.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> real = torch.rand(64, 1, 16, 16, generator=generator) * 2 - 1
        >>> reference = Reference(real[:32])
        >>> found = reference.distance(0.5 * real[32:])
        >>> found.low > found.floor
        True
        >>> again = Reference.from_state(reference.state())
        >>> again.distance(0.5 * real[32:]) == found
        True
    """

    def __init__(
        self,
        images: Tensor,
        extractor: Extractor | None = None,
        generator: torch.Generator | None = None,
        max_images: int = _MAX_REFERENCE,
    ) -> None:
        """Measure the reference.

        Args:
            images: float [n, c, h, w] in [-1, 1], n >= 8; rounded to 8 bits first.
            extractor: computes the features; None: `NativeFeatures()`.
            generator: chooses the pictures if there are more than max_images; None: seed 0.
            max_images: number of pictures used at most, drawn without replacement.

        Raises:
            ValueError: if there are fewer than 8 pictures, or the extractor does not return a
                matrix of features.
        """
        if max_images < _FEWEST:
            raise ValueError(f"max_images is {max_images}: give at least {_FEWEST}.")
        self.extractor = extractor if extractor is not None else NativeFeatures()
        if len(images) > max_images:
            chosen = torch.randperm(len(images), generator=generator or _seeded(0))[:max_images]
            images = images[chosen.sort().values.to(images.device)]
        self._shape: tuple[int, ...] | None = tuple(images.shape[1:])
        self._measure(extract(rounded(images), self.extractor))

    @classmethod
    def of_features(cls, features: Tensor, extractor: Extractor) -> Reference:
        """Make a reference of features that are there already, float32 [n, d], n >= 8.

        Use it for pictures that do not fit into memory together: extract part by part.

        Args:
            features: what `extract(rounded(images), extractor)` returns.
            extractor: the one that they were made with.

        Raises:
            ValueError: if there are fewer than 8.

        Example:
            >>> x = torch.rand(8, 1, 8, 8)
            >>> len(Reference.of_features(extract(x, NativeFeatures()), NativeFeatures()))
            8
        """
        reference = cls.__new__(cls)
        reference.extractor, reference._shape = extractor, None
        reference._measure(features)
        return reference

    def of_first(self, num_images: int) -> Reference:
        """The reference to the first of its pictures; itself if these are all."""
        if num_images >= len(self):
            return self
        return Reference.of_features(self._features[:num_images], self.extractor)

    def _measure(self, features: Tensor) -> None:
        """Make the folds, and compute the kernel sums of each with itself."""
        if len(features) < _FEWEST:
            raise ValueError(
                f"The reference has {len(features)} pictures: give at least {_FEWEST}."
            )
        self._features = features
        order = torch.randperm(len(features), generator=_seeded(3))
        first, second = (features[part] for part in order.tensor_split(2))
        self._folds = (_Fold(first, second, 0), _Fold(second, first, 1))

    def __len__(self) -> int:
        """Return the number of pictures in the reference."""
        return len(self._features)

    def distance(self, images: Tensor, generator: torch.Generator | None = None) -> Distance:
        """Return the distance of pictures to the reference.

        ``MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)``,
        the mean of both folds b.

        Args:
            images: float [n, c, h, w] in [-1, 1], n >= 2; rounded to 8 bits first.
            generator: draws the resamples of the interval; None: seed 0, the same each time.

        Returns:
            Value, 95 % interval (Bayesian bootstrap of both sets; no picture is paired with itself,
            so the resamples are unbiased too), and floor.

        Raises:
            ValueError: if there are fewer than 2 pictures, or their features do not have the length
                of the reference's.

        Source: Gretton et al. 2012, equation 3; Binkowski et al. 2018, equation 4; Rubin 1981.

        Example:
            >>> real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
            >>> found = Reference(real[:20], lambda images: images.flatten(1)).distance(real[20:])
            >>> found.low <= found.value <= found.high
            True
        """
        if len(images) < 2:
            raise ValueError(f"There are {len(images)} pictures to judge: give at least 2.")
        if self._shape is not None and tuple(images.shape[1:]) != self._shape:
            raise ValueError(
                f"The pictures have shape {list(images.shape[1:])}, those of the reference "
                f"{list(self._shape)}: give both the same size and number of channels."
            )
        features = extract(rounded(images), self.extractor)
        if features.shape[1] != self._features.shape[1]:
            raise ValueError(
                f"Features have length {features.shape[1]}, features of the reference "
                f"{self._features.shape[1]}: use the same extractor and the same size of pictures."
            )
        weights = resampling_weights(len(features), NUM_RESAMPLES, generator or _seeded(0))
        values = torch.stack([fold.distances(features, weights) for fold in self._folds]).mean(0)
        tails = torch.tensor([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], dtype=values.dtype)
        low, high = values[1:].quantile(tails).tolist()
        value = float(values[0])
        return Distance(
            value=value,
            low=min(low, value),
            high=max(high, value),
            floor=self.floor(len(images)),
            num_a=len(images),
            num_b=len(self),
            extractor=extractor_name(self.extractor),
            resamples=values[1:],
        )

    def floor(self, num_images: int) -> float:
        """Return the distance below which num_images real pictures stay.

        Each fold is split into random halves many times. The distance of two samples of one
        distribution spreads as ``1/n_a + 1/n_b``; this converts the 97.5 % point of the halves to
        num_images against the mean of two folds. At least 95 in 100 sets of real pictures stay
        below it: the reference has its own luck.

        Raises:
            ValueError: if num_images is below 2.

        Source: Gretton et al. 2012, theorem 12 (for equal distributions the unbiased statistic is
        of order 1/n); permutation of one sample.

        Example:
            >>> real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
            >>> reference = Reference(real, lambda images: images.flatten(1))
            >>> reference.floor(10) > reference.floor(1000) > 0
            True
        """
        return self.floor_between(num_images, len(self))

    def floor_between(self, num_images: int, num_reference: int) -> float:
        """Return the floor for num_images pictures and a reference of another number of pictures.

        Raises:
            ValueError: if num_images is below 2 or num_reference below 8.
        """
        if num_images < 2:
            raise ValueError(f"num_images is {num_images}: give at least 2.")
        if num_reference < _FEWEST:
            raise ValueError(f"num_reference is {num_reference}: give at least {_FEWEST}.")
        return max(0.0, float(self.split_ratios().quantile(FLOOR))) * _spread(
            num_images, num_reference
        )

    def split_ratios(self) -> Tensor:
        """Distances between random halves of real pictures, for a spread of 1, float64 [400].

        References of the same pictures are split alike, whatever their features are.
        """
        halves = [fold.splits / (2 / (len(fold.features) // 2)) for fold in self._folds]
        return torch.cat(halves)

    def state(self, num_images: int | None = None) -> dict[str, Tensor]:
        """Return the reference as tensors: features, no pictures.

        Args:
            num_images: feature vectors to keep (the first ones); None: all. 500 of the default
                features at 32 pixels are 3.8 MB.

        Returns:
            "features" [n, d], float32, and "extractor", its name as uint8 (safetensors stores
            tensors only).

        Raises:
            ValueError: if num_images is below 8.

        Example:
            >>> sorted(Reference(torch.rand(8, 1, 8, 8)).state())
            ['extractor', 'features']
        """
        if num_images is not None and num_images < _FEWEST:
            raise ValueError(f"num_images is {num_images}: give at least {_FEWEST}.")
        name = extractor_name(self.extractor).encode()
        return {
            "features": self._features[:num_images].clone(),
            "extractor": torch.tensor(list(name), dtype=torch.uint8),
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor], extractor: Extractor | None = None) -> Reference:
        """Make a reference from the result of `state`.

        Args:
            state: the tensors.
            extractor: the one that the reference was made with; None: `NativeFeatures()`.

        Raises:
            ValueError: if tensors are missing, or the reference was made with another extractor.
        """
        missing = {"features", "extractor"} - set(state)
        if missing:
            raise ValueError(
                f"The state of the reference lacks {', '.join(sorted(missing))}: "
                "give the result of Reference.state()."
            )
        extractor = extractor if extractor is not None else NativeFeatures()
        made_with = bytes(state["extractor"].tolist()).decode()
        if made_with != extractor_name(extractor):
            raise ValueError(
                f"The reference was made with the extractor {made_with}, not "
                f"{extractor_name(extractor)}: give {made_with}."
            )
        return cls.of_features(state["features"].clone(), extractor)


def distance(
    a: Tensor,
    b: Tensor,
    extractor: Extractor | None = None,
    generator: torch.Generator | None = None,
) -> Distance:
    """Return the distance of pictures a to reference pictures b; see `Reference.distance`.

    Args:
        a: pictures to judge, float [n, c, h, w] in [-1, 1], n >= 2.
        b: real pictures, float [m, c, h, w] in [-1, 1], m >= 8; at most 2,000 of them are used.
        extractor: computes the features; None: `NativeFeatures()`.
        generator: draws the resamples; None: seed 0.

    Raises:
        ValueError: if there are too few pictures or their shapes do not fit.

    Source: Binkowski et al. 2018, section 4 (the kernel); the scaling is ours.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> real = torch.rand(64, 1, 8, 8, generator=generator) * 2 - 1
        >>> distance(real[:32], real[32:]).value < distance(real[:32] / 2, real[32:]).value
        True
    """
    return Reference(b, extractor, generator).distance(a, generator)


def floor(
    reference: Tensor,
    num_images: int,
    extractor: Extractor | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """Return the floor of the distance for num_images pictures; see `Reference.floor`.

    Args:
        reference: real pictures, float [m, c, h, w] in [-1, 1], m >= 8.
        num_images: number of pictures to be judged.
        extractor: computes the features; None: `NativeFeatures()`.
        generator: chooses the pictures if there are more than 2,000; None: seed 0.

    Raises:
        ValueError: if there are too few pictures.

    Example:
        >>> floor(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), 100) > 0
        True
    """
    return Reference(reference, extractor, generator).floor(num_images)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _spread(num_images: int, num_reference: int) -> float:
    """Spread of the mean of the distances of one set to the two folds of a reference.

    A distance of n_a and n_b pictures spreads as ``u + v``, ``u = 1/n_a, v = 1/n_b``. The two folds
    have ``v = 2/n_b`` each and meet the same pictures: ``sqrt(((u + v)^2 + u^2) / 2)``.
    """
    u, v = 1 / num_images, 2 / num_reference
    return math.sqrt(((u + v) ** 2 + u**2) / 2)


def _splits(x: Tensor, generator: torch.Generator) -> Tensor:
    """Distances between random halves of one set, float64 [200]."""
    half = len(x) // 2
    order = torch.rand(NUM_RESAMPLES, len(x), generator=generator).argsort(1)
    first = torch.zeros(NUM_RESAMPLES, len(x), dtype=torch.float64).scatter_(1, order[:, :half], 1)
    second = torch.zeros_like(first).scatter_(1, order[:, half : 2 * half], 1)
    return within(first, x) + within(second, x) - 2 * between(first, x, second, x)
