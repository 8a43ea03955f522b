"""run.json: how it begins, how it is read back, and what may differ when a run goes on."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from noisewise.training.devices.hardware import describe_machine
from noisewise.training.files.atomic import read_sealed, write_atomic, write_sealed
from noisewise.training.settings.config import MAY_CHANGE, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NAME = "run.json"
COPY = "run-copy.json"
NOISE = "noise.json"
FORMAT = 2
READABLE = (1, FORMAT)
_KNOWN = (
    *("format", "created", "versions", "machine", "seed", "data", "train", "derived", "stages"),
    *("distill", "adapt", "teacher_digest", "teacher_from"),
)


def read_info(path: Path) -> dict[str, Any]:
    """Read run.json of a run of this or an older version; its copy, if it is damaged.

    Raises:
        ValueError: if both are damaged or were changed, or are of a newer version.
        OSError: if it cannot be read now.
    """
    return read_either(path)[0]


def read_either(path: Path) -> tuple[dict[str, Any], str]:
    """As `read_info`; beside it what has to be said where the copy had to do, else ""."""
    try:
        return _read(path / NAME), ""
    except ValueError as error:
        try:
            info = _read(path / COPY)
        except ValueError:
            raise error from None
        return info, f"{error}; its copy {COPY} was used, which may lack the last note"


def write_info(path: Path, info: dict[str, Any], damaged: bool) -> None:
    """Write run.json, and then a copy of it for the day when it is damaged.

    Args:
        path: of the run.
        info: what it shall say.
        damaged: whether the one that lies there is damaged: then it is put aside.
    """
    if damaged:  # copied, not renamed: without a run.json the folder would be no run for a moment
        aside = path / f"{NAME}.damaged"
        write_atomic(aside, lambda temporary: shutil.copyfile(path / NAME, temporary))
    for name in (NAME, COPY):
        write_sealed(path / name, info)


def _read(path: Path) -> dict[str, Any]:
    info = read_sealed(path, _KNOWN)
    if info.get("format") not in READABLE:
        raise ValueError(f"{path.parent} is a run of another version of noisewise")
    missing = [name for name in ("data", "train", "stages", "seed") if name not in info]
    if missing:
        raise ValueError(f"{path} is damaged: it says nothing of {missing[0]}")
    return {**info, "format": FORMAT}


def known_batch(info: Mapping[str, Any]) -> int:
    """The batch that a run was trained with so far, by its run.json; older ones say it elsewhere.

    Example:
        >>> known_batch({"derived": {"batch": {"value": 32}}, "train": {"batch": None}})
        32
    """
    derived = info.get("derived", {}).get("batch")
    if isinstance(derived, Mapping) and "value" in derived:
        return int(derived["value"])
    train = info.get("train", {})
    return int(train.get("batch") or train.get("recipe", {}).get("batch") or TeacherRecipe().batch)


def begun(seed: int) -> dict[str, Any]:
    """What run.json says of the moment a run begins."""
    versions = {
        "noisewise": version("noisewise"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
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
    """Refuse to go on with other settings than a run was begun with.

    Args:
        before: the settings in run.json; what an older version did not have yet counts as usual.
        config: the settings now.
        path: of the run.
        way: what else can be done, for the message.
        free: settings that may differ beside the usual ones.

    Raises:
        ValueError: naming the first setting that differs.
    """
    now = _flat(json.loads(json.dumps(asdict(config))))
    usual = _flat(json.loads(json.dumps(asdict(type(config)()))))
    then = {**usual, **_flat(before)}
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name) and name not in (*MAY_CHANGE, *free):
            raise ValueError(
                f"{path}: {name} was {then.get(name)!r} and is now {now.get(name)!r}; "
                f"use the same settings, or {way}"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
