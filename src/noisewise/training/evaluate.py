"""Judging a run's pictures against real ones: distance, scales, copies, speed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.quality.copies import copy_test
from noisewise.quality.distance import distance, sliced_wasserstein
from noisewise.training.devices.engine import Engine
from noisewise.training.load import load
from noisewise.training.models.model_folder import Build
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig

_ENOUGH = 256  # held-out pictures, for a distance against them alone
_MOST = 2000  # real pictures


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        model: "generator" or "teacher".
        num_images: pictures generated.
        against: which real pictures, and how many.
        distance: unbiased kernel distance in fixed random features; 0 is the same law. No FID.
        distance_low: lower end of its interval.
        distance_high: upper end of its interval.
        floor: what as many real pictures score at most, 95 times in 100, by the same measure.
        wasserstein: sliced Wasserstein distance of each Laplacian level, coarse to fine.
        copies: share of generated pictures that copy a training picture, with interval and
            threshold; None when the training pictures are gone.
        seconds_per_image: time to draw one, in batches.
        network_calls: calls a picture.
        device: where they were drawn.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "wasserstein": list(self.wasserstein)}


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
        run: a run with a finished teacher.
        against: folder, zip or npz of real pictures; None: those held out from training, where
            there are 256 or more, else the training pictures.
        num_images: pictures to draw.
        seed: of the pictures drawn.
        config: everything else; the arguments above go before it.
        build: makes the nets from their configuration; None: the package's own nets.

    Raises:
        ValueError: if there is no model, or no real pictures to compare with.
    """
    config = config or EvaluateConfig()
    config = EvaluateConfig(
        against=str(against) if against is not None else config.against,
        num_images=config.num_images if num_images is None else num_images,
        seed=config.seed if seed is None else seed,
        teacher=config.teacher,
        calls=config.calls,
        sampler=config.sampler,
        device=config.device,
    )
    run = run if isinstance(run, Run) else Run.open(run)
    model = load(run, "teacher" if config.teacher else "auto", config.device, build)
    training, held_out = _training(run)
    real, which = _real(run, config, model, training, held_out)
    generated, seconds = _drawn(model, config)
    found = distance(generated, real)
    return Evaluation(
        model=model.config.kind,
        num_images=len(generated),
        against=which,
        distance=float(found.value),
        distance_low=float(found.low),
        distance_high=float(found.high),
        floor=float(found.floor),
        wasserstein=tuple(
            sliced_wasserstein(generated, real, generator=torch.Generator().manual_seed(0))
        ),
        copies=_copies(run, generated, training, held_out),
        seconds_per_image=seconds / len(generated),
        network_calls=model.network_calls(config.calls, config.sampler),
        device=str(model.device),
    )


def _training(run: Run) -> tuple[tuple[Pictures, np.ndarray] | None, np.ndarray]:
    """Training pictures with the indices trained on, and the held-out indices; None if gone."""
    try:
        pictures = run.pictures()
    except ValueError:
        return None, np.empty(0, np.int64)
    trained, held_out = pictures.split(run.info["seed"])
    return (pictures, trained), held_out


def _real(
    run: Run,
    config: EvaluateConfig,
    model: Generator | Teacher,
    training: tuple[Pictures, np.ndarray] | None,
    held_out: np.ndarray,
) -> tuple[Tensor, str]:
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
        return pictures.tensor(chosen), f"{len(chosen)} pictures of {config.against}"
    if training is None:
        source = run.info["data"]["source"]
        raise ValueError(
            f"the training pictures at {source} are gone or changed; give real ones with --against"
        )
    pictures, trained = training
    if len(held_out) >= _ENOUGH:
        chosen = held_out[:_MOST]
        return pictures.tensor(chosen), f"{len(chosen)} held-out pictures"
    chosen = trained[:_MOST]
    return pictures.tensor(chosen), f"{len(chosen)} training pictures (too few are held out)"


def _drawn(model: Generator | Teacher, config: EvaluateConfig) -> tuple[Tensor, float]:
    """Pictures on the CPU, and the seconds it took; a first small batch warms up."""
    engine = Engine.choose(config.device)
    model.sample(min(8, config.num_images), config.seed, calls=config.calls, sampler=config.sampler)
    engine.synchronize()
    start = time.perf_counter()
    pictures = model.sample(
        config.num_images, config.seed, calls=config.calls, sampler=config.sampler
    )
    engine.synchronize()
    return pictures.cpu(), time.perf_counter() - start


def mirrored(run: Run, pictures: Pictures) -> bool:
    """Whether a mirrored picture counts as a copy: the set has them, or training made them."""
    made = run.info.get("derived", {}).get("flips", {}).get("value", False)
    return bool(made or pictures.suggest_flip()[0])


def _copies(
    run: Run,
    generated: Tensor,
    training: tuple[Pictures, np.ndarray] | None,
    held_out: np.ndarray,
) -> dict[str, float] | None:
    if training is None:
        return None
    pictures, trained = training
    other = pictures.tensor(held_out[:_MOST]) if len(held_out) else None
    flips = mirrored(run, pictures)
    found = copy_test(generated, pictures.tensor(trained), other, flips=flips)
    values = {
        "fraction": found.fraction,
        "low": found.low,
        "high": found.high,
        "threshold": found.threshold,
        "held_out_fraction": found.held_out_fraction,
    }
    return {name: float(value) for name, value in values.items() if value is not None}
