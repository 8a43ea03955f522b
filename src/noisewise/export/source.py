"""What is exported: a model, and what is known about it; and what a format says it has written."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noisewise.training.files.run_folder import is_run
from noisewise.training.load import load
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run


@dataclass(frozen=True, eq=False)
class Source:
    """A model to export.

    Attributes:
        model: on the CPU, in eval mode.
        name: for people: the run's name, or that of the model's folder.
        info: content of run.json; empty if the model does not lie in a run.
        license: of the model, as people gave it; "" if they did not.
        note: what people should know, such as the intended use; "" for none.
        card: a model card that is there already, to be kept; "" for none.
        repo: name on the Hub; "" if it is not going there.
    """

    model: Generator | Teacher
    name: str
    info: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    note: str = ""
    card: str = ""
    repo: str = ""

    @property
    def config(self) -> ModelConfig:
        """Description of the model."""
        return self.model.config


@dataclass(frozen=True)
class Written:
    """What a format has written.

    Attributes:
        difference: largest difference from torch, for the same noise; None: nothing to compare.
        checked: what was compared, in words.
        notes: what people should know.
    """

    difference: float | None
    checked: str
    notes: tuple[str, ...] = ()


def open_source(
    run: Run | str | Path | Generator | Teacher,
    teacher: bool = False,
    license: str = "",
    note: str = "",
    repo: str = "",
    build: Build | None = None,
) -> Source:
    """Load what is to be exported.

    Args:
        run: a run, its folder, the folder of a model, or a model in memory.
        teacher: the teacher of a run instead of its generator.
        license: see `Source`.
        note: see `Source`.
        repo: see `Source`.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if there is no such model.
    """
    if isinstance(run, Generator | Teacher):
        ready = run.device.type == "cpu" and not run.training
        model = run if ready else copy.deepcopy(run).cpu().eval()  # the caller's stays as it is
        return Source(model, f"noisewise {model.config.kind}", {}, license, note, "", repo)
    folder = run.path if isinstance(run, Run) else Path(run)
    model = load(folder, "teacher" if teacher else "auto", "cpu", build)
    for place in (folder, folder.resolve().parent):  # a run, or a model inside of one
        if is_run(place):
            found = Run(place)
            return Source(model, found.name, found.info, license, note, "", repo)
    return Source(model, folder.resolve().name, {}, license, note, "", repo)
