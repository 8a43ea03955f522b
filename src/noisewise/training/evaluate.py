"""The verb `evaluate`: draw pictures from a trained model and measure them against real ones.

`evaluate` reads everything from a run. `measure` takes a model and pictures that are already in
memory and knows no run: the report reads once and measures every way to draw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures
from noisewise.pictures.source_types import source_type
from noisewise.quality.copies import CopyTest
from noisewise.quality.distance import Distance, sliced_wasserstein
from noisewise.quality.eight_bits import rounded
from noisewise.quality.inception import check_weights, inception_distance
from noisewise.quality.near_copies import NearCopyTest
from noisewise.training.callbacks import OnPart
from noisewise.training.devices.engine import Engine
from noisewise.training.evaluation import Evaluation
from noisewise.training.load import load
from noisewise.training.look import Look, RealPictures, look_at
from noisewise.training.models.model import OnDrawn
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig
from noisewise.training.training_set import MOST, CopyTests, TrainingSet

_WARM_UP = 8  # pictures drawn before the clock starts


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found about one model.

    Attributes:
        pictures: generated, float32 [n, channels, height, width] in [-1, 1], on the CPU.
        seconds_per_image: time to draw one picture, in batches.
        look: everything that was found about them, beside copies.
        copies: which pictures copy a training picture; None if there was nothing to compare with.
        near_copies: which are training pictures with small changes; None likewise.
    """

    pictures: Tensor
    seconds_per_image: float
    look: Look
    copies: CopyTest | None
    near_copies: NearCopyTest | None

    @property
    def distance(self) -> Distance:
        """To the real pictures, in frozen features: comparable between runs."""
        return self.look.floors.parts[0]

    def to_dict(self) -> dict[str, Any]:
        """The verdict and its numbers as plain JSON values, copies among them."""
        copies = None if self.copies is None else _plain(self.copies, self.near_copies)
        found: dict[str, Any] = {**self.look.to_dict(), "copies": copies}
        if copied := _copied_in_words(self.near_copies):
            found["verdict_reason"] += f". But {copied}"
        return found


def evaluate(
    run: Run | str | Path,
    against: str | Path | None = None,
    *,
    data: str | Path | None = None,
    num_images: int | None = None,
    seed: int | None = None,
    config: EvaluateConfig | None = None,
    on_part: OnPart | None = None,
    build: Build | None = None,
) -> Evaluation:
    """Draw pictures from a run and measure them against real ones.

    Args:
        run: a run with a finished teacher, or its folder.
        against: folder, zip or npz of real pictures; None: the held-out pictures, or the training
            pictures if fewer than 256 are held out.
        data: where the training pictures lie now, if they were moved; the run notes it.
        num_images: how many pictures to draw.
        seed: of the pictures drawn.
        config: all settings; the arguments above replace its values.
        on_part: called with (what is being done, done, of all), after all settings are checked.
        build: makes the nets from their configuration; None: the nets of this package.

    Raises:
        ValueError: if there is no model, there are no real pictures to compare with, or FID is
            asked for and cannot be measured.
    """
    if not (against is None or isinstance(against, str | Path)):
        raise ValueError(
            f"against is a {type(against).__name__}: give the path of a folder, .zip or .npz; for "
            "pictures in memory use noisewise.quality.Judge"
        )
    config = config or EvaluateConfig()
    config = replace(
        config,
        against=config.against if against is None else str(against),
        data=config.data if data is None else str(data),
        num_images=config.num_images if num_images is None else num_images,
        seed=config.seed if seed is None else seed,
    )
    run = run if isinstance(run, Run) else Run(run)
    model = _checked(run, config, build)
    tell = on_part or _silent
    tell("reading the pictures", 0, 0)
    training = _training_set(run, config)
    real = _real(run, config, model, training, _teacher_of(run, model, config, build))
    copies = None
    if training is not None:
        tell("preparing the tests for copies", 0, 0)
        copies = CopyTests.of(training)
    found = measure(model, real, copies, config, tell)
    seeded = torch.Generator().manual_seed(0)
    levels = sliced_wasserstein(found.pictures, real.pictures, generator=seeded)
    papers = None
    if config.fid_weights is not None:
        papers = inception_distance(found.pictures, real.pictures, config.fid_weights)
    return Evaluation(
        model=model.config.kind,
        num_images=len(found.pictures),
        against=real.name,
        **found.to_dict(),
        distance=float(found.distance.value),
        distance_low=float(found.distance.low),
        distance_high=float(found.distance.high),
        floor=float(found.distance.floor),
        wasserstein=tuple(levels),
        seconds_per_image=found.seconds_per_image,
        network_calls=model.network_calls(config.calls, config.sampler, config.guidance),
        device=str(model.device),
        fid=None if papers is None else papers.fid,
        kid=None if papers is None else papers.kid,
    )


def measure(
    model: Generator | Teacher,
    real: RealPictures,
    copies: CopyTests | None,
    config: EvaluateConfig,
    on_part: OnPart | None = None,
) -> Measured:
    """Draw pictures from a model and measure them: everything people are shown, copies, time.

    Args:
        model: on the device where it draws.
        real: the pictures to measure the distance to.
        copies: the training pictures; None: copies are not looked for.
        config: how many pictures, their seed, and the calls for each.
        on_part: called with (what is being done, done, of all).

    Raises:
        ValueError: if the model cannot draw in that many calls, or sizes or channels differ.
    """
    tell, wanted = on_part or _silent, config.num_images

    def drawn(done: int) -> None:
        tell("drawing", done, wanted)

    drawn(0)
    ways = (config.calls, config.sampler, config.guidance)
    pictures, seconds = draw_timed(model, wanted, config.seed, *ways, drawn)
    tell("judging", 0, 0)
    look = look_at(pictures, real)
    near = None if copies is None else copies.near
    if copies is not None:
        tell("looking for copies", 0, 0)
    return Measured(
        pictures,
        seconds / len(pictures),
        look,
        None if copies is None else copies.exact.test(pictures),
        None if near is None else near.test(rounded(pictures)),
    )


