"""run.json: its first content, how it is read and written, and which settings may change later."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from noisewise.plain_files import read_plain
from noisewise.training.devices.hardware import describe_machine, operating_system
from noisewise.training.files.atomic import read_sealed, write_atomic, write_sealed
from noisewise.training.files.run_folder import COPY, NAME
from noisewise.training.run.notes import check_notes
from noisewise.training.run.places import Places, run_name, without_places
from noisewise.training.settings.config import MAY_CHANGE, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NOISE = "noise.json"
OLDER_FRAMING = {"crop": "centre", "background": "white"}
"""How runs of older versions, which may not say it, brought pictures to the shape."""
FORMAT = 2
READABLE = (1, FORMAT)
_KNOWN = (
    *("format", "created", "versions", "machine", "seed", "data", "train", "derived", "stages"),
    *("distill", "adapt", "start", "teacher_digest", "teacher_from"),
)


def read_info(path: Path) -> dict[str, Any]:
    """Read run.json of this or an older version; if it is missing or damaged, read its copy.

    Raises:
        ValueError: if both are missing, damaged or changed, or from a newer version.
        OSError: if it cannot be read now.
    """
    return read_with_warning(path)[0]


def read_with_warning(path: Path) -> tuple[dict[str, Any], str]:
    """Like `read_info`; also return a warning if the copy was used, else ""."""
    try:
        return _read(path / NAME), ""
    except ValueError as error:
        try:
            info = _read(path / COPY)
        except ValueError:
            raise error from None
        if not (path / NAME).exists():
            return info, f"{path / NAME} is missing; its copy {COPY} was used instead"
        return info, f"{error}; its copy {COPY} was used instead, which may lack the last change"


def write_info(
    path: Path, info: dict[str, Any], damaged: bool, places: Places | None = None
) -> tuple[dict[str, Any], Places]:
    """Write run.json, and then a copy of it; absolute paths go into the private local.json.

    Args:
        path: folder of the run.
        info: content.
        damaged: whether the existing run.json is damaged; it is then kept as run.json.damaged.
        places: what local.json is to hold; None: what it holds now.

    Returns:
        The content as written, and the places.
    """
    places = places or Places.read(path)
    info, found = without_places(info, places)
    places = places.note(found)  # first: a kill between the two must not lose them
    # Copied, not renamed: a folder without run.json is not a run.
    if damaged and (path / NAME).exists():
        aside = path / f"{NAME}.damaged"
        write_atomic(aside, lambda temporary: temporary.write_bytes(read_plain(path / NAME)))
    for name in (NAME, COPY):
        write_sealed(path / name, info)
    return info, places


def _read(path: Path) -> dict[str, Any]:
    info = read_sealed(path, _KNOWN)
    if info.get("format") not in READABLE:
        raise ValueError(
            f"{path.parent} was made by another version of noisewise; use that version"
        )
    check_notes(info, path)
    for name, usual in (("train", TrainConfig()), ("distill", DistillConfig())):
        _check_settings(name, info.get(name, {}), json.loads(json.dumps(asdict(usual))), path)
    missing = [name for name in ("data", "train", "stages", "seed") if name not in info]
    if missing:
        raise ValueError(f"{path} is damaged: it has no entry {missing[0]!r}")
    return {**info, "format": FORMAT}


def _check_settings(name: str, given: dict[str, Any], usual: dict[str, Any], path: Path) -> None:
    """Refuse settings of another type than the usual ones have; unknown names are not checked."""
    for key in given.keys() & usual.keys():
        value, known = given[key], usual[key]
        if value is None or known is None:
            continue
        kinds = (int, float) if type(known) in (int, float) else (type(known),)
        if type(value) not in kinds:
            raise ValueError(
                f"{path} is damaged: its setting {name}.{key} is {ascii(value)[:40]}; restore it "
                "from a copy"
            )
        if isinstance(value, dict):
            _check_settings(f"{name}.{key}", value, known, path)


def known_batch(info: Mapping[str, Any]) -> int:
    """The batch of a run, from its run.json (older versions wrote it elsewhere).

    Example:
        >>> known_batch({"derived": {"batch": {"value": 32}}, "train": {"batch": None}})
        32
    """
    derived = info.get("derived", {}).get("batch")
    if isinstance(derived, Mapping) and "value" in derived:
        return int(derived["value"])
    train = info.get("train", {})
    return int(train.get("batch") or train.get("recipe", {}).get("batch") or TeacherRecipe().batch)


def new_run_info(seed: int) -> dict[str, Any]:
    """The first entries of run.json: when, where and with which versions the run starts."""
    versions = {
        "noisewise": version("noisewise"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": operating_system(),
    }
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "machine": dict(describe_machine()),
        "seed": seed,
    }


def must_match(
    before: dict[str, Any],
    config: TrainConfig | DistillConfig,
    path: Path,
    way: str,
    free: tuple[str, ...] = (),
) -> None:
    """Refuse settings that differ from those a run was started with.

    Args:
        before: settings in run.json; those that an older version did not have count as defaults.
        config: current settings.
        path: folder of the run.
        way: another way out for the user, used in the message.
        free: more settings that may differ.

    Raises:
        ValueError: if a setting differs; the message names the first one.
    """
    now = _flat(json.loads(json.dumps(asdict(config))))
    usual = _flat(json.loads(json.dumps(asdict(type(config)()))))
    older = {name: value for name, value in OLDER_FRAMING.items() if name in usual}
    then = {**usual, **older, **_flat(before)}
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name) and name not in (*MAY_CHANGE, *free):
            raise ValueError(
                f"{path}: {name} was {_told(then.get(name))} and is now {_told(now.get(name))}; "
                f"use the same settings, or {way}"
            )


def _told(value: object) -> str:
    """A setting in a sentence."""
    return "not given" if value is None else repr(value)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("lr_from", "start_from") and isinstance(
            value, str
        ):  # noted by its name alone, see `places`
            flat[name] = run_name(value)
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
