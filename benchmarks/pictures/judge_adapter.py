"""Stands in for `noisewise.quality.Judge` until it is there; then delete this file.

Its only user is `panel_measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from noisewise import quality
from noisewise.quality import Distance, Extractor, Reference


@dataclass(frozen=True)
class Judgement:
    """The larger of the parts, in floors."""

    value: float
    low: float
    high: float
    parts: tuple[Distance, ...]


class Judge:
    """The larger of several distances, each in units of its own floor."""

    def __init__(self, real: Tensor, extractors: Sequence[Extractor]) -> None:
        """Measure the real pictures once for each extractor."""
        self.references = [Reference(real, extractor) for extractor in extractors]

    def measure(self, images: Tensor) -> Judgement:
        """Judge pictures, float [n, c, h, w] in [-1, 1]."""
        parts = tuple(reference.distance(images) for reference in self.references)
        top = max(parts, key=lambda part: part.ratio)
        return Judgement(top.ratio, top.low / top.floor, top.high / top.floor, parts)


# told_apart(images, real) with .accuracy, or a number; None: not there yet
told_apart: Callable[[Tensor, Tensor], Any] | None = getattr(quality, "told_apart", None)
