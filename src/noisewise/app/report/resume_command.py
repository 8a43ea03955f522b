"""The command that resumes a run, ready to be typed: with every setting that the run has.

A run is not resumed with other settings, so a command that left one out would be refused. Settings
without a visible flag go into a file for `--config` first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from noisewise.app.flags import flags_of
from noisewise.plain_text import shell_words
from noisewise.training.run.places import run_name
from noisewise.training.run.run import Run
from noisewise.training.settings.config import MAY_CHANGE, AdaptConfig, TrainConfig

# Shown even where they are the defaults: they say what was done.
_ALWAYS = ("rank", "start")
_FILE = "settings.json"


def again(run: Run, budget: str) -> str:
    """The command line that resumes a run's teacher: it was trained, or adapted.

    It is for a shell in the folder that holds the run, and names no other folder of the machine.

    Args:
        run: at any stage.
        budget: how much training in all.

    Returns:
        One line; before it, if needed, a line that writes a file of settings.
    """
    source, trained = _beside(run, run.data.source), run.info["train"]
    how = run.info.get("adapt")
    if how is None:
        words = ["noisewise", "train", source]
        config, asked = TrainConfig(), trained
    else:
        words = ["noisewise", "adapt", _beside(run, str(how["teacher_from"])), source]
        config, asked = AdaptConfig(), {**how, "recipe": trained["recipe"]}
    told = _told(asked, asdict(config))
    spellings = {f.name: f.spellings[0] for f in flags_of(type(config)) if f.listed}
    flags = [
        word
        for name, spelling in spellings.items()
        if name in told
        for word in _flag(spelling, told[name])
    ]
    rest = {name: value for name, value in told.items() if name not in spellings}
    if rest:
        flags += ["--config", _FILE]
    line = shell_words(*words, "--out", Path(run_name(run.path)), *flags, "--budget", budget)
    written = f"printf '%s\\n' {shell_words(json.dumps(rest))} > {_FILE}"
    return f"{written}\n{line}" if rest else line


def _beside(run: Run, place: str) -> PurePosixPath:
    """A place of run.json, as it is typed in the folder that holds the run; a name stays as it is.

    Args:
        run: the run.
        place: such as `../../pictures`, or a name alone.
    """
    if not place.startswith(("..", "./")):
        return PurePosixPath(place)
    return PurePosixPath(os.path.normpath(f"{run_name(run.path)}/{place}"))


def _told(asked: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the command must name: those that are not the defaults.

    What an older version did not know counts as the default, as when a run is resumed.
    """
    usual = json.loads(json.dumps(usual))
    asked = {**usual, **asked, "recipe": {**usual["recipe"], **asked.get("recipe", {})}}
    told = {
        name: asked[name]
        for name in usual
        if name not in MAY_CHANGE and (asked[name] != usual[name] or name in _ALWAYS)
    }
    if "recipe" in told:
        recipe = {
            n: told["recipe"][n] for n, v in usual["recipe"].items() if told["recipe"][n] != v
        }
        told["recipe"] = recipe
    return told


def _flag(spelling: str, value: str | float | bool) -> list[str]:
    if value is True:
        return [spelling]
    text = str(value)
    return [f"{spelling}={text}"] if text.startswith("-") else [spelling, text]
