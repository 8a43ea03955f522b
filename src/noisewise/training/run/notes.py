"""What run.json says, as values: of the pictures, and of what each stage came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True)
class DataNotes:
    """The pictures that a run was begun with.

    Attributes:
        source: where they lay.
        fingerprint: digest of all pixels and labels.
        num_pictures: pictures that were used.
        num_training: of these, to learn from.
        num_held_out: of these, never trained on.
        size: side in pixels.
        channels: 1 grey, 3 colour.
        classes: names, in the order of their labels.
        kinds: digest of the kinds that noisewise found; None without kinds.
        notes: decisions and changes while reading.
        skipped: {"name", "reason"} of each file that was left out.
        seconds_to_first_batch: from the call to the first step; None if not measured.
    """

    source: str
    fingerprint: str
    num_pictures: int
    num_training: int
    num_held_out: int
    size: int
    channels: int
    classes: tuple[str, ...] = ()
    kinds: str | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[dict[str, Any], ...] = ()
    seconds_to_first_batch: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the part `data` of run.json; what a newer version added is left out."""
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        for name in ("classes", "notes", "skipped"):
            given[name] = tuple(given.get(name) or ())
        return cls(**given)


@dataclass(frozen=True)
class StageNotes:
    """What a stage came to.

    Attributes:
        finished: whether a finished model is there.
        stopped: whether somebody stopped it; the same command resumes it.
        failed: why training gave up when it was last tried; "" if it did not.
        budget: as it was written, for example "5m"; "" if not known.
        steps: steps taken.
        images: images seen.
        seconds: time used.
        teacher: digest of the teacher that a generator was distilled from; None if not known.
        measured: everything else, by name: distances, the weight average that was kept, ...
    """

    finished: bool = False
    stopped: bool = False
    failed: str = ""
    budget: str = ""
    steps: int = 0
    images: int = 0
    seconds: float | None = None
    teacher: str | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read an item of the part `stages` of run.json.

        Example:
            >>> StageNotes.from_dict({"finished": True, "budget": "5m", "distance": 0.1}).measured
            {'distance': 0.1}
        """
        known = {f.name for f in fields(cls)} - {"measured"}
        given = {name: value for name, value in values.items() if name in known}
        return cls(**given, measured={k: v for k, v in values.items() if k not in known})
