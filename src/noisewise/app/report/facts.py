"""What the report shows, as plain values: collect.py gathers them, page.py writes the page.

Pictures are uint8 [n, height, width, channels]; times are seconds. What a run does not have (a
generator, the training pictures, a distance) is None or empty, and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from noisewise.sizes import Size

WayKind = Literal["one_call", "two_calls", "few_calls", "teacher"]


@dataclass(frozen=True)
class Event:
    """Something that happened in the run; the page starts with the `bad` ones.

    Attributes:
        about: a stage, a way to draw, "run" or "data".
        seconds: time in the stage; None: it is about what the page measured.
        text: what happened, for people.
        bad: a reader must not miss it.
    """

    about: str
    seconds: float | None
    text: str
    bad: bool


@dataclass(frozen=True)
class Copies:
    """The copy test of one way to draw; the pairs shown are the nearest to being copies.

    Attributes:
        num_images: generated pictures tested.
        fraction: share of them that copy a training picture, 0 to 1; `low` to `high` is its 95%
            interval.
        held_out_fraction: the same rule applied to held-out pictures; None without them.
        threshold: a copy is nearer to its nearest training picture than this share of the distance
            to the second nearest.
        pictures: generated pictures shown.
        nearest: the nearest training picture of each.
        shown_distances: the distance of each pair.
        distances: of every generated picture to its nearest training picture.
        held_out_distances: the same of held-out pictures.
    """

    num_images: int
    fraction: float
    low: float
    high: float
    held_out_fraction: float | None
    threshold: float
    pictures: np.ndarray
    nearest: np.ndarray
    shown_distances: tuple[float, ...]
    distances: tuple[float, ...]
    held_out_distances: tuple[float, ...]


@dataclass(frozen=True)
class NearCopies:
    """The test for near copies of one way; the pairs shown are the most alike.

    Attributes:
        says: what the test found and what it cannot tell, in words.
        can_tell: whether it finds at least half of the planted near copies.
        pictures: generated pictures shown.
        matched: the training picture that each is matched with.
        copied: which of the shown ones are near copies by the rule.
    """

    says: str
    can_tell: bool
    pictures: np.ndarray
    matched: np.ndarray
    copied: tuple[bool, ...]


@dataclass(frozen=True)
class Spectrum:
    """Power of detail of generated pictures minus that of real ones.

    Attributes:
        frequency: in cycles per pixel, to 0.5.
        difference: in dB; below 0 they lack detail of this fineness.
    """

    frequency: tuple[float, ...]
    difference: tuple[float, ...]


@dataclass(frozen=True)
class Worst:
    """The generated pictures that look least real to a classifier, the worst first.

    Attributes:
        pictures: uint8 [n, height, width, channels].
        evidence: log odds that a place is generated, float [n, 4, 4]; None: not measured.
    """

    pictures: np.ndarray
    evidence: np.ndarray | None = None


@dataclass(frozen=True)
class Way:
    """One way to draw pictures from the run, and what was measured about it.

    Attributes:
        kind: generator in one call or in two, or the teacher.
        network_calls: calls for each picture.
        pictures: the first ones of their seed.
        seconds_per_image: time to draw one picture, in batches.
        found: the verdict and the numbers behind it, of `Evaluation.to_dict`.
        distance: to real pictures in frozen features, for comparing runs; `distance_low` to
            `distance_high` is its 95% interval.
        num_images: pictures that were measured.
        copies: the copy test of the same pictures.
        near_copies: the test for near copies.
        spectrum: generated against real.
        worst: of the first way only.
    """

    kind: WayKind
    network_calls: int
    pictures: np.ndarray
    seconds_per_image: float | None = None
    found: Mapping[str, Any] | None = None
    distance: float | None = None
    distance_low: float | None = None
    distance_high: float | None = None
    num_images: int | None = None
    copies: Copies | None = None
    near_copies: NearCopies | None = None
    spectrum: Spectrum | None = None
    worst: Worst | None = None

    @property
    def verdict(self) -> str:
        """The word for its pictures; "" if they were not measured."""
        return "" if self.found is None else self.found["verdict"]

    @property
    def name(self) -> str:
        """The way in words.

        Example:
            >>> Way("teacher", 35, np.zeros((0, 8, 8, 1), np.uint8)).name
            'teacher, 35 calls'
        """
        if self.kind == "one_call":
            return "one call"
        if self.kind == "two_calls":
            return "two calls"
        if self.kind == "few_calls":
            return f"generator, {self.network_calls} calls"
        return f"teacher, {self.network_calls} call{'' if self.network_calls == 1 else 's'}"


@dataclass(frozen=True, eq=False)
class ClassSheet:
    """Pictures of one class; `real` are as many that no model was trained on, or None."""

    name: str
    generated: np.ndarray
    real: np.ndarray | None = None


@dataclass(frozen=True)
class Frame:
    """One sheet of fixed seeds, drawn while the model trained; `seconds` None: not in the log."""

    stage: str
    step: int
    seconds: float | None
    path: Path
    columns: int
    rows: int


@dataclass(frozen=True)
class Point:
    """One line of the log, as the curves need it; `seconds` count from the start of the run."""

    stage: str
    seconds: float
    images: int
    loss: float | None
    heldout_loss: float | None
    distance: float | None
    floors: float | None = None
    score_gap: float | None = None
    noise_scale: float | None = None


@dataclass(frozen=True)
class Decision:
    """One setting of the run, its value as text, and the reason for it."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """Everything on one report page."""

    name: str
    path: str
    size: Size
    channels: int
    num_pictures: int
    source: str
    has_teacher: bool
    has_generator: bool
    ways: tuple[Way, ...] = ()
    floor: float | None = None
    against: str = ""
    real: np.ndarray | None = None
    missing: str = ""  # why the training pictures cannot be read
    frames: tuple[Frame, ...] = ()
    points: tuple[Point, ...] = ()
    teacher_steps: tuple[tuple[float, float, float], ...] = ()  # steps, floors, milliseconds
    generator_milliseconds: float | None = None  # a picture, while it was trained
    batch: int | None = None  # of the teacher
    events: tuple[Event, ...] = ()
    data_card: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, int, str], ...] = ()
    decisions: tuple[Decision, ...] = ()
    training: tuple[tuple[str, str], ...] = ()  # when, with which versions, on which machine
    machine: tuple[tuple[str, str], ...] = ()  # that measured the times of the page
    stage_seconds: dict[str, float] = field(default_factory=dict)
    commands: tuple[tuple[str, str], ...] = ()
    class_sheets: tuple[ClassSheet, ...] = ()
    written: str = ""  # when, and by which version
    license: str = ""  # of the model; "" if it was not given
    note: str = ""  # such as the intended use
