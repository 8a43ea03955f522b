"""Trains a loop in a run: resumes it from checkpoints, runs it, writes the results to run.json."""

from __future__ import annotations

from typing import Any

from noisewise.training.callbacks import Callbacks
from noisewise.training.models.model_folder import is_intact
from noisewise.training.run.checkpoints import Resumed
from noisewise.training.run.recorder import Recorder
from noisewise.training.run.run import Run
from noisewise.training.stages.loop import Loop, TrainingFailed

_OF_A_CALL = ("failed", "stopped", "speed")  # what the last call says is not true of this one


def resume(run: Run, loop: Loop) -> Resumed | None:
    """Restore a loop from its newest undamaged checkpoint; None if there is no checkpoint.

    Raises:
        ValueError: if there are checkpoints but none can be used.
    """
    return run.checkpoints(loop.stage.name).load(loop)


def follow(
    run: Run,
    loop: Loop,
    checkpoint_seconds: float,
    callbacks: Callbacks | None = None,
    resumed: Resumed | None = None,
) -> bool:
    """Run a loop until it finishes or is stopped; write log, sample sheets and checkpoints.

    Args:
        run: the run to write into.
        loop: new, or restored by `resume`.
        checkpoint_seconds: seconds between checkpoints.
        callbacks: called with every record; may stop training.
        resumed: result of `resume`.

    Returns:
        Whether the stage is finished.

    Raises:
        TrainingFailed: if training failed too often; run.json then has the reason, and the best
            model so far is in `checkpoints`.
    """
    callbacks = callbacks or Callbacks()
    name, keeper = loop.stage.name, run.checkpoints(loop.stage.name)
    recorder = Recorder(run.path, loop, keeper, checkpoint_seconds)
    try:
        with recorder.recording(callbacks, resumed, run.warning) as take:
            for record in loop.records(callbacks.stop):
                take(record)
    except TrainingFailed as error:
        keeper.save_best(loop)
        note_stage(run, loop, run.finished(name), {"failed": str(error)})
        kept = f"; the best {name} so far is in {keeper.best}"
        raise TrainingFailed(f"{error}{kept if keeper.best.exists() else ''}") from error
    return loop.finished


def note_stage(run: Run, loop: Loop, finished: bool, more: dict[str, Any]) -> None:
    """Write the state and results of a stage into run.json.

    Args:
        run: the run to write into.
        loop: loop of the stage.
        finished: whether there is a finished model.
        more: more values, for example measurements.
    """
    if not loop.ranks.leads:
        return
    name, speed = loop.stage.name, loop.speed
    before = run.info["stages"].get(name, {})
    kept = {key: value for key, value in before.items() if key not in _OF_A_CALL}
    if speed.mean and speed.possible:
        more = {
            "speed": {"mean": round(speed.mean, 3), "possible": round(speed.possible, 3)},
            **more,
        }
    run.info["stages"][name] = {
        **kept,
        "finished": finished,
        "budget": str(loop.budget),
        "steps": loop.at.step,
        "images": loop.at.images,
        "seconds": round(loop.at.seconds, 3),
        **more,
    }
    run.write()


def note_stopped(run: Run, loop: Loop) -> None:
    """Write that a stage was stopped; it may have a finished model from a smaller budget."""
    note_stage(run, loop, run.finished(loop.stage.name), {"stopped": True})


def has_model_of(run: Run, loop: Loop) -> bool:
    """Whether the model on disk is the result of this finished loop, and undamaged.

    All processes that run the loop must call it; the first one reads the model.

    Raises:
        OSError, MemoryError: if the model cannot be read now.
    """
    name = loop.stage.name
    noted = run.stage(name)
    ended = noted.finished and noted.steps == loop.at.step
    there = loop.ranks.leads and ended and is_intact(run.path / name)
    return bool(loop.ranks.agree(there))
