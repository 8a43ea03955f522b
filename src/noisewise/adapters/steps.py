"""Steps: parameter groups after LoRA+, and AdaLoRA's schedule where training loops forget it.

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
    """Parameter groups for any torch optimiser, after LoRA+: B learns b_ratio times as fast as A.

    Everything else that is trained (DoRA's magnitudes, biases, norms, embeddings' factors, whole
    modules) stays at lr: the argument of LoRA+ is about the product of two wide matrices. PEFT's
    own groups give biases and magnitudes the large rate. Vectors are not decayed.

    Args:
        peft_model: of any start.
        lr: of A.
        b_ratio: rate of B over lr; 1: ordinary LoRA.
        weight_decay: of matrices.
        adapter: its name; None: the active one.

    Returns:
        Groups with "params", "lr", "weight_decay" and "name": A, B, rest, vectors; none is empty.

    Raises:
        ValueError: if nothing is trained, or a number means nothing.

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
        raise ValueError("nothing is trained: the adapter was loaded with trainable=False")
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
    """AdaLoRA's change of ranks after every step of an optimiser; see `adalora_schedule`.

    Attributes:
        step: steps taken; set it when training goes on from a checkpoint.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, peft_model: PeftModel) -> None:
        """Use `adalora_schedule`."""
        self.step = 0
        self._model = peft_model
        self._handle: RemovableHandle = optimizer.register_step_post_hook(self._after)

    def _after(self, *_: object) -> None:
        """Between the step, which it follows, and zero_grad, as it reads the gradients."""
        self._model.base_model.update_and_allocate(self.step)
        self.step += 1

    def remove(self) -> None:
        """End it; the ranks stay as they are."""
        self._handle.remove()


def adalora_schedule(
    optimizer: torch.optim.Optimizer, peft_model: PeftModel, total_steps: int | None = None
) -> AdaLoraSchedule:
    """Call AdaLoRA's schedule after every step: without it AdaLoRA is LoRA with more ranks.

    PEFT leaves `update_and_allocate` to the training loop, after the optimiser's step and before
    the gradients are dropped; a loop that does not know of AdaLoRA never calls it.

    Args:
        optimizer: holds the adapter's parameters; drop gradients after step(), not in it.
        peft_model: with PEFT's AdaLoraConfig.
        total_steps: optimiser steps that will be taken; must be the configuration's total_step.

    Returns:
        The schedule, with ``.step`` and ``.remove()``.

    Raises:
        ValueError: if it is no AdaLoRA, or the schedule does not fit into the steps.

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
        raise ValueError(f"this adapter is {kind}; the schedule is of PEFT's AdaLoraConfig")
    config: Any = peft_model.peft_config[active_adapter(peft_model)]
    total = config.total_step
    if total_steps is not None and total_steps != total:
        raise ValueError(
            f"AdaLoraConfig has total_step={total}, and {total_steps} steps are planned: its ranks "
            "would not come down in time; make them equal"
        )
    if config.tinit + config.tfinal >= total:
        raise ValueError(
            f"tinit + tfinal = {config.tinit + config.tfinal} leaves no step of {total} in which "
            "ranks can fall; lower them"
        )
    return AdaLoraSchedule(optimizer, peft_model)
