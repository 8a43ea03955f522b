"""What judges a set of pictures in the judge's panel: all measures against one reference."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.pictures import told_by_net
from benchmarks.shared import harness, judge
from noisewise.quality import (
    DenoiserFeatures,
    Distance,
    Extractor,
    Judge,
    NativeFeatures,
    RandomConvFeatures,
    Reference,
    extract,
    told_apart,
)
from noisewise.quality.features import extractor_name
from noisewise.training.models.models import Teacher

# Groups of measures: those of one group are computed together and are one cell.
OLD, JUDGED, TRAINED, APART, NET = "old", "judge", "trained judges", "told apart", "net"
# The measures that every table can show, with their titles.
MEASURES = {
    "judge": "judge",
    "teacher": "teacher features",
    "native": "native features",
    "old": "32-pixel features",
    "apart": "told apart",
    "net": "told apart by a net",
    "severe": "severe judge",
    "plain": "plain judge",
}
FLOORS = ("judge", "teacher", "native", "old")  # in floors; the others have units of their own


class Remembered:
    """An extractor that computes the features of known pictures once.

    The same pictures are divided again and again, so this saves most of the time.
    """

    def __init__(self, extractor: Extractor, known: Tensor) -> None:
        """Keep known pictures, float [n, c, h, w]; nothing is computed before it is needed."""
        self.name = extractor_name(extractor)
        self._extractor, self._known = extractor, known

    @cached_property
    def _features(self) -> Tensor:
        return extract(self._known, self._extractor)

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {_key(picture): k for k, picture in enumerate(self._known)}

    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures: looked up where they are known, else computed."""
        places = [self._places.get(_key(picture), -1) for picture in images]
        found = torch.empty(len(images), self._features.shape[1])
        unknown = torch.tensor([place < 0 for place in places])
        found[~unknown] = self._features[[place for place in places if place >= 0]]
        if unknown.any():
            found[unknown] = self._extractor(images[unknown]).float()
        return found


def _key(picture: Tensor) -> bytes:
    return hashlib.blake2b(picture.contiguous().numpy().tobytes(), digest_size=16).digest()


class Extractors:
    """The features that a set's pictures are judged in."""

    def __init__(self, model: Teacher | None) -> None:
        """Make them; without a teacher, only the frozen ones."""
        self.old: Extractor = RandomConvFeatures()
        self.native: Extractor = NativeFeatures()
        self.teacher: Extractor | None = None
        if model is not None:
            self.teacher = DenoiserFeatures(model.denoiser, conditioned=bool(model.classes))

    def remember(self, known: Tensor) -> None:
        """Compute the features of real pictures once."""
        self.old = Remembered(self.old, known)
        self.native = Remembered(self.native, known)
        if self.teacher is not None:
            self.teacher = Remembered(self.teacher, known)

    def judging(self) -> list[Extractor]:
        """Those that the judge takes the larger of."""
        return [self.native, *([self.teacher] if self.teacher is not None else [])]


class Measures:
    """All measures against one reference; each is prepared when it is first used."""

    def __init__(
        self, reference: Tensor, extractors: Extractors, bench: judge.Bench | None = None
    ) -> None:
        """Keep the reference, float [n, c, h, w] in [-1, 1], and the trained judges, if any."""
        self.reference, self.extractors, self.bench = reference, extractors, bench

    @cached_property
    def old(self) -> Reference:
        """The distance in frozen features of thumbnails."""
        return Reference(self.reference, self.extractors.old)

    @cached_property
    def judge(self) -> Judge:
        """The larger of native and teacher features."""
        return Judge(self.reference, extractors=self.extractors.judging())

    def stamp(self, group: str) -> str:
        """What a group's values depend on besides the pictures; if it changes, cells run again."""
        if group == OLD:
            return extractor_name(self.extractors.old)
        if group == JUDGED:
            return " ".join(extractor_name(e) for e in self.extractors.judging())
        if group == TRAINED:
            assert self.bench is not None
            return self.bench.fingerprint
        return group

    def groups(self) -> dict[str, Callable[[Tensor], harness.Values]]:
        """The groups of measures that can be had, by name."""
        found: dict[str, Callable[[Tensor], harness.Values]] = {
            OLD: self._old,
            JUDGED: self._judged,
            NET: self._net,
        }
        if self.bench is not None:
            found[TRAINED] = self._trained
        if told_apart is not None:
            found[APART] = self._apart
        return found

    def _old(self, images: Tensor) -> harness.Values:
        return _numbers("old", self.old.distance(images))

    def _judged(self, images: Tensor) -> harness.Values:
        found = self.judge.measure(images)
        values: harness.Values = {
            "judge": found.value,
            "judge_low": found.low,
            "judge_high": found.high,
        }
        for part in found.parts:
            values |= _numbers(part_of(part), part)
        return values

    def _trained(self, images: Tensor) -> harness.Values:
        assert self.bench is not None
        return {"plain": self.bench.distance(images), "severe": self.bench.severe(images)}

    def _apart(self, images: Tensor) -> harness.Values:
        assert told_apart is not None
        found = told_apart(images, self.reference)
        return {"apart": found.accuracy}

    def _net(self, images: Tensor) -> harness.Values:
        return {"net": told_by_net.accuracy(images, self.reference)}


def part_of(part: Distance) -> str:
    """Which part of the judge a distance is: "teacher" or "native"."""
    return "teacher" if part.extractor.startswith("denoiser") else "native"


def _numbers(name: str, found: Distance) -> harness.Values:
    return {
        name: found.ratio,
        f"{name}_low": found.low / found.floor if found.floor > 0 else None,
        f"{name}_high": found.high / found.floor if found.floor > 0 else None,
    }


def seconds(images: Tensor, reference: Tensor, model: Teacher | None) -> harness.Values:
    """Seconds to prepare each measure, and to judge pictures with it, nothing remembered."""
    extractors = Extractors(model)
    values: harness.Values = {}
    for name in ("native", "teacher", "old"):
        extractor = getattr(extractors, name)
        if extractor is not None:
            clock = time.perf_counter()
            made = Reference(reference, extractor)
            values[f"{name}_prepared"] = time.perf_counter() - clock
            clock = time.perf_counter()
            made.distance(images)
            values[f"{name}_judged"] = time.perf_counter() - clock
    clock = time.perf_counter()
    judging = Judge(reference, extractors=extractors.judging())
    values["judge_prepared"] = time.perf_counter() - clock
    clock = time.perf_counter()
    judging.measure(images)
    values["judge_judged"] = time.perf_counter() - clock
    return values
