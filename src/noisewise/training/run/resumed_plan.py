"""The learning rate of a run that goes on, or is repeated, with another batch.

A training writes the noise that it measured into RUN/noise.json. Where the batch then differs, that
measurement says by which factor the learning rate does; `noisewise.scaling.advise` is the judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from noisewise.scaling import Advice, Measurement, advise
from noisewise.training.run.run_json import NOISE, known_batch, read_either, read_info
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.plan import TeacherPlan


def rescaled(
    plan: TeacherPlan, config: TrainConfig, folder: Path | None
) -> tuple[TeacherPlan, str]:
    """A plan with the learning rate of an earlier training, scaled to this batch.

    Args:
        plan: derived from scratch.
        config: a learning rate set by hand is kept.
        folder: of the run, None where there is none: one that goes on is the earlier training; of
            a new one `config.lr_from` names it, if anything does.

    Returns:
        The plan, and what to say when the batch has changed, else "".

    Raises:
        ValueError: if the batch differs and the earlier training measured no noise.
    """
    goes_on = folder is not None and (folder / "run.json").exists()
    if config.lr is not None:
        said = _changed(read_info(folder), plan) if folder is not None and goes_on else ""
        return plan, f"{said}; learning rate {plan.lr:.3g}: set by hand" if said else ""
    if folder is not None and goes_on:
        return _like(plan, folder, "this run")
    if config.lr_from is not None:
        source = Path(config.lr_from)
        _check_source(source, config)
        return _like(plan, source, str(source))
    return plan, ""


def with_kept_net(plan: TeacherPlan, folder: Path) -> TeacherPlan:
    """The plan with the net of the run in this folder; as it is where there is no run yet.

    Args:
        plan: derived anew; the run is known to have the same settings and pictures, but for budget
            and machine.
        folder: of the run, begun or not.
    """
    if not (folder / "run.json").exists():
        return plan
    noted = read_either(folder)[0].get("derived", {}).get("net")
    if not noted or noted["value"] == plan.net:
        return plan
    reasons = {**plan.reasons, "net": noted["reason"]}
    return replace(plan, net=noted["value"], reasons=reasons)


def _changed(info: Mapping[str, Any], plan: TeacherPlan) -> str:
    before = known_batch(info)
    return "" if before == plan.batch else f"the batch was {before} and is {plan.batch}"


def _check_source(source: Path, config: TrainConfig) -> None:
    """Refuse to take rates from what is no run, says none, or had another optimiser."""
    if not (source / "run.json").exists():
        raise ValueError(f"lr_from: {source} is no run; name the folder of one")
    info = read_info(source)
    if "lr" not in info.get("derived", {}):
        raise ValueError(f"lr_from: {source} does not say its learning rate; set lr yourself")
    theirs, ours = info["train"].get("recipe", {}).get("optimizer"), config.recipe.optimizer
    if theirs != ours:
        raise ValueError(
            f"lr_from: {source} was trained with {theirs}, whose learning rates mean nothing to "
            f"{ours}; set lr yourself"
        )


def _like(plan: TeacherPlan, folder: Path, named: str) -> tuple[TeacherPlan, str]:
    info = read_info(folder)
    batch0, changed = known_batch(info), _changed(info, plan)
    derived = info.get("derived", {})
    try:
        lr0, why0 = derived["lr"]["value"], derived["lr"]["reason"]
    except (KeyError, TypeError):  # begun by a version that did not say
        why = f"{plan.lr:.3g}, the recipe's: {named} does not say its own"
        return plan, f"{changed}; learning rate {why}" if changed else ""
    adam_lr0 = derived.get("adam_lr", {}).get("value", plan.adam_lr * lr0 / plan.lr)
    if not changed:
        why = why0 if named == "this run" else f"that of {named}"
        return _with_rates(plan, lr0, adam_lr0, why), ""
    way = "keep the batch, or begin in a new folder" if named == "this run" else "set lr yourself"
    measured = _measured(folder, batch0, plan.batch, way)
    found = advise(measured, batch=plan.batch, batch0=batch0, lr=lr0)
    why = f"{lr0:.3g} at a batch of {batch0} in {named}, {_explained(found)}"
    said = f"{changed}; learning rate {found.lr:.3g}: {why}"
    return _with_rates(plan, found.lr, adam_lr0 * found.ratio, why), said


def _explained(found: Advice) -> str:
    """The factor with its band, the rule, and what the reader must know.

    The band goes as far as the square root: our noise scale is measured while the rate is high.
    """
    root = math.sqrt(found.batch / found.batch0)
    low, high = min(found.low / found.lr0, root), max(found.high / found.lr0, root)
    coded = zip(found.warning_codes, found.warnings, strict=True)
    # This training stretches its schedule over the budget by itself.
    warnings = [sentence for code, sentence in coded if code != "whole_schedule"]
    return "; ".join(
        [
            f"times {found.ratio:.3g} ({low:.3g} to {high:.3g}) for {found.batch:g}: {found.rule} "
            f"({found.reason})",
            "the band reaches to the square root because the noise scale was measured at a high "
            "rate, where the weights bounce, and is a lower bound",
            *(f"warning: {sentence.rstrip('.')}" for sentence in warnings),
        ]
    )


def _measured(folder: Path, batch0: int, batch: int, way: str) -> Measurement:
    path = folder / NOISE
    if not path.exists():
        raise ValueError(
            f"{folder} was trained with a batch of {batch0} and has measured no noise yet, so the "
            f"learning rate for {batch} is not known; {way}"
        )
    return Measurement.load(path)


def _with_rates(plan: TeacherPlan, lr: float, adam_lr: float, why: str) -> TeacherPlan:
    reasons = {**plan.reasons, "lr": why, "adam_lr": why}
    return replace(plan, lr=lr, adam_lr=adam_lr, reasons=reasons)
