"""The verb `train`: a folder of pictures becomes a teacher. And `plan`: what it would use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.callbacks import Callbacks, OnFile, OnRecord, Stop
from noisewise.training.carry_out import Task, carry_out
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import Build, build_denoiser, save_model
from noisewise.training.run.begin import check_folder, create_run, matching_run
from noisewise.training.run.follow import note_stage
from noisewise.training.run.kinds_file import keep_kinds, with_kinds
from noisewise.training.run.resumed_plan import rescaled, with_kept_net
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import known_batch
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.overrides import overridden
from noisewise.training.stages.kinds import sorted_into_kinds
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.stage import Pace, Stage
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
    """Train a teacher on a folder of pictures; the same call resumes a training that was stopped.

    A finished run is left as it is, unless the budget is larger than before: then training resumes
    from its last step, with the learning rate that the larger budget has there.

    Args:
        path: folder (subfolders may be classes), .zip, .npz or .npy of pictures.
        out: folder of the run; None: runs/NAME, named after path.
        budget: 90s, 30m, 2h or 200000images; None: the configuration's, 5m.
        size: side of the pictures in pixels; None: as the pictures suggest.
        classes: condition on the class subfolders.
        seed: source of everything random.
        config: everything else; the arguments above go before it.
        on_record: gets every step's record.
        on_file: gets (files read, files in all).
        stop: asked before every step; true ends after saving, see `Run.finished`.
        build: makes the net from its configuration; None: the package's own nets.

    Returns:
        The run; its teacher is `run.teacher()` when `run.finished("teacher")`.

    Raises:
        ValueError: if the pictures, the settings or the folder cannot be used.
        OSError, MemoryError: if a checkpoint or model cannot be read or written now.
        TrainingFailed: if training broke down; the best teacher so far is kept in the run.
    """
    given = {"budget": budget, "size": size, "classes": classes, "seed": seed}
    config = overridden(config or TrainConfig(), given)
    folder = Path("runs") / Path(path).resolve().stem if out is None else Path(out)
    task = TrainTask(Path(path), folder, config, build)
    return carry_out(task, Callbacks(on_record, on_file, stop)).run


def plan(
    path: str | Path, config: TrainConfig | None = None, out: str | Path | None = None
) -> TeacherPlan:
    """Derive everything that training would use, with reasons, without training (--dry-run).

    Args:
        path: as for `train`.
        config: as for `train`.
        out: folder of a run that would resume: with another batch its learning rate is scaled.

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
    return _planned(pictures, config, folder, engine)[1]


class TrainTask(Task[TrainConfig]):
    """Pictures are read and planned for; a teacher is trained and saved."""

    def __init__(self, path: Path, folder: Path, config: TrainConfig, build: Build | None) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.config = config
        self._path, self._build = path, build

    def check(self, engine: Engine) -> None:
        """Refuse a folder that holds something else, and a part of one process."""
        check_folder(self.folder)
        if self.config.shard and engine.ranks.world == 1:
            raise ValueError(
                "shard splits a net over several processes; start several with torchrun"
            )

    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read the pictures, derive the plan, make the run."""
        config, folder = self.config, self.folder
        matching_run(folder, config)  # before any picture is read
        pictures = load_pictures(
            self._path,
            config.size,
            config.channels,
            folder / "cache",
            callbacks.on_file,
            config.crop,
            config.background,
        )
        self._pictures, self._plan, self.note = _planned(pictures, config, folder, engine)
        if engine.ranks.leads:
            create_run(folder, config, self._plan, self._pictures)
            keep_kinds(folder, self._pictures)

    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage:
        """Build the net with fresh weights."""
        config, plan = self.config, self._plan
        with engine.seeded(config.seed):
            denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, self._build)
        if not config.shard:
            engine = engine.settled(denoiser, plan.batch, config.precision, config.amount)
        return TeacherStage(self._pictures, denoiser, plan, config, engine)

    @property
    def pace(self) -> Pace:
        """As the recipe has it."""
        return teacher_pace(self.config.recipe)

    def resumes(self, run: Run) -> None:
        """Note another batch; not before the first step, so that a finished run keeps its own."""
        if known_batch(run.info) != self._plan.batch:
            run.note_batch(self.config.batch, self._plan)

    def save(self, run: Run, loop: Loop) -> None:
        """Write teacher/."""
        stage = loop.stage
        save_model(run.path / "teacher", stage.best(), stage.model_config(), loop.ranks.leads)
        note_stage(run, loop, True, stage.stats())


def _planned(
    pictures: Pictures, config: TrainConfig, folder: Path | None, engine: Engine
) -> tuple[Pictures, TeacherPlan, str]:
    """Pictures with their kinds, the plan for them, and what a resumed run tells first."""
    if folder is None:
        pictures = sorted_into_kinds(pictures, config)
        return pictures, *rescaled(plan_teacher(config, pictures, engine), config, None)
    pictures = _with_kinds(pictures, config, folder)
    planned = with_kept_net(plan_teacher(config, pictures, engine), folder)
    return pictures, *rescaled(planned, config, folder)


def _with_kinds(pictures: Pictures, config: TrainConfig, folder: Path) -> Pictures:
    """Sorted into kinds as when the run began; an older run without kinds stays without."""
    info = Run(folder).info if (folder / "run.json").exists() else {}
    before = info.get("train")
    if isinstance(before, dict) and "kinds" not in before and config.kinds is None:
        config = replace(config, kinds=0)
    noted = info.get("data", {}).get("kinds")
    return with_kinds(folder, pictures, lambda found: sorted_into_kinds(found, config), noted)
