"""`distill` makes a generator of one network call, or of a few, from a teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from noisewise.quality.enough import LEAST
from noisewise.sizes import mean_side, spelled
from noisewise.training.borrowed_teacher import borrow, read_teacher
from noisewise.training.callbacks import Callbacks, OnRecord, Stop
from noisewise.training.carry_out import Task, carry_out
from noisewise.training.devices.engine import Engine
from noisewise.training.files.run_folder import is_run
from noisewise.training.models.any_teacher import try_out
from noisewise.training.models.diffusers_folder import is_diffusers_folder
from noisewise.training.models.model_card import model_card
from noisewise.training.models.model_folder import Build, TeacherFolder, save_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.models.networks import network
from noisewise.training.real_batches_of import real_batches
from noisewise.training.run.begin import begin_distillation, check_folder
from noisewise.training.run.follow import note_stage
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.overrides import overridden
from noisewise.training.stages.evaluation_times import FORWARD
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.real_batches import RealBatches
from noisewise.training.stages.stage import Pace, Stage
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.stages.student_batch import student_batch
from noisewise.training.stages.student_nets import check_student
from noisewise.training.stages.timetable import LONGEST
from noisewise.whole_files import write_text

_LARGE = 64  # pixels: smaller pictures always fit
_OTHER_CALLS = 5  # of each judged picture: before training, and for the last distance
_NETS = 4  # a step takes as long as so many steps of a teacher


def distill(
    run: Run | str | Path,
    budget: str | None = None,
    *,
    lam: float | None = None,
    seed: int | None = None,
    teacher: Teacher | str | Path | None = None,
    config: DistillConfig | None = None,
    on_record: OnRecord | None = None,
    stop: Stop | None = None,
    build: Build | None = None,
    data: str | Path | None = None,
) -> Generator:
    """Distil a teacher into a generator of one network call, or of a few.

    No pictures are read, unless the config has a data_weight.

    Call it again to resume a stopped distillation, as for `train`. If the teacher has changed
    since, distillation restarts.

    Args:
        run: a run with a finished teacher; with `teacher`, a new folder.
        budget: 90s, 30m, 2h or 200000images; None: as in config (default 5m).
        lam: lambda of the loss L2 - lambda L1.
        seed: random seed.
        teacher: another run, the folder of a teacher (also one of diffusers), or any denoiser with
            its description (see `noisewise.as_teacher`); `run` gets a copy of it.
        config: all other settings; the arguments above take precedence.
        on_record: called with the record of every step.
        stop: called before every step; if it returns true, training is saved and stops (see
            `Run.finished`).
        build: makes the nets from their configuration; None: the nets of noisewise, or copies of
            `teacher` if it is a model.
        data: where the training pictures are now, if they were moved; only with a data_weight.

    Returns:
        The generator with the weights of lowest distance; after a stop, the best ones so far.

    Raises:
        ValueError: if there is no finished teacher, or the settings cannot be used.
        TrainingFailed: if training failed too often; the best generator so far stays in the run.
    """
    config = overridden(config or DistillConfig(), {"budget": budget, "lam": lam, "seed": seed})
    folder = run.path if isinstance(run, Run) else Path(run)
    if isinstance(teacher, Teacher) and build is None:
        build = CopiesOf(network(teacher.denoiser))
    if data is not None and not config.data_weight:
        raise ValueError("the pictures of --data are not used; add --data-weight, such as 0.06")
    task = DistillTask(folder, teacher, config, build, None if data is None else str(data))
    try:
        outcome = carry_out(task, Callbacks(on_record, None, stop))
    finally:
        if isinstance(run, Run):
            run.reload()  # the caller's run knows what was noted
    if outcome.finished:
        return outcome.run.generator(build)
    stage = outcome.stage
    assert stage is not None
    model = copy.deepcopy(stage.best())
    teacher_folder = TeacherFolder(outcome.run.path / "teacher", build)
    return Generator(model, stage.model_config(), teacher_folder)


@dataclass(frozen=True)
class CopiesOf:
    """Makes a net by copying one, whatever its configuration says; unlike a lambda it pickles."""

    net: nn.Module

    def __call__(self, _: dict[str, Any]) -> nn.Module:
        """Return a copy."""
        return copy.deepcopy(self.net)


def _check_time(config: DistillConfig, teacher: Teacher, batch: int, speed: float) -> None:
    """Refuse a budget of time in which large pictures cannot be distilled at all.

    Raises:
        ValueError: with the time that is needed.
    """
    seconds = config.amount.seconds
    if seconds is None or not speed or mean_side(teacher.size) <= _LARGE:
        return
    own = len(config.recipe.ema_shares) + _OTHER_CALLS
    calls = teacher.network_calls(guidance=config.guidance) + config.calls * own
    needed = (FORWARD * LEAST * calls + _NETS * batch) / speed
    if needed > LONGEST * seconds:
        raise ValueError(
            f"a budget of {config.budget} is too short to distil pictures of "
            f"{spelled(teacher.size)} pixels on this machine: one step and the smallest "
            f"evaluations take about {needed:.2g} s; use --budget {math.ceil(needed)}s or more"
        )


def _run_of(teacher: Teacher | str | Path) -> Run:
    """The run that a given teacher was trained in.

    Raises:
        ValueError: if it is not known.
    """
    place = None if isinstance(teacher, Teacher) else Path(teacher)
    for found in () if place is None else (place, place.parent):
        if is_run(found):
            return Run(found)
    raise ValueError(
        "a data weight needs the pictures that the teacher was trained on; give a run as the "
        "teacher, or leave --data-weight out"
    )


class DistillTask(Task[DistillConfig]):
    """Load a teacher, distil a generator, save it."""

    reads_pictures = False
    stage_name = "generator"

    def __init__(
        self,
        folder: Path,
        teacher: Teacher | str | Path | None,
        config: DistillConfig,
        build: Build | None,
        data: str | None = None,
    ) -> None:
        """Store the arguments; nothing is read yet."""
        self.folder = folder
        self._data = data
        self._real: RealBatches | None = None
        self.config = config
        self._given, self._build = teacher, build
        self._batch = config.batch or config.recipe.batch

    def check(self, engine: Engine) -> None:
        """Refuse a folder that is no run, and a run without a finished teacher."""
        if self._given is not None:
            check_folder(self.folder)
            self._check_given(self._given)
        elif engine.ranks.leads:
            Run(self.folder).need("teacher")

    def _check_given(self, given: Teacher | str | Path) -> None:
        """Refuse what a given teacher cannot have, such as adapters, before it is copied."""
        config = self.config
        plain = config.student == "full" and config.guidance == 1 and not config.data_weight
        if plain and not isinstance(given, Teacher) and is_diffusers_folder(Path(given)):
            return  # it is tried when it is read
        teacher = read_teacher(given, self._build)
        try_out(teacher)
        check_student(config, teacher)
        if config.data_weight:
            real_batches(_run_of(given), teacher.config, self._data)

    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Copy a given teacher into the run, load the run's teacher, write down the settings."""
        if self._given is not None and engine.ranks.leads:
            borrow(self.folder, self._given, self._build)
        run = Run(self.folder)
        self._teacher = run.teacher(self._build)
        try_out(self._teacher)
        check_student(self.config, self._teacher)
        if self.config.data_weight:
            self._real = real_batches(run, self._teacher.config, self._data)
        if engine.ranks.leads:
            begin_distillation(run, self.config)

    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage:
        """Make the stage: generator and fake score start as copies of the teacher."""
        config = self.config
        batch = student_batch(config, self._teacher.config)[0]
        engine = engine.with_measured_precision(
            self._teacher.denoiser, batch, config.precision, config.amount
        )
        if not run.checkpoints("generator").paths():
            _check_time(config, self._teacher, batch, engine.speed)
        stage = StudentStage(self._teacher, config, engine, self._real)
        self._batch = stage.batch
        return stage

    def need_less_memory(self, resume: str) -> str:
        """A smaller batch, which only a distillation without checkpoints may have."""
        batch = self._batch // 2
        if batch < 1:
            return super().need_less_memory(resume)
        if not resume:
            return f"run the same command with --batch {batch}"
        old = self.folder / "checkpoints"
        return (
            f"free some and run the same command again{resume}, or remove {old}/generator* to "
            f"distil again with --batch {batch}"
        )

    @property
    def pace(self) -> Pace:
        """Schedule of the recipe."""
        return student_pace(self.config.recipe)

    def save(self, run: Run, loop: Loop) -> None:
        """Write generator/."""
        self._save(run, loop, finished=True)

    def failed(self, run: Run, loop: Loop, why: str) -> None:
        """Write the best generator so far, and the reason of the failure."""
        self._save(run, loop, finished=False, more={"failed": why})

    def _save(
        self, run: Run, loop: Loop, finished: bool, more: dict[str, str] | None = None
    ) -> None:
        folder, stage = run.path / "generator", loop.stage
        described = stage.model_config()
        save_model(folder, stage.best(), described, loop.ranks.leads)
        note_stage(run, loop, finished, {**stage.stats(), **(more or {})})
        if loop.ranks.leads:
            write_text(folder / "README.md", model_card(run.name, described, run.info))
