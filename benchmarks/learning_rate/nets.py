"""Two real nets on real data for `laws.py`: an MLP on garments, a transformer on a manual.

The measured optimiser trains the checkpoints. Then its state continues at frozen weights until
Adam's second moment has the steady value of its batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.scaling.flat import Flat, gradient

KINDS = {"sgd": 0.1, "adam": 1e-8, "adam large": 3e-2}  # epsilon; SGD has none
BATCHES = (8, 32, 128, 512, 2048, 4096)
WATCHED = {"plain": 0, "every 20": 20, "every step": 1}  # 20 is the default of `watch`
BATCH = 64  # for training the checkpoints and for measuring the laws
CONTEXT = 32
WIDE = "wide transformer"  # 1.1 million parameters; only for the cost of watching
Examples = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Examples) -> Tensor:
    """Mean loss of a batch."""
    return losses(model, batch).mean()


def losses(model: nn.Module, batch: Examples) -> Tensor:
    """One loss per example (a picture, a sequence)."""
    out = model(batch[0])
    if out.ndim == 2:
        return F.cross_entropy(out, batch[1], reduction="none")
    return F.cross_entropy(out.flatten(0, 1), batch[1].flatten(), reduction="none").view(
        batch[1].shape
    ).mean(1)  # fmt: skip


class Transformer(nn.Module):
    """Two small pre-norm blocks over characters."""

    def __init__(self, letters: int, width: int = 32, heads: int = 4) -> None:
        """Random weights from torch's generator."""
        super().__init__()
        self.token = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width), "norm2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width), "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(2)
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Letters [n, t] to logits [n, t, letters]."""
        h = self.token(x) + self.place
        n, t, width = h.shape
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            q, k, v = (
                block["qkv"](block["norm1"](h)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            )
            # Attention by hand, because the fused kernels cannot be differentiated twice.
            weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self.mask).softmax(-1)
            h = h + block["out"]((weights @ v).transpose(1, 2).reshape(n, t, width))
            h = h + block["down"](F.gelu(block["up"](block["norm2"](h))))
        return self.head(self.norm(h))


def mlp() -> nn.Module:
    """14 x 14 garments to ten classes."""
    return nn.Sequential(nn.Linear(196, 48), nn.Tanh(), nn.Linear(48, 10))


@dataclass(frozen=True, eq=False)  # compared by identity, because tensors do not compare
class Data:
    """Training examples, and held-out examples that judge every sweep."""

    x: Tensor
    y: Tensor
    eval_x: Tensor
    eval_y: Tensor

    def draw(self, n: int, generator: torch.Generator) -> Examples:
        """N examples with replacement."""
        i = torch.randint(len(self.x), (n,), generator=generator)
        return self.x[i], self.y[i]

    @property
    def held_out(self) -> Examples:
        """The held-out examples."""
        return self.eval_x, self.eval_y


def garments(path: Path, num_eval: int) -> Data:
    """Fashion-MNIST, averaged to 14 x 14."""
    with np.load(path) as stored:
        images, labels, split = stored["images"], stored["labels"], stored["split"]
    x = torch.from_numpy(images).float().squeeze(-1) / 255 - 0.286
    x = F.avg_pool2d(x[:, None], 2).flatten(1) / 0.3
    y, test = torch.from_numpy(labels).long(), torch.from_numpy(split) == 1
    return Data(x[~test], y[~test], x[test][:num_eval], y[test][:num_eval])


def manual(num_eval: int) -> Data:
    """Characters of the help topics that come with Python."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    letters = sorted(set(text) & {chr(i) for i in range(10, 127)})
    code = {letter: i for i, letter in enumerate(letters)}
    stream = torch.tensor([code[c] for c in text if c in code])
    pieces = stream.unfold(0, CONTEXT + 1, CONTEXT // 2)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))
    pieces = pieces[order]
    rest, judge = pieces[num_eval:], pieces[:num_eval]
    return Data(rest[:, :-1], rest[:, 1:], judge[:, :-1], judge[:, 1:])


def build(net: str, data: Data, seed: int) -> nn.Module:
    """A new net."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if net == "mlp":
            return mlp()
        letters = int(data.x.max()) + 1
        return Transformer(letters, 256, 8) if net == WIDE else Transformer(letters)


def optimizer_for(model: nn.Module, kind: str, epsilon: float, lr: float) -> torch.optim.Optimizer:
    """SGD or Adam without momentum, because the laws are for one step."""
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr)
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.0, 0.99), eps=epsilon)


def checkpoint(
    net: str, data: Data, kind: str, epsilon: float, steps: int, lr: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A net after `steps` steps at BATCH, and its optimiser with a steady state."""
    model, generator = build(net, data, 0), torch.Generator().manual_seed(100)
    optimizer = optimizer_for(model, kind, epsilon, lr)
    flat = Flat(model)
    for step in range(steps + (300 if kind == "adam" else 0)):
        optimizer.zero_grad()
        loss(model, data.draw(BATCH, generator)).backward()
        before = flat.vector()
        optimizer.step()
        if step >= steps:  # the state continues, the weights stay
            with torch.no_grad():
                for parameter, old in zip(flat.parameters, flat.split(before), strict=True):
                    parameter.copy_(old)
    optimizer.zero_grad()
    return model, optimizer


def truth(model: nn.Module, data: Data, parts: int) -> tuple[Tensor, Tensor]:
    """Almost exact gradient and variance of each coordinate, from parts of 64 examples."""
    flat, generator = Flat(model), torch.Generator().manual_seed(7)
    rows = torch.stack([gradient(flat, loss, data.draw(64, generator)) for _ in range(parts)])
    return rows.mean(0), rows.var(0) * 64


def continued(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Copies of net and optimiser, to continue training at another learning rate."""
    twin = copy.deepcopy(model)
    kind = "adam" if isinstance(optimizer, torch.optim.Adam) else "sgd"
    again = optimizer_for(twin, kind, float(optimizer.param_groups[0].get("eps", 0.0)), lr)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in again.param_groups:
        group["lr"] = lr
    return twin, again


def batches(data: Data, batch: int, examples: int, seed: int) -> Iterator[Examples]:
    """A budget of examples in batches; all batch sizes of one seed see the same examples."""
    generator = torch.Generator().manual_seed(1000 + seed)
    order = torch.randint(len(data.x), (examples,), generator=generator)
    for i in range(0, examples - batch + 1, batch):
        chosen = order[i : i + batch]
        yield data.x[chosen], data.y[chosen]
