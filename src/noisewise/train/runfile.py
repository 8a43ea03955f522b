"""run.json: how it begins, how it is read back, and what may differ when a run goes on."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from noisewise.train.checkpoint import read_sealed
from noisewise.train.config import DistillConfig, TrainConfig
from noisewise.train.machine import describe_machine

FORMAT = 2
READABLE = (1, FORMAT)
_KNOWN = (
    *("format", "created", "versions", "machine", "seed", "data", "train", "derived", "stages"),
    *("distill", "adapt", "teacher_digest", "teacher_from"),
)
_MAY_CHANGE = ("budget", "device", "precision", "threads", "checkpoint_seconds", "shard")


def read_info(path: Path) -> dict[str, Any]:
    """Read run.json of a run of this or an older version.

    Raises:
        ValueError: if it is damaged, was changed, or is of a newer version.
    """
    info = read_sealed(path / "run.json", _KNOWN)
    if info.get("format") not in READABLE:
        raise ValueError(f"{path} is a run of another version of noisewise")
    missing = [name for name in ("data", "train", "stages", "seed") if name not in info]
    if missing:
        raise ValueError(f"{path / 'run.json'} is damaged: it says nothing of {missing[0]}")
    return {**info, "format": FORMAT}


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
        if then.get(name) != now.get(name) and name not in (*_MAY_CHANGE, *free):
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
