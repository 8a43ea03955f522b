"""What a watched training's measurement warns of, as codes and sentences."""

from __future__ import annotations

import math
from collections import Counter

from torch import nn

from noisewise.scaling.loss_weight import Division
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["found_warnings"]


def found_warnings(
    model: nn.Module,
    *,
    more: str | None,
    skipped: str | None,
    by_labels: bool,
    labels_per_example: float,
    division: Counter[Division],
    num_micro: float,
    changed: bool,
    norms: bool,
) -> list[CodedWarning]:
    """Return the warnings of a watched training, most important first.

    Args:
        model: the model in training.
        more: how much more to collect; None: enough.
        skipped: which steps were left out; None: none.
        by_labels: whether labels are counted.
        labels_per_example: labels of one example; nan: not known.
        division: what the weights of the losses said, by number of steps.
        num_micro: micro-batches of a step.
        changed: whether the trained parameters changed.
        norms: whether only normalisation layers were measured.
    """
    found: list[CodedWarning] = []
    if more is not None:
        found.append(("noise_not_known", more))
    if skipped is not None:
        found.append(("steps_left_out", skipped))
    found += _about_division(division, num_micro)
    if by_labels:
        found.append(("counted_in_labels", _about_labels(labels_per_example)))
    if changed:
        text = (
            "Parameters were frozen or unfrozen during the training: only the steps since then, "
            "with the parameters that are trained now, are measured."
        )
        found.append(("parameters_changed", text))
    if norms:
        text = (
            "Only the normalisation layers are measured, because each step has one micro-batch: "
            "their noise scale stands for that of the whole net; accumulate two or more "
            "micro-batches to measure all of it."
        )
        found.append(("norm_layers", text))
    batch_norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    if any(m.training for m in batch_norms):
        text = "Batch norm is in training mode: the noise is that of micro-batches of this size."
        found.append(("batch_norm", text))
    return found


def _about_labels(each: float) -> str:
    known = "" if math.isnan(each) else f", {each:.3g} for each example"
    return (
        f"The batch is counted in labels (tokens){known}: say in which unit the new batch is "
        "(unit='labels' or 'examples', --unit)."
    )


def _about_division(division: Counter[Division], num_micro: float) -> list[CodedWarning]:
    """The losses of a step must be divided by their number, once; two or more steps say so."""
    if division.total() < 2 or division["right"]:
        return []
    n = f"{num_micro:g}"
    if division["not_divided"] == division.total():
        text = (
            f"The losses of a step's {n} micro-batches are added up and not divided by {n}: the "
            f"gradient is {n} times that of the mean loss, so divide each loss by {n}."
        )
        return [("not_divided", text)]
    if division["divided_twice"] == division.total():
        text = (
            f"The losses of a step's {n} micro-batches are divided by {n} twice (by hand and by "
            "the library?): the gradient is a part of that of the mean loss, so divide once."
        )
        return [("divided_twice", text)]
    return []
