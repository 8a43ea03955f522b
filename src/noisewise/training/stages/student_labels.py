"""The classes of a batch of generated pictures, in the shares of the training pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def in_shares(counts: Tensor, num_images: int, generator: torch.Generator) -> Tensor:
    """Classes of a batch that has each as often as its share says; in any order.

    ``label_i = F^-1((i + u) / n)`` with one u, uniform, so each class is drawn ``n p`` times on
    average, and never off by more than one.

    Args:
        counts: of training pictures of each class, float [num_classes].
        num_images: n.
        generator: source of u and of the order, on the device of counts.

    Returns:
        int64 [num_images].

    Source: systematic sampling (Madow and Madow 1944).

    Example:
        >>> drawn = in_shares(torch.tensor([30.0, 10.0]), 8, torch.Generator().manual_seed(0))
        >>> drawn.bincount()
        tensor([6, 2])
    """
    device = counts.device
    offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
    places = (torch.arange(num_images, device=device) + offset) / num_images
    edges = counts.double().cumsum(0) / counts.double().sum()
    labels = torch.searchsorted(edges, places, right=True).clamp(max=len(counts) - 1)
    return labels[torch.randperm(num_images, generator=generator, device=device)]
