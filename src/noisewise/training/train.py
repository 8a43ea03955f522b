"""`train` makes a teacher from a folder of pictures; `plan` shows what it would use."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from noisewise.nets.recomputing import recompute
from noisewise.pictures.dim import refuse_black
from noisewise.pictures.given import Given, as_file
from noisewise.pictures.older_labels import as_labelled_before
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.sizes import AnySize
from noisewise.training.callbacks import Callbacks, OnFile, OnRecord, Stop
from noisewise.training.carry_out import Task, carry_out
from noisewise.training.devices.engine import Engine
from noisewise.training.files.run_folder import is_run
from noisewise.training.finer_size import about_finer_size
from noisewise.training.models.model_folder import Build, save_model
from noisewise.training.models.networks import network
from noisewise.training.run.begin import (
    as_begun,
    check_folder,
    create_run,
    matching_run,
    with_twins,
)
from noisewise.training.run.follow import note_stage
from noisewise.training.run.kinds_file import save_kinds, with_kinds
from noisewise.training.run.resumed_plan import (
    as_in_run,
    with_noise_of_run,
    with_palette_of_run,
    with_scaled_lr,
)
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import known_batch
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.overrides import overridden
from noisewise.training.stages.kinds import sorted_into_kinds
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.stage import Pace, Stage
from noisewise.training.stages.started_teacher import StartedStage
from noisewise.training.stages.step_plan import check_time
from noisewise.training.stages.teacher import teacher_pace
from noisewise.training.starts.candidates import Candidate, Candidates, candidates
from noisewise.training.starts.decide import (
    ENTRY,
    Decision,
    announced,
    as_noted,
    as_started,
    decide,
    note_start,
    remembered,
    started,
    used_up,
)


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
) -> Run:
    """Train a teacher on a folder of pictures; call it again to resume a stopped training.

    A finished run is not changed, unless the budget is larger than before: then training resumes
    at its last step, with the learning rate of the larger budget at that step.

    Args:
        path: folder (subfolders may be classes), .zip, .npz or .npy of pictures; or pictures in
            memory: an array or tensor, (images, labels), a list of PIL pictures, a dataset with a
            length. Those are written once into the run's folder cache/, under a name that is the
            digest of their content; the run goes on if it is called with the same ones again.
        out: folder of the run; None: runs/NAME, named after path.
        budget: 90s, 30m, 2h or 200000images; None: as in config (default 5m).
        size: side of the pictures in pixels, (height, width), or a text such as "48x32", which is
            WIDTHxHEIGHT; None: a square, chosen from the pictures.
        classes: learn the classes (subfolders or labels).
        start_from: a run or the folder of a teacher whose weights to start from, as far as they
            fit; "auto": the best packaged base or nothing; None: as in config (default nothing).
        seed: random seed.
        config: all other settings; the arguments above take precedence.
        on_record: called with the record of every step.
        on_file: called with (files read, files in all).
        stop: called before every step; if it returns true, training is saved and stops (see
            `Run.finished`).
        build: makes the net from its configuration; None: the nets of noisewise.

    Returns:
        The run. `run.teacher()` loads the teacher once `run.finished("teacher")` is true.

    Raises:
        ValueError: if the pictures, the settings or the folder cannot be used.
        OSError: if a checkpoint or model cannot be read or written now.
        OutOfMemory: if memory runs out; the message says what to do, and the last checkpoint stays.
        TrainingFailed: if training failed too often; the best teacher so far stays in the run.
    """
    given = {"budget": budget, "size": size, "classes": classes, "seed": seed}
    given["start_from"] = named_start(start_from)
    config = overridden(config or TrainConfig(), given)
    task = TrainTask(path, run_folder(path, out), config, build)
    return carry_out(task, Callbacks(on_record, on_file, stop)).run


def named_start(start_from: Run | str | Path | None) -> str | None:
    """The setting `start_from` of a run or a path.

    Example:
        >>> named_start(Path("runs/mine")), named_start(None)
        ('runs/mine', None)
    """
    return str(start_from.path if isinstance(start_from, Run) else start_from or "") or None


def run_folder(path: Given, out: str | Path | None = None) -> Path:
    """The folder of the run that `train` makes or resumes.

    Args:
        path: as for `train`.
        out: as for `train`.

    Raises:
        ValueError: if the pictures are in memory, where nothing has a name, and out is None.

    Example:
        >>> run_folder("/data/cats.zip").as_posix()
        'runs/cats'
    """
    if out is not None:
        return Path(out)
    if not isinstance(path, str | os.PathLike):
        raise ValueError("these pictures have no name: name a folder for the run, out='runs/mine'")
    return Path("runs") / Path(path).resolve().stem


def plan(
    path: Given, config: TrainConfig | None = None, out: str | Path | None = None
) -> TeacherPlan:
    """Derive every value that training would use, with reasons, without training (--dry-run).

    Of many large pictures only some are read (see `notes`), so measured values can differ a little
    from those of a training, which measures all.

    Args:
        path: as for `train`.
        config: as for `train`.
        out: folder of a run to resume; if the batch changes, its learning rate is scaled.

    Raises:
        ValueError: if the pictures or the settings cannot be used.

    Example:
        >>> from noisewise.demo import demo_path
        >>> plan(demo_path()).derived()["sigma_data"].reason
        'standard deviation of all training pixels in [-1, 1]'
    """
    config = config or TrainConfig()
    engine = Engine.choose(config.device, config.precision, config.threads)
    folder = None if out is None else Path(out)
    begun, config = folder is not None and is_run(folder), as_begun(config, folder)
    with TemporaryDirectory() as beside:  # of pictures in memory
        place = as_file(path, Path(beside))
        pictures = _read(place, config, folder, sampled=not begun)  # a run knows all its pictures
    sorted_, planned, _ = _planned(pictures, config, folder, engine)
    if not begun and (found := candidates(config, planned, sorted_, engine)):
        planned = announced(found, config)
    reasons = planned.reasons
    if config.size is None and (finer := about_finer_size(pictures, engine.device)):
        reasons = {**reasons, "size": f"the largest size that is not set by hand; {finer}"}
    return replace(planned, reasons=reasons, notes=pictures.notes)


class TrainTask(Task[TrainConfig]):
    """Read pictures, plan, train a teacher, save it."""

    def __init__(self, path: Given, folder: Path, config: TrainConfig, build: Build | None) -> None:
        """Store the arguments; nothing is read yet."""
        self.folder = folder
        self.config = config
        self._path, self._build = path, build
        self._plan: TeacherPlan | None = None
        self._starts: Candidates | None = None
        self._spent = 0.0

    def check(self, engine: Engine) -> None:
        """Refuse a folder with other files, and sharding with one process."""
        check_folder(self.folder)
        if self.config.shard and engine.ranks.world == 1:
            raise ValueError(
                "shard splits the net across several processes; start them with torchrun"
            )

    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read the pictures, derive the plan, create the run."""
        self.config = config = as_begun(self.config, self.folder)
        folder = self.folder
        matching_run(folder, config)  # before any picture is read
        path = as_file(self._path, folder / "cache")
        pictures = _read(path, config, folder, callbacks.on_file, cached=True)
        self._pictures, plan, self.note = _planned(pictures, config, folder, engine)
        self._plan = plan = plan if self._build is None else _untold(plan, config)
        begun = is_run(folder) and ENTRY in Run(folder).info
        if not begun:
            self._starts = candidates(config, plan, self._pictures, engine, self._build)
        if engine.ranks.leads:
            create_run(folder, config, plan, self._pictures)
            save_kinds(folder, self._pictures)

    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage | None:
        """Build the net with fresh weights, or with those of the base that is chosen now."""
        config = self.config
        decided = self._decided(run, engine, stop)
        if decided is None:
            return None  # stopped in a trial: the next call compares again
        self._plan = plan = decided.chosen.plan
        denoiser = started(decided.chosen, config, engine, self._build)
        recompute(network(denoiser), plan.recompute)
        if not config.shard:
            at_once = math.ceil(plan.batch / plan.accumulate)
            engine = engine.with_measured_precision(
                denoiser, at_once, config.precision, config.amount
            )
        stage = StartedStage(self._pictures, denoiser, plan, config, engine)
        stage.says(decided.noted)
        return stage

    def _decided(self, run: Run, engine: Engine, stop: Stop | None) -> Decision | None:
        """What the training starts from: as noted, or decided now; None if it was stopped."""
        config, plan, noted = self.config, self._plan, run.info.get(ENTRY)
        assert plan is not None
        if isinstance(noted, dict):
            begun = bool(run.checkpoints("teacher").paths())
            decided = remembered(noted, plan, config.start_from, begun, self._build)
        elif self._starts is None:
            decided = Decision(Candidate(None, plan), {})
        else:
            decided = decide(self._starts, self._pictures, config, engine, self._build, stop)
            if decided is None:
                return None
            note_start(run, decided, engine.ranks.leads)
        seconds, images = used_up(decided.noted)
        self._spent = config.amount.progress(seconds, images)
        return decided

    def used_up(self, run: Run) -> tuple[float, int]:
        """What the trials of the starts took."""
        return used_up(run.info.get(ENTRY))

    @property
    def pace(self) -> Pace:
        """Schedule of the recipe; the learning rate rises after the trials of the starts."""
        return replace(teacher_pace(self.config.recipe), begins=self._spent)

    def need_less_memory(self, resume: str) -> str:
        """More parts of the same batch; the number of parts may differ when a run resumes."""
        plan = self._plan
        if plan is None:
            return "free some, or use fewer pictures or a smaller --size"
        if plan.batch <= plan.accumulate:
            return (
                f"free some and run the same command again{resume}, or use a smaller --size in a "
                "new run"
            )
        parts = min(plan.batch, 2 * plan.accumulate)
        return (
            f"run the same command with --accumulate {parts}{resume}, which computes the same "
            f"batch of {plan.batch} in {parts} parts; or use a smaller --size in a new run"
        )

    def resumes(self, run: Run) -> None:
        """Note a changed batch. It is not noted earlier, so a finished run keeps its own batch."""
        assert self._plan is not None
        if known_batch(run.info) != self._plan.batch:
            run.note_batch(self.config.batch, self._plan)

    def save(self, run: Run, loop: Loop) -> None:
        """Write teacher/."""
        stage = loop.stage
        save_model(run.path / "teacher", stage.best(), stage.model_config(), loop.ranks.leads)
        note_stage(run, loop, True, stage.stats())


