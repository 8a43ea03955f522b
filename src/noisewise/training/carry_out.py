"""The one body of train, distill and adapt: lock, prepare, resume, train, save.

What differs between the three is a `Task`: what it reads, which stage it trains, what it saves.
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
from noisewise.training.files.lock import Before, locked
from noisewise.training.run.checkpoints import Resumed
from noisewise.training.run.follow import follow, has_model_of, note_stopped, resume
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.record import Record
from noisewise.training.stages.stage import Pace, Stage

Config = TypeVar("Config", bound=TrainConfig | AdaptConfig | DistillConfig)


class Task(ABC, Generic[Config]):
    """What one verb does and the others do not.

    Attributes:
        folder: of the run.
        config: as the user set it.
        reads_pictures: whether `prepare` does; the wait for the first batch is then noted.
        note: what a resumed run tells first, for example a changed batch; "" for nothing.
    """

    folder: Path
    config: Config
    reads_pictures: bool = True
    note: str = ""

    @abstractmethod
    def check(self, engine: Engine) -> None:
        """Refuse what cannot work before anything is read or written.

        Raises:
            ValueError: in one sentence.
        """

    @abstractmethod
    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read what is needed; the first process makes the run, or checks the one there.

        Raises:
            ValueError: if pictures, settings or folder cannot be used.
        """

    @abstractmethod
    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage | None:
        """Build what is trained; None if `stop` said so before there was anything to train."""

    @property
    @abstractmethod
    def pace(self) -> Pace:
        """When things happen."""

    @abstractmethod
    def save(self, run: Run, loop: Loop) -> None:
        """Write the finished model; all processes call it."""

    def resumes(self, run: Run) -> None:
        """Note what changes from here on; the first process calls it before the first step."""
        return

    def failed(self, run: Run, loop: Loop, why: str) -> None:
        """Save what can be saved of a training that broke down; all processes call it."""
        return


@dataclass(frozen=True)
class Outcome:
    """What a verb came to.

    Attributes:
        run: the run, as it is on disk.
        stage: what was trained; None if it was stopped before the first step.
        finished: whether the budget is used up and the model is saved.
    """

    run: Run
    stage: Stage | None
    finished: bool


def carry_out(task: Task[Config], callbacks: Callbacks) -> Outcome:
    """Do a task in its run folder, from the beginning or from where an earlier call stopped.

    Raises:
        ValueError: if something cannot be used; the folder is then as it was before.
        OSError, MemoryError: if a checkpoint or model cannot be read or written now.
        TrainingFailed: if training broke down too often.
    """
    config, began = task.config, time.monotonic()
    engine = Engine.choose(config.device, config.precision, config.threads)
    task.check(engine)
    before, ranks = Before(task.folder), engine.ranks
    with ranks.watched(), locked(task.folder) if ranks.leads else nullcontext():
        if not ranks.leads:
            ranks.wait()  # the first process reads and writes; the others then find its cache
        try:
            task.prepare(engine, callbacks)
        except ValueError:
            if ranks.leads:
                before.restore()
            raise
        if ranks.leads:
            ranks.wait()
        run = Run.open(task.folder)
        if run.warning and ranks.leads:
            run.write()
        if task.reads_pictures:
            callbacks = _timed(run, began, callbacks)
        outcome = _train(task, run, engine, callbacks)
        ranks.wait()
    return outcome if ranks.leads else replace(outcome, run=Run.open(task.folder))


def _train(task: Task[Config], run: Run, engine: Engine, callbacks: Callbacks) -> Outcome:
    """Train the stage from its last checkpoint, and save what came of it."""
    stage = task.stage(run, engine, callbacks.stop)
    if stage is None:
        return Outcome(run, None, False)
    loop = Loop(stage, task.config.amount, task.pace, ranks=engine.ranks)
    resumed = resume(run, loop)
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
    """Tell that the stage is finished; whether its model is whole on disk.

    A kill between the last checkpoint and the model leaves none that is whole; so does damage.
    """
    saved, record = has_model_of(run, loop), loop.already_finished()
    mends = "" if saved else "its model was not whole and is written again from its checkpoint"
    event = "; ".join(filter(None, (record.event, run.warning, mends)))
    callbacks.record(replace(record, event=event))
    return saved


def _with_note(resumed: Resumed | None, note: str) -> Resumed | None:
    if resumed is None or not note:
        return resumed
    return replace(resumed, note="; ".join(filter(None, (resumed.note, note))))


def _timed(run: Run, began: float, callbacks: Callbacks) -> Callbacks:
    """Callbacks that also note how long the first batch took to come, reading included."""
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
