"""The content of run.json as values: about the pictures, and about each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from noisewise.sizes import Size, as_size, sides
from noisewise.training.run.places import is_path
from noisewise.training.settings.config import NUM_SEEDS

_MOST = 2**63


@dataclass(frozen=True)
class DataNotes:
    """The pictures of a run.

    Attributes:
        source: path of the pictures from the run, or their last name (see places.py).
        fingerprint: digest of all pixels and labels.
        num_pictures: number of pictures used.
        num_training: number of training pictures.
        num_held_out: number of held-out pictures.
        size: of the pictures, see `noisewise.sizes`.
        channels: 1 grey, 3 colour, 4 RGBA.
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

    @property
    def name(self) -> str:
        """What people call the pictures: the last name of their path."""
        return Path(self.source).name.replace("..", "") or "pictures"

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


def check_notes(info: Mapping[str, Any], path: Path) -> None:
    """Refuse entries of other types than noisewise writes; somebody may have changed them.

    Args:
        info: content of run.json; entries that are missing are not checked here.
        path: of run.json, for the message.

    Raises:
        ValueError: at the first such entry.
    """
    for name in _OBJECTS:
        if name in info and not isinstance(info[name], dict):
            raise _wrong(path, name, info[name])
    if "seed" in info and not _is_whole(info["seed"], NUM_SEEDS):
        raise _wrong(path, "seed", info["seed"])
    parts = [("data", info.get("data", {}), _DATA)]
    for name, values in info.get("stages", {}).items():
        if not isinstance(values, dict):
            raise _wrong(path, f"stages.{name}", values)
        parts.append((f"stages.{name}", values, _STAGE))
    for part, values, checks in parts:
        for name, is_right in checks.items():
            if name in values and not is_right(values[name]):
                raise _wrong(path, f"{part}.{name}", values[name])


def _wrong(path: Path, name: str, value: object) -> ValueError:
    shown = ascii(value) if not isinstance(value, int) or abs(value) < _MOST else "a huge number"
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return ValueError(
        f"{path} is damaged: its entry {ascii(name)[:60]} is {shown}; restore it from a copy"
    )


def _is_whole(value: object, most: int = _MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < most


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < _MOST)


def _is_size(value: object) -> bool:
    try:
        return all(0 < side <= _LONGEST_SIDE for side in sides(as_size(value)))
    except ValueError:
        return False


def _is_list_of(kind: type, value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, kind) for v in value))


def _is_skipped(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(v, dict) and {"name", "reason"} <= v.keys() for v in value)
        and all(isinstance(text, str) for v in value for text in v.values())
    )


def _is_pairs(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(v, list) and len(v) == 2 and all(map(_is_whole, v)) for v in value)
    )


_LONGEST_SIDE = 2**16  # pixels
_OBJECTS = ("data", "train", "derived", "stages", "distill", "adapt", "start")
_DATA: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("num_pictures", "num_training", "num_held_out", "channels"), _is_whole),
    "source": lambda value: value == "" or is_path(value),
    "fingerprint": lambda value: isinstance(value, str),
    "size": _is_size,
    "kinds": _is_text,
    **dict.fromkeys(("classes", "notes"), lambda value: _is_list_of(str, value)),
    "skipped": _is_skipped,
    "twins": _is_pairs,
    "seconds_to_first_batch": _is_time,
}
_STAGE: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("finished", "stopped"), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("failed", "budget"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("steps", "images"), _is_whole),
    "seconds": _is_time,
    "teacher": _is_text,
}
