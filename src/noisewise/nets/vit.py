"""The ViT: a transformer on patches of pixels that predicts the picture itself.

Papers: Peebles and Xie 2023 (DiT); Li and He 2025 (JiT: with large patches only a net that predicts
x0 works, and a narrow first layer does no harm).

The cost depends on the number of patches, not of pixels: 64 patches of 4, 8 or 16 pixels cost the
same. Make it a denoiser with ``Preconditioned(net, sigma_data, prediction="x0")``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.nets.fitting import check_fits
from noisewise.nets.layers import NoiseEmbedding, TransformerBlock, positions, zeroed
from noisewise.sizes import AnySize, as_size, sides, written


class ViT(nn.Module):
    """``net(x, noise_level, condition) -> same shape as x``.

    Args:
        channels: channels of the pictures.
        size: of the pictures, see `noisewise.sizes`; both sides are multiples of patch.
        width: length of a token, a multiple of 32.
        depth: number of transformer blocks.
        patch: side of a patch in pixels.
        bottleneck: width of a narrow first layer; 0: none.
        dropout: used in the transformer blocks.
        num_classes: number of classes; 0: none.

    Raises:
        ValueError: if the sizes do not fit together.

    Source: Li and He 2025 (JiT).

    Example:
        >>> net = ViT(channels=3, size=32, width=64, depth=2, patch=4)
        >>> net(torch.randn(2, 3, 32, 32), torch.zeros(2)).shape
        torch.Size([2, 3, 32, 32])
    """

    adam_parameters = ("stem", "head", "embedding", "place")

    def __init__(
        self,
        channels: int,
        size: AnySize,
        width: int = 128,
        depth: int = 6,
        patch: int = 4,
        bottleneck: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        """Make the layers; at the start the output of the net is zero."""
        super().__init__()
        size = as_size(size)
        check_fits(size, patch)
        if depth < 1:
            raise ValueError(f"depth is {depth}: give at least 1")
        self.config: dict[str, Any] = {
            "name": "vit",
            "channels": channels,
            "size": written(size),
            "width": width,
            "depth": depth,
            "patch": patch,
            "bottleneck": bottleneck,
            "dropout": dropout,
            "num_classes": num_classes,
        }
        self.patch, pixels = patch, channels * patch**2
        rows, columns = (side // patch for side in sides(size))
        self.embedding = NoiseEmbedding(2 * width, num_classes)
        self.stem: nn.Module = nn.Linear(pixels, width)
        if bottleneck:
            narrow = nn.Linear(pixels, bottleneck, bias=False)
            self.stem = nn.Sequential(narrow, nn.Linear(bottleneck, width))
        self.place = nn.Parameter(positions(rows, columns, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, 2 * width, dropout) for _ in range(depth)
        )
        self.modulation = zeroed(nn.Linear(2 * width, 2 * width))
        self.head = zeroed(nn.Linear(width, pixels))
        self.width = width

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
        folded = F.pixel_unshuffle(x.to(self.head.weight.dtype), self.patch)
        n, pixels, rows, columns = folded.shape
        tokens = self.stem(folded.flatten(2).mT) + self.place
        for block in self.blocks:
            tokens = block(tokens, vector)
        scale, shift = self.modulation(vector)[:, None].chunk(2, -1)
        tokens = torch.addcmul(shift, F.layer_norm(tokens, (self.width,)), 1 + scale)
        out = self.head(tokens).mT.reshape(n, pixels, rows, columns)
        return F.pixel_shuffle(out, self.patch)
