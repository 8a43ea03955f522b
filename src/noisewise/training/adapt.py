"""A trained teacher moved to another folder: by low-rank adapters, or all of its weights.

The result is a run like any other: its teacher is the sum of the old one and the adapter, so that
`distill`, `sample`, `evaluate` and `report` need not know; beside it lies the adapter by itself, in
PEFT's format, to be put on the old teacher.

Papers: Hu et al. 2022 (LoRA); Wang et al. 2024 (LoRA-GA), for the start.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    LogNormal,
    Preconditioned,
    denoising_loss,
    draw_from_dict,
    stratified,
)
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.files.atomic import file_digest
from noisewise.training.files.lock import Before, locked
from noisewise.training.models.model_folder import Build, load_model, save_model
from noisewise.training.models.models import Teacher
from noisewise.training.run.kinds_file import keep_kinds, with_kinds
from noisewise.training.run.run import Run
from noisewise.training.settings.config import AdaptConfig, AdapterStart
from noisewise.training.stages.kinds import sorted_like
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.record import Record
from noisewise.training.stages.teacher import TeacherStage, teacher_pace

if TYPE_CHECKING:
    from noisewise.adapters import Gradients

OnRecord = Callable[[Record], object]

# Of AdamW, by start: what each learns best at, see docs/adapters.md.
_LR = {"lora-ga": 1e-2, "lora": 1e-2, "full": 3e-3}
_CHUNK = 64  # pictures in a batch of the start's gradient, at most
_BATCHES = 8  # of it, at least: their differences show its noise
_NO_MATCH = ("rank", "start", "samples", "teacher_digest")


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
    on_file: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    build: Build | None = None,
) -> Run:
    """Adapt a run's teacher to another folder of pictures, as a new run.

    The same call goes on where an earlier one stopped, as for `noisewise.train`.

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
        on_record: is given every step's record.
        on_file: is given (files read, files in all).
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
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = replace(config or AdaptConfig(), **changes)
    if config.start != "full":
        from noisewise.adapters.layers import need_peft

        need_peft()
    folder, teacher, source = Path(out), *_teacher(run, build)
    if folder.resolve() == source.resolve() or folder.resolve() == source.parent.resolve():
        raise ValueError(f"{folder} holds the teacher itself; name a new folder with --out")
    Run.check(folder)
    before = Before(folder)
    engine = Engine.choose(config.device, config.precision, config.threads)
    if engine.ranks.world > 1:
        raise ValueError("adapt works in one process; start it without torchrun")
    described = teacher.config
    with locked(folder):
        try:
            pictures = load_pictures(
                path,
                described.size,
                described.channels,
                folder / "cache",
                on_file,
                config.crop,
                config.background,
            )
            pictures = with_kinds(folder, pictures, partial(sorted_like, teacher))
            plan = plan_adaptation(teacher, pictures, config)
            training = config.training(bool(plan.classes), plan.batch)
            run_ = Run.create(folder, training, plan, pictures)
            keep_kinds(folder, pictures)
        except ValueError:
            before.restore()
            raise
        _begin(run_, config, source)
        engine = engine.settled(teacher.denoiser, plan.batch, config.precision, config.amount)
        _train(run_, teacher, pictures, plan, config, engine, on_record, stop)
    return run_


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
    if config.start != "full":
        from noisewise.adapters.layers import need_peft

        need_peft()
    teacher, _ = _teacher(run, build)
    size, channels = teacher.config.size, teacher.config.channels
    pictures = load_pictures(path, size, channels, crop=config.crop, background=config.background)
    return plan_adaptation(teacher, sorted_like(teacher, pictures), config)


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


class AdaptStage(TeacherStage):
    """Teacher training of a net whose frozen weights carry adapters; see `TeacherStage`."""

    def begin(self, seconds: float | None) -> Any:  # noqa: ANN401 (a Judgement)
        """As for a teacher; says what is trained."""
        judgement = super().begin(seconds)
        free = sum(p.numel() for p in self.denoiser.parameters() if p.requires_grad)
        event = f"{judgement.event}; {free:,} weights are trained"
        return replace(judgement, event=event)

    def merged(self) -> Preconditioned:
        """The best weights with the adapter added in float32: a denoiser like the teacher's."""
        best = copy.deepcopy(self.best())
        if hasattr(best.net, "peft_config"):
            from noisewise.adapters import merge

            best.net = merge(best.net)  # pyrefly: ignore
        return best

    def _compile(self) -> str:
        """Adapted nets are not compiled: timing knows only the package's own."""
        return ""


def adapted_net(
    denoiser: Preconditioned,
    start: AdapterStart,
    rank: int,
    gradients: Callable[[Any], Gradients] | None = None,
) -> Preconditioned:
    """A copy of a denoiser with trainable adapters in every layer that can have one.

    Args:
        denoiser: as trained.
        start: "lora-ga", "lora", or "full", which trains the copy itself.
        rank: of each adapter; smaller layers get all of their own rank.
        gradients: of "lora-ga": given PEFT's configuration, the full gradients; None: the factors
            are filled in later, from a checkpoint.

    Raises:
        ValueError: if no layer can be adapted.
    """
    made = copy.deepcopy(denoiser)
    if start == "full":
        made.requires_grad_(True)
        return made
    from peft import LoraConfig

    from noisewise.adapters import lora_ga
    from noisewise.adapters.layers import as_matrix, complaint, target_names
    from noisewise.adapters.saving import plain_ranks
    from noisewise.adapters.starts import wrapped

    made.requires_grad_(False)
    layers = {
        name: module for name, module in made.net.named_modules() if not complaint(name, module)
    }
    if not layers:
        raise ValueError("no layer of this net can be adapted; use --start full")
    ranks = {
        n: min(rank, *as_matrix(m, m.get_parameter("weight")).shape) for n, m in layers.items()
    }
    config = LoraConfig(target_modules=target_names(made.net, ranks), **plain_ranks(ranks))
    if start == "lora" or gradients is None:
        made.net = wrapped(made.net, config)
    else:
        made.net = lora_ga(made.net, config, gradients(config))
    return made


