"""A U-Net over the scales of a picture, for 64 pixels and more: a denoiser of Haar bands.

Papers: Hoogeboom et al. 2023, 2024 (simple diffusion: little work at full resolution, parameters at
the lowest); Karras et al. 2022 (EDM) for the scaling, here one for each band; Gu et al. 2023
(Matryoshka diffusion) for training small pictures first in the same net.

A plain EDM net above 64 pixels has to subtract noise far above the size of fine details (their
standard deviation is .1 where the whole has 3): it errs many times as much as a Wiener filter
there. Here the picture is rotated into Haar bands, and each band has its own skip, input and output
scale. Every resolution also has a path at its own full size, so that no part of the picture is out
of reach.

The net without its finest levels is the same problem for a smaller picture, so coarse scales can be
trained first, at many times the speed: a smaller input simply leaves out the finest levels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.nets.haar import haar, inverse_haar
from noisewise.nets.layers import (
    ChannelNorm,
    NoiseEmbedding,
    PixelAttention,
    ResBlock,
    TransformerBlock,
    positions,
    upsampled,
    zeroed,
)


class Pyramid(nn.Module):
    """``net(x, noise_level, condition) -> x0``: a denoiser that scales its bands itself.

    Resolution 0 is the whole picture, each further one has half the side. The first `levels` ones
    have details of their own: ``x_k`` is rotated into ``x_(k+1)`` and the details ``d_k``. With the
    standard deviation sd of a band, ``c_skip = sd^2 / (sigma^2 + sd^2)``,
    ``c_out = sigma sd / sqrt(sigma^2 + sd^2)``:

        D_levels = c_skip x + c_out F                 the coarsest band
        D_k = inverse_haar(D_(k+1), c_skip d_k + c_out F_k) + c_out G_k

    F_k comes from the features of resolution k + 1, G_k from those of resolution k.

    Args:
        channels: channels of the pictures.
        size: side of the pictures in pixels, a multiple of 2^levels.
        detail_sd: standard deviation of the details of each level, finest first.
        coarse_sd: standard deviation of the coarsest band.
        mean: of each channel, subtracted before everything; empty: 0.
        widths: channels of the features at each resolution, finest first; more than levels. The
            first may be 0: then there are no features at full size, and no G_0.
        blocks: residual blocks at each resolution on the way up; on the way down as many, but none
            at the finest.
        depth: transformer blocks at the lowest resolution; 0: one attention between its pixels.
        dropout: used at the lowest resolution.
        num_classes: number of classes; 0: none.

    Raises:
        ValueError: if the sizes do not fit together.

    Example:
        >>> net = Pyramid(1, 64, detail_sd=(0.1,), coarse_sd=0.9, widths=(8, 16, 32))
        >>> net(torch.randn(2, 1, 64, 64), torch.zeros(2)).shape
        torch.Size([2, 1, 64, 64])
        >>> net(torch.randn(2, 1, 32, 32), torch.zeros(2)).shape  # the coarse part alone
        torch.Size([2, 1, 32, 32])
    """

    adam_parameters = ("stem", "detail_stem", "head", "detail_head", "embedding")

    def __init__(
        self,
        channels: int,
        size: int,
        detail_sd: tuple[float, ...],
        coarse_sd: float,
        mean: tuple[float, ...] = (),
        widths: tuple[int, ...] = (12, 24, 32, 64, 128),
        blocks: tuple[int, ...] = (),
        depth: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        """Make the layers; at the start the net is the linear filter of each band."""
        super().__init__()
        levels, blocks = len(detail_sd), blocks or (1,) * len(widths)
        _check(channels, size, levels, mean, widths, blocks)
        if not all(sd > 0 for sd in (*detail_sd, coarse_sd)):
            raise ValueError("a band has the standard deviation 0: give positive numbers")
        self.config: dict[str, Any] = {
            "name": "pyramid",
            "channels": channels,
            "size": size,
            "detail_sd": list(detail_sd),
            "coarse_sd": coarse_sd,
            "mean": list(mean),
            "widths": list(widths),
            "blocks": list(blocks),
            "depth": depth,
            "dropout": dropout,
            "num_classes": num_classes,
        }
        self.levels, self.size = levels, size
        self.detail_sd, self.coarse_sd = tuple(detail_sd), coarse_sd
        self.sds = _standard_deviations(self.detail_sd, coarse_sd)
        offset = torch.tensor(mean or (0.0,) * channels).view(1, channels, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        vector = 4 * max(widths[levels], 32)
        self.embedding = NoiseEmbedding(vector, num_classes)
        self.finest = 1 if levels and not widths[0] else 0
        self._add_edges(channels, widths[: levels + 1])
        self._add_blocks(widths, blocks, vector, dropout)
        self.middle = ResBlock(widths[-1], widths[-1], vector, dropout)
        self.attend = PixelAttention(widths[-1])
        self.transformer = nn.ModuleList(
            TransformerBlock(widths[-1], vector, dropout) for _ in range(depth)
        )

    def _add_edges(self, channels: int, widths: tuple[int, ...]) -> None:
        """First and last layers; those of details have the place of the resolution above them."""
        fine, coarse = widths[self.finest :], widths[1:]
        self.stem = nn.ModuleList(nn.Conv2d(channels, w, 3, padding=1) for w in fine)
        self.norm = nn.ModuleList(ChannelNorm(w) for w in fine)
        self.head = nn.ModuleList(zeroed(nn.Conv2d(w, channels, 3, padding=1)) for w in fine)
        # What joins later must not disturb the coarse scales that are trained already.
        self.detail_stem = nn.ModuleList(
            zeroed(nn.Conv2d(3 * channels, w, 3, padding=1)) for w in coarse
        )
        self.detail_head = nn.ModuleList(
            zeroed(nn.Conv2d(w, 3 * channels, 3, padding=1)) for w in coarse
        )

    def _add_blocks(
        self, widths: tuple[int, ...], blocks: tuple[int, ...], vector: int, dropout: float
    ) -> None:
        """Residual blocks, and the convolutions between resolutions."""
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        last = len(widths) - 1
        for level in range(self.finest, len(widths)):
            width, count = widths[level], blocks[level]
            dropped = dropout if level == last else 0.0
            thin = level == self.finest and level < self.levels
            down = [ResBlock(width, width, vector, dropped) for _ in range(0 if thin else count)]
            self.down.append(nn.ModuleList(down))
            ins = [2 * width] + [width] * (count - 1)
            self.up.append(nn.ModuleList(ResBlock(i, width, vector, dropped) for i in ins))
            if level < last:
                shrink = nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1)
                self.shrink.append(zeroed(shrink) if level < self.levels else shrink)
                self.grow.append(nn.Conv2d(widths[level + 1], width, 3, padding=1))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, c, h, w], at noise_level = ln sigma, [n], for condition, [n].

        A smaller x is the low-pass band of a picture (`noisewise.nets.haar.low_pass`), of side
        size / 2^k. Sides need not be equal: the longer one tells the resolution.
        """
        first = self._first(max(x.shape[-2:]))
        sigma = noise_level.float().exp().view(-1, 1, 1, 1)
        vector = self.embedding(noise_level, condition)
        offset = self.offset.to(x.dtype) * 2**first
        bands, details = [x - offset], []
        for _ in range(first, self.levels):
            low, detail = haar(bands[-1])
            bands.append(low)
            details.append(detail)
        # Lists start at the whole picture, whatever the first resolution is.
        bands, details = [x] * first + bands, [x] * first + details
        features = self._features(first, bands, details, sigma, vector)
        return self._joined(first, bands, details, features, sigma) + offset

    def _first(self, side: int) -> int:
        """The resolution that a picture of this side has."""
        for level in range(self.levels + 1):
            if side << level == self.size:
                return level
        sides = ", ".join(str(self.size >> level) for level in range(self.levels + 1))
        raise ValueError(f"this net takes pictures of {sides} pixels, and not {side}")

    def _features(
        self, first: int, bands: list[Tensor], details: list[Tensor], sigma: Tensor, vector: Tensor
    ) -> dict[int, Tensor]:
        """Features of every resolution that has a head, normalised, by resolution."""
        start = max(first, self.finest)
        skips: list[Tensor] = []
        h = sigma  # replaced in the first round
        for level in range(start, len(self.down) + self.finest):
            parts = [] if level == start else [self.shrink[level - 1 - self.finest](h)]
            if level <= self.levels:
                x = _scaled(bands[level], sigma, self.sds[level])
                parts.append(self._cast(self.stem[level - self.finest], x))
            if first < level <= self.levels:
                x = _scaled(details[level - 1], sigma, self.detail_sd[level - 1])
                parts.append(self._cast(self.detail_stem[level - 1], x))
            h = sum(parts[1:], parts[0])
            h = _through(self.down[level - self.finest], h, vector)
            skips.append(h)
        h = self._middle(h, vector)
        found = {}
        for level in reversed(range(start, len(self.up) + self.finest)):
            h = _through(self.up[level - self.finest], torch.cat([h, skips.pop()], 1), vector)
            if level <= self.levels:
                found[level] = F.silu(self.norm[level - self.finest](h))
            if level > start:
                h = self.grow[level - 1 - self.finest](upsampled(h, skips[-1]))
        return found

    def _cast(self, layer: nn.Module, x: Tensor) -> Tensor:
        x = x.to(next(layer.parameters()).dtype)
        return layer(x.contiguous(memory_format=torch.channels_last))

    def _middle(self, h: Tensor, vector: Tensor) -> Tensor:
        h = self.attend(self.middle(h, vector))
        if not len(self.transformer):
            return h
        n, c, rows, columns = h.shape
        tokens = h.flatten(2).mT + positions(rows, columns, c).to(h)
        for block in self.transformer:
            tokens = block(tokens, vector)
        return tokens.mT.reshape(n, c, rows, columns)

    def _joined(
        self,
        first: int,
        bands: list[Tensor],
        details: list[Tensor],
        features: dict[int, Tensor],
        sigma: Tensor,
    ) -> Tensor:
        """Put the denoised bands together, from coarse to fine."""
        levels = self.levels
        skip, out = _scales(sigma, self.coarse_sd)
        whole = skip * bands[levels] + out * self._head(levels, features)
        for level in reversed(range(first, levels)):
            skip, out = _scales(sigma, self.detail_sd[level])
            own = self.detail_head[level](features[level + 1]).to(sigma.dtype)
            whole = inverse_haar(whole, skip * details[level] + out * own)
            if level >= self.finest:
                whole = whole + out * self._head(level, features)
        return whole.to(bands[first].dtype)

    def _head(self, level: int, features: dict[int, Tensor]) -> Tensor:
        return self.head[level - self.finest](features[level]).float()


