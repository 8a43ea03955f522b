"""The dtypes of the computations."""

from __future__ import annotations

import torch

COMPUTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SINGLE = (torch.float32, torch.complex64)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
