"""`noisewise.distill`: distils a generator, shows how far it is, and saves at an interrupt."""

from __future__ import annotations

from pathlib import Path

from noisewise.app.python.watching import resume_or_go_on, watching
from noisewise.app.sinks.sink import Sink
from noisewise.training import distill as training
from noisewise.training.callbacks import OnRecord, Stop
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.overrides import overridden


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
    progress: bool | None = None,
    log_to: str | Sink | None = None,
) -> Generator:
    """Distil a teacher into a generator of one network call, or of a few.

    No pictures are read, unless the config has a data_weight.

    Call it again to resume a stopped distillation; an interrupt saves first, as in
    `noisewise.train`. If the teacher has changed since, distillation restarts.

    Args:
        run: a run with a finished teacher; with `teacher`, a new folder.
        budget: 90s, 30m, 2h or 200000images; None: as in config (default 5m).
        lam: lambda of the loss L2 - lambda L1.
        seed: random seed.
        teacher: another run, the folder of a teacher, or any denoiser with its description (see
            `noisewise.as_teacher`); `run` gets a copy of it.
        config: all other settings; the arguments above take precedence.
        on_record: called with the record of every step.
        stop: called before every step; if it returns true, training is saved and stops (see
            `Run.finished`).
        build: makes the nets from their configuration; None: the nets of noisewise, or copies of
            `teacher` if it is a model.
        data: where the training pictures are now, if they were moved; only with a data_weight.
        progress: as for `noisewise.train`.
        log_to: as for `noisewise.train`.

    Returns:
        The generator with the weights of lowest distance; after `stop`, the best ones so far.

    Raises:
        ValueError: if there is no finished teacher, or the settings cannot be used.
        KeyboardInterrupt: after an interrupt, when all is saved.
        TrainingFailed: if training failed too often; the best generator so far stays in the run.
    """
    config = overridden(config or DistillConfig(), {"budget": budget, "lam": lam, "seed": seed})
    folder = run.path if isinstance(run, Run) else Path(run)
    callbacks = (on_record, None, stop, log_to)
    with watching(folder, config.amount, progress, *callbacks, reads_pictures=False) as watch:
        generator = training.distill(
            run,
            teacher=teacher,
            config=config,
            on_record=watch.on_record,
            stop=watch.stop,
            build=build,
            data=data,
        )
    call = f"noisewise.distill({str(folder)!r}, {config.budget!r}, ...)"
    resume_or_go_on(watch, Run(folder), "generator", call)
    return generator
