"""What people are shown about generated pictures: every number with one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from noisewise.quality.class_shares import ClassShares, class_shares
from noisewise.quality.distance import Reference
from noisewise.quality.features import Extractor
from noisewise.quality.flats import even_area, flat_area
from noisewise.quality.judge import Floors, Judge
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.precision_recall import PrecisionRecall, precision_recall
from noisewise.quality.spectrum import SpectrumError, spectrum_error
from noisewise.quality.told_apart import ToldApart, told_apart
from noisewise.quality.verdict import Verdict, verdict
from noisewise.training.models.models import Teacher
from noisewise.training.stages.real_judge import teacher_features

_MOST = 500  # pictures on each side for all numbers but the judge's
_FEWEST = 10  # pictures on each side; with fewer, only the judge's number is measured


@dataclass(frozen=True, eq=False)
class Labelled:
    """Real pictures whose class or kind is known.

    Attributes:
        pictures: float32 [n, channels, height, width] in [-1, 1].
        labels: int64 [n].
        names: of the classes or kinds.
    """

    pictures: Tensor
    labels: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RealPictures:
    """Real pictures to measure against; what they cost is paid once, for any number of models.

    Attributes:
        pictures: float32 [n, channels, height, width] in [-1, 1].
        name: how many, and which ones, for people.
        teacher: the judge reads its features too; None: frozen features alone.
        labelled: for the shares of classes; None: they are not counted.
    """

    pictures: Tensor
    name: str
    teacher: Teacher | None = None
    labelled: Labelled | None = None

    @cached_property
    def judge(self) -> Judge:
        """The real pictures in frozen features and in the teacher's."""
        extractors: list[Extractor] = [NativeFeatures()]
        if (teacher := self.teacher) is not None:
            known = teacher.config.sigma_range
            seen = teacher_features(teacher.denoiser, bool(teacher.classes), known)
            extractors += [] if seen is None else [seen]
        return Judge(self.pictures, extractors)

    @property
    def reference(self) -> Reference:
        """The real pictures in frozen features."""
        return self.judge.references[0]

    @cached_property
    def flat_area(self) -> float:
        """Share of their pixels in areas of one value."""
        return flat_area(self.pictures[:_MOST])

    @cached_property
    def even_area(self) -> float:
        """Share of their pixels in areas that look even."""
        return even_area(self.pictures[:_MOST])


@dataclass(frozen=True, eq=False)
class Look:
    """What was found about generated pictures, beside copies.

    Attributes:
        floors: how far they are from real pictures; this number decides.
        verdict: a word for it.
        told_apart: how often a classifier tells them from real pictures.
        precision_recall: how many look like some real picture, and how many real ones they cover.
        spectrum: error of the power at each fineness of detail.
        flat_area: share of pixels in areas of one exact value: generated, real.
        even_area: share of pixels in areas that look even: generated, real.
        class_shares: how many are of each class or kind; None without classes.
    """

    floors: Floors
    verdict: Verdict
    told_apart: ToldApart | None = None
    precision_recall: PrecisionRecall | None = None
    spectrum: SpectrumError | None = None
    flat_area: tuple[float, float] | None = None
    even_area: tuple[float, float] | None = None
    class_shares: ClassShares | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        told, both, shares = self.told_apart, self.precision_recall, self.class_shares
        return {
            "verdict": self.verdict.word,
            "verdict_reason": self.verdict.reason,
            "floors": self.floors.to_dict(),
            "told_apart": None
            if told is None
            else {"share": told.accuracy, "low": told.low, "high": told.high},
            "precision": None if both is None else both.precision,
            "recall": None if both is None else both.recall,
            "spectrum_db": None if self.spectrum is None else self.spectrum.error,
            "flat_area": _pair(self.flat_area),
            "even_area": _pair(self.even_area),
            "class_shares": None
            if shares is None
            else [
                {
                    "name": one.name,
                    "share": one.share,
                    "low": one.low,
                    "high": one.high,
                    "real": one.real,
                    "verdict": one.verdict,
                }
                for one in shares.classes
            ],
        }


def look_at(pictures: Tensor, real: RealPictures) -> Look:
    """Measure generated pictures against real ones.

    Args:
        pictures: float [n, channels, height, width] in [-1, 1].
        real: the pictures to measure against.

    Raises:
        ValueError: if sizes or channels differ, or there are fewer than 2 pictures.
    """
    floors = real.judge.measure(pictures)
    if min(len(pictures), len(real.pictures)) < _FEWEST:
        return Look(floors, verdict(floors))
    made, known = pictures[:_MOST], real.pictures[:_MOST]
    told, even = told_apart(made, known), (even_area(made), real.even_area)
    return Look(
        floors,
        verdict(floors, told, even),
        told,
        precision_recall(made, known),
        spectrum_error(made, known),
        (flat_area(made), real.flat_area),
        even,
        _shares(pictures, real.labelled),
    )


def _pair(areas: tuple[float, float] | None) -> dict[str, float] | None:
    return None if areas is None else {"generated": areas[0], "real": areas[1]}


def _shares(pictures: Tensor, real: Labelled | None) -> ClassShares | None:
    """Shares of classes; None where they cannot be told, as with a few pictures of a class."""
    if real is None:
        return None
    try:
        return class_shares(pictures, real.pictures, real.labels, real.names)
    except ValueError:
        return None
