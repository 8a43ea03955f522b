"""Options that several commands share: places, JSON, files of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from noisewise.training.settings.shown import Shown

Folder = Annotated[str, Shown("FOLDER", positional=True)]
RunFolder = Annotated[str, Shown("RUN", positional=True)]
NewRun = Annotated[str | None, Shown("RUN")]
File = Annotated[str | None, Shown("FILE")]


@dataclass(frozen=True, kw_only=True)
class JsonOption:
    """Of every command whose answer another program may read."""

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """Of every command that trains: its settings can come from a file and go to one."""

    dry_run: bool = False
    """Print every derived value with its reason. Train nothing."""
    config: File = None
    """Read settings from this file, .json or .toml. Flags override it."""
    save_config: File = None
    """Also write all settings to this file, .json or .toml, for --config."""


@dataclass(frozen=True, kw_only=True)
class LogOption:
    """Of every command that trains: its numbers can go to another program too."""

    log_to: Annotated[Literal["tensorboard", "wandb", "trackio"] | None, Shown("SINK")] = None
    """Also send the numbers to tensorboard, wandb or trackio."""
