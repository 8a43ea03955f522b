"""What the report needs of a run's models: pictures, times, distances, copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from noisewise.app.plots.svg import as_pixels
from noisewise.app.report.facts import Copies, Way
from noisewise.pictures.pictures import Pictures
from noisewise.quality.copies import copy_test, nearest
from noisewise.training.evaluate import Evaluation, evaluate, mirrored
from noisewise.training.inspect import noise_curve
from noisewise.training.load import load
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig

_SHOWN = 64
_COPY_TESTED = 500
_PAIRS = 12
_SEED = 0


@dataclass(frozen=True)
class Judged:
    """The part of the facts that has to be drawn and measured."""

    ways: tuple[Way, ...] = ()
    floor: float | None = None
    against: str = ""
    real: np.ndarray | None = None
    real_missing: str = ""
    copies: Copies | None = None
    copies_missing: str = ""
    noise_curve: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """One way to draw: a model, and the calls asked of it (None: its own)."""

    name: str
    model: Generator | Teacher
    calls: int | None
    network_calls: int


def judge(run: Run, num_images: int, tell: Callable[[str], None]) -> Judged:
    """Draw and measure everything that the page shows of a run's models.

    Args:
        run: at any stage; without a model, nothing is measured.
        num_images: pictures to generate for each distance.
        tell: is given a line about each thing that takes long.
    """
    pictures, missing = _training_pictures(run)
    ways, found = [], []
    plans = _plans(run)
    for plan in plans:
        tell(f"report: {num_images:,} pictures, {plan.name}")
        evaluation = None if pictures is None else _evaluation(run, plan, num_images)
        ways.append(_way(plan, evaluation))
        found.append(evaluation)
    first = next((e for e in found if e is not None), None)
    real, copies = None, None
    if pictures is not None:
        trained, held_out = pictures.split(run.info["seed"])
        real = np.asarray(pictures.images[held_out[:_SHOWN]])
        if plans:
            tell("report: nearest training pictures")
            copies = _copies(run, plans[0], pictures, trained, held_out)
    return Judged(
        ways=tuple(ways),
        floor=None if first is None else first.floor,
        against="" if first is None else first.against,
        real=real,
        real_missing=f"Real pictures cannot be shown: {missing}." if missing else "",
        copies=copies,
        copies_missing=f"Copies cannot be looked for: {missing}." if missing and plans else "",
        noise_curve={} if pictures is None else noise_curve(pictures.images),
    )


def _training_pictures(run: Run) -> tuple[Pictures | None, str]:
    """The pictures, or why they cannot be had (a data-free student's run is still a run)."""
    try:
        return run.pictures(), ""
    except ValueError as error:
        return None, str(error)


def _plans(run: Run) -> list[_Plan]:
    """The ways that a run offers, the quickest first."""
    plans: list[_Plan] = []
    teacher, generator = None, None
    if (run.path / "teacher" / "config.json").exists():
        teacher = load(run, "teacher")
    if (run.path / "generator" / "config.json").exists():
        generator = load(run, "generator")
    if isinstance(generator, Generator):
        plans.append(_Plan("one call", generator, None, 1))
        if teacher is not None and generator.config.two_call_sigma is not None:
            plans.append(_Plan("two calls", generator, 2, 2))
    if isinstance(teacher, Teacher):
        name = f"teacher, {teacher.sampler.num_steps} steps"
        plans.append(_Plan(name, teacher, None, teacher.sampler.calls))
    return plans


def _evaluation(run: Run, plan: _Plan, num_images: int) -> Evaluation:
    config = EvaluateConfig(
        num_images=num_images,
        seed=_SEED,
        teacher=isinstance(plan.model, Teacher),
        calls=plan.calls,
    )
    return evaluate(run, config=config)


def _way(plan: _Plan, evaluation: Evaluation | None) -> Way:
    plan.model.sample(8, _SEED, calls=plan.calls)  # the first call is slower than all others
    start = time.perf_counter()
    pictures = as_pixels(plan.model.sample(_SHOWN, _SEED, calls=plan.calls))
    seconds = (time.perf_counter() - start) / _SHOWN
    if evaluation is None:
        return Way(plan.name, plan.network_calls, pictures, seconds)
    return Way(
        plan.name,
        plan.network_calls,
        pictures,
        evaluation.seconds_per_image,
        evaluation.distance,
        evaluation.distance_low,
        evaluation.distance_high,
        evaluation.num_images,
    )


def _copies(
    run: Run, plan: _Plan, pictures: Pictures, trained: np.ndarray, held_out: np.ndarray
) -> Copies:
    """The copy test of a run's quickest way, with the most suspicious pictures in front."""
    generated = plan.model.sample(_COPY_TESTED, _SEED, calls=plan.calls)
    training = pictures.tensor(trained)
    unseen = pictures.tensor(held_out[:_COPY_TESTED])
    flips = mirrored(run, pictures)
    found = copy_test(generated, training, unseen, flips=flips)
    first = found.closest(_PAIRS)
    neighbours = np.asarray(pictures.images[trained[found.index[first].numpy()]])
    unseen_near = nearest(unseen, training, k=1, flips=flips).distance[:, 0]
    return Copies(
        way=plan.name,
        num_images=len(generated),
        fraction=found.fraction,
        low=found.low,
        high=found.high,
        held_out_fraction=found.held_out_fraction,
        threshold=found.threshold,
        pictures=as_pixels(generated[first]),
        nearest=neighbours,
        shown_distances=tuple(found.distance[first].tolist()),
        distances=tuple(found.distance.tolist()),
        held_out_distances=tuple(unseen_near.tolist()),
    )
