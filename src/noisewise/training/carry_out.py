"""The common steps of train, distill and adapt: lock, prepare, resume, train, save.

Each of the three is a `Task`: it says what is read, which stage is trained and what is saved.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from noisewise.training.callbacks import Callbacks, Stop
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.torch_cache import torch_cache
from noisewise.training.devices.work_clock import WorkClock
from noisewise.training.files.lock import FolderSnapshot, locked
from noisewise.training.files.run_folder import is_run
from noisewise.training.out_of_memory import OutOfMemory, is_out_of_memory
from noisewise.training.run.checkpoints import Resumed, step_of
from noisewise.training.run.follow import follow, has_model_of, note_stopped, resume
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import Pace, Stage, StageName

Config = TypeVar("Config", bound=TrainConfig | AdaptConfig | DistillConfig)


class Task(ABC, Generic[Config]):
    """The part of train, distill or adapt that differs from the other two.

    Attributes:
        folder: folder of the run.
        config: the user's settings.
        reads_pictures: whether `prepare` reads pictures; if so, run.json gets the time until the
            first batch.
        note: first message of a resumed run, for example that the batch has changed; "" for none.
        stage_name: of the stage that is trained.
    """

    folder: Path
    config: Config
    reads_pictures: bool = True
    note: str = ""
    stage_name: StageName = "teacher"

    @abstractmethod
    def check(self, engine: Engine) -> None:
        """Check the settings before anything is read or written.

        Raises:
            ValueError: if the task cannot work.
        """

    @abstractmethod
    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read the input. The first process creates the run, or checks the existing one.

        Raises:
            ValueError: if the pictures, the settings or the folder cannot be used.
        """

    @abstractmethod
    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage | None:
        """Build the stage to train; None if `stop` returned true before it was built."""

    @property
    @abstractmethod
    def pace(self) -> Pace:
        """Schedule of learning rate, evaluations and retries."""

    @abstractmethod
    def save(self, run: Run, loop: Loop) -> None:
        """Write the finished model; all processes must call it."""

    def resumes(self, run: Run) -> None:
        """Write changed settings into run.json; called before the first step, by one process."""
        return

    def used_up(self, run: Run) -> tuple[float, int]:
        """Seconds and images of the budget that were used before the first step."""
        return 0.0, 0

    def need_less_memory(self, resume: str) -> str:
        """What to do when memory runs out, in words.

        Args:
            resume: " to resume from step 100" for a command that resumes; "" without a checkpoint.
        """
        return f"free some and run the same command again{resume}"

    def failed(self, run: Run, loop: Loop, why: str) -> None:
        """Save what is usable after training failed; all processes must call it."""
        return


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        run: the run, as on disk.
        stage: the trained stage; None if stopped before it was built.
        finished: whether the budget is used up and the model is saved.
    """

    run: Run
    stage: Stage | None
    finished: bool


def carry_out(task: Task[Config], callbacks: Callbacks) -> Outcome:
    """Run a task in its run folder, from the start or from the last checkpoint.

    Raises:
        ValueError: if an input cannot be used; files made by this call are then removed.
        OSError, MemoryError: if a checkpoint or model cannot be read or written now.
        OutOfMemory: if memory runs out in training; the last checkpoint is kept.
        TrainingFailed: if training failed too often.
    """
    try:
        return _carry_out(task, callbacks)
    except (MemoryError, RuntimeError, OSError, ImportError, SystemError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(_out_of_memory(task)) from error


def _carry_out(task: Task[Config], callbacks: Callbacks) -> Outcome:
    """The same, with errors of memory as they come."""
    config, began = task.config, time.monotonic()
    engine = Engine.choose(config.device, config.precision, config.threads)
    task.check(engine)
    snapshot, ranks = FolderSnapshot(task.folder), engine.ranks
    damaged = _warning_of(task.folder) if ranks.leads else ""
    with ranks.watched(), locked(task.folder) if ranks.leads else nullcontext():
        if not ranks.leads:
            ranks.wait()  # for the first process, which writes the cache that the others read
        try:
            task.prepare(engine, callbacks)
        except ValueError:
            if ranks.leads:
                snapshot.remove_new_files()
            raise
        if ranks.leads:
            ranks.wait()
        run = Run.open(task.folder)
        if run.warning and ranks.leads:
            run.write()
        run.keep_warning(damaged)  # `prepare` may have written run.json again
        if task.reads_pictures:
            callbacks = _timed(run, began, callbacks)
        with WorkClock() as clock, torch_cache(task.folder):
            outcome = _train(task, run, engine.with_clock(clock), callbacks)
        ranks.wait()
    return outcome if ranks.leads else replace(outcome, run=Run.open(task.folder))


def _out_of_memory(task: Task[Config]) -> str:
    """What is kept and what to do, in one sentence."""
    resume, kept = "", ""
    if is_run(task.folder):
        paths = Run(task.folder).checkpoints(task.stage_name).paths()
        step = step_of(paths[0]) if paths else None
        resume = "" if step is None else f" to resume from step {step}"
        kept = "" if step is None else "; the last checkpoint is kept"
    return f"memory ran out{kept}: {task.need_less_memory(resume)}"


def _warning_of(folder: Path) -> str:
    """What is wrong with a run's run.json before this call; "" if nothing, or if there is none."""
    return Run(folder).warning if is_run(folder) else ""


def _train(task: Task[Config], run: Run, engine: Engine, callbacks: Callbacks) -> Outcome:
    """Train the stage from its last checkpoint, and save the model."""
    stage = task.stage(run, engine, callbacks.stop)
    if stage is None:
        return Outcome(run, None, False)
    loop = Loop(stage, task.config.amount, task.pace, ranks=engine.ranks)
    resumed = resume(run, loop)
    if resumed is None:
        loop.at.seconds, loop.at.images = task.used_up(run)
    if loop.finished:
        if not _model_is_saved(run, loop, callbacks):
            task.save(run, loop)
        return Outcome(run, stage, True)
    if engine.ranks.leads:
        task.resumes(run)
    try:
        finished = follow(
            run, loop, task.config.checkpoint_seconds, callbacks, _with_note(resumed, task.note)
        )
    except TrainingFailed as error:
        task.failed(run, loop, str(error))
        raise
    if finished:
        task.save(run, loop)
    else:
        note_stopped(run, loop)
    return Outcome(run, stage, finished)


def _model_is_saved(run: Run, loop: Loop, callbacks: Callbacks) -> bool:
    """Report that the stage is already finished; return whether its saved model is intact.

    It is not intact if the process was killed while saving it, or if a file was damaged.
    """
    saved, record = has_model_of(run, loop), loop.already_finished()
    mends = "" if saved else "the saved model is missing or damaged; saving it again"
    event = "; ".join(filter(None, (record.event, run.warning, mends)))
    callbacks.record(replace(record, event=event))
    return saved


def _with_note(resumed: Resumed | None, note: str) -> Resumed | None:
    if resumed is None or not note:
        return resumed
    return replace(resumed, note="; ".join(filter(None, (resumed.note, note))))


def _timed(run: Run, began: float, callbacks: Callbacks) -> Callbacks:
    """Callbacks that also note the time from the call to the first batch."""
    if run.data.seconds_to_first_batch is not None:
        return callbacks
    waiting = True

    def on_record(record: Record) -> None:
        nonlocal waiting
        if waiting and record.loss is not None:
            waiting = False
            run.note_first_batch(time.monotonic() - began)
        callbacks.record(record)

    return replace(callbacks, on_record=on_record)