def draw_timed(
    model: Generator | Teacher,
    num_images: int,
    seed: int,
    calls: int | None = None,
    sampler: str | None = None,
    guidance: float | None = None,
    on_drawn: OnDrawn | None = None,
) -> tuple[Tensor, float]:
    """Draw pictures and measure the time; a small batch before it warms up.

    Args:
        model: on the device where it draws.
        num_images: how many.
        seed: picture i depends on the seed and on i alone.
        calls: network calls for each picture; None: the model's own number.
        sampler: of a teacher, by name; None: its own.
        guidance: of a teacher; None: its own.
        on_drawn: called with the number of pictures drawn so far, 0 when the time begins.

    Returns:
        Pictures, float32 [num_images, channels, height, width] in [-1, 1] on the CPU, and seconds.
    """
    engine = Engine(model.device)
    model.sample(min(_WARM_UP, num_images), seed, None, calls, sampler, guidance)
    engine.synchronize()
    if on_drawn is not None:
        on_drawn(0)
    start = time.perf_counter()
    pictures = model.sample(num_images, seed, None, calls, sampler, guidance, on_drawn)
    engine.synchronize()
    return pictures.cpu(), time.perf_counter() - start


def _silent(part: str, done: int, total: int) -> None:
    """Tell nobody."""


def _checked(run: Run, config: EvaluateConfig, build: Build | None) -> Generator | Teacher:
    """Load the model; refuse settings that cannot work before pictures are read or drawn."""
    if config.fid_weights is not None:
        check_weights(config.fid_weights)
    if config.against is not None:
        source_type(Path(config.against).expanduser())
    elif config.data is None and run.source() is None:
        raise ValueError(_no_real_pictures(run, "are missing"))
    if config.data is not None:
        source_type(Path(config.data).expanduser())
    model = load(run, "teacher" if config.teacher else "auto", config.device, build)
    model.network_calls(config.calls, config.sampler, config.guidance)
    return model


def _no_real_pictures(run: Run, why: str) -> str:
    return (
        f"the training pictures ({run.data.name}) {why}; say where they are "
        "now with --data FOLDER, or give other real pictures with --against"
    )


def _training_set(run: Run, config: EvaluateConfig) -> TrainingSet | None:
    """The pictures of the run; None if they cannot be used and others are given."""
    try:
        return TrainingSet.read(run, config.data)
    except ValueError as error:
        if config.data is not None:
            raise
        if config.against is not None:
            return None
        why = str(error).rstrip(".")
        raise ValueError(_no_real_pictures(run, f"cannot be used ({why})")) from error


def _teacher_of(
    run: Run, model: Generator | Teacher, config: EvaluateConfig, build: Build | None
) -> Teacher | None:
    """The teacher whose features the judge reads; None if it is not in the run."""
    if isinstance(model, Teacher):
        return model
    try:
        teacher = load(run, "teacher", config.device, build)
    except ValueError:
        return None
    return teacher if isinstance(teacher, Teacher) else None


def _real(
    run: Run,
    config: EvaluateConfig,
    model: Generator | Teacher,
    training: TrainingSet | None,
    teacher: Teacher | None,
) -> RealPictures:
    """The pictures asked for with `against`, else those of the run."""
    if config.against is not None:
        pictures = run.other_pictures(config.against, model.size, model.channels)
        chosen = np.random.default_rng(0).permutation(len(pictures))[:MOST]
        name = f"{len(chosen)} pictures of {config.against}{_read_how(pictures, training)}"
        return RealPictures(pictures.shown(chosen), name, teacher)
    assert training is not None
    return training.real(teacher)


def _read_how(pictures: Pictures, training: TrainingSet | None) -> str:
    """What was done to other pictures so that they can be compared, in brackets; or ""."""
    notes = list(pictures.notes)
    if training is not None and pictures.fingerprint == training.pictures.fingerprint:
        notes.insert(0, "training pictures are among them")
    return f" ({'; '.join(notes)})" if notes else ""


def _copied_in_words(near: NearCopyTest | None) -> str:
    """That surely more pictures are near copies than real ones look so; or ""."""
    if near is None or near.low <= near.allowed:
        return ""
    return (
        f"{100 * near.fraction:.0f}% of them are training pictures with small changes "
        f"({100 * near.allowed:.0f}% of new real pictures look so), which no other number sees"
    )


def _plain(found: CopyTest, near: NearCopyTest | None) -> dict[str, Any]:
    """The numbers of both copy tests as JSON values."""
    values = {
        "fraction": found.fraction,
        "low": found.low,
        "high": found.high,
        "threshold": found.threshold,
        "held_out_fraction": found.held_out_fraction,
    }
    plain: dict[str, Any] = {k: float(v) for k, v in values.items() if v is not None}
    if near is not None:
        plain["near"] = {
            "fraction": near.fraction,
            "low": near.low,
            "high": near.high,
            "allowed": near.allowed,
            "power": near.power,
            "power_by_change": near.power_by_change,
            "can_tell": near.can_tell,
            "says": near.verdict,
        }
    return plain
