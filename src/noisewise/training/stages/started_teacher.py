"""A teacher that began with the weights of another one: it says so, and its description too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from noisewise.training.models.model_config import ModelConfig
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.teacher import TeacherStage


class StartedStage(TeacherStage):
    """Training of a teacher that did not begin with nothing; see `TeacherStage`.

    Attributes:
        start_note: what the first line of the log says of the start; "" for nothing.
        start: what config.json says of the base: its name, digest, share and sources; empty if the
            training began with nothing.
    """

    start_note: str = ""
    start: Mapping[str, Any] = {}

    def says(self, noted: Mapping[str, Any]) -> None:
        """Say of the start what the entry "start" of run.json says; nothing of an empty one."""
        self.start_note = str(noted.get("reason", ""))
        kept = ("from", "digest", "share", "sources")
        self.start = {name: noted[name] for name in kept if noted.get("from") and name in noted}

    def begin(self, seconds: float | None) -> Judgement:
        """Prepare as for a teacher; say what it began with."""
        judgement = super().begin(seconds)
        if not self.start_note:
            return judgement
        return replace(judgement, event=f"{judgement.event}; start: {self.start_note}")

    def model_config(self) -> ModelConfig:
        """The content of teacher/config.json, with the base and the sources of its pictures."""
        config = super().model_config()
        if not self.start:
            return config
        return replace(config, stats={**config.stats, "start": dict(self.start)})