def _read(
    path: str | Path,
    config: TrainConfig,
    folder: Path | None,
    on_file: OnFile | None = None,
    cached: bool = False,
    sampled: bool = False,
) -> Pictures:
    """The pictures; a size far above that of the files is refused, unless a run began with it."""
    begun = folder is not None and is_run(folder)
    pictures = load_pictures(
        path,
        config.size,
        config.channels,
        folder / "cache" if folder is not None and cached else None,
        on_file,
        config.crop,
        config.background,
        config.crops,
        config.keep_whole,
        config.allow_enlarging or begun,
        sampled,
    )
    if folder is None or not begun:
        refuse_black(pictures.images, pictures.source)
        return pictures
    return as_labelled_before(pictures, Run(folder).data.fingerprint)


def _planned(
    pictures: Pictures, config: TrainConfig, folder: Path | None, engine: Engine
) -> tuple[Pictures, TeacherPlan, str]:
    """Pictures with their kinds, the plan, and the first message of a resumed run."""
    if folder is None:
        pictures = sorted_into_kinds(pictures.with_twins(), config)
    else:
        pictures = _with_kinds(with_twins(folder, pictures), config, folder)
    info = Run(folder).info if folder is not None and is_run(folder) else {}
    planned = plan_teacher(as_started(config, info), pictures, engine)
    if folder is None or not is_run(folder):
        check_time(config, planned.size, planned.batch, planned.cost["images_per_second"])
    if folder is None:
        return pictures, *with_scaled_lr(planned, config, None)
    planned = as_noted(as_in_run(planned, folder), info)
    planned = with_palette_of_run(with_noise_of_run(planned, config, folder), folder)
    return pictures, *with_scaled_lr(planned, config, folder)


def _untold(plan: TeacherPlan, config: TrainConfig) -> TeacherPlan:
    """The plan of a net that noisewise did not build, which cannot be told of changes."""
    if plan.augment and config.augment != "auto":
        raise ValueError("a net of your own is not told of changes; leave augment out")
    reasons = {**plan.reasons, "augment": "none: a net of your own is not told of changes"}
    return replace(plan, augment={}, reasons=reasons)


def _with_kinds(pictures: Pictures, config: TrainConfig, folder: Path) -> Pictures:
    """The pictures with the kinds of the run; a run of an older version without kinds gets none."""
    info = Run(folder).info if is_run(folder) else {}
    before = info.get("train")
    if isinstance(before, dict) and "kinds" not in before and config.kinds is None:
        config = replace(config, kinds=0)
    noted = info.get("data", {}).get("kinds")
    return with_kinds(folder, pictures, lambda found: sorted_into_kinds(found, config), noted)
