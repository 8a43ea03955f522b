"""The exact change that an adapter makes to the original weight, and its best low-rank form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from noisewise.adapters.layers import all_factors

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

_ROUNDING = 1e-6  # singular values below this share of the largest are float32 rounding


def difference(layer: LoraLayer, adapter: str, adalora: bool = False) -> tuple[Tensor, Tensor]:
    """Return factors [m, k], [k, n] of the exact change of the weight, in float64.

    `c B A`, with a start that subtracts itself `c (B A - B0 A0)`; for AdaLoRA
    `c / (ranks + 1e-5) B diag(E) A`, without the masked ranks.
    """
    a, b = (value.double() for value in all_factors(layer, adapter))
    c = float(layer.scaling[adapter])
    if adalora:
        values = layer.lora_E[adapter].detach().double().flatten()
        c = c / (float(layer.ranknum[adapter]) + 1e-5)
        alive = values != 0
        return c * b[:, alive] * values[alive], a[alive]
    return c * b, a


def truncated(
    left: Tensor, right: Tensor, rank: int | None, energy: float | None
) -> tuple[Tensor, Tensor, float]:
    """Return the best approximation of left @ right as two balanced factors, and the share kept.

    The share is that of the squared norm. Computed by QR of both factors and the SVD of a k x k
    matrix, with k the number of columns of `left`.

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
    count = max(1, int((s > _ROUNDING * s[0]).sum())) if len(s) else 0
    if energy is not None and total > 0:
        shares = squares.cumsum(0) / total
        count = min(count, int((shares < energy - 1e-12).sum()) + 1)
    if rank is not None:
        count = min(count, rank)
    root = s[:count].sqrt()
    kept = float(squares[:count].sum()) / total if total > 0 else 1.0
    return q1 @ u[:, :count] * root, root[:, None] * (vh[:count] @ q2.mT), kept
