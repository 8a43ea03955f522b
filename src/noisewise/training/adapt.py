"""`adapt` adapts a trained teacher to another folder of pictures, as a new run.

The result is a run like any other: its teacher is the old teacher with the adapter added, so
`distill`, `sample`, `evaluate` and `report` work as usual. The adapter alone is also saved, in
PEFT's format, for use with the old teacher.

Papers: Hu et al. 2022 (LoRA); Wang et al. 2024 (LoRA-GA), for the start.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.diffusion import draw_from_dict
from noisewise.pictures.dim import refuse_black
from noisewise.pictures.given import Given, as_file
from noisewise.pictures.older_labels import as_labelled_before, in_class_order
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.sizes import Size, as_size
from noisewise.training.callbacks import Callbacks, OnFile, OnRecord, Stop
from noisewise.training.carry_out import Task, carry_out
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import file_digest
from noisewise.training.files.run_folder import is_run
from noisewise.training.models.model_folder import Build, load_model, save_model
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.run.begin import as_begun, check_folder, create_run, with_twins
from noisewise.training.run.follow import note_stage
from noisewise.training.run.kinds_file import save_kinds, with_kinds
from noisewise.training.run.resumed_plan import as_in_run, with_palette_of_run
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
from noisewise.training.stages.choose_palette import plan_palette
from noisewise.training.stages.few_pictures import plan_few
from noisewise.training.stages.kinds import sorted_into_kinds, sorted_like
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan, why_crops
from noisewise.training.stages.stage import Pace, Stage
from noisewise.training.stages.teacher import teacher_pace
from noisewise.training.stages.told import can_be_told
from noisewise.training.starts.base import Base, base_of
from noisewise.training.starts.candidates import Candidate
from noisewise.training.starts.decide import ENTRY, noted_as, started
from noisewise.training.starts.mapped import fits_as_it_is, mapped_plan, start_of

if TYPE_CHECKING:
    from noisewise.adapters import Gradients

# The best learning rate of AdamW for each start, see docs/adapters.md.
_LR = {"lora-ga": 1e-2, "lora": 1e-2, "full": 3e-3}
_MUST_MATCH = ("rank", "start", "samples", "size", "channels", "teacher_digest")


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
) -> Run:
    """Adapt a run's teacher to another folder of pictures, as a new run.

    Call it again to resume a stopped adaptation, as for `noisewise.train`.

    Args:
        run: a run with a finished teacher, or the folder of a teacher.
        path: folder, .zip, .npz or .npy of pictures, or pictures in memory as for `train`; they
            are converted to the size and channels of the teacher, unless config says others. A
            teacher with classes needs the same classes. With start "full", other sizes, channels
            and classes are mapped, as `train` does with `start_from`.
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

    Returns:
        The new run: `teacher/` holds the adapted teacher, `adapter/` the adapter alone.

    Raises:
        ValueError: if there is no teacher, the pictures do not fit it, or PEFT is not installed.
        TrainingFailed: if training failed more often than the recipe allows (`tries`).
    """
    given = {"budget": budget, "rank": rank, "start": start, "seed": seed}
    config = overridden(config or AdaptConfig(), given)
    folder = run.path if isinstance(run, Run) else Path(run)
    task = AdaptTask(folder, path, Path(out), config, build)
    return carry_out(task, Callbacks(on_record, on_file, stop)).run


def plan_adapt(
    run: Run | str | Path,
    path: str | Path,
    config: AdaptConfig | None = None,
    build: Build | None = None,
) -> TeacherPlan:
    """Derive every value that `adapt` would use, with reasons, without training (--dry-run).

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
    teacher, folder = load_teacher(run.path if isinstance(run, Run) else Path(run), build)
    pictures = load_pictures(
        path,
        *_form(teacher, config),
        crop=config.crop,
        background=config.background,
        crops=config.crops,
        keep_whole=config.keep_whole,
    )
    pictures = _sorted(teacher, config, _like_teacher(teacher, pictures))
    planned = _planned(base_of(teacher, folder), pictures, config, build)
    return replace(planned, notes=pictures.notes)


def _like_teacher(teacher: Teacher, pictures: Pictures, folder: Path | None = None) -> Pictures:
    """The pictures with their classes in the teacher's order, and as in a run that goes on."""
    if folder is not None and is_run(folder):
        return as_labelled_before(pictures, Run(folder).data.fingerprint)
    refuse_black(pictures.images, pictures.source)
    return in_class_order(pictures, teacher.config.classes)


def _form(teacher: Teacher, config: AdaptConfig) -> tuple[Size, int]:
    """Size and channels of the new pictures: the teacher's, unless the settings say others."""
    described = teacher.config
    size = described.size if config.size is None else as_size(config.size)
    return size, config.channels or described.channels


