"""Norms of matrices, also if the squares of the entries leave the range of the dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from noisewise.lowrank.dtypes import SINGLE

# Norms between these limits are safe: squares and products do not overflow or underflow.
_PLAIN = {torch.float32: (1e-12, 1e12), torch.float64: (1e-120, 1e120)}


def frobenius_norm(a: Tensor) -> Tensor:
    """|A|_F of each matrix [..., m, n], float64; rows are summed in their own precision."""
    rows = torch.linalg.vector_norm(a.detach(), dim=-1)
    return torch.linalg.vector_norm(rows.double(), dim=-1)


def column_norms(a: Tensor) -> Tensor:
    """|A[:, j]| of each column, float64 [..., n], for entries of any size."""
    a = a.detach()
    if a.shape[-2] == 0:
        return torch.zeros(*a.shape[:-2], a.shape[-1], dtype=torch.float64, device=a.device)
    largest = a.abs().amax(-2, keepdim=True)
    size = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.linalg.vector_norm(a / size, dim=-2).double() * size[..., 0, :].double()


def careful_norm(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Return |A|_F and |A|_max [*batch], for entries whose squares leave the range.

    Raises:
        ValueError: for NaN and Inf, with the place in the batch.
    """
    finite = torch.isfinite(entries).all(-1).all(-1)
    if not bool(finite.all()):
        where = ""
        if finite.dim():
            bad = [tuple(index) for index in (~finite).nonzero().tolist()]
            shown = ", ".join(str(i[0] if len(i) == 1 else i) for i in bad[:5])
            where = f" at batch index {shown}" + (" and others" if len(bad) > 5 else "")
        raise ValueError(f"The matrix holds NaN or Inf{where}: replace these values first.")
    if entries.numel() == 0:
        zero = torch.zeros(entries.shape[:-2], dtype=torch.float64, device=entries.device)
        return zero, zero
    largest = entries.detach().abs().amax((-2, -1), keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = frobenius_norm(entries / scale) * scale[..., 0, 0].double()
    return norm, largest[..., 0, 0].double()


def is_plain(norm: Tensor, dtype: torch.dtype) -> bool:
    """Whether matrices with these norms can be squared without overflow or underflow."""
    low, high = _PLAIN[torch.float32 if dtype in SINGLE else torch.float64]
    return bool(((norm > low) & (norm < high)).all())


def power_of_two(size: Tensor, dtype: torch.dtype) -> Tensor:
    """An even power of two near a size; the dtype can hold it and its reciprocal."""
    exponent = 2 * (torch.where(size > 0, size, 1.0).log2() / 2).round()
    most = 120 if dtype in SINGLE else 1000
    return exponent.clamp(-most, most).exp2()
