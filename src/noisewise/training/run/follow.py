"""A loop in a run: resumed from its checkpoints, followed to its end, noted in run.json."""

from __future__ import annotations

from typing import Any

from noisewise.training.callbacks import Callbacks
from noisewise.training.models.model_folder import is_whole
from noisewise.training.run.checkpoints import Resumed
from noisewise.training.run.recorder import Recorder
from noisewise.training.run.run import Run
from noisewise.training.stages.loop import Loop, TrainingFailed


def resume(run: Run, loop: Loop) -> Resumed | None:
    """Bring a loop to its newest checkpoint that is whole; None if there is no checkpoint.

    Raises:
        ValueError: if there are checkpoints and none can be used.
    """
    return run.checkpoints(loop.stage.name).load(loop)


def follow(
    run: Run,
    loop: Loop,
    checkpoint_seconds: float,
    callbacks: Callbacks | None = None,
    resumed: Resumed | None = None,
) -> bool:
    """Run a loop to its end, or until asked to stop: writes log, sheets and checkpoints.

    Args:
        run: where everything is written.
        loop: fresh, or as `resume` left it.
        checkpoint_seconds: time between checkpoints.
        callbacks: get every record; may ask to stop.
        resumed: what `resume` returned.

    Returns:
        Whether the stage has finished.

    Raises:
        TrainingFailed: if training broke down too often; run.json then says so, and the best
            model so far is kept in `checkpoints`.
    """
    callbacks = callbacks or Callbacks()
    name, keeper = loop.stage.name, run.checkpoints(loop.stage.name)
    recorder = Recorder(run.path, loop, keeper, checkpoint_seconds)
    try:
        if loop.ranks.leads:
            recorder.lead(callbacks, resumed, run.warning)
        else:
            recorder.follow(callbacks.stop)
    except TrainingFailed as error:
        keeper.save_best(loop)
        note_stage(run, loop, run.finished(name), {"failed": str(error)})
        kept = f"; the best {name} so far is kept in {keeper.best}"
        raise TrainingFailed(f"{error}{kept if keeper.best.exists() else ''}") from error
    return loop.finished


def note_stage(run: Run, loop: Loop, finished: bool, more: dict[str, Any]) -> None:
    """Write into run.json what a stage came to.

    Args:
        run: whose run.json is written.
        loop: of the stage.
        finished: whether its finished model is there.
        more: further values, for example what was measured.
    """
    if not loop.ranks.leads:
        return
    name = loop.stage.name
    before = run.info["stages"].get(name, {})
    kept = {key: value for key, value in before.items() if key not in ("failed", "stopped")}
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
    """Note that somebody stopped a stage; a finished model of a smaller budget may be there."""
    note_stage(run, loop, run.finished(loop.stage.name), {"stopped": True})


def has_model_of(run: Run, loop: Loop) -> bool:
    """Whether the model on disk is the one that this loop ended with, and whole.

    All processes that run the loop together call it; the first one looks.

    Raises:
        OSError, MemoryError: if the model cannot be read now.
    """
    name = loop.stage.name
    noted = run.stage(name)
    ended = noted.finished and noted.steps == loop.at.step
    there = loop.ranks.leads and ended and is_whole(run.path / name)
    return bool(loop.ranks.agree(there))
