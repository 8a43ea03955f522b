"""The U-ViT: convolutions at high resolutions, a transformer at the lowest.

Papers: Hoogeboom et al. 2023 (simple diffusion: larger nets grow only at the lowest resolution, and
dropout is used only there); Hoogeboom et al. 2024 (simpler diffusion: one skip per resolution).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.nets.fitting import check_fits
from noisewise.nets.layers import (
    ChannelNorm,
    NoiseEmbedding,
    ResBlock,
    TransformerBlock,
    positions,
    upsampled,
    zeroed,
)
from noisewise.sizes import AnySize, as_size, sides, written


class UViT(nn.Module):
    """``net(x, noise_level, condition) -> same shape as x``.

    Each resolution of the convolutional part has one skip: ``up(low_out - low_in) + high``.

    Args:
        channels: channels of the pictures.
        size: of the pictures, see `noisewise.sizes`; patch * 2^len(widths) must divide both sides.
        widths: channels of the convolutional resolutions, finest first; the side halves after each.
        width: length of a token at the lowest resolution, a multiple of 32.
        depth: number of transformer blocks.
        patch: side of the pixel blocks that become channels.
        dropout: used in the transformer blocks only.
        num_classes: number of classes; 0: none.

    Raises:
        ValueError: if the sizes do not fit together.

    Source: Hoogeboom et al. 2024, section 4 (residual U-ViT).

    Example:
        >>> net = UViT(channels=3, size=32, widths=(16,), width=64, depth=2)
        >>> net(torch.randn(2, 3, 32, 32), torch.zeros(2)).shape
        torch.Size([2, 3, 32, 32])
    """

    adam_parameters = ("stem", "head", "embedding", "place")

    def __init__(
        self,
        channels: int,
        size: AnySize,
        widths: tuple[int, ...] = (32,),
        width: int = 128,
        depth: int = 4,
        patch: int = 2,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        """Make the layers; at the start the output of the net is zero."""
        super().__init__()
        size, step = as_size(size), patch * 2 ** len(widths)
        check_fits(size, step)
        if not widths or depth < 1:
            raise ValueError(
                f"widths is {widths}, depth is {depth}: give at least one width and a depth of 1"
            )
        self.config: dict[str, Any] = {
            "name": "uvit",
            "channels": channels,
            "size": written(size),
            "widths": list(widths),
            "width": width,
            "depth": depth,
            "patch": patch,
            "dropout": dropout,
            "num_classes": num_classes,
        }
        self.patch, vector = patch, 2 * width
        rows, columns = (side // step for side in sides(size))
        self.embedding = NoiseEmbedding(vector, num_classes)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        after = [*widths[1:], width]
        self.down = nn.ModuleList(ResBlock(c, c, vector) for c in widths)
        self.shrink = nn.ModuleList(
            nn.Conv2d(c, d, 2, stride=2) for c, d in zip(widths, after, strict=True)
        )
        self.place = nn.Parameter(positions(rows, columns, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, vector, dropout) for _ in range(depth))
        self.grow = nn.ModuleList(nn.Conv2d(d, c, 1) for c, d in zip(widths, after, strict=True))
        self.up = nn.ModuleList(ResBlock(c, c, vector) for c in widths)
        self.norm = ChannelNorm(widths[0])
        self.head = zeroed(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """Transform x, float [n, c, h, w], at noise_level = ln sigma, [n], for condition, [n].

        What else training tells is added to the embedding, see `NoiseEmbedding`.
        """
        vector = self.embedding(noise_level, condition, told)
        h = F.pixel_unshuffle(x.to(self.stem.weight.dtype), self.patch)
        h = self.stem(h.contiguous(memory_format=torch.channels_last))
        high, low = [], []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, vector)
            high.append(h)
            h = shrink(h)
            low.append(h)
        h = self._transform(h, vector)
        for level in reversed(range(len(self.up))):
            change = self.grow[level](h - low[level])
            h = self.up[level](upsampled(change, high[level]) + high[level], vector)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)

    def _transform(self, h: Tensor, vector: Tensor) -> Tensor:
        n, c, rows, columns = h.shape
        tokens = h.flatten(2).mT + self.place
        for block in self.blocks:
            tokens = block(tokens, vector)
        out = tokens.mT.reshape(n, c, rows, columns)
        return out.contiguous(memory_format=torch.channels_last)
