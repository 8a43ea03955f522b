"""A net small enough to train inside a test, and pictures that it can learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.diffusion import Preconditioned
from noisewise.nets.derive import build as build_net
from noisewise.pictures.pictures import Pictures
from noisewise.training.models.model_config import ModelConfig, SamplerSettings


class TinyNet(nn.Module):
    """Three convolutions, shifted by noise level and class; takes any size."""

    def __init__(
        self, channels: int = 1, width: int = 16, num_classes: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.inp = nn.Conv2d(channels, width, 3, padding=1)
        self.emb = nn.Linear(2, width)
        self.cls = nn.Embedding(num_classes, width) if num_classes else None
        self.mid = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, channels, 3, padding=1)
        self.dropout = dropout
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        shift = self.emb(torch.stack([noise_level, noise_level.cos()], 1))
        if self.cls is not None:
            assert condition is not None
            shift = shift + self.cls(condition)
        h = F.silu(self.inp(x) + shift[:, :, None, None])
        h = F.dropout(h, self.dropout, self.training)
        return self.out(F.silu(h + self.mid(h)))


def build(config: dict[str, Any]) -> nn.Module:
    """Stand in the place of `noisewise.nets.derive.build`; looks only at what a tiny net has."""
    return TinyNet(
        config["channels"], num_classes=config["num_classes"], dropout=config.get("dropout", 0.0)
    )


def tiny_denoiser(seed: int = 0, sigma_data: float = 0.5, num_classes: int = 0) -> Preconditioned:
    """Fresh denoiser; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Preconditioned(TinyNet(num_classes=num_classes), sigma_data)


TWO_CLASSES = ModelConfig(
    kind="teacher",
    net={"name": "tiny", "channels": 1, "num_classes": 2},
    sigma_data=0.5,
    size=8,
    channels=1,
    noise={"name": "LogNormal", "mean": -1.0, "std": 1.2},
    classes=("left", "right"),
    label_histogram=(30, 10),
    sampler=SamplerSettings(num_steps=3),
)
"""What a tiny teacher of two classes of grey pictures says of itself."""


UNET = build_net({"name": "unet", "channels": 1, "size": 8, "widths": [8, 8], "blocks": [1, 1]})
UNET_CONFIG = ModelConfig(
    kind="teacher",
    net=UNET.config,  # pyrefly: ignore[bad-argument-type]
    sigma_data=0.5,
    size=8,
    channels=1,
    noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
    sampler=SamplerSettings(num_steps=2),
)
"""A teacher with a net of ours, untrained, and what it says of itself."""


def blobs(num_images: int = 96, size: int = 8, seed: int = 0) -> np.ndarray:
    """Grey pictures of one bright square each, left (class 0) or right (class 1), uint8 NHWC."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 40, (num_images, size, size, 1)).astype(np.uint8)
    for i, image in enumerate(images):
        top = generator.integers(0, size - 3)
        left = generator.integers(0, size // 2 - 2) + (i % 2) * size // 2
        image[top : top + 3, left : left + 3] = 255 - generator.integers(0, 60)
    return images


def tiny_pictures(num_images: int = 96, size: int = 8, seed: int = 0) -> Pictures:
    """`blobs` with their labels."""
    labels = np.arange(num_images, dtype=np.int64) % 2
    return Pictures(
        blobs(num_images, size, seed),
        labels,
        ("left", "right"),
        (),
        (),
        f"blobs-{num_images}-{size}-{seed}",
        "blobs",
        (),
    )
