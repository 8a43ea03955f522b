"""Small drawn pictures whose law is known: four shapes, anywhere, grey or in colour."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

NUM_SHAPES = 4
Draw = Callable[..., tuple[Tensor, Tensor]]


def draw(num_images: int, seed: int, size: int = 16, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Pictures float [n, c, size, size] in [-1, 1] on a dark ground, and which shape each shows."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(NUM_SHAPES, (num_images,), generator=g)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_images, *shape, generator=g)

    line = torch.linspace(-1, 1, size)
    y = line[None, :, None] - uniform(-0.3, 0.3, 1, 1)
    x = line[None, None, :] - uniform(-0.3, 0.3, 1, 1)
    radius = uniform(0.3, 0.6, 1, 1)
    disc = radius - (x * x + y * y).sqrt()
    square = radius - torch.maximum(x.abs(), y.abs())
    cross = radius / 3 - torch.minimum(x.abs(), y.abs())
    stripes = (x / radius * 4).sin().expand_as(disc) / 4
    edge = torch.stack([disc, square, cross, stripes])[label, torch.arange(num_images)]
    ink = (edge * size / 2).clamp(-0.5, 0.5) + 0.5
    shade = uniform(0.5, 1.0, channels, 1, 1)
    return 2 * ink[:, None] * shade - 1, label


@pytest.fixture(scope="session")
def drawn() -> Draw:
    """The function that draws pictures."""
    return draw
