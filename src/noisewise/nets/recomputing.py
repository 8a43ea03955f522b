"""Blocks that keep no features for the backward pass, to save memory: they compute them again.

Paper: Chen et al. 2016, "Training deep nets with sublinear memory cost". The gradients are the same
to the last bit; a step takes up to a third longer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Recomputed(nn.Module):
    """A block that can forget its features.

    Attributes:
        recompute: whether it does, in training.
        dropout: if it has some, the second time drops the same.
    """

    recompute: bool = False
    dropout: float = 0.0


def recompute(net: nn.Module, wanted: bool) -> int:
    """Let every block of a net forget its features or not; return the number of blocks.

    Example:
        >>> from noisewise.nets.unet import UNet
        >>> recompute(UNet(1, 8, (8, 16), (1, 1)), True)
        5
    """
    blocks = [module for module in net.modules() if isinstance(module, Recomputed)]
    for block in blocks:
        block.recompute = wanted
    return len(blocks)


def through(
    function: Callable[[Tensor, Tensor], Tensor], block: Recomputed, x: Tensor, embedding: Tensor
) -> Tensor:
    """Call a block's function; in training without keeping what it computes inside, if wanted."""
    if not block.recompute or not torch.is_grad_enabled():
        return function(x, embedding)
    from torch.utils.checkpoint import checkpoint  # here, as it loads torch's compiler

    return checkpoint(
        *(function, x, embedding),
        use_reentrant=False,
        preserve_rng_state=bool(block.dropout and block.training),
    )
