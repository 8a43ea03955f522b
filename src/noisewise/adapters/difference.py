"""What an adapter adds to the clean weight, exactly, and its best approximation of lower rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from noisewise.adapters.layers import factors
from noisewise.adapters.moved import moved_by, start_of

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

_NOTHING = 1e-6  # singular values below this share of the largest are float32's rounding


def difference(layer: LoraLayer, adapter: str, adalora: bool = False) -> tuple[Tensor, Tensor]:
    """Factors [m, k], [k, n] of what an adapter adds to the clean weight, exactly; float64.

    `c (B A - B0 A0)`; for AdaLoRA `c / (ranks + 1e-5) B diag(E) A`, without the ranks masked away.

    Raises:
        ValueError: if another adapter's start moved the weight.
    """
    check_own_weight(layer, adapter)
    a, b = (value.double() for value in factors(layer, adapter))
    c = float(layer.scaling[adapter])
    if adalora:
        values = layer.lora_E[adapter].detach().double().flatten()
        c = c / (float(layer.ranknum[adapter]) + 1e-5)
        alive = values != 0
        return c * b[:, alive] * values[alive], a[alive]
    start = start_of(layer, adapter)
    if start is None:
        return c * b, a
    a0, cb0 = (value.to(a) for value in start)
    return torch.cat([c * b, -cb0], 1), torch.cat([a, a0])


def check_own_weight(layer: LoraLayer, adapter: str) -> None:
    """Refuse an adapter on a weight that the start of another one moved.

    Raises:
        ValueError: if it is so; what it learned there means nothing on the clean weight.
    """
    others = [name for name in moved_by(layer) if name != adapter]
    if others:
        raise ValueError(
            f"adapter {adapter!r} stands on weights that the start of {others[0]!r} moved, and "
            "means nothing without them: train it on the clean base"
        )


def truncated(
    left: Tensor, right: Tensor, rank: int | None, energy: float | None
) -> tuple[Tensor, Tensor, float]:
    """Best approximation of left @ right, balanced, and the share of its squared norm kept.

    By QR of both factors and the SVD of a matrix as small as they are thin.

    Example:
        >>> diagonal = torch.diag(torch.tensor([2.0, 1.0]))
        >>> left, right, kept = truncated(diagonal, torch.eye(2), 1, None)
        >>> (left @ right).round(decimals=6).tolist(), round(kept, 6)
        ([[2.0, 0.0], [0.0, 0.0]], 0.8)
    """
    q1, r1 = torch.linalg.qr(left)
    q2, r2 = torch.linalg.qr(right.mT)
    u, s, vh = torch.linalg.svd(r1 @ r2.mT)
    squares = s.square()
    total = float(squares.sum())
    count = max(1, int((s > _NOTHING * s[0]).sum())) if len(s) else 0
    if energy is not None and total > 0:
        shares = squares.cumsum(0) / total
        count = min(count, int((shares < energy - 1e-12).sum()) + 1)
    if rank is not None:
        count = min(count, rank)
    root = s[:count].sqrt()
    kept = float(squares[:count].sum()) / total if total > 0 else 1.0
    return q1 @ u[:, :count] * root, root[:, None] * (vh[:count] @ q2.mT), kept
