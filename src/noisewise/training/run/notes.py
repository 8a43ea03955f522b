"""The content of run.json as values: about the pictures, and about each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from noisewise.sizes import Size, as_size


@dataclass(frozen=True)
class DataNotes:
    """The pictures of a run.

    Attributes:
        source: path of the pictures.
        fingerprint: digest of all pixels and labels.
        num_pictures: number of pictures used.
        num_training: number of training pictures.
        num_held_out: number of held-out pictures.
        size: of the pictures, see `noisewise.sizes`.
        channels: 1 grey, 3 colour.
        classes: names, in the order of their labels.
        kinds: digest of the kinds that noisewise found; None without kinds.
        twins: pairs of nearly equal pictures that the split keeps together; () in older versions.
        notes: decisions and changes made while reading.
        skipped: {"name", "reason"} of each file that was skipped.
        seconds_to_first_batch: time from the call to the first step; None if not measured.
    """

    source: str
    fingerprint: str
    num_pictures: int
    num_training: int
    num_held_out: int
    size: Size
    channels: int
    classes: tuple[str, ...] = ()
    kinds: str | None = None
    twins: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[dict[str, Any], ...] = ()
    seconds_to_first_batch: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the entry `data` of run.json; unknown names from newer versions are ignored."""
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        for name in ("classes", "notes", "skipped"):
            given[name] = tuple(given.get(name) or ())
        given["size"] = as_size(given["size"])
        given["twins"] = tuple((int(a), int(b)) for a, b in given.get("twins") or ())
        return cls(**given)


@dataclass(frozen=True)
class StageNotes:
    """The state and results of a stage.

    Attributes:
        finished: whether there is a finished model.
        stopped: whether it was stopped on request; the same command resumes it.
        failed: why training gave up the last time; "" if it did not.
        budget: the budget, for example "5m"; "" if unknown.
        steps: number of steps.
        images: number of images seen.
        seconds: time used.
        teacher: digest of the teacher that a generator was distilled from; None if unknown.
        measured: everything else by name: distances, the chosen weight average, ...
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
        """Read one item of the entry `stages` of run.json.

        Example:
            >>> StageNotes.from_dict({"finished": True, "budget": "5m", "distance": 0.1}).measured
            {'distance': 0.1}
        """
        known = {f.name for f in fields(cls)} - {"measured"}
        given = {name: value for name, value in values.items() if name in known}
        return cls(**given, measured={k: v for k, v in values.items() if k not in known})
