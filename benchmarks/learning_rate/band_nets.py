"""Four nets and their data for `band.py`, chosen before its first run and used for no choice.

A convolutional net that sorts tiles, a convolutional net that removes noise from emoji, a GRU over
the source text of Python's library, and residual blocks that learn a random teacher. So two sorts,
one of pictures and one of letters, and two regressions; with and without normalisation layers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.learning_rate.nets import Data, batches

NETS = ("convnet", "denoiser", "gru", "student")
KINDS = ("sgd", "adamw")
BETAS, DECAY, MOMENTUM = (0.9, 0.99), 0.01, 0.9
CENTRES = {"sgd": -4, "adamw": -8}  # octave of the rate where the first sweep begins
_LENGTH = 16  # letters in a sequence
_WIDTH = 32
_WARMUP = 0.05
Examples = tuple[Tensor, Tensor]
Settings = Mapping[str, object]


def loss(model: nn.Module, batch: Examples) -> Tensor:
    """Mean loss of a batch: cross-entropy of classes and letters, squared error of numbers."""
    out, wanted = model(batch[0]), batch[1]
    if wanted.is_floating_point():
        return (out - wanted).square().mean()
    return F.cross_entropy(out.flatten(0, -2), wanted.flatten())


def data_of(net: str, folder: Callable[[str], Path], quick: bool) -> Data:
    """Training and held-out examples of a net.

    Args:
        net: one of NETS.
        folder: gives the path of a data set by its name.
        quick: few examples.
    """
    generator = torch.Generator().manual_seed(11)
    if net == "convnet":
        return _tiles(folder("dungeon_tiles_32.npz"), generator)
    if net == "denoiser":
        return _noisy(folder("noto_emoji_32.npz"), generator, 1024 if quick else 8192)
    return _letters(generator) if net == "gru" else _taught(generator, 2048 if quick else 20480)


def _split(x: Tensor, y: Tensor, generator: torch.Generator) -> Data:
    """A random eighth is held out, at most 1,024."""
    order = torch.randperm(len(x), generator=generator)
    x, y, held = x[order], y[order], min(1024, len(x) // 8)
    return Data(x[held:], y[held:], x[:held], y[:held])


def _pictures(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path) as stored:
        images, labels = stored["images"], stored["labels"]
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 127.5 - 1
    return x, torch.from_numpy(labels).long()


def _tiles(path: Path, generator: torch.Generator) -> Data:
    x, y = _pictures(path)
    return _split(F.avg_pool2d(x, 2), y, generator)


def _noisy(path: Path, generator: torch.Generator, num: int) -> Data:
    """Crops of 12 x 12 pixels, and the same under noise of 0.5."""
    x, _ = _pictures(path)
    crops = x.unfold(2, 12, 5).unfold(3, 12, 5).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 12, 12)
    crops = crops[crops.flatten(1).std(1) > 0.1]
    crops = crops[torch.randperm(len(crops), generator=generator)[:num]]
    return _split(crops + 0.5 * torch.randn(crops.shape, generator=generator), crops, generator)


def _letters(generator: torch.Generator) -> Data:
    import argparse
    import ast
    import dataclasses
    import statistics

    modules = (argparse, ast, dataclasses, inspect, statistics)
    text = "".join(inspect.getsource(module) for module in modules)
    code = torch.tensor([min(max(ord(c) - 31, 0), 95) for c in text])
    pieces = code.unfold(0, _LENGTH + 1, _LENGTH // 2)
    return _split(pieces[:, :-1], pieces[:, 1:], generator)


def _taught(generator: torch.Generator, num: int) -> Data:
    """Inputs with a spectrum of 1 / i, a random teacher of one hidden layer, noise of 0.1."""
    scale = torch.arange(1, _WIDTH + 1).float() ** -0.5
    x = torch.randn(num, _WIDTH, generator=generator) * scale * 2
    first = torch.randn(_WIDTH, 64, generator=generator) / 2
    second = torch.randn(64, 4, generator=generator) / 8
    y = torch.tanh(x @ first) @ second
    return _split(x, y + 0.1 * torch.randn(y.shape, generator=generator), generator)


class Gru(nn.Module):
    """Letters [n, t] to logits [n, t, 96]."""

    def __init__(self) -> None:
        """Random weights from torch's generator."""
        super().__init__()
        self.token, self.head = nn.Embedding(96, _WIDTH), nn.Linear(_WIDTH, 96)
        self.gru = nn.GRU(_WIDTH, _WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next letter."""
        return self.head(self.gru(self.token(x))[0])


class Student(nn.Module):
    """Numbers [n, 32] to [n, 4], by two residual blocks with layer normalisation."""

    def __init__(self) -> None:
        """Random weights from torch's generator."""
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 64), nn.GELU(), nn.Linear(64, _WIDTH)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(_WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        """What the teacher would say."""
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def build(net: str, seed: int) -> nn.Module:
    """A new net of 5,000 to 13,000 parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if net == "gru":
            return Gru()
        if net == "student":
            return Student()
        if net == "denoiser":
            return nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1),
                nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1),
            )  # fmt: skip
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1),
            nn.GroupNorm(3, 24), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
        )  # fmt: skip


def optimizer_for(
    model: nn.Module, kind: str, lr: float, settings: Settings
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; `settings` may have beta2 and weight_decay."""
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    beta2, decay = settings.get("beta2", BETAS[1]), settings.get("weight_decay", DECAY)
    assert isinstance(beta2, float)
    assert isinstance(decay, float)
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(BETAS[0], beta2), weight_decay=decay)


def scheduled(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up over a twentieth of the steps, then a cosine to 0."""
    warm = max(1, round(_WARMUP * steps))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min(1.0, (i + 1) / warm) * (1 + math.cos(math.pi * min(1.0, i / steps))) / 2,
    )


def trained(
    net: str, kind: str, data: Data, batch: int, lr: float, examples: int, seed: int,
    settings: Settings,
) -> float:  # fmt: skip
    """Held-out loss of one training; inf if it is not finite."""
    model = build(net, seed)
    optimizer = optimizer_for(model, kind, lr, settings)
    schedule = scheduled(optimizer, examples // batch)
    for step in batches(data, batch, examples, seed):
        optimizer.zero_grad()
        found = loss(model, step)
        if not math.isfinite(float(found.detach())):
            return math.inf
        found.backward()
        optimizer.step()
        schedule.step()
    return held_out(model, data)


def held_out(model: nn.Module, data: Data) -> float:
    """Loss on the held-out examples; inf if it is not finite."""
    with torch.no_grad():
        found = float(loss(model, data.held_out))
    return found if math.isfinite(found) else math.inf


def watched_step(
    model: nn.Module, step: Examples, optimizer: torch.optim.Optimizer, parts: int = 4
) -> None:
    """One step in several micro-batches, as `watch` needs them."""
    optimizer.zero_grad()
    for x, y in zip(step[0].chunk(parts), step[1].chunk(parts), strict=True):
        (loss(model, (x, y)) / parts).backward()
    optimizer.step()
