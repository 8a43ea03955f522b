"""Low-rank adaptation over PEFT whose first steps follow full fine-tuning, and a proof of how far."""

from __future__ import annotations

from noisewise.adapters.gradients import Gradients, LayerNoise, gradients
from noisewise.adapters.layers import targets
from noisewise.adapters.saving import Saved, load, merge, save
from noisewise.adapters.solutions import (
    Start,
    adam_step,
    bound,
    lora_ga_start,
    lora_one_start,
    pissa_start,
    sgd_step,
)
from noisewise.adapters.starts import lora_ga, lora_one, pissa

__all__ = [
    "Gradients",
    "LayerNoise",
    "Saved",
    "Start",
    "adam_step",
    "bound",
    "gradients",
    "load",
    "lora_ga",
    "lora_ga_start",
    "lora_one",
    "lora_one_start",
    "merge",
    "pissa",
    "pissa_start",
    "save",
    "sgd_step",
    "targets",
]
