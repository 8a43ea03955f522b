"""The two peers of `laws.py`: gns-pytorch's noise scale and torch-lr-finder's suggestion."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.learning_rate import nets as lr_nets
from benchmarks.learning_rate.nets import BATCH, Data


def gns_scale(model: nn.Module, data: Data) -> float | None:
    """The peer's noise scale, used as in its README: the mean of the ratios of several batches."""
    try:
        from gns_pytorch import compute_gns
    except ImportError:
        return None
    generator = torch.Generator().manual_seed(3)
    random.seed(0)
    scales = [
        compute_gns(lr_nets.losses(model, data.draw(BATCH, generator)), model, batch_percentage=1.0)
        for _ in range(20)
    ]
    return float(np.mean(scales))


def finder(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch: int
) -> float | None:
    """The peer's suggestion: where the loss falls most steeply in its range test, without ends."""
    try:
        from torch_lr_finder import LRFinder
    except ImportError:
        return None
    if batch > 512:  # its test needs a hundred batches, which takes too long
        return None
    twin, again = lr_nets.continued(model, optimizer, 1e-5)
    batches = list(lr_nets.batches(data, batch, 100 * batch, 0))

    class Criterion(nn.Module):
        def forward(self, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(out.flatten(0, -2), target.flatten())

    logging.disable(logging.WARNING)
    loader = torch.utils.data.DataLoader(_Listed(batches), batch_size=None)
    finder = LRFinder(twin, again, Criterion(), device="cpu")
    finder.range_test(loader, end_lr=10, num_iter=100)
    rates, seen = finder.history["lr"][10:-5], finder.history["loss"][10:-5]
    return float(rates[int(np.gradient(np.asarray(seen)).argmin())]) if len(seen) > 2 else None


class _Listed(torch.utils.data.Dataset):
    """Ready-made batches as a data set."""

    def __init__(self, batches: Sequence[lr_nets.Examples]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> lr_nets.Examples:
        return self.batches[index]
