"""Errors of values that are made of other values: their sums."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from noisewise.lowrank.certificate import Error, Kind

_WEAKNESS: tuple[Kind, ...] = ("exact", "bound", "probes", "estimate")


def added(first: Error, second: Error) -> Error:
    """The error of a sum: at most the sum of the errors, unless one of the two bounds fails."""
    if first.norm != second.norm:
        raise ValueError(
            f"An error in the {first.norm} norm and one in the {second.norm} norm cannot be added: "
            "use the same norm for both."
        )
    kinds: tuple[Kind, ...] = first.kind, second.kind, "bound"
    kind = max(kinds, key=_WEAKNESS.index)
    return Error(
        norm=first.norm,
        kind=kind,
        estimate=first.estimate + second.estimate,
        upper=first.upper + second.upper,
        failure_probability=first.failure_probability + second.failure_probability,
        scale=torch.zeros_like(first.upper),
        optimal_lower=torch.zeros_like(first.upper),
    )


def rescaled(error: Error, size: Tensor) -> Error:
    """The error with a new scale: |A| is at least |L R| minus the error."""
    lowest = torch.where(error.upper.isfinite(), size - error.upper, size - error.estimate)
    return replace(error, scale=lowest.clamp_min(0.0))
