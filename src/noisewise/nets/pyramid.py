"""A U-Net over the scales of a picture, for more than 32 pixels: a denoiser of Haar bands.

Papers: Hoogeboom et al. 2023, 2024 (simple diffusion: little work at full resolution, parameters at
the lowest); Karras et al. 2022 (EDM) for the scaling, here one for each band; Lee 1980 for filters
that adapt to their place; Gu et al. 2023 (Matryoshka diffusion) for training small pictures first
in the same net.

A plain EDM net at 64 pixels and more has to subtract noise far above the size of fine details
(their standard deviation is .1 where the whole has 3): it errs many times as much as a Wiener
filter there. Here the picture is rotated into Haar bands; the coarsest one has EDM's scales, the
others start from a Wiener filter and have their own. Every resolution also has a path at its own
full size, so that no part of the picture is out of reach.
"""

from __future__ import annotations

import math
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.nets.fitting import check_fits
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
from noisewise.nets.spectral_filter import SpectralFilter
from noisewise.sizes import AnySize, Size, as_size, halved, sides, size_of, written

Rows = tuple[tuple[float, ...], ...]


class Pyramid(nn.Module):
    """``net(x, noise_level, condition) -> x0``: a denoiser that scales its bands itself.

    Resolution 0 is the whole picture, each further one has half the side. The first `levels` ones
    have details of their own: ``x_k`` is rotated into ``x_(k+1)`` and details. The coarsest band
    has EDM's scales with its standard deviation sd. Details start from a Wiener filter W of the
    whole picture, scaled by the error e_k that it leaves in them (see `SpectralFilter`):

        D_levels = c_skip x + c_out F                            the coarsest band
        D_k = inverse_haar(D_(k+1), details_k of W(x) + e_k F_k) + e_k G_k

    F_k comes from the features of resolution k + 1, G_k from those of resolution k. Features of a
    resolution see its band, noised and filtered, and the details of the next finer one. On coarse
    scales a Wiener skip would harm the layout of pictures (measured).

    With `gains`, the features also say in each place how far to trust the filter: with w_k and y_k
    the details of W(x) and of x, and soft(t) = t / sqrt(1 + t^2 / 16),

        F_k + a_k soft(w_k / e_k) + b_k soft((y_k - w_k) / e_k)    in place of F_k.

    a_k = -1 clears noise from a flat place, b_k = 1 keeps an edge as it is: a Wiener filter for
    each place (Lee 1980). Without, few channels learn nothing at 256 pixels (docs/results.md).

    Args:
        channels: channels of the pictures.
        size: of the pictures, see `noisewise.sizes`; both sides are multiples of 2^levels.
        detail_sd: standard deviation of the details of each level, finest first, in each colour.
        coarse_sd: standard deviation of the coarsest band, in each colour.
        power: of each colour at each of `noisewise.nets.spectral_filter.radii` of this size.
        colours: rows are the axes of colour that all of these are about, a rotation; empty: the
            channels themselves. In a set, brightness varies more than tint.
        mean: of each channel, subtracted before everything; empty: 0.
        widths: channels of the features at each resolution, finest first; more than levels. The
            first may be 0: then there are no features at full size, and no G_0.
        blocks: residual blocks at each resolution on the way up; on the way down as many, but none
            at the finest. Down to the coarsest band, features of the way down are added, below it
            they are placed beside those of the way up.
        depth: transformer blocks at the lowest resolution; 0: one attention between its pixels.
        dropout: used at the lowest resolution.
        num_classes: number of classes; 0: none.
        gains: whether the features say how far to trust the filter in each place.

    Raises:
        ValueError: if the sizes do not fit together.

    Example:
        >>> settings = {"detail_sd": ((0.1,),), "coarse_sd": (0.9,), "power": ((1.0,) * 32,)}
        >>> net = Pyramid(1, 64, **settings, widths=(8, 16, 32))
        >>> net(torch.randn(2, 1, 64, 64), torch.zeros(2)).shape
        torch.Size([2, 1, 64, 64])
        >>> net(torch.randn(2, 1, 32, 32), torch.zeros(2)).shape  # the coarse part alone
        torch.Size([2, 1, 32, 32])
    """

    adam_parameters = ("stem", "detail_stem", "head", "detail_head", "gain", "embedding")

    def __init__(
        self,
        channels: int,
        size: AnySize,
        detail_sd: Rows,
        coarse_sd: tuple[float, ...],
        power: Rows,
        colours: Rows = (),
        mean: tuple[float, ...] = (),
        widths: tuple[int, ...] = (12, 24, 32, 64, 128),
        blocks: tuple[int, ...] = (),
        depth: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
        gains: bool = False,
    ) -> None:
        """Make the layers; at the start the net is a linear filter of each band."""
        super().__init__()
        levels, blocks, size = len(detail_sd), blocks or (1,) * len(widths), as_size(size)
        _check(size, levels, widths, blocks)
        _check_colours(channels, (*detail_sd, coarse_sd), power, colours, mean)
        self.config: dict[str, Any] = {
            "name": "pyramid",
            "channels": channels,
            "size": written(size),
            "detail_sd": [list(row) for row in detail_sd],
            "coarse_sd": list(coarse_sd),
            "power": [list(row) for row in power],
            "colours": [list(row) for row in colours],
            "mean": list(mean),
            "widths": list(widths),
            "blocks": list(blocks),
            "depth": depth,
            "dropout": dropout,
            "num_classes": num_classes,
            "gains": gains,
        }
        self.levels, self.size = levels, size
        self.filter = SpectralFilter(size, power, levels)
        deviations = torch.tensor([*detail_sd, coarse_sd])
        self.register_buffer("deviations", deviations, persistent=False)
        offset = torch.tensor(mean or (0.0,) * channels).view(1, channels, 1, 1)
        self.register_buffer("offset", offset, persistent=False)
        axes = torch.tensor(colours) if colours else torch.eye(channels, device="cpu")
        self.register_buffer("axes", axes, persistent=False)
        vector = 4 * max(widths[levels], 32)
        self.embedding = NoiseEmbedding(vector, num_classes)
        self.finest = 1 if levels and not widths[0] else 0
        self._add_edges(channels, widths[: levels + 1], gains)
        self._add_blocks(widths, blocks, vector, dropout)
        self.middle = ResBlock(widths[-1], widths[-1], vector, dropout)
        self.attend = PixelAttention(widths[-1])
        self.transformer = nn.ModuleList(
            TransformerBlock(widths[-1], vector, dropout) for _ in range(depth)
        )

    def _add_edges(self, channels: int, widths: tuple[int, ...], gains: bool) -> None:
        """First and last layers; those of details have the place of the resolution above them."""
        fine, coarse = widths[self.finest :], widths[1:]
        self.stem = nn.ModuleList(nn.Conv2d(2 * channels, w, 3, padding=1) for w in fine)
        self.norm = nn.ModuleList(ChannelNorm(w) for w in fine)
        self.head = nn.ModuleList(zeroed(nn.Conv2d(w, channels, 3, padding=1)) for w in fine)
        # What joins later must not disturb the coarse scales that are trained already.
        self.detail_stem = nn.ModuleList(
            zeroed(nn.Conv2d(3 * channels, w, 3, padding=1)) for w in coarse
        )
        self.detail_head = nn.ModuleList(
            zeroed(nn.Conv2d(w, 3 * channels, 3, padding=1)) for w in coarse
        )
        # Two for each detail: of the filter's own, and of what the filter took away.
        self.gain = nn.ModuleList(
            zeroed(nn.Conv2d(w, 6 * channels, 3, padding=1)) for w in (coarse if gains else ())
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
            fine = level < self.levels
            ins = [width if fine else 2 * width] + [width] * (count - 1)
            self.up.append(nn.ModuleList(ResBlock(i, width, vector, dropped) for i in ins))
            if level < last:
                shrink = nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1)
                self.shrink.append(zeroed(shrink) if fine else shrink)
                kernel = 1 if fine else 3
                grow = nn.Conv2d(widths[level + 1], width, kernel, padding=kernel // 2)
                self.grow.append(grow)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """Denoise x, float [n, c, h, w], at noise_level = ln sigma, [n], for condition, [n].

        A smaller x is the low-pass band of a picture (`noisewise.nets.haar.low_pass`), with sides
        / 2^k. What else training tells is added to the embedding, see `NoiseEmbedding`.
        """
        first = self._first(size_of(*x.shape[-2:]))
        sigma = noise_level.float().exp().view(-1, 1, 1, 1)
        vector = self.embedding(noise_level, condition, told)
        offset = self.offset.float() * 2**first
        bands, details = [_turned(x.float() - offset, self.axes.float())], []
        for _ in range(first, self.levels):
            low, detail = haar(bands[-1])
            bands.append(low)
            details.append(detail)
        linear, smooth = [self.filter(bands[0], sigma)], []
        for _ in range(first, self.levels):
            low, detail = haar(linear[-1])
            linear.append(low)
            smooth.append(detail)
        # Lists start at the whole picture, whatever the first resolution is.
        bands, details = [x] * first + bands, [x] * first + details
        linear, smooth = [x] * first + linear, [x] * first + smooth
        features = self._features(first, bands, linear, details, sigma, vector)
        whole = self._joined(first, bands[-1], details, smooth, features, sigma)
        return (_turned(whole, self.axes.float().mT) + offset).to(x.dtype)

    def _first(self, size: Size) -> int:
        """The resolution that a picture of this size has."""
        known = [halved(self.size, level) for level in range(self.levels + 1)]
        if size in known:
            return known.index(size)
        named = ", ".join(str(written(one)) for one in known)
        raise ValueError(f"this net takes pictures of {named} pixels, and not {written(size)}")

    def _features(
        self,
        first: int,
        bands: list[Tensor],
        linear: list[Tensor],
        details: list[Tensor],
        sigma: Tensor,
        vector: Tensor,
    ) -> dict[int, Tensor]:
        """Features of every resolution that has a head, normalised, by resolution."""
        start, sds = max(first, self.finest), self._all_deviations()
        skips: list[Tensor] = []
        h = sigma  # replaced in the first round
        for level in range(start, len(self.down) + self.finest):
            parts = [] if level == start else [self.shrink[level - 1 - self.finest](h)]
            if level <= self.levels:
                x = _scaled(bands[level], sigma, sds[level])
                x = torch.cat([x, linear[level] / sds[level]], 1)
                parts.append(self._cast(self.stem[level - self.finest], x))
            if first < level <= self.levels:
                sd = self._deviations(level - 1).repeat(1, 3, 1, 1)
                x = _scaled(details[level - 1], sigma, sd)
                parts.append(self._cast(self.detail_stem[level - 1], x))
            h = sum(parts[1:], parts[0])
            h = _through(self.down[level - self.finest], h, vector)
            skips.append(h)
        h = self._middle(h, vector)
        found = {}
        for level in reversed(range(start, len(self.up) + self.finest)):
            kept = skips.pop()
            h = h + kept if level < self.levels else torch.cat([h, kept], 1)
            h = _through(self.up[level - self.finest], h, vector)
            if level <= self.levels:
                found[level] = F.silu(self.norm[level - self.finest](h))
            if level > start:
                h = self._grown(level - 1, h, skips[-1])
        return found

    def _grown(self, level: int, h: Tensor, like: Tensor) -> Tensor:
        """Features of the next finer resolution; at full size, a convolution costs most."""
        grow = self.grow[level - self.finest]
        return upsampled(grow(h), like) if level < self.levels else grow(upsampled(h, like))

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
        coarsest: Tensor,
        details: list[Tensor],
        smooth: list[Tensor],
        features: dict[int, Tensor],
        sigma: Tensor,
    ) -> Tensor:
        """Put the denoised bands together, from coarse to fine."""
        levels = self.levels
        skip, out = _scales(sigma, self._deviations(self.levels))
        whole = skip * coarsest + out * self._head(levels, features)
        for level in reversed(range(first, levels)):
            out = self.filter.error(level, sigma)
            own = self._details(level, features[level + 1], details[level], smooth[level], out)
            whole = inverse_haar(whole, own)
            if level >= self.finest:
                whole = whole + out * self._head(level, features)
        return whole

    def _details(
        self, level: int, features: Tensor, noised: Tensor, smooth: Tensor, error: Tensor
    ) -> Tensor:
        """The denoised details of a level, from the features of the resolution below it."""
        error = error.repeat(1, 3, 1, 1)
        own = self.detail_head[level](features).float()
        if len(self.gain):
            a, b = self.gain[level](features).float().chunk(2, 1)
            own = own + a * _soft(smooth / error) + b * _soft((noised - smooth) / error)
        return smooth + error * own

    def _deviations(self, level: int) -> Tensor:
        """Of the details of a level in each colour, or of the coarsest band, [1, c, 1, 1]."""
        return self.deviations[level].float().view(1, -1, 1, 1)

    def _all_deviations(self) -> list[Tensor]:
        """Of the low-pass band at each resolution: the transform is a rotation."""
        squares = [self._deviations(level).square() for level in range(self.levels + 1)]
        found = [squares[-1]]
        for detail in reversed(squares[:-1]):
            found.insert(0, (3 * detail + found[0]) / 4)
        return [square.sqrt() for square in found]

    def _head(self, level: int, features: dict[int, Tensor]) -> Tensor:
        return self.head[level - self.finest](features[level]).float()


