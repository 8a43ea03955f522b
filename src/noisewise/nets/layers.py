"""Layers that the nets share: norm, embedding of the noise level, residual and transformer blocks.

Papers: Hoogeboom et al. 2023 (simple diffusion) for where convolutions end and attention begins;
Peebles and Xie 2023 (DiT) for modulation; Esser et al. 2024 for normalised queries and keys.

Every layer computes in the dtype of its own weights. The norm is over the channels of each pixel,
which is one contiguous row in channels-last memory. On a CPU it took half the time of a group norm
in float32 and a quarter in bfloat16 (benchmarks/pictures/precision.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.nets.recomputing import Recomputed, through

_HEAD_CHANNELS = 32


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: ``(x - mean_c) / std_c * weight + bias``.

    Args:
        channels: number of channels of the input, float [n, channels, h, w].

    Source: Ba et al. 2016, per pixel as in ConvNeXt (Liu et al. 2022).

    Example:
        >>> x = torch.randn(2, 8, 4, 4)
        >>> bool(ChannelNorm(8)(x).mean(1).abs().max() < 1e-5)
        True
    """

    def __init__(self, channels: int) -> None:
        """Make the parameters: weight 1, bias 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, float [n, c, h, w]."""
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


class NoiseEmbedding(nn.Module):
    """Turn a noise level, and a label if there are classes, into a vector.

    ln sigma passes through sines and cosines of 16 frequencies from 0.1 to 2, then two layers. The
    frequencies are low, since neighbouring noise levels are nearly the same task.

    Args:
        width: length of the vector.
        num_classes: labels are 0 ... num_classes - 1; 0: no classes.

    Raises:
        ValueError: in forward, if labels are missing, or given to a net without classes.

    Example:
        >>> NoiseEmbedding(8)(torch.zeros(3)).shape
        torch.Size([3, 8])
    """

    takes_shares = True  # of the classes, in place of one label

    def __init__(self, width: int, num_classes: int = 0) -> None:
        """Make the layers."""
        super().__init__()
        self.width = width
        self.register_buffer("frequencies", noise_frequencies(), persistent=False)
        self.first = nn.Linear(32, width)
        self.second = nn.Linear(width, width)
        self.num_classes = num_classes
        self.labels = nn.Embedding(num_classes, width) if num_classes else None

    def forward(
        self, noise_level: Tensor, condition: Tensor | None = None, told: Tensor | None = None
    ) -> Tensor:
        """Embed noise_level, float [n], and condition; returns [n, width].

        The condition is one label a picture, int64 [n], or shares of all classes, float
        [n, num_classes]: the mean of their vectors. What else training tells about each picture,
        float [n, width], is added; None: nothing.
        """
        # Phases need more digits than bfloat16 has. The frequencies are cast together with the net;
        # they are rounded to bfloat16 from the start, so the cast does not change them.
        phase = noise_level.float()[:, None] * self.frequencies.float()
        waves = torch.cat([phase.sin(), phase.cos()], 1).to(self.first.weight.dtype)
        vector = self.second(F.silu(self.first(waves)))
        if (self.labels is None) != (condition is None):
            if self.labels is None:
                raise ValueError("this net has no classes: give no labels (condition=None)")
            raise ValueError("this net was made for classes: give one label per picture")
        if condition is not None:
            vector = vector + self._of_classes(condition)
        if told is not None:
            vector = vector + told.to(vector.dtype)
        return F.silu(vector)

    def _of_classes(self, condition: Tensor) -> Tensor:
        assert self.labels is not None
        if not condition.is_floating_point():
            return self.labels(condition)
        vectors = self.labels(torch.arange(self.num_classes, device=condition.device))
        return condition.to(vectors.dtype) @ vectors


def noise_frequencies() -> Tensor:
    """The 16 frequencies of ln sigma in a `NoiseEmbedding`, from 0.1 to 2, as bfloat16 has them.

    Example:
        >>> noise_frequencies().shape
        torch.Size([16])
    """
    # On the CPU also where a net is made of shapes alone, see `positions`.
    exponents = torch.linspace(math.log(0.1), math.log(2.0), 16, device="cpu")
    return exponents.exp().bfloat16().float()


