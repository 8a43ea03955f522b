"""Every way to draw from a run, drawn once and measured: distance, copies, time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from noisewise.app.plots.svg import as_pixels
from noisewise.app.report.contents import Contents
from noisewise.app.report.facts import Copies, Way, WayKind
from noisewise.quality.copies import CopyTest
from noisewise.training.evaluate import Measured, TrainingSet, draw_timed, measure
from noisewise.training.inspect import noise_curve
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import EvaluateConfig

SHOWN = 64  # pictures of a sheet
_PAIRS = 12
_SEED = 0


@dataclass(frozen=True)
class Measurements:
    """The part of the facts that has to be drawn and measured."""

    ways: tuple[Way, ...] = ()
    floor: float | None = None
    against: str = ""
    real: np.ndarray | None = None
    noise_curve: dict[int, float] = field(default_factory=dict)


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


def measure_ways(contents: Contents, num_images: int, tell: Callable[[str], None]) -> Measurements:
    """Draw and measure every way that a run offers, the quickest first.

    The same pictures of a way give its distance, its copies, its time and its sheet.

    Args:
        contents: without a model, only the real pictures are described.
        num_images: how many pictures to draw for each way.
        tell: is called with a line before each part that takes long.
    """
    sources, training = _sources(contents), contents.training
    if training is None:
        tell(f"report: drawing {SHOWN} pictures for each way")
        return Measurements(ways=tuple(_drawn_only(source) for source in sources))
    described = Measurements(
        real=np.asarray(training.pictures.images[training.held_out[:SHOWN]]),
        noise_curve=noise_curve(training.pictures.images),
    )
    if not sources:
        return described
    tell("report: measuring the real pictures")
    real, copies = training.real(), training.copies()
    ways = []
    for source in sources:
        calls = "1 call" if source.network_calls == 1 else f"{source.network_calls} calls"
        tell(f"report: drawing and measuring {num_images:,} pictures, {calls} each")
        config = EvaluateConfig(num_images=num_images, seed=_SEED, calls=source.calls)
        ways.append(_way(source, measure(source.model, real, copies, config), training))
    return Measurements(
        ways=tuple(ways),
        floor=real.reference.floor(num_images),
        against=real.name,
        real=described.real,
        noise_curve=described.noise_curve,
    )


def _sources(contents: Contents) -> list[_Source]:
    """The ways to draw that a run offers, the quickest first."""
    found = []
    if contents.generator is not None:
        found.append(_Source("one_call", contents.generator))
        if contents.teacher is not None and contents.generator.config.two_call_sigma is not None:
            found.append(_Source("two_calls", contents.generator, 2))
    if contents.teacher is not None:
        found.append(_Source("teacher", contents.teacher))
    return found


def _drawn_only(source: _Source) -> Way:
    """A way without real pictures to measure it by."""
    pictures, seconds = draw_timed(source.model, SHOWN, _SEED, source.calls)
    return Way(source.kind, source.network_calls, as_pixels(pictures), seconds / SHOWN)


def _way(source: _Source, found: Measured, training: TrainingSet) -> Way:
    assert found.copies is not None
    return Way(
        source.kind,
        source.network_calls,
        as_pixels(found.pictures[:SHOWN]),
        found.seconds_per_image,
        found.distance.value,
        found.distance.low,
        found.distance.high,
        found.distance.num_a,
        _copies(found, found.copies, training),
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
