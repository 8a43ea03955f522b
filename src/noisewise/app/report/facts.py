"""What the report shows, as plain values: collected by report.py, written by page.py.

Pictures are uint8 [n, height, width, channels]; lengths of time are seconds. Everything that a
run may not have (a generator, the training data, a distance) is None or empty, and the page then
says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Event:
    """Something that happened while the run was going on; `bad` ones head the page."""

    stage: str
    seconds: float
    text: str
    bad: bool


@dataclass(frozen=True)
class Way:
    """One way to get pictures out of the run, judged."""

    name: str
    network_calls: int
    pictures: np.ndarray
    seconds_per_image: float | None = None
    distance: float | None = None
    distance_low: float | None = None
    distance_high: float | None = None
    num_images: int | None = None


@dataclass(frozen=True)
class Copies:
    """The copy test of one way: who its pictures' nearest training pictures are."""

    way: str
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
class Frame:
    """The fixed seeds at one moment of training, as a file of one sheet."""

    stage: str
    path: Path
    when: str
    columns: int
    rows: int


@dataclass(frozen=True)
class Point:
    """One logged line, as far as the curves need it; `seconds` count from the run's start."""

    stage: str
    seconds: float
    images: int
    loss: float | None
    heldout_loss: float | None
    distance: float | None
    score_gap: float | None = None
    noise_scale: float | None = None


@dataclass(frozen=True)
class Derived:
    """One value that the run decided by itself (or was told), and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """Everything on one report page."""

    name: str
    path: str
    size: int
    channels: int
    num_pictures: int
    source: str
    has_teacher: bool
    has_generator: bool
    ways: tuple[Way, ...] = ()
    floor: float | None = None
    against: str = ""
    real: np.ndarray | None = None
    real_missing: str = ""
    copies: Copies | None = None
    copies_missing: str = ""
    frames: tuple[Frame, ...] = ()
    points: tuple[Point, ...] = ()
    events: tuple[Event, ...] = ()
    data_card: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, int, str], ...] = ()
    derived: tuple[Derived, ...] = ()
    machine: tuple[tuple[str, str], ...] = ()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    commands: tuple[tuple[str, str], ...] = ()

    def way(self, name: str) -> Way | None:
        """The way called `name`, or None."""
        return next((way for way in self.ways if way.name == name), None)
