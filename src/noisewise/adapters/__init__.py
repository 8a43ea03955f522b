"""Low-rank adapters on PEFT whose first step points where full fine-tuning points, by a theorem."""

from __future__ import annotations

from noisewise.adapters.alignment import Alignment, LayerAlignment, StepAlignment, alignment
from noisewise.adapters.extraction import Extraction, LayerExtraction, extract
from noisewise.adapters.gradients import Gradients, LayerNoise, gradients
from noisewise.adapters.layers import targets
from noisewise.adapters.merging import merge
from noisewise.adapters.pro import lora_pro, rewritten
from noisewise.adapters.pro_adamw import LoraProAdamW
from noisewise.adapters.resuming import for_checkpoint
from noisewise.adapters.saving import Saved, load, save
from noisewise.adapters.solutions import (
    Start,
    adam_step,
    bound,
    lora_ga_start,
    lora_one_start,
    pissa_start,
    sgd_step,
)
from noisewise.adapters.starts import certificates, lora_ga, lora_one, pissa
from noisewise.adapters.steps import AdaLoraSchedule, adalora_schedule, param_groups

__all__ = [
    "AdaLoraSchedule",
    "Alignment",
    "Extraction",
    "Gradients",
    "LayerAlignment",
    "LayerExtraction",
    "LayerNoise",
    "LoraProAdamW",
    "Saved",
    "Start",
    "StepAlignment",
    "adalora_schedule",
    "adam_step",
    "alignment",
    "bound",
    "certificates",
    "extract",
    "for_checkpoint",
    "gradients",
    "load",
    "lora_ga",
    "lora_ga_start",
    "lora_one",
    "lora_one_start",
    "lora_pro",
    "merge",
    "param_groups",
    "pissa",
    "pissa_start",
    "rewritten",
    "save",
    "sgd_step",
    "targets",
]
