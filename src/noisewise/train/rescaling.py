"""The learning rate of a run that goes on, or is repeated, with another batch.

A training writes the noise that it measured into RUN/noise.json. Where the batch then differs, that
measurement says by which factor the learning rate does; `noisewise.scaling.advise` is the judge.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from noisewise.scaling import Measurement, advise
from noisewise.train.config import TrainConfig
from noisewise.train.plan import TeacherPlan
from noisewise.train.runfile import read_info

NOISE = "noise.json"


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
    if config.lr is not None:
        return plan, ""
    if folder is not None and (folder / "run.json").exists():
        return _like(plan, folder, "this run")
    if config.lr_from is not None:
        source = Path(config.lr_from)
        _check_source(source, config)
        return _like(plan, source, str(source))
    return plan, ""


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
    derived = read_info(folder).get("derived", {})
    try:
        batch0, lr0, adam_lr0 = (derived[name]["value"] for name in ("batch", "lr", "adam_lr"))
        why0 = derived["lr"]["reason"]
    except (KeyError, TypeError):
        return plan, ""  # begun by a version that did not say
    if plan.batch == batch0:
        why = why0 if named == "this run" else f"that of {named}"
        return _with_rates(plan, lr0, adam_lr0, why), ""
    found = advise(_measured(folder, batch0, plan.batch), batch=plan.batch, batch0=batch0, lr=lr0)
    why = (
        f"{lr0:.3g} at a batch of {batch0} in {named}, times {found.ratio:.3g} "
        f"({found.low / lr0:.3g} to {found.high / lr0:.3g}) for {plan.batch}: {found.rule} "
        f"({found.reason})"
    )
    said = f"the batch was {batch0} and is {plan.batch}; learning rate {found.lr:.3g}: {why}"
    return _with_rates(plan, found.lr, adam_lr0 * found.ratio, why), said


def _measured(folder: Path, batch0: int, batch: int) -> Measurement:
    path = folder / NOISE
    if not path.exists():
        raise ValueError(
            f"{folder} was trained with a batch of {batch0} and has measured no noise yet, so the "
            f"learning rate for {batch} is not known; set lr yourself, or keep the batch"
        )
    return Measurement.load(path)


def _with_rates(plan: TeacherPlan, lr: float, adam_lr: float, why: str) -> TeacherPlan:
    reasons = {**plan.reasons, "lr": why, "adam_lr": why}
    return replace(plan, lr=lr, adam_lr=adam_lr, reasons=reasons)