def _soft(x: Tensor) -> Tensor:
    """Bound x by 4: a gain that is a little wrong must not spoil large details."""
    return x * (1 + x.square() / 16).rsqrt()


def _through(blocks: nn.Module, h: Tensor, vector: Tensor) -> Tensor:
    """Pass h through blocks, one after the other."""
    for block in blocks.children():
        h = block(h, vector)
    return h


def _turned(x: Tensor, axes: Tensor) -> Tensor:
    """Pictures [n, c, h, w] in other axes of colour; a rotation."""
    return x if axes.shape[0] == 1 else torch.einsum("dc,nchw->ndhw", axes, x)


def _scaled(band: Tensor, sigma: Tensor, sd: Tensor) -> Tensor:
    """A noised band with unit variance."""
    return band * (sigma.square() + sd**2).rsqrt()


def _scales(sigma: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out of a band."""
    total = sigma.square() + sd**2
    return sd**2 / total, sigma * sd * total.rsqrt()


def _check(size: Size, levels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    least = [0 if at == 0 and levels else 1 for at in range(len(widths))]
    if len(widths) <= levels or any(w < low for w, low in zip(widths, least, strict=True)):
        raise ValueError(
            f"widths is {widths}: give more widths than the {levels} levels of details, all at "
            "least 1; only the first may be 0"
        )
    if len(blocks) != len(widths) or any(count < 1 for count in blocks):
        raise ValueError(f"blocks is {blocks}: give at least 1 for each of the widths {widths}")
    check_fits(size, 2**levels, 2 * 2**levels)
    if min(sides(size)) >> (len(widths) - 1) < 1:
        raise ValueError(
            f"{written(size)} pixels are too few for {len(widths)} resolutions: use fewer widths"
        )


def _check_colours(
    channels: int, deviations: Rows, power: Rows, colours: Rows, mean: tuple[float, ...]
) -> None:
    given = (*deviations, power, *([mean] if mean else []), *([colours] if colours else []))
    if channels < 1 or any(len(row) != channels for row in given):
        raise ValueError(
            f"this net has {channels} channels: give a standard deviation, a power, a mean and an "
            "axis of colour for each"
        )
    if not all(sd > 0 for row in deviations for sd in row):
        raise ValueError("a band has the standard deviation 0: give positive numbers")
    for i, one in enumerate(colours):
        for j, other in enumerate(colours):
            if abs(math.fsum(map(mul, one, other)) - (i == j)) > 1e-3:
                raise ValueError(f"the axes of colour are no rotation: {colours}")