def _sorted(teacher: Teacher, config: AdaptConfig, pictures: Pictures) -> Pictures:
    """The pictures in the kinds of the teacher; with other channels, in kinds of their own."""
    if pictures.channels == teacher.config.channels:
        return sorted_like(teacher, pictures)
    if not teacher.config.stats.get("kinds"):
        return pictures
    return sorted_into_kinds(pictures, config.training(False))


def _planned(
    base: Base, pictures: Pictures, config: AdaptConfig, build: Build | None
) -> TeacherPlan:
    """The plan: of the teacher's form, or mapped to that of the pictures."""
    if config.start != "full" or fits_as_it_is(base.teacher.config, pictures):
        return plan_adaptation(base.teacher, pictures, config)
    return mapped_plan(base, pictures, config, build)


def _need_extra(config: AdaptConfig) -> None:
    """Refuse adapters if PEFT is not installed."""
    if config.start != "full":
        from noisewise.adapters.layers import need_peft

        need_peft()


def plan_adaptation(teacher: Teacher, pictures: Pictures, config: AdaptConfig) -> TeacherPlan:
    """The training plan: net, scale and noise of the teacher, flips of the new pictures.

    Raises:
        ValueError: if there are too few pictures, or their classes are not those of the teacher.
    """
    described = teacher.config
    if len(pictures) < 2:
        raise ValueError(f"{pictures.source} has {len(pictures)} pictures; at least 2 are needed")
    if described.classes and tuple(pictures.classes) != described.classes:
        known, new = ", ".join(described.classes[:5]), ", ".join(pictures.classes[:5])
        raise ValueError(
            f"the teacher has {len(described.classes)} classes ({known}), {pictures.source} has "
            f"{len(pictures.classes)} ({new or 'none'}); give its subfolders the same names, use "
            "--start full, or adapt a teacher without classes"
        )
    flips, why_flips = pictures.suggest_flip()
    if config.flips != "auto":
        flips, why_flips = config.flips == "on", "set by hand"
    augment, why_augment = _changes(teacher, pictures, config, flips)
    palette = plan_palette(config, pictures, described.palette)
    lr = config.lr or _LR[config.start]
    batch = config.batch or config.recipe.batch
    kept = "as in the teacher; its net works with no other value"
    as_teacher = "as in the teacher"
    by_hand = "set by hand"
    why_lr = f"best for start {config.start} in our tests, see docs/adapters.md"
    return TeacherPlan(
        size=described.size,
        channels=described.channels,
        classes=described.classes,
        net=described.net,
        prediction=described.prediction,
        sigma_data=described.sigma_data,
        noise=draw_from_dict(described.noise),
        noise_scale=described.noise_scale,
        sigma_max=described.sampler.sigma_max,
        loss=described.loss,
        multiscale=described.multiscale,
        batch=batch,
        accumulate=1,
        cost={},
        lr=lr,
        adam_lr=lr,
        flips=flips,
        crops=config.crops,
        palette=palette,
        augment=augment,
        reasons={
            "size": kept,
            "channels": kept,
            "classes": kept,
            "net": kept,
            "sigma_data": kept,
            "noise": kept,
            "noise_scale": as_teacher,
            "sigma_max": as_teacher,
            "loss": as_teacher,
            "multiscale": as_teacher,
            "batch": by_hand if config.batch else "default of the recipe",
            "lr": by_hand if config.lr else why_lr,
            "flips": why_flips,
            "palette": palette.reason,
            "augment": why_augment,
            **why_crops(pictures),
        },
    )


def _changes(
    teacher: Teacher, pictures: Pictures, config: AdaptConfig, flips: bool
) -> tuple[dict[str, Any], str]:
    """The changes that a person asks for, as an `Augmentation` in a dict, and the reason.

    Raises:
        ValueError: if the pictures cannot have them, or the net cannot be told.
    """
    if config.augment == "auto":
        return {}, "none: a teacher that is adapted in its own form sees pictures as they are"
    if config.augment != "none" and not can_be_told(teacher.denoiser):
        raise ValueError("the net of this teacher is not told of changes; leave augment out")
    few = plan_few(config.training(False), pictures, None, flips)
    return few.augment, few.reasons["augment"]


