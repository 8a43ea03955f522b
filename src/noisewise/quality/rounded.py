"""Pictures as files hold them: 8 bits a channel."""

from __future__ import annotations

from torch import Tensor


def rounded(images: Tensor) -> Tensor:
    """Return pictures as an 8-bit file would hold them, float in [-1, 1].

    Every measure needs it: generated pictures have values between the 256 levels, real ones do not,
    and this difference, which nobody can see, would be found.

    Example:
        >>> import torch
        >>> rounded(torch.tensor([-3.0, 0.0, 1.0])) * 127.5 + 127.5
        tensor([  0., 128., 255.])
    """
    return images.clamp(-1, 1).add(1).mul(127.5).round().div(127.5).sub(1)
