"""Every way to draw from a run, drawn once and measured: what differs, copies, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from noisewise.app.plots.svg import as_pixels
from noisewise.app.report.by_class import class_sheets
from noisewise.app.report.contents import Contents
from noisewise.app.report.facts import (
    ClassSheet,
    Copies,
    NearCopies,
    Spectrum,
    Way,
    WayKind,
    Worst,
)
from noisewise.app.report.timing import times_in_turns
from noisewise.pictures.noise_curve import noise_curve
from noisewise.quality.copies import CopyTest
from noisewise.quality.near_copies import NearCopyTest
from noisewise.quality.told_apart import evidence_maps
from noisewise.training.callbacks import OnPart
from noisewise.training.devices.engine import Engine
from noisewise.training.evaluate import Measured, measure
from noisewise.training.look import RealPictures
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import EvaluateConfig
from noisewise.training.training_set import CopyTests, TrainingSet

SHOWN = 64  # pictures of a sheet
_PAIRS = 12
_WORST = 12
_FEWEST_MAPPED = 64  # pictures that the maps of evidence are learnt from, at least
_MAPPED_PIXELS = 500 * 48 * 48  # and about as many pixels, for some seconds
_SMALLEST_MAPPED = 16  # pixels of a side
_MOST = 500  # real pictures behind a map
_SEED = 0


@dataclass(frozen=True)
class Measurements:
    """The part of the facts that has to be drawn and measured."""

    ways: tuple[Way, ...] = ()
    floor: float | None = None
    against: str = ""
    real: np.ndarray | None = None
    noise_curve: dict[int, float] = field(default_factory=dict)
    class_sheets: tuple[ClassSheet, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A model, and the network calls to ask of it (None: its own number)."""

    kind: WayKind
    model: Generator | Teacher
    calls: int | None = None

    @property
    def network_calls(self) -> int:
        """Network calls for each picture."""
        return self.model.network_calls(self.calls)

    def draw(self, num_images: int) -> None:
        """Draw so many pictures, and wait until they are there."""
        self.model.sample(num_images, _SEED, calls=self.calls)
        Engine(self.model.device).synchronize()


def measure_ways(
    contents: Contents,
    num_images: int,
    tell: Callable[[str], None],
    on_part: OnPart | None = None,
) -> Measurements:
    """Draw and measure every way that a run offers, the quickest first.

    The same pictures of a way give its numbers, its copies, its time and its sheet.

    Args:
        contents: without a model, only the real pictures are described.
        num_images: how many pictures to draw for each way.
        tell: is called with a line before each part that takes long.
        on_part: is called with (what is being done, done, of all) while a way is measured.
    """
    sources, training = _sources(contents), contents.training
    if training is None:
        tell(f"report: drawing {SHOWN} pictures for each way")
        return Measurements(
            ways=_timed([_drawn_only(source) for source in sources], sources),
            class_sheets=_class_sheets(sources, None),
        )
    described = Measurements(
        real=np.asarray(training.pictures.images[training.held_out[:SHOWN]]),
        noise_curve=noise_curve(training.pictures.images),
    )
    if not sources:
        return described
    tell("report: measuring the real pictures")
    real, copies = training.real(contents.teacher), CopyTests.of(training)
    ways = []
    for source in sources:
        calls = "1 call" if source.network_calls == 1 else f"{source.network_calls} calls"
        tell(f"report: drawing and measuring {num_images:,} pictures, {calls} each")
        config = EvaluateConfig(num_images=num_images, seed=_SEED, calls=source.calls)
        found = measure(source.model, real, copies, config, on_part)
        worst = _worst(found, real) if not ways else None
        ways.append(_way(source, found, training, worst))
    tell("report: measuring times")
    return Measurements(
        ways=_timed(ways, sources),
        floor=real.reference.floor(num_images),
        against=real.name,
        real=described.real,
        noise_curve=described.noise_curve,
        class_sheets=_class_sheets(sources, training),
    )


