"""Codes for the warnings of a measurement or an advice: programs read the code, people the text."""

from __future__ import annotations

from typing import Literal

__all__ = ["CodedWarning", "WarningCode"]

WarningCode = Literal[
    # of a measurement
    "noise_not_known",
    "steps_left_out",
    "counted_in_labels",
    "batch_norm",
    "no_law",
    "uncoded",  # from a file of an older version
    # of an advice
    "at_edge",
    "beyond_edge",
    "far_batch",
    "extrapolated",
    "above_noise_scale",
    "no_same_path",
    "above_one_step_optimum",
    "surge",
    "surge_not_supported",
    "clipped",
    "weight_decay",
    "whole_schedule",
]
CodedWarning = tuple[WarningCode, str]  # a code and its sentence
