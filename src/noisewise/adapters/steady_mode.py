"""The mode in which gradients are collected: nothing random, no statistics, checkpointing kept.

Eval mode alone would switch gradient checkpointing off, because transformers' layers look at their
own `training`. Without it a forward pass keeps all activations, more than training ever needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def steady_mode(model: nn.Module, train: bool = False) -> Iterator[None]:
    """Freeze weights, dropout and running statistics; restore modes, buffers and flags afterwards.

    Args:
        model: the model.
        train: True: all layers are in train mode, but for dropout and for layers with running
            statistics. False: only those that checkpoint their activations are.
    """
    modes = {module: module.training for module in model.modules()}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    rates = _dropout_rates(model)
    model.eval()
    for module in model.modules():
        if not _is_random(module) and (train or _checkpoints(module)):
            module.training = True
    for module, name, _ in rates:
        setattr(module, name, 0.0)
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _checkpoints(module: nn.Module) -> bool:
    """Whether a layer has a switch for gradient checkpointing that is on."""
    return any(value is True and "checkpoint" in name for name, value in vars(module).items())


def _is_random(module: nn.Module) -> bool:
    """Whether train mode makes a layer random or changes it."""
    dropout = nn.modules.dropout._DropoutNd
    return isinstance(module, dropout) or module._buffers.get("running_mean") is not None


def _dropout_rates(model: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Return the rates that layers give to functions of dropout, by layer and attribute."""
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, float) and "drop" in name
    ]
