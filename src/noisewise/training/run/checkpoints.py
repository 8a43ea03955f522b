"""The checkpoints of a stage: the last two, the state to go back to, and the best model so far.

    checkpoints/teacher-0001200.safetensors       everything that an exact resume needs
    checkpoints/teacher-0001800.safetensors       the newer one; if it is damaged, the other is used
    checkpoints/teacher-good-0001750.safetensors  the state that training goes back to after trouble
    checkpoints/best-teacher/                     the best model so far, a normal model folder

A damaged checkpoint is renamed to NAME.damaged, and the first record of the resume says so.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisewise.plain_files import NotPlainError
from noisewise.training.devices.sharding import gather
from noisewise.training.files.atomic import load_state, save_state
from noisewise.training.models.model_folder import save_model
from noisewise.training.out_of_memory import is_out_of_memory
from noisewise.training.run.log import Position
from noisewise.training.stages.loop import Loop, good_step

_KEPT = 2
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Resumed:
    """Where the log continues (None: unknown), and a message about damaged checkpoints or ""."""

    position: Position | None
    note: str = ""


class Checkpoints:
    """The checkpoints of one stage, in the run's folder `checkpoints`.

    Args:
        folder: the folder; it is made when the first checkpoint is saved.
        stage: "teacher" or "generator".
    """

    def __init__(self, folder: Path, stage: str) -> None:
        """Store the arguments; nothing is read yet."""
        self.folder = folder
        self.stage = stage
        self._saved_best = ""

    def paths(self) -> list[Path]:
        """The checkpoints, newest first; one from an older version of noisewise comes last."""
        numbered = [(step, path) for path in self._files("") if (step := step_of(path)) is not None]
        found = [path for _, path in sorted(numbered, reverse=True)]
        old = self.folder / f"{self.stage}{SUFFIX}"
        return [*found, *([old] if old.exists() else [])]

    def save(self, loop: Loop, position: Position) -> None:
        """Save the loop's state as the newest checkpoint, then remove old ones.

        All processes that run the loop must call it; the first one writes.
        """
        ranks = loop.ranks
        good = self._good(loop.at.good_step)
        if ranks.agree(not good.exists()):
            learned = gather(loop.good)
            if ranks.leads:
                self.folder.mkdir(exist_ok=True)
                save_state(good, {"learned": learned})
        self.save_best(loop)
        state = gather(loop.state_dict())
        if ranks.leads:
            path = self.folder / f"{self.stage}-{loop.at.step:07d}{SUFFIX}"
            save_state(path, {**state, "log": position.to_dict()})
            self._prune(loop.at.good_step)

    def load(self, loop: Loop) -> Resumed | None:
        """Restore a loop from the newest undamaged checkpoint; None if there is no checkpoint.

        All processes that run the loop must call it; the first one chooses the checkpoint.

        Raises:
            ValueError: if there are checkpoints but none can be used.
            OSError, MemoryError: if one cannot be read now; no file is then renamed.
        """
        state: dict[str, Any] | None = None
        name, wrong = "", []
        if loop.ranks.leads:
            name, state, wrong = self._newest_intact()
        # Only one process renames damaged files and chooses; two could disagree.
        name, wrong = loop.ranks.agree([name, wrong])
        if name:
            path = self.folder / name
            state = load_state(path) if state is None else state
            note = "; ".join([*wrong, *self._load_into(loop, state, path)])
            if wrong:
                note += f"; resumed from an earlier checkpoint, {name}"
            return Resumed(_position(state), note)
        if wrong:
            raise ValueError(
                f"{wrong[-1]}, and there is no other checkpoint in {self.folder}; run the same "
                "command again to start from the beginning"
            )
        return None

    def clear(self) -> None:
        """Remove every checkpoint of the stage."""
        for path in (*self._files(""), *self._files("good-"), *self.paths()):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.best, ignore_errors=True)

    @property
    def best(self) -> Path:
        """The folder of the best model so far; it may not exist yet."""
        return self.folder / f"best-{self.stage}"

    def save_best(self, loop: Loop) -> None:
        """Write the best model so far if it has changed; all processes must call it."""
        stage, best = loop.stage, loop.stage.best_so_far()
        mark = json.dumps(best)
        if loop.ranks.agree(best is not None and mark != self._saved_best):
            save_model(self.best, stage.best(), stage.model_config(), loop.ranks.leads)
            self._saved_best = mark

    def _newest_intact(self) -> tuple[str, dict[str, Any] | None, list[str]]:
        """Name ("" if none) and state of the newest undamaged checkpoint; errors of the others."""
        wrong: list[str] = []
        for path in self.paths():
            try:
                return path.name, load_state(path), wrong
            except NotPlainError:  # not damaged, but something else: nothing is put aside
                raise
            except ValueError as error:
                wrong.append(str(error))
                path.replace(path.with_name(f"{path.name}.damaged"))
        return "", None, wrong

    def _load_into(self, loop: Loop, state: dict[str, Any], path: Path) -> list[str]:
        """Load a state and its good state into the loop; return messages."""
        notes, good = [], None
        step = good_step(state)
        good_path = None if step is None else self._good(step)
        if good_path is not None and good_path.exists():
            try:
                good = load_state(good_path)["learned"]
            except (ValueError, KeyError, TypeError) as error:
                notes.append(f"{error}; if training goes back, it uses the checkpoint instead")
        try:
            loop.load_state_dict(state, good)
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):  # the checkpoint is good
                raise
            raise ValueError(
                f"{path} does not fit this run; remove it and run the same command again"
            ) from error
        return notes

    def _good(self, step: int) -> Path:
        return self.folder / f"{self.stage}-good-{step:07d}{SUFFIX}"

    def _files(self, kind: str) -> list[Path]:
        pattern = re.compile(rf"{self.stage}-{kind}\d+{re.escape(SUFFIX)}")
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]

    def _prune(self, good_step: int) -> None:
        """Keep the last two checkpoints, and the good states that they need."""
        for path in self.paths()[_KEPT:]:
            path.unlink(missing_ok=True)
        oldest = min((step_of(path) or 0 for path in self.paths()), default=0)
        goods = sorted(self._files("good-"), key=lambda path: step_of(path) or 0)
        before = [path for path in goods if (step_of(path) or 0) <= oldest]
        for path in before[:-1]:
            if path != self._good(good_step):
                path.unlink(missing_ok=True)


def step_of(path: Path) -> int | None:
    """The step in the name of a checkpoint; None if an older version named it."""
    match = re.search(rf"-(\d+){re.escape(SUFFIX)}$", path.name)
    return None if match is None else int(match[1])


def _position(state: dict[str, Any]) -> Position | None:
    try:
        return Position.from_dict(state["log"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None  # from an older version: the log is cut by step
