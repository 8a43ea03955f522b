"""Weights & Biases, and trackio, which has the same three functions: init, log, finish.

Both print when they begin and end; that goes to stderr, as stdout is for results.
"""

from __future__ import annotations

import re
import secrets
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from noisewise.app.sinks.sink import Numbers, Sink, SinkType

PROJECT = "noisewise"


class WandB:
    """Sends numbers to Weights & Biases; a stage has an axis of its own, its steps.

    Args:
        folder: of the run; what wandb writes here lies in its folder wandb/.
        name: of the run.
        mark: the id of the run there.
    """

    def __init__(self, folder: Path, name: str, mark: str) -> None:
        """Begin or continue the run there."""
        self._module: Any = import_module("wandb")
        with redirect_stdout(sys.stderr):
            self._run: Any = self._module.init(
                project=PROJECT, name=name, id=mark, resume="allow", dir=str(folder)
            )
        for stage in ("teacher", "generator"):
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def log(self, step: int, numbers: Numbers) -> None:
        """Send the numbers of a step of one stage."""
        stages = {name.partition("/")[0] for name in numbers}
        self._run.log({**numbers, **{f"{stage}/step": step for stage in stages}})

    def close(self) -> None:
        """End the run there."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


class Trackio:
    """Keeps numbers in trackio's own database on this machine, for `trackio show`.

    Args:
        name: of the run there; the same name continues it.
    """

    def __init__(self, name: str) -> None:
        """Begin or continue the run there."""
        self._module: Any = import_module("trackio")
        with redirect_stdout(sys.stderr):
            self._module.init(project=PROJECT, name=name, resume="allow")

    def log(self, step: int, numbers: Numbers) -> None:
        """Send the numbers of a step."""
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        """End the run there."""
        with redirect_stdout(sys.stderr):
            self._module.finish()


def _start_wandb(folder: Path, name: str, mark: str) -> tuple[Sink, str]:
    mark = mark or secrets.token_hex(4)
    return WandB(folder, name, mark), mark


def _start_trackio(folder: Path, name: str, mark: str) -> tuple[Sink, str]:
    # Another run may have the same name: the id is a part of ours there.
    plain = re.sub(r"[^\w.-]+", "-", name)
    mark = mark or f"{plain}-{secrets.token_hex(2)}"
    return Trackio(mark), mark


WANDB = SinkType("wandb", "wandb", "wandb", _start_wandb)
TRACKIO = SinkType("trackio", "trackio", "trackio", _start_trackio)
