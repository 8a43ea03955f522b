"""The command that goes on with a run, ready to be typed: with every setting it was begun with.

A run is not gone on with under other settings, so that a command that left one out would be
refused. What has no flag is written into a file for `--config` first.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

_FREE = ("budget", "device", "precision", "threads", "checkpoint_seconds", "shard")
_TRAIN_FLAGS = ("size", "classes", "kinds", "flips", "net", "lr", "seed")
_ADAPT_FLAGS = ("rank", "start", "flips", "batch", "lr", "seed")
_ALWAYS = ("rank", "start")
_FILE = "settings.json"


def again(run: Run, budget: str) -> str:
    """The command line that goes on with a run's teacher: it was trained, or adapted.

    Args:
        run: at any stage.
        budget: how much training in all.

    Returns:
        One line, after another one that writes a file of settings where that is needed.
    """
    source, trained = str(run.info["data"]["source"]), run.info["train"]
    how = run.info.get("adapt")
    if how is None:
        words = ["noisewise", "train", source]
        changed = _changed(trained, asdict(TrainConfig()))
        names = _TRAIN_FLAGS
    else:
        words = ["noisewise", "adapt", str(how["teacher_from"]), source]
        asked = {**how, "recipe": trained["recipe"]}
        changed = _changed(asked, asdict(AdaptConfig()))
        changed |= {name: how[name] for name in _ALWAYS}
        names = _ADAPT_FLAGS
    flags = [word for name in names if name in changed for word in _flag(name, changed[name])]
    rest = {name: value for name, value in changed.items() if name not in names}
    if rest:
        flags += ["--config", _FILE]
    line = shlex.join([*words, "--out", str(run.path), *flags, "--budget", budget])
    return f"echo {shlex.quote(json.dumps(rest))} > {_FILE}\n{line}" if rest else line


def _changed(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the usual ones; what a file leaves out of a recipe is a teacher's.

    What an older version did not know counts as usual, as when a run is gone on with.
    """
    usual = json.loads(json.dumps(usual))
    given = {**usual, **given, "recipe": {**usual["recipe"], **given["recipe"]}}
    names = [name for name in usual if name not in _FREE and given[name] != usual[name]]
    changed = {name: given[name] for name in names}
    if "recipe" in changed:
        teacher = json.loads(json.dumps(asdict(TeacherRecipe())))
        recipe = changed["recipe"]
        changed["recipe"] = {
            name: recipe[name] for name in teacher if recipe[name] != teacher[name]
        }
    return changed


def _flag(name: str, value: str | float | bool) -> list[str]:
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]