def _through(blocks: nn.Module, h: Tensor, vector: Tensor) -> Tensor:
    """Pass h through blocks, one after the other."""
    for block in blocks.children():
        h = block(h, vector)
    return h


def _scaled(band: Tensor, sigma: Tensor, sd: float) -> Tensor:
    """A noised band with unit variance."""
    return band * (sigma.square() + sd**2).rsqrt()


def _scales(sigma: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    """c_skip and c_out of a band."""
    total = sigma.square() + sd**2
    return sd**2 / total, sigma * sd * total.rsqrt()


def _standard_deviations(detail_sd: tuple[float, ...], coarse_sd: float) -> list[float]:
    """Of the low-pass band at each resolution: the transform is a rotation."""
    found = [coarse_sd]
    for sd in reversed(detail_sd):
        found.insert(0, ((3 * sd**2 + found[0] ** 2) / 4) ** 0.5)
    return found


def _check(
    channels: int,
    size: int,
    levels: int,
    mean: tuple[float, ...],
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
) -> None:
    if channels < 1 or len(mean) not in (0, channels):
        raise ValueError(
            f"channels is {channels}, mean is {mean}: give at least one channel, and no mean or "
            "one for each channel"
        )
    least = [0 if at == 0 and levels else 1 for at in range(len(widths))]
    if len(widths) <= levels or any(w < low for w, low in zip(widths, least, strict=True)):
        raise ValueError(
            f"widths is {widths}: give more widths than the {levels} levels of details, all at "
            "least 1; only the first may be 0"
        )
    if len(blocks) != len(widths) or any(count < 1 for count in blocks):
        raise ValueError(f"blocks is {blocks}: give at least 1 for each of the widths {widths}")
    step = 2**levels
    if size % step or size < 2 * step:
        low = max(2 * step, size - size % step)
        raise ValueError(f"this net cannot use {size} pixels: set size to {low} or {low + step}")
    if size >> (len(widths) - 1) < 1:
        raise ValueError(
            f"{size} pixels are too few for {len(widths)} resolutions: use fewer widths"
        )