class AdaptTask(Task[AdaptConfig]):
    """Load a teacher, read pictures, train adapters, merge and save them."""

    def __init__(
        self, teacher: Path, path: Given, folder: Path, config: AdaptConfig, build: Build | None
    ) -> None:
        """Store the arguments; nothing is read yet."""
        self.folder = folder
        self.config = config
        self._given, self._path, self._build = teacher, path, build
        self._plan: TeacherPlan | None = None

    def check(self, engine: Engine) -> None:
        """Refuse missing PEFT, a missing teacher, the folder of the teacher, several processes."""
        _need_extra(self.config)
        self._teacher, self._source = load_teacher(self._given, self._build)
        if self.folder.resolve() in (self._source.resolve(), self._source.parent.resolve()):
            raise ValueError(
                f"{self.folder} contains the teacher itself; choose a new folder with --out"
            )
        check_folder(self.folder)
        if engine.ranks.world > 1:
            raise ValueError("adapt runs in one process only; start it without torchrun")

    def prepare(self, engine: Engine, callbacks: Callbacks) -> None:
        """Read the pictures at the teacher's size, derive the plan, create the run."""
        self.config = config = as_begun(self.config, self.folder)
        folder = self.folder
        pictures = load_pictures(
            as_file(self._path, folder / "cache"),
            *_form(self._teacher, config),
            folder / "cache",
            callbacks.on_file,
            config.crop,
            config.background,
            config.crops,
            config.keep_whole,
        )
        pictures = with_twins(folder, _like_teacher(self._teacher, pictures, folder))
        pictures = with_kinds(folder, pictures, partial(_sorted, self._teacher, config))
        self._pictures, base = pictures, base_of(self._teacher, self._source)
        plan = as_in_run(_planned(base, pictures, config, self._build), folder)
        self._plan = plan = with_palette_of_run(plan, folder)
        self._training = config.training(bool(plan.classes), plan.batch)
        self._start = start_of(base, plan, pictures, self._build)
        run = create_run(folder, self._training, plan, pictures)
        save_kinds(folder, pictures)
        _note(run, config, self._source, self._start)

    def stage(self, run: Run, engine: Engine, stop: Stop | None) -> Stage | None:
        """Add adapters to a copy of the teacher; lora-ga measures the full gradient first."""
        config, plan, denoiser = self.config, self._plan, self._teacher.denoiser
        assert plan is not None
        engine = engine.with_measured_precision(
            denoiser, plan.batch, config.precision, config.amount
        )
        find = None
        if config.start == "lora-ga" and not run.checkpoints("teacher").paths():
            full = start_gradients(denoiser, self._pictures, plan, config, stop)

            def find(peft_config: Any) -> Gradients:  # noqa: ANN401 (PEFT's LoraConfig)
                found = full(peft_config)
                run.info["adapt"]["gradient_signal"] = found.total and found.total.signal
                run.write()
                return found

        if config.start == "full" and plan.prediction != "denoiser":
            made = started(self._start, self._training, engine, self._build)
        else:
            try:
                with engine.seeded(config.seed):
                    made = adapted_net(denoiser, config.start, config.rank, find)
            except StoppedError:
                return None  # nothing was trained; the next call measures the gradient again
        stage = AdaptStage(self._pictures, made, plan, self._training, engine)
        stage.says(run.info.get(ENTRY, {}))
        return stage

    def need_less_memory(self, resume: str) -> str:
        """A smaller batch, which may differ when a run resumes."""
        if self._plan is None or self._plan.batch < 2:
            return super().need_less_memory(resume)
        return f"run the same command with --batch {self._plan.batch // 2}{resume}"

    @property
    def pace(self) -> Pace:
        """Schedule of the recipe."""
        return teacher_pace(self.config.recipe)

    def save(self, run: Run, loop: Loop) -> None:
        """Write adapter/, then teacher/: a run is finished once it has a teacher."""
        stage = loop.stage
        assert isinstance(stage, AdaptStage)
        best = stage.best()
        if has_adapter(best):
            from noisewise.adapters import save

            save(network(best), run.path / "adapter")  # pyrefly: ignore
        save_model(run.path / "teacher", stage.merged(), stage.model_config())
        note_stage(run, loop, True, stage.stats())


def _note(run: Run, config: AdaptConfig, source: Path, start: Candidate) -> None:
    """Write the adaptation settings into run.json; refuse to resume with other ones."""
    values = {
        **{key: value for key, value in asdict(config).items() if key != "recipe"},
        "teacher_from": str(source.resolve()),
        "teacher_digest": file_digest(source / "model.safetensors"),
    }
    before: dict[str, Any] = run.info.get("adapt", {})
    if not before and bool(run.checkpoints("teacher").paths()):
        raise ValueError(f"{run.path} was trained, not adapted; choose a new folder with --out")
    for key in _MUST_MATCH if before else ():
        if before.get(key) != json.loads(json.dumps(values[key])):
            raise ValueError(
                f"{run.path}: {key} was {before.get(key)!r} and is now {values[key]!r}; use the "
                "same settings, or choose a new folder with --out"
            )
    run.info["adapt"] = before | values
    run.info.setdefault(ENTRY, noted_as(start, start.plan.reasons.get("start", "")))
    run.write()


def load_teacher(folder: Path, build: Build | None = None) -> tuple[Teacher, Path]:
    """Load a teacher from a run or from its own folder; return it and its folder.

    Raises:
        ValueError: if there is no teacher.
    """
    if not (folder / "config.json").exists():
        run = Run(folder)
        run.need("teacher")
        folder = run.path / "teacher"
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} contains a {model.config.kind}, not a teacher")
    return model, folder
