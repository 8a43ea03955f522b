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
    "not_divided",
    "divided_twice",
    "parameters_changed",
    "norm_layers",
    "by_schedule",
    "shortened",
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
    "when_measured",
    "left_range",
    "counted",
    "epsilon",
]
CodedWarning = tuple[WarningCode, str]  # a code and its sentence