def _timed(ways: Sequence[Way], sources: Sequence[_Source]) -> tuple[Way, ...]:
    """The ways with times that can be compared: each was measured under the same load."""
    times = times_in_turns([source.draw for source in sources])
    return tuple(
        replace(way, seconds_per_image=seconds) for way, seconds in zip(ways, times, strict=True)
    )


def _class_sheets(
    sources: Sequence[_Source], training: TrainingSet | None
) -> tuple[ClassSheet, ...]:
    return class_sheets(sources[0].model, training, _SEED) if sources else ()


def _sources(contents: Contents) -> list[_Source]:
    """The ways to draw that a run offers, the quickest first."""
    found = []
    if contents.generator is not None:
        few = len(contents.generator.sigmas) > 1
        found.append(_Source("few_calls" if few else "one_call", contents.generator))
        if contents.teacher is not None and contents.generator.config.two_call_sigma is not None:
            found.append(_Source("two_calls", contents.generator, 2))
    if contents.teacher is not None:
        found.append(_Source("teacher", contents.teacher))
    return found


def _drawn_only(source: _Source) -> Way:
    """A way without real pictures to measure it by."""
    pictures = source.model.sample(SHOWN, _SEED, calls=source.calls)
    return Way(source.kind, source.network_calls, as_pixels(pictures))


def _way(source: _Source, found: Measured, training: TrainingSet, worst: Worst | None) -> Way:
    assert found.copies is not None
    spectrum = found.look.spectrum
    return Way(
        source.kind,
        source.network_calls,
        as_pixels(found.pictures[:SHOWN]),
        found=found.to_dict(),
        distance=found.distance.value,
        distance_low=found.distance.low,
        distance_high=found.distance.high,
        num_images=found.distance.num_a,
        copies=_copies(found, found.copies, training),
        near_copies=_near_copies(found, found.near_copies, training),
        spectrum=None
        if spectrum is None
        else Spectrum(tuple(spectrum.frequency.tolist()), tuple(spectrum.difference.tolist())),
        worst=worst,
    )


def _worst(found: Measured, real: RealPictures) -> Worst | None:
    """The pictures that look least real, and where; larger pictures are mapped among fewer."""
    told, (height, width) = found.look.told_apart, found.pictures.shape[-2:]
    if told is None:
        return None
    most = max(_FEWEST_MAPPED, min(len(told.index), _MAPPED_PIXELS // (height * width)))
    judged = told.index[:most]
    at = told.evidence[:most].argsort(descending=True, stable=True)[:_WORST]
    pictures = found.pictures[judged]
    if min(height, width) < _SMALLEST_MAPPED:
        return Worst(as_pixels(pictures[at]))
    maps = evidence_maps(pictures, real.pictures[:_MOST], max_images=max(most, _FEWEST_MAPPED))
    return Worst(as_pixels(pictures[at]), maps[at].numpy())


def _near_copies(
    found: Measured, test: NearCopyTest | None, training: TrainingSet
) -> NearCopies | None:
    """The test for near copies, and the pairs that are most alike."""
    if test is None:
        return None
    first = test.closest(_PAIRS)
    matched = training.pictures.images[training.trained[test.index[first].numpy()]]
    return NearCopies(
        says=test.verdict,
        can_tell=test.can_tell,
        pictures=as_pixels(found.pictures[first]),
        matched=np.asarray(matched),
        copied=tuple(test.copied[first].tolist()),
    )


def _copies(found: Measured, test: CopyTest, training: TrainingSet) -> Copies:
    """The copy test, and the pictures that are nearest to being copies."""
    first = test.closest(_PAIRS)
    neighbours = training.pictures.images[training.trained[test.index[first].numpy()]]
    return Copies(
        num_images=len(found.pictures),
        fraction=test.fraction,
        low=test.low,
        high=test.high,
        held_out_fraction=test.held_out_fraction,
        threshold=test.threshold,
        pictures=as_pixels(found.pictures[first]),
        nearest=np.asarray(neighbours),
        shown_distances=tuple(test.distance[first].tolist()),
        distances=tuple(test.distance.tolist()),
        held_out_distances=tuple(test.held_out_distance.tolist()),
    )
