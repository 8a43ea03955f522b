"""The verbs: train, distill, load, plan. What `noisewise.train(...)` and the command line call."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.callbacks import Config, OnFile, OnRecord, Stop
from noisewise.training.devices.engine import Engine
from noisewise.training.files.lock import Before, locked
from noisewise.training.models.model_folder import Build, build_denoiser, save_model
from noisewise.training.run.kinds_file import keep_kinds, with_kinds
from noisewise.training.run.resumed_plan import rescaled, with_kept_net
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import known_batch
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.kinds import sorted_into_kinds
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.record import Record
from noisewise.training.stages.student import StudentStage
from noisewise.training.stages.teacher import TeacherStage, teacher_pace


def train(
    path: str | Path,
    out: str | Path | None = None,
    budget: str | None = None,
    *,
    size: int | None = None,
    classes: bool | None = None,
    seed: int | None = None,
    config: TrainConfig | None = None,
    on_record: OnRecord | None = None,
    on_file: OnFile | None = None,
    stop: Stop | None = None,
    build: Build | None = None,
) -> Run:
    """Train a teacher on a folder of pictures; the same call goes on where an earlier one stopped.

    A finished run is left as it is, unless the budget is larger than before: then it goes on from
    its last step, with the learning rate that the larger budget has there.

    Args:
        path: folder (subfolders may be classes), .zip, .npz or .npy of pictures.
        out: folder of the run; None: runs/NAME, named after path.
        budget: 90s, 30m, 2h or 200000images; None: the configuration's, 5m.
        size: side of the pictures in pixels; None: as the pictures suggest.
        classes: condition on the class subfolders.
        seed: source of everything random.
        config: everything else; the arguments above go before it.
        on_record: is given every step's record.
        on_file: is given (files read, files in all).
        stop: asked before every step; true ends after saving, see `Run.finished`.
        build: makes the net from its configuration; None: the package's own nets.

    Returns:
        The run; its teacher is `run.teacher()` when `run.finished("teacher")`.

    Raises:
        ValueError: if the pictures, the settings or the folder cannot be used.
        OSError, MemoryError: if a checkpoint or model cannot be read or written now.
        TrainingFailed: if training broke down; the best teacher so far is kept in the run.
    """
    config = _with(config or TrainConfig(), budget=budget, size=size, classes=classes, seed=seed)
    folder = Path("runs") / Path(path).resolve().stem if out is None else Path(out)
    Run.check(folder)
    before = Before(folder)
    engine = Engine.choose(config.device, config.precision, config.threads)
    ranks, began = engine.ranks, time.monotonic()
    if config.shard and ranks.world == 1:
        raise ValueError("shard parts a net among processes; start several with torchrun")
    with ranks.watched(), locked(folder) if ranks.leads else nullcontext():
        if not ranks.leads:
            ranks.wait()  # the first process reads and writes; the others then find the cache
        try:
            Run.must_match(folder, config)  # before any picture is read
            pictures = load_pictures(
                path,
                config.size,
                config.channels,
                folder / "cache",
                on_file,
                config.crop,
                config.background,
            )
            pictures = _with_kinds(pictures, config, folder)
            planned = with_kept_net(plan_teacher(config, pictures, engine), folder)
            run_plan, said = rescaled(planned, config, folder)
            if ranks.leads:
                Run.create(folder, config, run_plan, pictures)
                keep_kinds(folder, pictures)
        except ValueError:
            if ranks.leads:
                before.restore()
            raise
        if ranks.leads:
            ranks.wait()
        run = Run.open(folder)
        if run.said and ranks.leads:
            run.write()
        on_record = _first_batch(run, began, on_record)
        _train(run, pictures, run_plan, config, engine, on_record, stop, build, said)
        ranks.wait()
    return run if ranks.leads else Run.open(folder)


def plan(
    path: str | Path, config: TrainConfig | None = None, out: str | Path | None = None
) -> TeacherPlan:
    """Derive everything that training would use, with reasons, without training (--dry-run).

    Args:
        path: as for `train`.
        config: as for `train`.
        out: folder of a run that would go on: with another batch its learning rate is scaled.

    Raises:
        ValueError: if the pictures or the settings cannot be used.

    Example:
        >>> from noisewise.demo import demo_path
        >>> plan(demo_path()).derived()["sigma_data"].reason
        'standard deviation of all training pixels in [-1, 1]'
    """
    config = config or TrainConfig()
    engine = Engine.choose(config.device, config.precision, config.threads)
    pictures = load_pictures(
        path, config.size, config.channels, crop=config.crop, background=config.background
    )
    folder = None if out is None else Path(out)
    if folder is None:
        return rescaled(
            plan_teacher(config, sorted_into_kinds(pictures, config), engine), config, None
        )[0]
    planned = plan_teacher(config, _with_kinds(pictures, config, folder), engine)
    return rescaled(with_kept_net(planned, folder), config, folder)[0]


def _with_kinds(pictures: Pictures, config: TrainConfig, folder: Path) -> Pictures:
    """Sorted into kinds as the run was begun; one from before there were kinds goes on without."""
    info = Run.open(folder).info if (folder / "run.json").exists() else {}
    before = info.get("train")
    if isinstance(before, dict) and "kinds" not in before and config.kinds is None:
        config = replace(config, kinds=0)
    noted = info.get("data", {}).get("kinds")
    return with_kinds(folder, pictures, lambda found: sorted_into_kinds(found, config), noted)


def _train(
    run: Run,
    pictures: Pictures,
    plan: TeacherPlan,
    config: TrainConfig,
    engine: Engine,
    on_record: OnRecord | None,
    stop: Stop | None,
    build: Build | None,
    said: str,
) -> None:
    with engine.seeded(config.seed):
        denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, build)
    if not config.shard:
        engine = engine.settled(denoiser, plan.batch, config.precision, config.amount)
    stage = TeacherStage(pictures, denoiser, plan, config, engine)
    loop = Loop(stage, config.amount, teacher_pace(config.recipe), ranks=engine.ranks)
    resumed = run.resume(loop, "teacher")
    if resumed is not None and said:
        resumed = replace(resumed, note="; ".join(filter(None, (resumed.note, said))))
    if loop.finished:
        if _to_be_written(run, stage, loop, on_record):
            _save_teacher(run, stage, loop)
        return
    if engine.ranks.leads and known_batch(run.info) != plan.batch:
        run.go_on_with(config.batch, plan)  # not before: a finished run keeps what it had
    if run.follow(loop, stage, config.checkpoint_seconds, on_record, stop, resumed):
        _save_teacher(run, stage, loop)
    else:
        run.note("teacher", loop, run.finished("teacher"), {})


def _save_teacher(run: Run, stage: TeacherStage, loop: Loop) -> None:
    save_model(run.path / "teacher", stage.best(), stage.model_config(), loop.ranks.leads)
    run.note("teacher", loop, True, stage.stats)


def _first_batch(run: Run, began: float, on_record: OnRecord | None) -> OnRecord:
    """Note how long the first batch took to come, reading included; then pass the records on."""
    waiting = "seconds_to_first_batch" not in run.info["data"]

    def tell(record: Record) -> None:
        nonlocal waiting
        if waiting and record.loss is not None:
            waiting = False
            run.info["data"]["seconds_to_first_batch"] = round(time.monotonic() - began, 1)
        if on_record is not None:
            on_record(record)

    return tell


def _to_be_written(
    run: Run, stage: TeacherStage | StudentStage, loop: Loop, on_record: OnRecord | None
) -> bool:
    """Say that a stage is finished; whether its model has to be written again.

    A kill between the last checkpoint and the model, or damage since, leave none that is whole.
    """
    stands, record = run.stands(stage, loop), loop.already_finished()
    mends = "" if stands else "its model was not whole and is written again from its checkpoint"
    if on_record is not None:
        on_record(replace(record, event="; ".join(filter(None, (record.event, run.said, mends)))))
    return not stands


def _with(config: Config, **given: str | float | bool | None) -> Config:
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(config, **changes) if changes else config
