"""What a resumed run keeps: net, flips, changes, noise, and learning rate, scaled to the batch.

Training writes the measured gradient noise into RUN/noise.json. If the batch changes,
`noisewise.scaling.advise` derives the factor on the learning rate from it. A new run can take the
learning rate of another run in the same way (`lr_from`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from noisewise.diffusion import draw_from_dict
from noisewise.nets.derive import prediction_of
from noisewise.scaling import Advice, Measurement, advise
from noisewise.training.files.run_folder import is_run
from noisewise.training.models.palette import NO_PALETTE
from noisewise.training.run.places import run_name
from noisewise.training.run.run_json import NOISE, known_batch, read_info, read_with_warning
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.plan import TeacherPlan

# Another version may derive them otherwise, and another machine net and changes.
_KEPT = ("net", "flips", "augment")
_BEFORE = {"augment": {"value": {}, "reason": "none when this run began"}}  # of older versions
_AS_BEFORE = "as when this run began"


def with_scaled_lr(
    plan: TeacherPlan, config: TrainConfig, folder: Path | None
) -> tuple[TeacherPlan, str]:
    """Give a plan the learning rate of an earlier training, scaled to this batch.

    The earlier training is the run in `folder` if it exists, else the run `config.lr_from`.

    Args:
        plan: a newly derived plan.
        config: a learning rate set by hand is kept.
        folder: folder of the run; None: no run.

    Returns:
        The plan, and a message if the batch has changed, else "".

    Raises:
        ValueError: if the batch differs and the earlier training has no measured noise.
    """
    resumes = folder is not None and is_run(folder)
    if config.lr is not None:
        note = _batch_change(read_info(folder), plan) if folder is not None and resumes else ""
        return plan, f"{note}; learning rate {plan.lr:.3g}: set by hand" if note else ""
    if folder is not None and resumes:
        return _with_earlier_lr(plan, folder, "this run")
    if config.lr_from is not None:
        source = Path(config.lr_from)
        _check_source(source, config)
        return _with_earlier_lr(plan, source, run_name(source))
    return plan, ""


def as_in_run(plan: TeacherPlan, folder: Path) -> TeacherPlan:
    """Give a plan net, flips and changes of the run in this folder, if there is a run.

    Args:
        plan: a newly derived plan, for the same pictures and settings; only budget and machine may
            differ.
        folder: folder of the run; the run may not exist yet.
    """
    if not is_run(folder):
        return plan
    derived = read_with_warning(folder)[0].get("derived", {})
    for name in _KEPT:
        noted = derived.get(name, _BEFORE.get(name))
        if noted and noted["value"] != getattr(plan, name):
            reasons = {**plan.reasons, name: noted["reason"]}
            if name == "net" and "dropout" in reasons:  # a part of the net
                reasons["dropout"] = derived.get("dropout", {}).get("reason", _AS_BEFORE)
            plan = replace(plan, **{name: noted["value"]}, reasons=reasons)
    if plan.prediction != "denoiser":
        plan = replace(plan, prediction=prediction_of(plan.net))
    return plan if plan.prediction == "bands" else replace(plan, scales=())


def with_noise_of_run(plan: TeacherPlan, config: TrainConfig, folder: Path) -> TeacherPlan:
    """Give a plan the noise levels of the run in this folder, if there is a run.

    Runs of older versions shifted noise only above 64 pixels, and started every sampler at the
    recipe's sigma_max. They go on like that.

    Args:
        plan: a newly derived plan, for the same pictures and settings.
        config: the settings.
        folder: folder of the run; the run may not exist yet.
    """
    if not is_run(folder):
        return plan
    noted = read_with_warning(folder)[0].get("derived", {})
    if not noted.get("noise"):
        return plan
    older = {
        "noise_scale": {"value": 1.0, "reason": "not measured when this run began"},
        "sigma_max": {"value": config.recipe.sigma_max, "reason": "the recipe's"},
    }
    kept = {name: noted.get(name, old) for name, old in older.items()}
    reasons = {name: item["reason"] for name, item in kept.items()}
    return replace(
        plan,
        noise=draw_from_dict(noted["noise"]["value"]),
        noise_scale=kept["noise_scale"]["value"],
        sigma_max=kept["sigma_max"]["value"],
        reasons={**plan.reasons, **reasons, "noise": noted["noise"]["reason"]},
    )


def with_palette_of_run(plan: TeacherPlan, folder: Path) -> TeacherPlan:
    """Leave out the palette if the run in this folder is of an older version, which had none.

    Args:
        plan: a newly derived plan, for the same pictures and settings.
        folder: folder of the run; the run may not exist yet.
    """
    if not is_run(folder) or "palette" in read_with_warning(folder)[0].get("train", {}):
        return plan
    reasons = {**plan.reasons, "palette": "none when this run began"}
    return replace(plan, palette=NO_PALETTE, reasons=reasons)


def _batch_change(info: Mapping[str, Any], plan: TeacherPlan) -> str:
    before = known_batch(info)
    return "" if before == plan.batch else f"the batch changed from {before} to {plan.batch}"


def _check_source(source: Path, config: TrainConfig) -> None:
    """Refuse a folder that is not a run, has no learning rate, or used another optimiser."""
    if not is_run(source):
        raise ValueError(f"lr_from: {source} is not a run; give the folder of a run")
    info = read_info(source)
    if "lr" not in info.get("derived", {}):
        raise ValueError(f"lr_from: the learning rate of {source} is unknown; set lr instead")
    theirs, ours = info["train"].get("recipe", {}).get("optimizer"), config.recipe.optimizer
    if theirs != ours:
        raise ValueError(
            f"lr_from: {source} was trained with {theirs}, and its learning rate does not suit "
            f"{ours}; set lr instead"
        )


def _with_earlier_lr(plan: TeacherPlan, folder: Path, named: str) -> tuple[TeacherPlan, str]:
    info = read_info(folder)
    batch0, changed = known_batch(info), _batch_change(info, plan)
    derived = info.get("derived", {})
    try:
        lr0, why0 = derived["lr"]["value"], derived["lr"]["reason"]
    except (KeyError, TypeError):  # from a version that did not write it
        why = f"{plan.lr:.3g}, default of the recipe, because the rate of {named} is unknown"
        return plan, f"{changed}; learning rate {why}" if changed else ""
    adam_lr0 = derived.get("adam_lr", {}).get("value", plan.adam_lr * lr0 / plan.lr)
    if not changed:
        why = why0 if named == "this run" else f"as in {named}"
        return _with_rates(plan, lr0, adam_lr0, why), ""
    way = "keep the batch, or use a new folder" if named == "this run" else "set lr instead"
    measured = _measured(folder, batch0, plan.batch, way)
    found = advise(measured, batch=plan.batch, batch0=batch0, lr=lr0)
    why = f"{lr0:.3g} at batch {batch0} in {named}, {_explanation(found)}"
    note = f"{changed}; learning rate {found.lr:.3g}: {why}"
    return _with_rates(plan, found.lr, adam_lr0 * found.ratio, why), note


def _explanation(found: Advice) -> str:
    """The factor with its range, the rule and its warnings, in words.

    The range includes the square root, because our noise scale is measured at a high rate.
    """
    root = math.sqrt(found.batch / found.batch0)
    low, high = min(found.low / found.lr0, root), max(found.high / found.lr0, root)
    coded = zip(found.warning_codes, found.warnings, strict=True)
    # Our training always spreads its schedule over the whole budget, and sets its own betas.
    ours = ("whole_schedule", "when_measured", "left_range")
    warnings = [sentence for code, sentence in coded if code not in ours]
    return "; ".join(
        [
            f"times {found.ratio:.3g} ({low:.3g} to {high:.3g}) at batch {found.batch:g}: "
            f"{found.rule} ({found.reason})",
            "the range includes the square root of the batch ratio, because the noise scale was "
            "measured at a high learning rate, where the weights oscillate, and is a lower bound",
            *(f"warning: {sentence.rstrip('.')}" for sentence in warnings),
        ]
    )


def _measured(folder: Path, batch0: int, batch: int, way: str) -> Measurement:
    path = folder / NOISE
    if not path.exists():
        raise ValueError(
            f"{folder} was trained with batch {batch0} and has no measured gradient noise yet, so "
            f"the learning rate for batch {batch} is unknown; {way}"
        )
    return Measurement.load(path)


def _with_rates(plan: TeacherPlan, lr: float, adam_lr: float, why: str) -> TeacherPlan:
    reasons = {**plan.reasons, "lr": why, "adam_lr": why}
    return replace(plan, lr=lr, adam_lr=adam_lr, reasons=reasons)
