"""The commands that a reader may want next, ready to be typed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path, PurePath

from noisewise.app.report.resume_command import again
from noisewise.plain_text import shell_words
from noisewise.training.run.places import run_name
from noisewise.training.run.run import Run
from noisewise.training.settings.budget import Budget

_VENVS = (".venv", "venv")

Command = tuple[str, str]  # what it does, and one line or more for a shell


def next_commands(run: Run) -> tuple[Command, ...]:
    """What can be done with a run at its stage, typed in the folder that holds it.

    Args:
        run: at any stage.
    """
    name = _program(Path(os.path.abspath(run.path)).parent)
    return tuple((title, _as_typed_there(lines, name)) for title, lines in _commands(run))


def _as_typed_there(lines: str, name: str) -> str:
    """The same commands with the program as it is called there."""
    return re.sub(r"^noisewise(?= )", lambda _: name, lines, flags=re.MULTILINE)


def _program(folder: Path) -> str:
    """The program, as it is typed in a folder; it may be in a `.venv` above only.

    Another place is not named, as the page may be published.
    """
    beside = Path(sys.executable).with_name("noisewise")
    if shutil.which("noisewise") or not beside.exists():
        return "noisewise"
    way = PurePath(os.path.relpath(beside, folder))
    names = [part for part in way.parts if part != ".."]
    return shell_words(way) if names[0] in _VENVS and len(names) == 3 else "noisewise"


def _commands(run: Run) -> list[Command]:
    if not run.finished("teacher"):
        return _before_a_teacher(run)
    rows = [] if run.finished("generator") else [_distil(run)]
    path = shell_words(Path(run_name(run.path)))
    rows.append(("Draw more pictures", f"noisewise sample {path} -n 64 --seed 1 --out more.png"))
    if run.finished("generator"):
        page = shell_words(Path(f"{run_name(run.path)}.html"))
        rows.append(("Send it: one page that draws", f"noisewise export {path} {page} --to html"))
    rows.append(("Measure with more pictures", f"noisewise evaluate {path} -n 2000"))
    if "teacher_from" not in run.info:  # a copied teacher is not trained here
        rows.append(("Train longer", again(run, _twice(run))))
    rows.append(("Train on your own pictures", "noisewise train FOLDER --out mine --budget 30m"))
    python = f"import noisewise\nnoisewise.load({run_name(run.path)!r}).sample(64, seed=0)"
    rows.append(("Draw from Python", python))
    return rows


def _before_a_teacher(run: Run) -> list[Command]:
    """Resume, or look at what a failed training left."""
    if not run.stage("teacher").failed:
        budget = run.stage("teacher").budget or run.info["train"]["budget"]
        return [("Resume training", again(run, budget))]
    best = run.checkpoints("teacher").best
    shown = Path(run_name(run.path), best.relative_to(run.path))
    line = f"noisewise sample {shell_words(shown)} -n 64 --out best.png"
    return [("Look at the best teacher so far", line)] if best.exists() else []


def _distil(run: Run) -> Command:
    """Start or resume the distillation; after a failure, with another seed in another folder."""
    path, distill = shell_words(Path(run_name(run.path))), run.info.get("distill", {})
    budget = shell_words(str(distill.get("budget", run.info["train"].get("budget", "5m"))))
    line = f"noisewise distill {path} --budget {budget}"
    if run.stage("generator").failed:  # the same command would fail in the same way
        seed = distill.get("seed", 0) + 1
        line = f"noisewise distill again --teacher {path} --budget {budget} --seed {seed}"
    return "Distil it into one network call", line


def _twice(run: Run) -> str:
    """Twice the budget that the teacher had; with the same budget the command has nothing to do."""
    had = Budget.parse(run.stage("teacher").budget or run.info["train"]["budget"])
    if had.seconds is not None:
        return str(Budget(seconds=2 * had.seconds))
    assert had.images is not None
    return str(Budget(images=2 * had.images))
