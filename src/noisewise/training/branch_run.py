"""The critical batch of a run: short branches from its last checkpoint, at other batches and rates.

Each branch is a copy of the run in a temporary folder, which goes on over the same number of
images. Its rate stays at its top for half of them and then falls to 0, so that the noise of the
last steps does not decide. The run itself is only read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noisewise.scaling import Estimate, Measurement
from noisewise.scaling.branching import Branching, branch
from noisewise.training.callbacks import Callbacks
from noisewise.training.carry_out import carry_out
from noisewise.training.models.model_folder import Build
from noisewise.training.run.checkpoints import step_of
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import NOISE, known_batch
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.teacher import TeacherStage
from noisewise.training.train import TrainTask

OnBranch = Callable[[int, float, int], None]
"""Called before each branch: batch, learning rate, images."""

_SHARE = 5  # images of the training for each image of a branch, by default
_STEPS = 16  # fewest steps of a branch, by default
_LEFT_OUT = ("samples", "teacher", "generator", ".lock", "report.html")


def branch_run(
    path: str | Path,
    *,
    images: int | None = None,
    batches: Sequence[int] = (),
    powers: Sequence[float] = (0.5, 0.0, 1.0),
    lr: float | None = None,
    share: float = 0.8,
    tolerance: float | None = None,
    seconds: float | None = None,
    data: str | Path | None = None,
    on_branch: OnBranch | None = None,
    build: Build | None = None,
) -> Branching:
    """Train branches of a run and return its critical batch; see `noisewise.scaling.branch`.

    Args:
        path: folder of a run of `train`, with a checkpoint; finished or stopped.
        images: of each branch; None: a fifth of those seen so far, at least 16 steps of the
            largest batch.
        batches: larger batches to try; empty: 2, 4 and 8 times the run's.
        powers: rates to try at batch B: the run's times (B / batch)^power.
        lr: the rate of the run's batch; None: the run's.
        share: of the images with which the run's batch sets the target.
        tolerance: held-out loss that a larger batch may lose; then `share` has no effect.
        seconds: no branch begins that would end later; None: no limit.
        data: where the pictures are now; None: where the run read them.
        on_branch: called before each branch.
        build: as for `train`.

    Raises:
        ValueError: if the run has no checkpoint or its pictures are gone, if another process
            trains in it, or for numbers that cannot be used.
        OSError: if the run cannot be copied.

    Example:
        >>> from noisewise.training.branch_run import branch_run
        >>> try:
        ...     branch_run("no/such/run")
        ... except ValueError as error:
        ...     print(str(error)[:25])
        no/such/run is not a run;
    """
    run = Run(path)
    config, batch, lr = _settings(run), known_batch(run.info), _rate(run, lr)
    seen, source = _seen(run, batch), data if data is not None else run.source()
    if source is None:
        raise ValueError(f"the pictures of {path} are gone: say where they are now (--data)")
    largest = max(batches, default=8 * batch)
    count = images if images is not None else max(seen // _SHARE, _STEPS * largest)

    def train(size: int, rate: float, more: int) -> float:
        if on_branch is not None:
            on_branch(size, rate, more)
        with TemporaryDirectory(prefix="noisewise-branch-") as folder:
            there = Path(folder) / "run"
            changed = _branched(config, seen, more, size, rate)
            _copy(run, there, changed)
            task = TrainTask(source, there, changed, build)
            stage = carry_out(task, Callbacks(None, None, None)).stage
            assert isinstance(stage, TeacherStage)
            return min(filter(math.isfinite, stage.judged.losses), default=math.inf)

    return branch(
        train,
        batch=batch,
        lr=lr,
        examples=count,
        batches=batches,
        powers=powers,
        share=share,
        tolerance=tolerance,
        seconds=seconds,
        seen=seen,
        noise_scale=_noise_scale(run.path),
    )


def _settings(run: Run) -> TrainConfig:
    """The settings that the run was started with."""
    stored = run.info.get("train")
    if not isinstance(stored, Mapping):
        raise ValueError(f"{run.path} has no settings of a training, so it cannot go on")
    known = {f.name for f in fields(TrainConfig)}
    recipe: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dict(stored.get("recipe", {})).items()
        if name in {f.name for f in fields(TeacherRecipe)}
    }
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
        if name in known and name != "recipe"
    }
    return TrainConfig(**values, recipe=TeacherRecipe(**recipe))


def _rate(run: Run, lr: float | None) -> float:
    noted = run.info.get("derived", {}).get("lr", {})
    found = lr if lr is not None else noted.get("value")
    if not isinstance(found, (int, float)):
        raise ValueError(f"the learning rate of {run.path} is unknown: give it (--lr)")
    return float(found)


def _seen(run: Run, batch: int) -> int:
    """Images before the newest checkpoint; a run that was killed has noted only its log."""
    if run.info.get("adapt"):
        raise ValueError(f"{run.path} was adapted from another run: name a run of noisewise train")
    paths = run.checkpoints("teacher").paths()
    if not paths:
        raise ValueError(
            f"{run.path} has no checkpoint to branch from: train it first, for a minute or more"
        )
    step = step_of(paths[0])
    if step is None:  # of an older version, whose checkpoints have no number
        return run.stage("teacher").images
    before = [r for r in run.records() if r.stage == "teacher" and r.step <= step]
    if not before:
        return step * batch
    return before[-1].images + (step - before[-1].step) * batch


def _branched(config: TrainConfig, seen: int, more: int, batch: int, lr: float) -> TrainConfig:
    """The same settings for a branch: a constant rate, which falls over its second half."""
    recipe = replace(
        config.recipe,
        warmup=0.0,
        decay_from=(seen + more / 2) / (seen + more),
        distance_images=0,
        sampler_images=0,
        noise_every=0,
    )
    return replace(
        config,
        budget=f"{seen + more}images",
        batch=batch,
        lr=lr,
        lr_from=None,
        recipe=recipe,
    )


def _copy(run: Run, there: Path, config: TrainConfig) -> None:
    """A copy of the run that was started with these settings."""
    with run.locked():
        shutil.copytree(run.path, there, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    copy = Run(there)
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    copy.info["train"] = settings | {"batch": run.info["train"].get("batch")}
    copy.write()


def _noise_scale(folder: Path) -> Estimate:
    """What the run measured itself; unknown if it measured nothing."""
    if not (folder / NOISE).exists():
        return Estimate.unknown()
    found = Measurement.load(folder / NOISE)
    return found.b_simple if not math.isnan(found.b_simple.value) else Estimate.unknown()
