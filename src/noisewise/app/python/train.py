"""`noisewise.train`: trains a teacher, shows how far it is, and saves at an interrupt."""

from __future__ import annotations

from pathlib import Path

from noisewise.app.python.watching import resume_or_go_on, watching
from noisewise.app.sinks.sink import Sink
from noisewise.pictures.given import Given, is_path
from noisewise.sizes import AnySize
from noisewise.training import train as training
from noisewise.training.callbacks import OnFile, OnRecord, Stop
from noisewise.training.models.model_folder import Build
from noisewise.training.run.run import Run
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.overrides import overridden


def train(
    path: Given,
    out: str | Path | None = None,
    budget: str | None = None,
    *,
    size: AnySize | None = None,
    classes: bool | None = None,
    start_from: Run | str | Path | None = None,
    seed: int | None = None,
    config: TrainConfig | None = None,
    on_record: OnRecord | None = None,
    on_file: OnFile | None = None,
    stop: Stop | None = None,
    build: Build | None = None,
    progress: bool | None = None,
    log_to: str | Sink | None = None,
) -> Run:
    """Train a teacher on pictures; call it again to resume a stopped training.

    A finished run is not changed, unless the budget is larger than before: then training resumes
    at its last step, with the learning rate of the larger budget at that step. An interrupt
    (Ctrl-C, a notebook's stop button) finishes the step and saves; a second one stops at once.

    Args:
        path: folder (subfolders may be classes), .zip, .npz or .npy of pictures; or pictures in
            memory: an array or tensor, (images, labels), a list of PIL pictures, a dataset of torch
            or of Hugging Face. Those are written once into the run's folder cache/, and the same
            ones resume the run.
        out: folder of the run; None: runs/NAME, named after path.
        budget: 90s, 30m, 2h or 200000images; None: as in config (default 5m).
        size: side of the pictures in pixels, (height, width), or a text such as "48x32", which is
            WIDTHxHEIGHT; None: a square, chosen from the pictures.
        classes: learn the classes (subfolders or labels).
        start_from: a run or the folder of a teacher whose weights to start from, as far as they
            fit; "auto": the best packaged base or nothing; None: as in config (default nothing).
        seed: random seed.
        config: all other settings; the arguments above take precedence.
        on_record: called with the `Record` of every step: its stage, step, images, seconds and
            loss, and what was measured at this step (held-out loss, floors, what happened).
        on_file: called with (files read, files in all).
        stop: called before every step; if it returns true, training is saved and stops (see
            `Run.finished`).
        build: makes the net from its configuration; None: the nets of noisewise.
        progress: True: show how far it is; False: nothing; None: in a notebook and on a terminal.
        log_to: "tensorboard", "wandb" or "trackio", or an object with log(step, numbers) and
            close(): gets the numbers too. log.jsonl in the run has all of them.

    Returns:
        The run. `run.teacher()` loads the teacher once `run.finished("teacher")` is true.

    Raises:
        ValueError: if the pictures, the settings or the folder cannot be used.
        KeyboardInterrupt: after an interrupt, when all is saved; it says how to resume.
        OSError: if a checkpoint or model cannot be read or written now.
        OutOfMemory: if memory runs out; the message says what to do, and the last checkpoint stays.
        TrainingFailed: if training failed too often; the best teacher so far stays in the run.
    """
    given = {"budget": budget, "size": size, "classes": classes, "seed": seed}
    given["start_from"] = training.named_start(start_from)
    config = overridden(config or TrainConfig(), given)
    folder = training.run_folder(path, out)
    watched = watching(folder, config.amount, progress, on_record, on_file, stop, log_to)
    with watched as watch:
        run = training.train(
            path,
            folder,
            config=config,
            on_record=watch.on_record,
            on_file=watch.on_file,
            stop=watch.stop,
            build=build,
        )
    shown = repr(str(path)) if is_path(path) else "PICTURES"
    call = f"noisewise.train({shown}, {str(folder)!r}, {config.budget!r}, ...)"
    resume_or_go_on(watch, run, "teacher", call)
    return run