class ResBlock(Recomputed):
    """Norm, convolution, modulation by the noise level, SiLU, convolution; added to the input.

    ``x + conv(silu(conv(norm(x)) (1 + scale) + shift))``; the last convolution starts at zero.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; if they differ, a 1 x 1 convolution adapts the input.
        embedding: length of the vector of the noise level.
        dropout: share of features dropped before the last convolution.

    Source: He et al. 2016; one norm per block, not two as in Ho et al. 2020 (measured: faster on
    CPU at equal distance).

    Example:
        >>> block = ResBlock(8, 16, embedding=4)
        >>> block(torch.randn(2, 8, 6, 6), torch.randn(2, 4)).shape
        torch.Size([2, 16, 6, 6])
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, dropout: float = 0.0
    ) -> None:
        """Make the layers; at the start the block returns its input (through the skip)."""
        super().__init__()
        self.norm = ChannelNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.dropout = dropout

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Transform x, float [n, c, h, w], given embedding, float [n, e]."""
        return through(self._transformed, self, x, embedding)

    def _transformed(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        h = F.silu(torch.addcmul(shift, self.conv1(self.norm(x)), 1 + scale))
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        return self.skip(x) + self.conv2(h)


class PixelAttention(nn.Module):
    """Self-attention between all pixels of a small feature map; added to the input.

    Args:
        channels: channels of input and output; each head has about 32 of them.

    Source: Vaswani et al. 2017; in a U-Net Ho et al. 2020.

    Example:
        >>> PixelAttention(64)(torch.randn(2, 64, 4, 4)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        """Make the layers; at the start the attention adds zero."""
        super().__init__()
        self.heads = max(1, channels // _HEAD_CHANNELS)
        while channels % self.heads:
            self.heads -= 1
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.mix = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to x, float [n, c, h, w]."""
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)
        q, k, v = qkv.reshape(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.mix(out.reshape(n, h, w, c).permute(0, 3, 1, 2))


class TransformerBlock(Recomputed):
    """Attention with normalised queries and keys, then SwiGLU; both modulated by the noise level.

    Args:
        width: length of a token; each head has 32 channels.
        embedding: length of the vector of the noise level.
        dropout: share of features dropped in both branches.

    Raises:
        ValueError: if width is not a multiple of 32.

    Source: Peebles and Xie 2023 (adaLN-Zero); Shazeer 2020 (SwiGLU).

    Example:
        >>> TransformerBlock(64, embedding=8)(torch.randn(2, 5, 64), torch.randn(2, 8)).shape
        torch.Size([2, 5, 64])
    """

    def __init__(self, width: int, embedding: int, dropout: float = 0.0) -> None:
        """Make the layers; at the start both branches add zero."""
        super().__init__()
        if width % _HEAD_CHANNELS:
            raise ValueError(f"width is {width}: give a multiple of {_HEAD_CHANNELS}")
        self.heads = width // _HEAD_CHANNELS
        hidden = 32 * math.ceil(8 * width / 3 / 32)
        self.modulation = zeroed(nn.Linear(embedding, 6 * width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.width, self.dropout = width, dropout

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Transform tokens, float [n, t, width], given embedding, float [n, e]."""
        return through(self._transformed, self, tokens, embedding)

    def _transformed(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        parts = self.modulation(embedding)[:, None].chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        h = torch.addcmul(shift1, self._norm(tokens), 1 + scale1)
        tokens = torch.addcmul(tokens, gate1, self._drop(self._attend(h)))
        h = torch.addcmul(shift2, self._norm(tokens), 1 + scale2)
        value, gate = self.up(h).chunk(2, -1)
        return torch.addcmul(tokens, gate2, self._drop(self.down(value * F.silu(gate))))

    def _norm(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, (self.width,))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _attend(self, h: Tensor) -> Tensor:
        n, t, c = h.shape
        q, k, v = self.qkv(h).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(part, part.shape[-1:]) for part in (q, k))
        return self.mix(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))


def positions(height: int, width: int, channels: int) -> Tensor:
    """Return sines and cosines of each position on a grid, float [height * width, channels].

    Raises:
        ValueError: if channels is not a multiple of 4.

    Source: Vaswani et al. 2017, in two dimensions.

    Example:
        >>> positions(2, 3, 8).shape
        torch.Size([6, 8])
    """
    if channels % 4:
        raise ValueError(f"channels is {channels}: give a multiple of 4")
    if torch.get_default_device().type == "meta":
        # Only the shape counts there, and arithmetic on it would import torch's compiler, which
        # takes as long as torch itself.
        return torch.empty(height * width, channels)
    rates = torch.exp(-math.log(100.0) * torch.arange(channels // 4) / (channels // 4))
    rows = torch.arange(height)[:, None, None] * rates
    columns = torch.arange(width)[None, :, None] * rates
    both = torch.cat(
        [rows.expand(height, width, -1), columns.expand(height, width, -1)], -1
    ).reshape(height * width, -1)
    return torch.cat([both.sin(), both.cos()], -1)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set weight and bias of a layer to zero, so that its branch adds zero at the start."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """Enlarge x, [n, c, h, w], to the size of `like` by repeating pixels."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")
