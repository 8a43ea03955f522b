"""The verb `adapt`: a trained teacher is moved to another folder of pictures, as a new run.

The result is a run like any other: its teacher is the sum of the old one and the adapter, so that
`distill`, `sample`, `evaluate` and `report` need not know. Beside it lies the adapter by itself, in
PEFT's format, to be put on the old teacher.

Papers: Hu et al. 2022 (LoRA); Wang et al. 2024 (LoRA-GA), for the start.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.diffusion import LogNormal, draw_from_dict
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.callbacks import Callbacks, OnFile, OnRecord, Stop
from noisewise.training.carry_out import Task, carry_out
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import file_digest
from noisewise.training.models.model_folder import Build, load_model, save_model
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.run.begin import check_folder, create_run
from noisewise.training.run.follow import note_stage
from noisewise.training.run.kinds_file import keep_kinds, with_kinds
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, AdapterStart
from noisewise.training.settings.overrides import overridden
from noisewise.training.stages.adapted_teacher import (
    AdaptStage,
    StoppedError,
    adapted_net,
    has_adapter,
    start_gradients,
)
from noisewise.training.stages.kinds import sorted_like
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Pace, Stage
from noisewise.training.stages.teacher import teacher_pace

if TYPE_CHECKING:
    from noisewise.adapters import Gradients

# Learning rates of AdamW: each start learns best at its own, see docs/adapters.md.
_LR = {"lora-ga": 1e-2, "lora": 1e-2, "full": 3e-3}
_MUST_MATCH = ("rank", "start", "samples", "teacher_digest")


def adapt(
    run: Run | str | Path,
    path: str | Path,
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
) -> Run:
    """Adapt a run's teacher to another folder of pictures, as a new run.

    The same call resumes an adaptation that was stopped, as for `noisewise.train`.

    Args:
        run: a run with a finished teacher, or a teacher's folder.
        path: folder, .zip, .npz or .npy of pictures; they are brought to the teacher's size and
            channels. A teacher with classes needs the same class subfolders.
        out: folder of the new run.
        budget: 90s, 30m, 2h or 200000images; None: the configuration's, 5m.
        rank: of the adapter in each layer.
        start: "lora-ga", "lora", or "full" for all weights and no adapter.
        seed: source of everything random.
        config: everything else; the arguments above go before it.
        on_record: gets every step's record.
        on_file: gets (files read, files in all).
        stop: asked before every step, and before every batch of the start's gradient; true ends
            after saving.
        build: makes the net from its configuration; None: the package's own nets.

    Returns:
        The new run: `teacher/` is the adapted teacher, `adapter/` what was added to the old one.

    Raises:
        ValueError: if there is no teacher, the pictures do not fit it, or PEFT is not installed.
        TrainingFailed: if training broke down more often than the recipe's tries.
    """
    given = {"budget": budget, "rank": rank, "start": start, "seed": seed}
    config = overridden(config or AdaptConfig(), given)
    folder = run.path if isinstance(run, Run) else Path(run)
    task = AdaptTask(folder, Path(path), Path(out), config, build)
    return carry_out(task, Callbacks(on_record, on_file, stop)).run


def plan_adapt(
    run: Run | str | Path,
    path: str | Path,
    config: AdaptConfig | None = None,
    build: Build | None = None,
) -> TeacherPlan:
    """Derive everything that `adapt` would use, with reasons; trains and writes nothing.

    Args:
        run: as for `adapt`.
        path: as for `adapt`.
        config: as for `adapt`.
        build: as for `adapt`.

    Raises:
        ValueError: if there is no teacher, the pictures do not fit it, or PEFT is not installed.
    """
    config = config or AdaptConfig()
    _need_extra(config)
    teacher, _ = load_teacher(run.path if isinstance(run, Run) else Path(run), build)
    size, channels = teacher.config.size, teacher.config.channels
    pictures = load_pictures(path, size, channels, crop=config.crop, background=config.background)
    return plan_adaptation(teacher, sorted_like(teacher, pictures), config)


def _need_extra(config: AdaptConfig) -> None:
    """Refuse adapters where PEFT is missing."""
    if config.start != "full":
        from noisewise.adapters.layers import need_peft

        need_peft()


def plan_adaptation(teacher: Teacher, pictures: Pictures, config: AdaptConfig) -> TeacherPlan:
    """What training needs: the teacher's net, scale and noise, and the new pictures' labels.

    Raises:
        ValueError: if the pictures are too few, or their classes are not the teacher's.
    """
    described = teacher.config
    if len(pictures) < 2:
        raise ValueError(f"{pictures.source} holds {len(pictures)} pictures; 2 at least are needed")
    if described.classes and tuple(pictures.classes) != described.classes:
        known, new = ", ".join(described.classes[:5]), ", ".join(pictures.classes[:5])
        raise ValueError(
            f"the teacher knows {len(described.classes)} classes ({known}), {pictures.source} has "
            f"{len(pictures.classes)} ({new or 'none'}); name its subfolders alike, or adapt a "
            "teacher without classes"
        )
    flips, why_flips = pictures.suggest_flip()
    if config.flips != "auto":
        flips, why_flips = config.flips == "on", "set by hand"
    noise = draw_from_dict(described.noise)
    assert isinstance(noise, LogNormal)
    lr = config.lr or _LR[config.start]
    batch = config.batch or config.recipe.batch
    kept = "the teacher's: its net knows no other"
    by_hand = "set by hand"
    why_lr = f"for the start {config.start}, see docs/adapters.md"
    return TeacherPlan(
        size=described.size,
        channels=described.channels,
        classes=described.classes,
        net=described.net,
        prediction=described.prediction,
        sigma_data=described.sigma_data,
        noise=noise,
        batch=batch,
        lr=lr,
        adam_lr=lr,
        flips=flips,
        reasons={
            "size": kept,
            "channels": kept,
            "classes": kept,
            "net": kept,
            "sigma_data": kept,
            "noise": kept,
            "batch": by_hand if config.batch else "the recipe's",
            "lr": by_hand if config.lr else why_lr,
            "flips": why_flips,
        },
    )


class AdaptTask(Task[AdaptConfig]):
    """A teacher is loaded, pictures are read for it; adapters are trained and merged."""

    def __init__(
        self, teacher: Path, path: Path, folder: Path, config: AdaptConfig, build: Build | None
    ) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.config = config
        self._given, self._path, self._build = teacher, path, build

    def check(self, engine: Engine) -> None:
        """Refuse a missing PEFT, a missing teacher, the teacher's own folder, several processes."""
        _need_extra(self.config)
        self._teacher, self._source = load_teacher(self._given, self._build)
        if self.folder.resolve() in (self._source.resolve(), self._source.parent.resolve()):
            raise ValueError(
                f"{self.folder} holds the teacher itself; name a new folder with --out"
            )
        check_folder(self.folder)
        if engine.ranks.world > 1:
            raise ValueError("adapt works in one process; start it without torchrun")

    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read the pictures for the teacher, derive the plan, make the run."""
        described, config, folder = self._teacher.config, self.config, self.folder
        pictures = load_pictures(
            self._path,
            described.size,
            described.channels,
            folder / "cache",
            callbacks.on_file,
            config.crop,
            config.background,
        )
        pictures = with_kinds(folder, pictures, partial(sorted_like, self._teacher))
        self._pictures = pictures
        self._plan = plan = plan_adaptation(self._teacher, pictures, config)
        self._training = config.training(bool(plan.classes), plan.batch)
        run = create_run(folder, self._training, plan, pictures)
        keep_kinds(folder, pictures)
        _note(run, config, self._source)

    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage | None:
        """Put adapters into a copy of the teacher; a fresh start needs the full gradient first."""
        config, plan, denoiser = self.config, self._plan, self._teacher.denoiser
        engine = engine.settled(denoiser, plan.batch, config.precision, config.amount)
        find = None
        if config.start == "lora-ga" and not run.checkpoints("teacher").paths():
            full = start_gradients(denoiser, self._pictures, plan, config, stop)

            def find(peft_config: Any) -> Gradients:  # noqa: ANN401 (PEFT's LoraConfig)
                found = full(peft_config)
                run.info["adapt"]["gradient_signal"] = found.total and found.total.signal
                run.write()
                return found

        try:
            with engine.seeded(config.seed):
                made = adapted_net(denoiser, config.start, config.rank, find)
        except StoppedError:
            return None  # nothing was trained; the same call begins with the gradient
        return AdaptStage(self._pictures, made, plan, self._training, engine)

    @property
    def pace(self) -> Pace:
        """As the recipe has it."""
        return teacher_pace(self.config.recipe)

    def save(self, run: Run, loop: Loop) -> None:
        """Write adapter/, then teacher/: the run is finished when its teacher is there."""
        stage = loop.stage
        assert isinstance(stage, AdaptStage)
        best = stage.best()
        if has_adapter(best):
            from noisewise.adapters import save

            save(network(best), run.path / "adapter")  # pyrefly: ignore
        save_model(run.path / "teacher", stage.merged(), stage.model_config())
        note_stage(run, loop, True, stage.stats())


def _note(run: Run, config: AdaptConfig, source: Path) -> None:
    """Note what is adapted and how; refuse to resume something else."""
    values = {
        **{key: value for key, value in asdict(config).items() if key != "recipe"},
        "teacher_from": str(source.resolve()),
        "teacher_digest": file_digest(source / "model.safetensors"),
    }
    before: dict[str, Any] = run.info.get("adapt", {})
    if not before and bool(run.checkpoints("teacher").paths()):
        raise ValueError(f"{run.path} was trained, not adapted; name a new folder with --out")
    for key in _MUST_MATCH if before else ():
        if before[key] != json.loads(json.dumps(values[key])):
            raise ValueError(
                f"{run.path}: {key} was {before[key]!r} and is now {values[key]!r}; use the same "
                "settings, or name a new folder with --out"
            )
    run.info["adapt"] = before | values
    run.write()


def load_teacher(folder: Path, build: Build | None = None) -> tuple[Teacher, Path]:
    """Load the teacher of a run, or of a teacher's folder; returns it and its folder.

    Raises:
        ValueError: if there is none.
    """
    if not (folder / "config.json").exists():
        run = Run(folder)
        run.need("teacher")
        folder = run.path / "teacher"
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} holds a {model.config.kind}, not a teacher")
    return model, folder
