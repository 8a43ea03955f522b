"""A net's second copy in another precision: gradients are found there, steps are taken here.

Paper: Micikevicius et al. 2018 (master weights). Weights that are bfloat16 themselves need no casts
on their way through the net: on one CPU 1.51 times the steps of float32, autocast 1.45 times
(benchmarks/pictures/precision.py); and a frozen net keeps its copy.
"""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Twin(Generic[Module]):
    """A float32 module, the master, and the one that computes.

    In float32 both are the same module and nothing is copied.

    Args:
        master: float32; optimisers, averages and files see only this one.
        dtype: precision of the computing copy.

    Example:
        >>> master = nn.Linear(2, 1)
        >>> twin = Twin(master, torch.bfloat16)
        >>> twin.module(torch.ones(1, 2).bfloat16()).sum().backward()
        >>> twin.gather()
        >>> master.weight.grad
        tensor([[1., 1.]])
    """

    def __init__(self, master: Module, dtype: torch.dtype) -> None:
        """Copy the master where the precision differs."""
        self.master = master
        self.module = master if dtype == torch.float32 else copy.deepcopy(master).to(dtype)
        self._masters: list[Tensor] = list(master.parameters())
        self._copies: list[Tensor] = []
        if self.module is not master:
            self._copies = list(self.module.parameters())

    @torch.no_grad()
    def gather(self) -> None:
        """Move the copy's gradients to the master, in float32."""
        for own, copied in zip(self._masters, self._copies, strict=False):
            own.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the master's weights to the copy."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._masters)
