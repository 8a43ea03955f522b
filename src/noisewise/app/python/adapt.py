"""`noisewise.adapt`: adapts a teacher, shows how far it is, and saves at an interrupt."""

from __future__ import annotations

from pathlib import Path

from noisewise.app.python.watching import resume_or_go_on, watching
from noisewise.app.sinks.sink import Sink
from noisewise.pictures.given import Given, is_path
from noisewise.training import adapt as training
from noisewise.training.callbacks import OnFile, OnRecord, Stop
from noisewise.training.models.model_folder import Build
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, AdapterStart
from noisewise.training.settings.overrides import overridden


def adapt(
    run: Run | str | Path,
    path: Given,
    out: str | Path,
    budget: str | None = None,
    *,
    rank: int | None = None,
    start: AdapterStart | None = None,
    seed: int | None = None,
    config: AdaptConfig | None = None,
    on_record: OnRecord | None = None,
    on_file: OnFile | None = None,
    stop: Stop | None = None,
    build: Build | None = None,
    progress: bool | None = None,
    log_to: str | Sink | None = None,
) -> Run:
    """Adapt a run's teacher to other pictures, as a new run.

    Call it again to resume a stopped adaptation; an interrupt saves first, as in `noisewise.train`.

    Args:
        run: a run with a finished teacher, or the folder of a teacher.
        path: pictures, as for `noisewise.train`; they are converted to the size and channels of the
            teacher. A teacher with classes needs the same classes.
        out: folder of the new run.
        budget: 90s, 30m, 2h or 200000images; None: as in config (default 5m).
        rank: rank of the adapter in each layer.
        start: "lora-ga", "lora", or "full": all weights and no adapter.
        seed: random seed.
        config: all other settings; the arguments above take precedence.
        on_record: called with the record of every step.
        on_file: called with (files read, files in all).
        stop: called before every step, and before every batch of the first gradient; if it returns
            true, training is saved and stops.
        build: makes the net from its configuration; None: the nets of noisewise.
        progress: as for `noisewise.train`.
        log_to: as for `noisewise.train`.

    Returns:
        The new run: `teacher/` holds the adapted teacher, `adapter/` the adapter alone.

    Raises:
        ValueError: if there is no teacher, the pictures do not fit it, or PEFT is not installed.
        KeyboardInterrupt: after an interrupt, when all is saved.
        TrainingFailed: if training failed more often than the recipe allows (`tries`).
    """
    given = {"budget": budget, "rank": rank, "start": start, "seed": seed}
    config = overridden(config or AdaptConfig(), given)
    folder = Path(out)
    watched = watching(folder, config.amount, progress, on_record, on_file, stop, log_to)
    with watched as watch:
        made = training.adapt(
            run,
            path,
            folder,
            config=config,
            on_record=watch.on_record,
            on_file=watch.on_file,
            stop=watch.stop,
            build=build,
        )
    of = str(run.path) if isinstance(run, Run) else str(run)
    shown = repr(str(path)) if is_path(path) else "PICTURES"
    call = f"noisewise.adapt({of!r}, {shown}, {str(folder)!r}, {config.budget!r}, ...)"
    resume_or_go_on(watch, made, "teacher", call)
    return made
