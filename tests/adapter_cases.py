"""Models that the tests of adapters share: every kind of layer, GPT-2, diffusers', our own nets.

noisewise is imported where a case needs it: a process without it makes the other cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Tensor]
Adapted: TypeAlias = Any  # a model whose layers are PEFT's, which have no types


@dataclass(frozen=True)
class Case:
    """A model, batches and a loss, and the layers to adapt."""

    model: nn.Module
    batches: list[Any]
    loss: Loss
    names: list[str]
    output: Callable[[nn.Module], Tensor]


class Mixed(nn.Module):
    """An embedding, convolutions of one, two, three dimensions with stride, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(17, 12)
        self.line = nn.Conv1d(12, 10, 3, stride=2, padding=1)
        self.plane = nn.Conv2d(1, 10, 3, stride=2, padding=1)
        self.space = nn.Conv3d(1, 10, 2, stride=2)
        self.point = nn.Conv2d(10, 10, 1)
        self.head = nn.Linear(10, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens, int64 [n, 12]."""
        h = self.words(tokens)  # n, 12, 12
        line = torch.tanh(self.line(h.mT)).mean(2)
        plane = self.point(torch.tanh(self.plane(h[:, None]))).mean((2, 3))
        space = torch.tanh(self.space(h.reshape(-1, 1, 4, 6, 6))).mean((2, 3, 4))
        return self.head(line + plane + space)


def mixed() -> Case:
    """All kinds of layers but Conv1D."""
    torch.manual_seed(0)
    batches = [(torch.randint(0, 17, (8, 12)), torch.randn(8, 9)) for _ in range(4)]
    names = ["words", "line", "plane", "space", "point", "head"]
    return Case(
        Mixed(),
        batches,
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        names,
        lambda model: model(batches[0][0]),
    )


def gpt2() -> Case:
    """A GPT-2 of two layers: Conv1D, and a head tied to the embedding."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=31,
        n_positions=12,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config)
    batches = [torch.randint(0, 31, (4, 12)) for _ in range(3)]
    return Case(
        model,
        batches,
        lambda net, batch: net(input_ids=batch, labels=batch).loss,
        ["c_attn", "c_proj", "c_fc"],
        lambda net: net(input_ids=batches[0]).logits,
    )


def diffusers_unet() -> Case:
    """A small UNet2DModel, which predicts noise."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    batches = [(torch.randn(4, 1, 8, 8), torch.randint(0, 1000, (4,))) for _ in range(2)]
    return Case(
        model,
        batches,
        lambda net, batch: F.mse_loss(net(*batch).sample, batch[0]),
        ["conv1", "conv2", "to_q", "to_k", "to_v", "to_out.0", "linear_1", "linear_2"],
        lambda net: net(*batches[0]).sample,
    )


def small_unet() -> Adapted:
    """A conditional U-Net of diffusers, as Stable Diffusion's pipelines hold one."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    small = {
        "sample_size": 8,
        "in_channels": 2,
        "out_channels": 2,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 6,
        "attention_head_dim": 4,
    }
    return diffusers.UNet2DConditionModel(**small).eval()


def own_unet() -> Case:
    """Our own U-Net with classes, as a denoiser."""
    from noisewise.nets.unet import UNet

    torch.manual_seed(0)
    return _denoiser(UNet(channels=1, size=8, widths=(8, 16), blocks=(1, 1), num_classes=3))


def own_uvit() -> Case:
    """Our own U-ViT: convolutions around transformer blocks."""
    from noisewise.nets.uvit import UViT

    torch.manual_seed(0)
    return _denoiser(UViT(channels=1, size=8, widths=(8,), width=32, depth=1, num_classes=3))


def own_vit() -> Case:
    """Our own patch transformer, with the squeezed way in."""
    from noisewise.nets.vit import ViT

    torch.manual_seed(0)
    return _denoiser(ViT(1, 8, width=32, depth=1, patch=4, bottleneck=8, num_classes=3))


def _denoiser(net: nn.Module) -> Case:
    """One of our nets as a denoiser of labelled pictures."""
    from noisewise.diffusion import EDMWeight, Preconditioned, denoising_loss

    with torch.no_grad():  # it starts at zero, where most gradients are zero
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = Preconditioned(net, 0.5)
    batches = [
        (torch.randn(4, 1, 8, 8), torch.rand(4) + 0.2, torch.randn(4, 1, 8, 8), torch.arange(4) % 3)
        for _ in range(2)
    ]

    def loss(denoiser: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        x0, sigma, noise, labels = batch
        return denoising_loss(denoiser, x0, sigma, noise, EDMWeight(0.5), labels).mean()

    x0, sigma, _, labels = batches[0]
    names = [
        n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))
    ]
    return Case(model, batches, loss, names, lambda denoiser: denoiser(x0, sigma, labels))


def mean_loss(model: nn.Module, batches: list[Any], loss: Loss) -> Tensor:
    """Mean over batches of one size."""
    return torch.stack([loss(model, batch) for batch in batches]).mean()


def disturbed(adapted: Adapted, size: float = 0.3) -> Adapted:
    """What a training would do."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


CASES = {
    "mixed": mixed,
    "gpt2": gpt2,
    "diffusers": diffusers_unet,
    "own": own_unet,
    "uvit": own_uvit,
    "vit": own_vit,
}


def spectrum(m: int, n: int, values: list[float], seed: int = 0) -> Tensor:
    """A matrix of given singular values and random singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(m, len(values), generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64)).Q
    return (u * torch.tensor(values, dtype=torch.float64) @ v.T).float()


SPECTRA = {
    "rank 2r": [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
    "falling": [3.0 / i for i in range(1, 25)],
    "flat": [1.0] * 24,
    "steep": [0.5**i for i in range(24)],
}


def linear_case(g: Tensor, scale: float = 1.0) -> tuple[nn.Module, list[Tensor], Loss]:
    """A linear layer and a loss whose gradient is g at every weight."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(g.shape[1], g.shape[0], bias=False))
    eye = torch.eye(g.shape[1])
    return net, [eye], lambda model, batch: scale * (model(batch) * g.T).sum()


class EightBit(nn.Linear):
    """A stand-in for an 8 bit layer: integers with a scale, of the Linear class."""

    def __init__(self, of: Adapted) -> None:
        super().__init__(of.in_features, of.out_features, bias=False)
        self.scale = of.weight.detach().abs().max() / 127
        whole = (of.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input @ (self.weight.float() * self.scale).T
