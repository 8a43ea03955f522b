"""One level of the orthonormal Haar transform, and back.

Paper: Haar 1910; as wavelets Mallat 1989. The transform is a rotation: noise of level sigma has
level sigma in every band, and the sum of squares stays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows: low-pass, horizontal, vertical and diagonal differences of a block of 2 x 2 pixels.
_ROTATION = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Divide pictures into a low-pass band and three bands of details.

    The low-pass band is ``(a + b + c + d) / 2`` of each block of 2 x 2 pixels: twice its mean.

    Args:
        x: float [n, c, h, w], h and w even.

    Returns:
        The low-pass band [n, c, h / 2, w / 2] and the details [n, 3 c, h / 2, w / 2].

    Raises:
        ValueError: if a side is odd.

    Example:
        >>> low, details = haar(torch.ones(1, 1, 2, 2))
        >>> low.flatten().tolist(), details.flatten().tolist()
        ([2.0], [0.0, 0.0, 0.0])
    """
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"a picture of {w} x {h} pixels cannot be halved: give even sides")
    blocks = F.pixel_unshuffle(x, 2).view(n, c, 4, h // 2, w // 2)
    bands = torch.einsum("kj,ncjhw->nkchw", _rotation(x), blocks)
    return bands[:, 0], bands[:, 1:].reshape(n, 3 * c, h // 2, w // 2)


def inverse_haar(low: Tensor, details: Tensor) -> Tensor:
    """Undo `haar`: [n, c, h, w] and [n, 3 c, h, w] to [n, c, 2 h, 2 w].

    Example:
        >>> x = torch.randn(2, 3, 4, 6)
        >>> bool((inverse_haar(*haar(x)) - x).abs().max() < 1e-6)
        True
    """
    n, c, h, w = low.shape
    bands = torch.cat([low[:, None], details.view(n, 3, c, h, w)], 1)
    blocks = torch.einsum("kj,nkchw->ncjhw", _rotation(low), bands)
    return F.pixel_shuffle(blocks.reshape(n, 4 * c, h, w), 2)


def low_pass(x: Tensor, levels: int) -> Tensor:
    """Return the low-pass band after `levels` levels: ``2^levels`` times the mean of each block.

    Example:
        >>> low_pass(torch.ones(1, 1, 8, 8), 2).flatten().tolist()
        [4.0, 4.0, 4.0, 4.0]
    """
    return F.avg_pool2d(x, 2**levels) * 2**levels if levels else x


def _rotation(like: Tensor) -> Tensor:
    return like.new_tensor(_ROTATION) / 2