class StoppedError(Exception):
    """Somebody asked to stop before the first step."""


def start_gradients(
    denoiser: Preconditioned,
    pictures: Pictures,
    plan: TeacherPlan,
    config: AdaptConfig,
    stop: Callable[[], bool] | None = None,
) -> Callable[[Any], Gradients]:
    """Full gradients of the denoising loss on the new pictures, for a PEFT configuration.

    What it returns raises StoppedError when `stop`, asked before every batch, says so.
    """
    from noisewise.adapters import gradients

    chosen = pictures.split(config.seed)[0]
    generator = torch.Generator().manual_seed(config.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        left, chunk = config.samples, min(_CHUNK, max(1, config.samples // _BATCHES))
        while left > 0:
            if stop is not None and stop():
                raise StoppedError
            count = min(chunk, left, len(chosen))
            order = torch.randperm(len(chosen), generator=generator)[:count].numpy()
            x0 = pictures.tensor(chosen[order])
            sigma = stratified(plan.noise, count, generator, torch.device("cpu"))
            noise = torch.randn(x0.shape, generator=generator)
            labels = None
            if plan.classes:
                assert pictures.labels is not None
                labels = torch.from_numpy(pictures.labels[chosen[order]].astype("int64"))
            left -= count
            yield x0, sigma, noise, labels

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Tensor:
        x0, sigma, noise, labels = batch
        model = Preconditioned(net, denoiser.sigma_data, denoiser.prediction)
        return denoising_loss(model, x0, sigma, noise, plan.weight, labels).mean()

    return lambda peft_config: gradients(denoiser.net, peft_config, batches(), loss)


def _train(
    run: Run,
    teacher: Teacher,
    pictures: Pictures,
    plan: TeacherPlan,
    config: AdaptConfig,
    engine: Engine,
    on_record: OnRecord | None,
    stop: Callable[[], bool] | None,
) -> None:
    denoiser = teacher.denoiser
    assert isinstance(denoiser, Preconditioned)
    going_on = bool(run.checkpoints("teacher").paths())
    find = None
    if config.start == "lora-ga" and not going_on:
        full = start_gradients(denoiser, pictures, plan, config, stop)

        def find(peft_config: Any) -> Gradients:  # noqa: ANN401 (PEFT's LoraConfig)
            found = full(peft_config)
            run.info["adapt"]["gradient_signal"] = found.total and found.total.signal
            run.write()
            return found

    try:
        with engine.seeded(config.seed):
            made = adapted_net(denoiser, config.start, config.rank, find)
    except StoppedError:
        return  # nothing was trained; the same call begins with the gradient
    training = config.training(bool(plan.classes), plan.batch)
    stage = AdaptStage(pictures, made, plan, training, engine)
    loop = Loop(stage, config.amount, teacher_pace(config.recipe))
    resumed = run.resume(loop, "teacher")
    if not loop.finished:
        run.follow(loop, stage, config.checkpoint_seconds, on_record, stop, resumed)
    elif on_record is not None:
        on_record(loop.already_finished())
    if not loop.finished:
        run.note("teacher", loop, run.finished("teacher"), {})
    elif not run.stands(stage, loop):
        _save(run, stage, loop)


def _save(run: Run, stage: AdaptStage, loop: Loop) -> None:
    """The adapter first: the run is finished when its teacher is there."""
    best = stage.best()
    if hasattr(best.net, "peft_config"):
        from noisewise.adapters import save

        save(best.net, run.path / "adapter")  # pyrefly: ignore
    save_model(run.path / "teacher", stage.merged(), stage.model_config())
    run.note("teacher", loop, True, stage.stats)


def _begin(run: Run, config: AdaptConfig, source: Path) -> None:
    """Note what is adapted and how; refuse to go on with something else."""
    values = {
        **{key: value for key, value in asdict(config).items() if key != "recipe"},
        "teacher_from": str(source.resolve()),
        "teacher_digest": file_digest(source / "model.safetensors"),
    }
    before: dict[str, Any] = run.info.get("adapt", {})
    if not before and bool(run.checkpoints("teacher").paths()):
        raise ValueError(f"{run.path} was trained, not adapted; name a new folder with --out")
    for key in _NO_MATCH if before else ():
        if before[key] != json.loads(json.dumps(values[key])):
            raise ValueError(
                f"{run.path}: {key} was {before[key]!r} and is now {values[key]!r}; use the same "
                "settings, or name a new folder with --out"
            )
    run.info["adapt"] = before | values
    run.write()


def _teacher(run: Run | str | Path, build: Build | None) -> tuple[Teacher, Path]:
    """The teacher to be adapted, and its folder."""
    folder = run.path if isinstance(run, Run) else Path(run)
    if not (folder / "config.json").exists():
        opened = run if isinstance(run, Run) else Run.open(folder)
        opened.teacher(build)  # says what is missing
        folder = opened.path / "teacher"
    model = load_model(folder, build)
    if not isinstance(model, Teacher):
        raise ValueError(f"{folder} holds a {model.config.kind}, not a teacher")
    if not isinstance(model.denoiser, Preconditioned):
        raise ValueError("only a teacher trained by noisewise can be adapted")
    return model, folder
