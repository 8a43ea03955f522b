"""How many pictures a step has, in how many parts, and what a step costs.

A large picture needs memory and time: then a batch of 64 would be hours for a few steps, or would
not fit. What fits is computed before anything is trained, see `noisewise.nets.costs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from noisewise.nets.costs import Costs, costs_of
from noisewise.sizes import Size, as_size, sides, size_of, written
from noisewise.training.stages.evaluation_times import FORWARD, LEAST_HELD
from noisewise.training.stages.timetable import LONGEST

if TYPE_CHECKING:
    from noisewise.training.settings.config import TrainConfig

_BATCHES = (64, 32, 16, 8)
# Of whole pictures that a budget should have, at least; coarse scales have many. Measured on emoji
# of 64 pixels: in three minutes batches of 8, 16, 32 and 64 gave 62, 51, 35 and 37 floors; in four
# minutes, with gains, 32 and 64 gave held-out losses of 0.170 and 0.180.
_STEPS = 300
_SHARE = 0.7  # of the free memory that a step may take
_TESTS = "our early tests (single runs on 2 CPU cores)"


@dataclass(frozen=True)
class StepPlan:
    """The steps of a training.

    Attributes:
        batch: pictures in a step.
        accumulate: parts of a batch that are computed one after the other.
        recompute: whether blocks forget their features, see `noisewise.nets.recomputing`.
        cost: parameters, arithmetic, memory and speed, for people.
        reasons: of each of these, by name.
    """

    batch: int
    accumulate: int
    recompute: bool
    cost: dict[str, Any]
    reasons: dict[str, str]


def plan_step(
    config: TrainConfig,
    net: Mapping[str, Any],
    speed: float | None,
    memory: int | None,
    costs: Costs | None = None,
) -> StepPlan:
    """Derive batch and parts from the net, the budget and the memory of the device.

    Args:
        config: batch, accumulate and budget.
        net: configuration of the net.
        speed: training pictures per second; None: not measured.
        memory: free bytes of the device; None: unknown.
        costs: of the net; None: computed here.

    Raises:
        ValueError: if not even one picture fits; the message has a size that would.
    """
    batch, why = _batch(config, net, speed)
    costs = costs_of(net) if costs is None else costs
    room = step_room(memory)
    wanted = 1 if config.accumulate is None else math.ceil(batch / config.accumulate)
    recompute = costs.step_bytes(wanted) > room
    why_recompute = "the features of a step fit into the memory"
    if recompute:
        why_recompute = (
            f"{_count(wanted)} at once needs {_gib(costs.step_bytes(wanted))} GiB, and "
            f"{_gib(room)} are free: blocks compute their features again in the backward pass, "
            f"which needs {_gib(costs.recomputed().step_bytes(wanted))} and takes a third longer"
        )
        costs, speed = costs.recomputed(), None if speed is None else 0.75 * speed
    fitting = batch if memory is None else costs.fitting(room)
    if fitting < 1:
        assert memory is not None
        raise ValueError(_does_not_fit(costs, as_size(net["size"]), memory))
    parts = config.accumulate or math.ceil(batch / fitting)
    if config.accumulate is not None:
        why_parts = "set by hand"
    elif parts > 1:
        why_parts = f"{fitting} pictures fit into the memory at once"
    else:
        why_parts = "the whole batch fits into the memory"
    at_once = math.ceil(batch / parts)
    return StepPlan(
        batch,
        parts,
        recompute,
        {
            "parameters": costs.parameters,
            "gflops_a_picture": round(costs.flops / 1e9, 3),
            "gib_a_step": round(costs.step_bytes(at_once) / 2**30, 2),
            "images_per_second": None if speed is None else float(f"{speed:.3g}"),
        },
        {
            "batch": why,
            "accumulate": why_parts,
            "recompute": why_recompute,
            "cost": "forward and backward pass; memory with float32, about; speed as measured here",
        },
    )


def step_room(memory: int | None) -> int:
    """Bytes that a step may take of the free ones; no limit if those are unknown."""
    return 2**62 if memory is None else int(_SHARE * memory)


def check_time(config: TrainConfig, size: Size, batch: int, speed: float | None) -> None:
    """Refuse a budget of time in which not even a step and a small evaluation end.

    Args:
        config: budget and recipe.
        size: of the pictures.
        batch: pictures in a step.
        speed: training pictures per second; None: not measured.

    Raises:
        ValueError: with the time that is needed.
    """
    seconds = config.amount.seconds
    if seconds is None or not speed:
        return
    evaluated = LEAST_HELD * len(config.recipe.ema_shares)
    needed = (batch + FORWARD * evaluated) / speed
    if needed > LONGEST * seconds:
        raise ValueError(
            f"a budget of {config.budget} is too short for pictures of {written(size)} pixels on "
            f"this machine: one step of {batch} and one small evaluation take about "
            f"{float(f'{needed:.2g}'):,g} s; use --budget {math.ceil(needed)}s, a smaller --batch "
            "or a smaller --size"
        )


def _batch(config: TrainConfig, net: Mapping[str, Any], speed: float | None) -> tuple[int, str]:
    usual = config.recipe.batch
    if config.batch is not None:
        return config.batch, "set by hand"
    if net.get("name") != "pyramid":
        return usual, f"best of 32, 64 and 128 in {_TESTS}"
    seconds = config.amount.seconds
    images = config.amount.images if seconds is None else (speed or 0.0) * seconds
    coarse = config.recipe.coarse_share if net["detail_sd"] else 0.0
    images = (1 - coarse) * (images or 0)
    possible = [b for b in _BATCHES if b <= usual and images / b >= _STEPS]
    if not possible:
        least = min(_BATCHES[-1], usual)
        return least, "the smallest: large pictures need many steps, and this budget has few"
    return possible[0], (
        f"about {images:,.0f} whole pictures in the budget are at least {_STEPS:,} steps"
    )


def _count(pictures: int) -> str:
    return "a picture" if pictures == 1 else f"{pictures} pictures"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2g}"


def _does_not_fit(costs: Costs, size: Size, memory: int) -> str:
    need, have = costs.step_bytes(1) / 2**30, _SHARE * memory / 2**30
    room = max(0.0, _SHARE * memory - costs.fixed_bytes) / costs.picture_bytes
    fits = size_of(*(max(8, int(side * math.sqrt(room)) // 32 * 32) for side in sides(size)))
    return (
        f"a picture of {written(size)} pixels needs {need:.1f} GiB in training, and {have:.1f} GiB "
        f"are free; use --size {written(fits)} or free memory"
    )
