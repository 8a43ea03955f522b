"""The verb `evaluate`: draw pictures from a trained model and measure them against real ones.

`evaluate` reads everything from a run. `measure` takes a model and pictures that are already in
memory and knows no run: the report reads once and measures every way to draw.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.quality.copies import CopyReference, CopyTest
from noisewise.quality.distance import Distance, Reference, sliced_wasserstein
from noisewise.training.devices.engine import Engine
from noisewise.training.load import load
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig

_ENOUGH = 256  # held-out pictures; with fewer, the distance is measured to training pictures
_MOST = 2000  # real pictures to measure against
_WARM_UP = 8  # pictures drawn before the clock starts


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        model: "generator" or "teacher".
        num_images: pictures generated.
        against: which real pictures, and how many.
        distance: unbiased kernel distance in fixed random features (it is not FID); 0 in
            expectation if generated and real pictures have the same law.
        distance_low: lower end of its 95% interval.
        distance_high: upper end of its 95% interval.
        floor: as many real pictures stay below this distance 95 times in 100.
        wasserstein: sliced Wasserstein distance of each Laplacian level, coarse to fine.
        copies: share of generated pictures that copy a training picture, with interval and
            threshold; None if the training pictures are missing.
        seconds_per_image: time to draw one picture, in batches.
        network_calls: calls for each picture.
        device: where the pictures were drawn.
    """

    model: str
    num_images: int
    against: str
    distance: float
    distance_low: float
    distance_high: float
    floor: float
    wasserstein: tuple[float, ...]
    copies: dict[str, float] | None
    seconds_per_image: float
    network_calls: int
    device: str

    def __repr__(self) -> str:
        """One line; `to_dict` has all of it."""
        copies = "" if self.copies is None else f", {100 * self.copies['fraction']:.2g}% copies"
        calls = "1 call" if self.network_calls == 1 else f"{self.network_calls} calls"
        return (
            f"Evaluation({self.model}, {calls}: distance {self.distance:.4f} "
            f"[{self.distance_low:.4f}, {self.distance_high:.4f}], floor {self.floor:.4f}{copies}, "
            f"{self.num_images:,} against {self.against})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "wasserstein": list(self.wasserstein)}


@dataclass(frozen=True, eq=False)
class RealPictures:
    """Real pictures to measure against; what they cost is paid once, for any number of models.

    Attributes:
        pictures: float32 [n, channels, size, size] in [-1, 1].
        name: how many, and which ones, for people.
    """

    pictures: Tensor
    name: str

    @cached_property
    def reference(self) -> Reference:
        """Their features and their distance from each other."""
        return Reference(self.pictures)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The pictures of a run, read once.

    Attributes:
        pictures: all of them.
        trained: indices of the pictures that were trained on.
        held_out: indices of the held-out pictures.
        flips: a mirror image of a training picture is a copy too.
    """

    pictures: Pictures
    trained: np.ndarray
    held_out: np.ndarray
    flips: bool

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read the pictures that a run was trained on.

        Raises:
            ValueError: if they are missing or have changed.
        """
        pictures = run.pictures()
        trained, held_out = pictures.split(run.seed)
        return cls(pictures, trained, held_out, mirrored(run, pictures))

    def real(self) -> RealPictures:
        """At most 2,000 held-out pictures; training pictures if fewer than 256 are held out."""
        if len(self.held_out) >= _ENOUGH:
            chosen = self.held_out[:_MOST]
            return RealPictures(self.pictures.tensor(chosen), f"{len(chosen)} held-out pictures")
        chosen = self.trained[:_MOST]
        name = f"{len(chosen)} training pictures (too few are held out)"
        return RealPictures(self.pictures.tensor(chosen), name)

    def copies(self) -> CopyReference:
        """The test for copies of any training picture, already applied to the held-out pictures."""
        unseen = self.pictures.tensor(self.held_out[:_MOST]) if len(self.held_out) else None
        return CopyReference(self.pictures.tensor(self.trained), unseen, flips=self.flips)


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found about one model.

    Attributes:
        pictures: the generated pictures, float32 [n, channels, size, size] in [-1, 1], on the CPU.
        seconds_per_image: time to draw one picture, in batches.
        distance: to the real pictures.
        copies: which pictures copy a training picture; None if there was nothing to compare with.
    """

    pictures: Tensor
    seconds_per_image: float
    distance: Distance
    copies: CopyTest | None


def evaluate(
    run: Run | str | Path,
    against: str | Path | None = None,
    *,
    num_images: int | None = None,
    seed: int | None = None,
    config: EvaluateConfig | None = None,
    build: Build | None = None,
) -> Evaluation:
    """Draw pictures from a run and measure them against real ones.

    Args:
        run: a run with a finished teacher, or its folder.
        against: folder, zip or npz of real pictures; None: the held-out pictures, or the training
            pictures if fewer than 256 are held out.
        num_images: how many pictures to draw.
        seed: of the pictures drawn.
        config: all settings; the arguments above replace its values.
        build: makes the nets from their configuration; None: the nets of this package.

    Raises:
        ValueError: if there is no model, or there are no real pictures to compare with.
    """
    config = config or EvaluateConfig()
    config = replace(
        config,
        against=config.against if against is None else str(against),
        num_images=config.num_images if num_images is None else num_images,
        seed=config.seed if seed is None else seed,
    )
    run = run if isinstance(run, Run) else Run(run)
    model = load(run, "teacher" if config.teacher else "auto", config.device, build)
    try:
        training = TrainingSet.read(run)
    except ValueError:
        training = None
    real = _real(run, config, model, training)
    found = measure(model, real, None if training is None else training.copies(), config)
    levels = sliced_wasserstein(
        found.pictures, real.pictures, generator=torch.Generator().manual_seed(0)
    )
    return Evaluation(
        model=model.config.kind,
        num_images=len(found.pictures),
        against=real.name,
        distance=float(found.distance.value),
        distance_low=float(found.distance.low),
        distance_high=float(found.distance.high),
        floor=float(found.distance.floor),
        wasserstein=tuple(levels),
        copies=None if found.copies is None else _plain(found.copies),
        seconds_per_image=found.seconds_per_image,
        network_calls=model.network_calls(config.calls, config.sampler),
        device=str(model.device),
    )


def measure(
    model: Generator | Teacher,
    real: RealPictures,
    copies: CopyReference | None,
    config: EvaluateConfig,
) -> Measured:
    """Draw pictures from a model and measure them: distance, copies, time.

    Args:
        model: on the device where it draws.
        real: the pictures to measure the distance to.
        copies: the training pictures; None: copies are not looked for.
        config: how many pictures, their seed, and the calls for each.

    Raises:
        ValueError: if the model cannot draw in that many calls, or sizes or channels differ.
    """
    pictures, seconds = draw_timed(
        model, config.num_images, config.seed, config.calls, config.sampler
    )
    return Measured(
        pictures,
        seconds / len(pictures),
        real.reference.distance(pictures),
        None if copies is None else copies.test(pictures),
    )


def draw_timed(
    model: Generator | Teacher,
    num_images: int,
    seed: int,
    calls: int | None = None,
    sampler: str | None = None,
) -> tuple[Tensor, float]:
    """Draw pictures and measure the time; a small batch before it warms up.

    Args:
        model: on the device where it draws.
        num_images: how many.
        seed: picture i depends on the seed and on i alone.
        calls: network calls for each picture; None: the model's own number.
        sampler: of a teacher, by name; None: its own.

    Returns:
        Pictures, float32 [num_images, channels, size, size] in [-1, 1] on the CPU, and seconds.
    """
    engine = Engine(model.device)
    model.sample(min(_WARM_UP, num_images), seed, calls=calls, sampler=sampler)
    engine.synchronize()
    start = time.perf_counter()
    pictures = model.sample(num_images, seed, calls=calls, sampler=sampler)
    engine.synchronize()
    return pictures.cpu(), time.perf_counter() - start


def mirrored(run: Run, pictures: Pictures) -> bool:
    """Whether a mirror image counts as a copy: the set has mirror images, or training made them."""
    made = run.info.get("derived", {}).get("flips", {}).get("value", False)
    return bool(made or pictures.suggest_flip()[0])


def _real(
    run: Run, config: EvaluateConfig, model: Generator | Teacher, training: TrainingSet | None
) -> RealPictures:
    """The pictures asked for with `against`, else those of the run."""
    if config.against is not None:
        asked = run.info["train"]
        pictures = load_pictures(
            config.against,
            model.size,
            model.channels,
            crop=asked.get("crop", "centre"),
            background=asked.get("background", "white"),
        )
        chosen = np.random.default_rng(0).permutation(len(pictures))[:_MOST]
        name = f"{len(chosen)} pictures of {config.against}"
        return RealPictures(pictures.tensor(chosen), name)
    if training is None:
        raise ValueError(
            f"the training pictures at {run.data.source} are missing or have changed; "
            "give real pictures with --against"
        )
    return training.real()


def _plain(found: CopyTest) -> dict[str, float]:
    """The numbers of a copy test as JSON values."""
    values = {
        "fraction": found.fraction,
        "low": found.low,
        "high": found.high,
        "threshold": found.threshold,
        "held_out_fraction": found.held_out_fraction,
    }
    return {name: float(value) for name, value in values.items() if value is not None}
