"""The deciding number: how far pictures are from real ones, in floors.

A floor is the distance that real pictures have from each other. One set of features does not see
everything: a trained denoiser sees what matters in its pictures, such as stains and faint grey;
random filters at native size see torn shapes and the finest detail. So the judge measures in
several features, divides each distance by its own floor, and takes the largest.

Papers: Gretton et al. 2012, "Optimal kernel choice for large-scale two-sample tests" (the largest
statistic relative to its own noise); Westfall and Young 1993, "Resampling-based multiple testing"
(the joint floor of several statistics, from splits that they share).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from noisewise.quality.distance import COVERAGE, FLOOR, Distance, Reference
from noisewise.quality.features import Extractor
from noisewise.quality.native_features import NativeFeatures

STANDARD = 500  # pictures on each side, for which verdicts are calibrated
_MAX_REFERENCE = 2000
_MOST_FLOORS = 1e6  # real pictures that are all alike have no floor


@dataclass(frozen=True)
class Floors:
    """How far pictures are from real ones: 1 or less is as far as real pictures from each other.

    Attributes:
        value: the largest of the parts' distances, each in units of its floor, for these numbers of
            pictures. With more pictures the floor is lower, and the same fault is more floors.
        low: lower end of the 95 % interval.
        high: upper end of it.
        parts: the distance in each of the features.
        decided_by: name of the features in which the pictures are farthest.
        to_standard: what the numbers are multiplied by to be those of 500 pictures on each side;
            so this is also what real pictures alone may reach at these numbers, in that unit.
        num_a: number of judged pictures.
        num_b: number of real pictures.
        seconds: what the measurement took.
        resamples: the values behind the interval, float64 [200].
    """

    value: float
    low: float
    high: float
    parts: tuple[Distance, ...]
    decided_by: str
    to_standard: float
    num_a: int
    num_b: int
    seconds: float = field(compare=False)
    resamples: Tensor = field(repr=False, compare=False)

    @property
    def at_standard(self) -> float:
        """The value for 500 pictures on each side: what people read and verdicts use."""
        return self.value * self.to_standard

    @property
    def differs(self) -> bool:
        """Whether the pictures were found to differ from real ones."""
        return self.value > 1

    def minus(self, other: Floors) -> Difference:
        """The difference in floors to other pictures, with the interval of paired resamples.

        Give sets of the same number of pictures in the same order, for example drawn from the same
        noise: what they share then cancels.

        Raises:
            ValueError: if the numbers of pictures differ.

        Example:
            >>> g = torch.Generator().manual_seed(0)
            >>> real = torch.rand(64, 1, 16, 16, generator=g) * 2 - 1
            >>> judge = Judge(real[:32])
            >>> grey, greyer = judge.measure(0.5 * real[32:]), judge.measure(0.4 * real[32:])
            >>> greyer.minus(grey).low > 0
            True
        """
        if self.num_a != other.num_a:
            raise ValueError(
                f"{self.num_a} and {other.num_a} pictures cannot be paired; measure equally many"
            )
        low, high = _interval(self.resamples - other.resamples)
        value = self.value - other.value
        return Difference(value, min(low, value), max(high, value))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, all for 500 pictures on each side.

        "chance" is what real pictures alone may reach at the measured numbers of pictures.
        """
        scale = self.to_standard
        return {
            "value": self.at_standard,
            "low": self.low * scale,
            "high": self.high * scale,
            "chance": scale,
            "decided_by": self.decided_by,
            "parts": {part.extractor: part.ratio * scale for part in self.parts},
            "num_images": self.num_a,
            "num_real": self.num_b,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Difference:
    """A difference in floors, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def surely_more(self) -> bool:
        """Whether the first set is surely farther from real pictures."""
        return self.low > 0

    @property
    def surely_less(self) -> bool:
        """Whether the first set is surely nearer to real pictures."""
        return self.high < 0


class Judge:
    """Real pictures, and the features in which others are measured against them.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> real = torch.rand(96, 1, 16, 16, generator=g) * 2 - 1
        >>> judge = Judge(real[:48])
        >>> judge.measure(real[48:]).value < 1 < judge.measure(0.5 * real[48:]).value
        True
    """

    def __init__(
        self,
        images: Tensor,
        extractors: Sequence[Extractor] | None = None,
        generator: torch.Generator | None = None,
        max_images: int = _MAX_REFERENCE,
    ) -> None:
        """Measure the real pictures in all features.

        Args:
            images: float [n, c, h, w] in [-1, 1], n >= 8; rounded to 8 bits first.
            extractors: at least one; None: `NativeFeatures()` alone.
            generator: chooses the pictures if there are more than max_images; None: seed 0.
            max_images: number of pictures used at most.

        Raises:
            ValueError: if there are fewer than 8 pictures or no extractor.
        """
        extractors = [NativeFeatures()] if extractors is None else list(extractors)
        if not extractors:
            raise ValueError("extractors is empty: give at least one, or None for the usual one.")
        state = None if generator is None else generator.get_state()
        references = []
        for extractor in extractors:
            if generator is not None and state is not None:
                generator.set_state(state)  # every part measures the same pictures
            references.append(Reference(images, extractor, generator, max_images))
        self.references: tuple[Reference, ...] = tuple(references)
        self._joint = _joint(self.references)

    @classmethod
    def of_references(cls, *references: Reference) -> Judge:
        """Make a judge of references to the same pictures in different features.

        Raises:
            ValueError: if there is none, or their numbers of pictures differ.
        """
        if not references or len({len(reference) for reference in references}) > 1:
            raise ValueError("give one reference or more, all of the same pictures")
        judge = cls.__new__(cls)
        judge.references, judge._joint = references, _joint(references)
        return judge

    def __len__(self) -> int:
        """Return the number of real pictures."""
        return len(self.references[0])

    def measure(self, images: Tensor, generator: torch.Generator | None = None) -> Floors:
        """Return how far pictures are from real ones.

        ``max_k MMD_k^2 / floor_k``, divided by what real pictures reach in this maximum.

        Args:
            images: float [n, c, h, w] in [-1, 1], n >= 2; rounded to 8 bits first.
            generator: draws the resamples of the interval; None: seed 0.

        Raises:
            ValueError: as `Reference.distance`.
        """
        start = time.perf_counter()
        state = None if generator is None else generator.get_state()
        parts = []
        for reference in self.references:
            if generator is not None and state is not None:
                generator.set_state(state)
            parts.append(reference.distance(images, generator))
        ratios = [min(part.value / self._floor(part), _MOST_FLOORS) for part in parts]
        largest = max(range(len(parts)), key=ratios.__getitem__)
        resamples = torch.stack([p.resamples / self._floor(p) for p in parts]).amax(0)
        resamples = resamples.clamp(max=_MOST_FLOORS)
        low, high = _interval(resamples)
        value = ratios[largest]
        return Floors(
            value=value,
            low=min(low, value),
            high=max(high, value),
            parts=tuple(parts),
            decided_by=parts[largest].extractor,
            to_standard=self._spread_to_standard(len(images)),
            num_a=len(images),
            num_b=len(self),
            seconds=time.perf_counter() - start,
            resamples=resamples,
        )

    def _floor(self, part: Distance) -> float:
        """The floor of a part, raised for the chances that several parts have; never 0."""
        return max(self._joint * part.floor, 1e-12)

    def _spread_to_standard(self, num_images: int) -> float:
        """The floor of these numbers of pictures, over that of 500 on each side."""
        reference = self.references[0]
        standard = reference.floor_between(STANDARD, STANDARD)
        return reference.floor(num_images) / standard if standard > 0 else 1.0


def _joint(references: tuple[Reference, ...]) -> float:
    """The 97.5 % point of the largest ratio over splits of real pictures; 1 for one part."""
    if len(references) == 1:
        return 1.0
    ratios = []
    for reference in references:
        values = reference.split_ratios()
        ratios.append(values / max(float(values.quantile(FLOOR)), 1e-12))
    return max(1.0, float(torch.stack(ratios).amax(0).quantile(FLOOR)))


def _interval(values: Tensor) -> tuple[float, float]:
    tails = torch.tensor([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], dtype=values.dtype)
    low, high = values.quantile(tails).tolist()
    return low, high
