"""Averages of the weights over training (EMA), with a power-function profile; several at once.

Paper: Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models"
(EDM2), section 3.1.

An ordinary EMA looks back over a fixed number of images, which suits only one budget. A
power-function average gives the weights after m images the weight m^(1/share - 1). Its mean age is
always share / (1 + share) of all images seen, in short and in long runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from noisewise.training.devices.sharding import copy_tensors


class EMA:
    """Power-function averages of a module's parameters, one for each share.

    Args:
        module: the module to average. Only its parameters are averaged, not its buffers.
        shares: look-back of each average, as a share of the images seen, in (0, 1).

    Raises:
        ValueError: if shares is empty, or one is out of range.

    Source: Karras et al. 2024 (EDM2), section 3.1, with gamma + 1 = 1 / share.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> ema = EMA(net, shares=(0.5,))
        >>> for images, value in ((1, 3.0), (2, 7.0)):
        ...     nn.init.constant_(net.weight, value) is None
        ...     ema.update(batch=1, images=images)
        False
        False
        >>> ema.averages[0][0]  # 3 (1/2)^2 + 7 (1 - (1/2)^2)
        tensor([[6.]])
    """

    def __init__(self, module: nn.Module, shares: Sequence[float] = (0.05, 0.2)) -> None:
        """Start every average at the current weights."""
        if not shares or not all(0 < share < 1 for share in shares):
            raise ValueError(f"the EMA shares are {tuple(shares)}; each must be between 0 and 1")
        self.shares = tuple(shares)
        self._live = list(module.parameters())
        self.averages = [[p.detach().clone() for p in self._live] for _ in self.shares]

    @torch.no_grad()
    def update(self, batch: float, images: float) -> None:
        """Add the weights after a step of `batch` images; `images` is the total, these included."""
        live = [p.detach() for p in self._live]
        for share, average in zip(self.shares, self.averages, strict=True):
            torch._foreach_lerp_(average, live, 1 - decay(share, batch, images))

    @torch.no_grad()
    def copy_to(self, module: nn.Module, index: int) -> None:
        """Copy average number `index` into a module of the same architecture."""
        copy_tensors(list(module.parameters()), self.averages[index])

    def state_dict(self) -> dict[str, list[list[Tensor]]]:
        """The averages themselves, not copies."""
        return {"averages": self.averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[list[Tensor]]]) -> None:
        """Restore the result of `state_dict`, in this module's memory layout."""
        for average, saved in zip(self.averages, state["averages"], strict=True):
            copy_tensors(average, saved)


def decay(share: float, batch: float, images: float) -> float:
    """Weight of the old average: ``(1 - batch / images)^(1 / share)``; 0 at the first step.

    Example:
        >>> decay(0.5, batch=64, images=64), decay(0.5, batch=64, images=128)
        (0.0, 0.25)
    """
    return max(0.0, 1 - batch / images) ** (1 / share)
