"""Parameter groups for LoRA+, and AdaLoRA's schedule for training loops that do not call it.

Papers: Hayou, Ghosh and Yu 2024, "LoRA+: efficient low rank adaptation of large models"; Zhang et
al. 2023, "AdaLoRA". rsLoRA and DoRA are flags of PEFT's LoraConfig.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from noisewise.adapters.layers import (
    active_adapter,
    base_of,
    factor_parameters,
    kind_of,
    lora_layers,
)

if TYPE_CHECKING:
    from peft import PeftModel


def param_groups(
    peft_model: PeftModel,
    lr: float,
    b_ratio: float = 16.0,
    weight_decay: float = 0.0,
    adapter: str | None = None,
) -> list[dict[str, Any]]:
    """Return parameter groups for LoRA+: B learns b_ratio times as fast as A, in any optimiser.

    All other trainable parameters (DoRA's magnitudes, biases, norms, factors of embeddings, whole
    modules) keep lr, because LoRA+ is about the product of two wide matrices. PEFT's own groups
    give biases and magnitudes the large rate. Vectors have no weight decay.

    Args:
        peft_model: a PeftModel with any start.
        lr: learning rate of A, above 0.
        b_ratio: learning rate of B divided by lr, above 0; 1: ordinary LoRA.
        weight_decay: weight decay of matrices, 0 or more.
        adapter: name of the adapter; None: the active one.

    Returns:
        Groups with "params", "lr", "weight_decay" and "name": A, B, rest, vectors; no empty groups.

    Raises:
        ValueError: if no parameter is trainable, or a number is out of range.

    Source: Hayou et al. 2024 (LoRA+), section 4; their default ratio.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> net = get_peft_model(nn.Sequential(nn.Linear(4, 3)), LoraConfig(target_modules=["0"]))
        >>> [(group["name"], group["lr"]) for group in param_groups(net, 1e-4)]
        [('A', 0.0001), ('B', 0.0016)]
    """
    if not (0 < lr < math.inf and 0 < b_ratio < math.inf and 0 <= weight_decay < math.inf):
        raise ValueError("lr and b_ratio must be positive, and weight_decay 0 or more")
    name = active_adapter(peft_model, adapter)
    side: dict[int, str] = {}
    for layer in lora_layers(peft_model, name).values():
        if not isinstance(base_of(layer), nn.Embedding):
            a, b = factor_parameters(layer, name)
            side |= {id(a): "A", id(b): "B"}
    groups: dict[str, list[nn.Parameter]] = {"A": [], "B": [], "rest": [], "vectors": []}
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            other = "vectors" if parameter.ndim < 2 or 1 in parameter.shape[:2] else "rest"
            groups[side.get(id(parameter), other)].append(parameter)
    if not any(groups.values()):
        raise ValueError("the adapter has no trainable parameters: load it with trainable=True")
    return [
        {
            "params": members,
            "lr": lr * b_ratio if key == "B" else lr,
            "weight_decay": 0.0 if key == "vectors" else weight_decay,
            "name": key,
        }
        for key, members in groups.items()
        if members
    ]


class AdaLoraSchedule:
    """Changes AdaLoRA's ranks after every step of an optimiser; see `adalora_schedule`.

    Attributes:
        step: number of steps taken; set it when training resumes from a checkpoint.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, peft_model: PeftModel) -> None:
        """Attach to an optimiser; use `adalora_schedule` instead, which checks its arguments."""
        self.step = 0
        self._model = peft_model
        self._handle: RemovableHandle = optimizer.register_step_post_hook(self._after)

    def _after(self, *_: object) -> None:
        """Update the ranks: after the step and before zero_grad, because it reads gradients."""
        self._model.base_model.update_and_allocate(self.step)
        self.step += 1

    def remove(self) -> None:
        """Stop the schedule; the ranks stay as they are."""
        self._handle.remove()


def adalora_schedule(
    optimizer: torch.optim.Optimizer, peft_model: PeftModel, total_steps: int | None = None
) -> AdaLoraSchedule:
    """Call AdaLoRA's schedule after every step; without it the ranks never fall.

    PEFT expects the training loop to call `update_and_allocate` after the optimiser's step and
    before the gradients are cleared. A loop not written for AdaLoRA does not call it.

    Args:
        optimizer: an optimiser with the adapter's parameters; clear gradients after step().
        peft_model: a model with PEFT's AdaLoraConfig.
        total_steps: number of optimiser steps planned; it must equal the configuration's
            total_step. None: not checked.

    Returns:
        The schedule, with ``.step`` and ``.remove()``.

    Raises:
        ValueError: if the adapter is not AdaLoRA, or the schedule does not fit into the steps.

    Source: Zhang et al. 2023 (AdaLoRA), equation 12; PEFT's AdaLoraModel.

    Example:
        >>> from peft import AdaLoraConfig, get_peft_model
        >>> config = AdaLoraConfig(
        ...     target_modules=["0"], init_r=4, target_r=1, tinit=1, tfinal=2, total_step=8
        ... )
        >>> net = get_peft_model(nn.Sequential(nn.Linear(6, 6)), config)
        >>> optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        >>> schedule = adalora_schedule(optimizer, net)
        >>> for _ in range(8):
        ...     net(torch.randn(4, 6)).square().sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> int((net.base_model.model[0].lora_E["default"] != 0).sum())
        1
    """
    kind = kind_of(peft_model)
    if kind != "adalora":
        raise ValueError(f"this adapter is {kind}; the schedule needs PEFT's AdaLoraConfig")
    config: Any = peft_model.peft_config[active_adapter(peft_model)]
    total = config.total_step
    if total_steps is not None and total_steps != total:
        raise ValueError(
            f"AdaLoraConfig has total_step={total}, but {total_steps} steps are planned, so the "
            "ranks would not fall in time: make them equal"
        )
    if config.tinit + config.tfinal >= total:
        raise ValueError(
            f"tinit + tfinal = {config.tinit + config.tfinal} leaves none of the {total} steps for "
            "the ranks to fall: use smaller values"
        )
    return AdaLoraSchedule(optimizer, peft_model)
