"""Decide what a training starts from, by a trial of each; the run remembers it.

A base that the user named is used, with a warning if nothing would have been better. Among the
packaged bases and nothing, the lowest held-out loss wins. The decision is in run.json, so a resumed
run does not decide again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import Build, build_denoiser
from noisewise.training.run.run import Run
from noisewise.training.settings.budget import Budget
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.start_trial import trial_budget, trial_loss
from noisewise.training.starts.base import AUTO, Base, load_base, packaged_base
from noisewise.training.starts.candidates import Candidate, Candidates, percent

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures

ENTRY = "start"
"""Name of the entry of run.json."""


@dataclass(frozen=True)
class Decision:
    """What a training starts from.

    Attributes:
        chosen: the start.
        noted: the entry of run.json: the base with its digest, share and sources, the losses of the
            trials, what they took of the budget, and the reason in words.
    """

    chosen: Candidate
    noted: dict[str, Any]


def decide(
    found: Candidates,
    pictures: Pictures,
    config: TrainConfig,
    engine: Engine,
    build: Build | None = None,
    stop: Callable[[], bool] | None = None,
) -> Decision | None:
    """Try every start for a few seconds and choose; None if `stop` returned true.

    Args:
        found: the starts.
        pictures: all pictures.
        config: the settings.
        engine: device, precision and clock.
        build: makes the net from its configuration; None: the nets of noisewise.
        stop: called before every step.
    """
    speeds = [one.plan.cost.get("images_per_second") for one in found.starts]
    slowest = min((speed for speed in speeds if speed), default=None)
    batch = max(one.plan.batch for one in found.starts)
    each = trial_budget(config.amount, len(found.starts), batch, slowest)
    if len(found.starts) == 1:
        why = "; ".join(found.left_out) or "this installation has no packaged base"
        return _decided(found.first, {}, Budget(images=1), 0.0, 0, f"nothing, because {why}")
    if each is None or config.shard:
        why = (
            "a split net is not compared" if config.shard else "the budget is too short to compare"
        )
        reason = f"{_share(found.first)}; {why}"
        return _decided(found.first, {}, Budget(images=1), 0.0, 0, reason)
    losses, began = [], engine.ranks.clock()
    for one in found.starts:
        loss = trial_loss(
            pictures, started(one, config, engine, build), one.plan, config, engine, each, stop
        )
        if loss is None:
            return None
        losses.append(loss)
    seconds = float(engine.ranks.agree(engine.ranks.clock() - began))
    best = 0 if found.given else min(range(len(losses)), key=lambda at: (losses[at], -at))
    named = {one.name: loss for one, loss in zip(found.starts, losses, strict=True)}
    reason = _reason(found, best, losses, each)
    images = len(losses) * (each.images or 0)
    return _decided(found.starts[best], named, each, seconds, images, reason)


def started(
    start: Candidate, config: TrainConfig, engine: Engine, build: Build | None = None
) -> nn.Module:
    """A denoiser with fresh weights of the seed, and those of the base where they fit."""
    plan = start.plan
    with engine.seeded(config.seed):
        denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, build)
    if start.base is not None:
        start.base.into(denoiser, plan, start.same_kinds)
    return denoiser


def remembered(
    noted: Mapping[str, Any],
    plan: TeacherPlan,
    start_from: str | None,
    begun: bool,
    build: Build | None = None,
) -> Decision:
    """The decision of a run.

    Args:
        noted: its entry in run.json.
        plan: the plan of the run.
        start_from: what the user named, now.
        begun: whether a checkpoint has the weights, so that the base is not needed.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if the base is needed, and missing or another one.
    """
    name = str(noted.get("from", ""))
    if begun or not name:
        return Decision(Candidate(None, plan), dict(noted))
    base = _again(name, start_from, build)
    if base is None or base.digest != noted.get("digest"):
        raise ValueError(
            f"this run has not begun its first step yet, and its base {name} is missing or has "
            "changed; restore it, or choose a new folder with --out"
        )
    return Decision(Candidate(base, plan, float(noted.get("share", 0.0))), dict(noted))


def announced(found: Candidates, config: TrainConfig) -> TeacherPlan:
    """The plan that is shown before a training: that of the first start, and what will be tried."""
    first, names = found.first, " and ".join(one.name for one in found.starts)
    plan, speed = first.plan, first.plan.cost.get("images_per_second")
    each = trial_budget(config.amount, len(found.starts), plan.batch, speed)
    if len(found.starts) == 1:
        why = "; ".join(found.left_out) or "this installation has no packaged base"
        why = f"nothing, because {why}"
    elif each is None or config.shard:
        why = f"{_share(first)}; no start is compared, as the budget is too short or the net split"
    else:
        rule = "a warning if nothing is better" if found.given else "the lower held-out loss wins"
        why = f"{_share(first)}; training first tries {names} for {each} each: {rule}"
    why = "; ".join([why, *(found.left_out if len(found.starts) > 1 else ())])
    name = "" if first.base is None else first.base.name
    return replace(plan, start=name, reasons={**plan.reasons, "start": why})


def noted_as(start: Candidate, reason: str) -> dict[str, Any]:
    """What run.json says of a start: the base with its digest, share and sources, and no place."""
    base = start.base
    noted: dict[str, Any] = {"from": "" if base is None else base.name, "reason": reason}
    if base is not None:
        noted |= {"digest": base.digest, "share": start.share, "sources": list(base.sources)}
    return noted


def note_start(run: Run, decided: Decision, writes: bool) -> None:
    """Write a decision and the plan that follows from it into run.json.

    Args:
        run: the run.
        decided: what was decided.
        writes: whether this process writes.
    """
    run.info[ENTRY] = decided.noted
    run.info["derived"] = decided.chosen.plan.to_dict()
    if writes:
        run.write()


def used_up(noted: object) -> tuple[float, int]:
    """Seconds and images of the budget that the trials took, from the entry of run.json."""
    spent = noted.get("spent") if isinstance(noted, Mapping) else None
    if not isinstance(spent, Mapping):
        return 0.0, 0
    seconds, images = spent.get("seconds", 0.0), spent.get("images", 0)
    good = all(isinstance(v, int | float) and 0 <= v < math.inf for v in (seconds, images))
    return (float(seconds), int(images)) if good else (0.0, 0)


def as_started(config: TrainConfig, info: Mapping[str, Any]) -> TrainConfig:
    """The settings with the net that a run has from its base, so that all else is derived for it.

    Args:
        config: the user's.
        info: content of run.json.
    """
    noted = info.get(ENTRY)
    net = info.get("derived", {}).get("net", {}).get("value")
    if not (isinstance(noted, Mapping) and noted.get("from") and isinstance(net, Mapping)):
        return config
    widths = net.get("widths") or ([net["width"]] if "width" in net else [])
    depth = net.get("depth") or None
    name = net.get("name", "auto")
    return replace(config, net=name, widths=tuple(widths), depth=depth)  # pyrefly: ignore


def as_noted(plan: TeacherPlan, info: Mapping[str, Any]) -> TeacherPlan:
    """A plan with the start of its run, and the reasons of that time."""
    if not isinstance(info.get(ENTRY), Mapping):
        return plan
    derived = info.get("derived", {})
    names = [n for n in ("net", "start") if isinstance(derived.get(n), Mapping)]
    reasons = {n: str(derived[n].get("reason", "")) for n in names}
    value = derived["start"].get("value", "") if "start" in names else ""
    return replace(plan, start=str(value), reasons={**plan.reasons, **reasons})


def _again(name: str, start_from: str | None, build: Build | None) -> Base | None:
    """The base of a run that was killed before its first step."""
    if start_from in (None, AUTO):
        return packaged_base(name)
    try:
        return load_base(start_from, build)
    except ValueError:
        return None


def _decided(
    chosen: Candidate,
    losses: Mapping[str, float],
    each: Budget,
    seconds: float,
    images: int,
    reason: str,
) -> Decision:
    plan = chosen.plan
    noted = noted_as(chosen, reason)
    if losses:
        finite = {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}
        # With a budget of images, what is noted must not depend on the machine's speed.
        spent = {"images": images} if each.images is not None else {"seconds": round(seconds, 3)}
        noted |= {"losses": finite, "each": str(each), "spent": spent}
    plan = replace(plan, reasons={**plan.reasons, "start": reason}, start=noted["from"])
    return Decision(replace(chosen, plan=plan), noted)


def _reason(found: Candidates, best: int, losses: list[float], each: Budget) -> str:
    """The choice in words, with all numbers."""
    chosen = found.starts[best]
    told = ", ".join(
        f"{loss:.4g} from {one.name}" for one, loss in zip(found.starts, losses, strict=True)
    )
    reason = f"{_share(chosen)}; held-out loss after {each} each: {told}"
    if found.given and losses[-1] < losses[0]:
        reason += (
            f"; warning: nothing was better than {chosen.name} in this trial, so leave out --from, "
            "or train both and compare"
        )
    return reason


def _share(start: Candidate) -> str:
    if start.base is None:
        return "nothing"
    # What the plan says beside the share: that the net is another one, or set by hand.
    more = start.plan.reasons.get("start", "").partition("; ")[2]
    return "; ".join(filter(None, [f"{start.name}, {percent(start.share)} of the weights", more]))
