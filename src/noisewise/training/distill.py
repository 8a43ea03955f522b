"""The verb `distill`: a run's teacher becomes a generator of one network call."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

from noisewise.training.borrowed_teacher import adopt
from noisewise.training.callbacks import OnRecord, Stop
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import write_text
from noisewise.training.models.model_card import model_card
from noisewise.training.models.model_folder import Build, save_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.train import _to_be_written, _with


def distill(
    run: Run | str | Path,
    budget: str | None = None,
    *,
    lam: float | None = None,
    seed: int | None = None,
    teacher: str | Path | None = None,
    config: DistillConfig | None = None,
    on_record: OnRecord | None = None,
    stop: Stop | None = None,
    build: Build | None = None,
) -> Generator:
    """Distil a run's teacher into a generator of one call; only RUN/teacher is read, no pictures.

    The same call goes on where an earlier one stopped, as for `train`. If the teacher has changed
    since, distillation begins anew.

    Args:
        run: a run with a finished teacher.
        budget: 90s, 30m, 2h or 200000images; None: the configuration's, 5m.
        lam: lambda of the loss L2 - lambda L1.
        seed: source of everything random.
        teacher: another run, or a teacher's folder: `run` is then a new folder, and begins with a
            copy of that teacher.
        config: everything else; the arguments above go before it.
        on_record: is given every step's record.
        stop: asked before every step; true ends after saving, see `Run.finished`.
        build: makes the nets from their configuration; None: the package's own nets.

    Returns:
        The generator with the best weights by distance, so far if it was stopped.

    Raises:
        ValueError: if there is no finished teacher, or the settings cannot be used.
        TrainingFailed: if training broke down; the best generator so far is kept in the run.
    """
    config = _with(config or DistillConfig(), budget=budget, lam=lam, seed=seed)
    engine = Engine.choose(config.device, config.precision, config.threads)
    ranks = engine.ranks
    with ranks.watched():
        if teacher is not None and ranks.leads:
            run = adopt(run.path if isinstance(run, Run) else run, teacher, build)
        if not ranks.leads:
            ranks.wait()
        run = run if isinstance(run, Run) and ranks.leads else Run.open(_path_of(run))
        model = run.teacher(build)
        with run.locked() if ranks.leads else nullcontext():
            if ranks.leads:
                run.begin_distill(config)
                ranks.wait()
            generator = _distill(run, model, config, engine, on_record, stop, build)
            ranks.wait()
    return generator


def _path_of(run: Run | str | Path) -> Path:
    return run.path if isinstance(run, Run) else Path(run)


def _distill(
    run: Run,
    model: Teacher,
    config: DistillConfig,
    engine: Engine,
    on_record: OnRecord | None,
    stop: Stop | None,
    build: Build | None,
) -> Generator:
    batch = config.batch or config.recipe.batch
    engine = engine.settled(model.denoiser, batch, config.precision, config.amount)
    stage = StudentStage(model, config, engine)
    loop = Loop(stage, config.amount, student_pace(config.recipe), ranks=engine.ranks)
    resumed = run.resume(loop, "generator")
    if loop.finished:
        if _to_be_written(run, stage, loop, on_record):
            _save_generator(run, stage, loop, finished=True)
            loop.ranks.wait()
        return run.generator(build)
    try:
        finished = run.follow(loop, stage, config.checkpoint_seconds, on_record, stop, resumed)
    except TrainingFailed as error:
        _save_generator(run, stage, loop, finished=False, failed=str(error))
        raise
    if finished:
        _save_generator(run, stage, loop, finished=True)
        if loop.ranks.leads:
            return run.generator(build)
    if not finished:
        run.note("generator", loop, False, {})
    return Generator(copy.deepcopy(stage.best()), stage.model_config(), lambda: run.teacher(build))


def _save_generator(
    run: Run, stage: StudentStage, loop: Loop, finished: bool, failed: str = ""
) -> None:
    folder, config = run.path / "generator", stage.model_config()
    save_model(folder, stage.best(), config, loop.ranks.leads)
    noted = {"failed": failed} if failed else {}
    run.note("generator", loop, finished, {**stage.stats, **noted})
    if loop.ranks.leads:
        write_text(folder / "README.md", model_card(run.name, config, run.info))
