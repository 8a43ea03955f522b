"""The dtypes of the computations."""

from __future__ import annotations

import torch
from torch import Tensor

COMPUTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SINGLE = (torch.float32, torch.complex64)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def times(x: Tensor, y: Tensor) -> Tensor:
    """Return x @ y in the dtype that holds the numbers of both."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype) @ y.to(dtype)


def computable(tensor: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The tensor in a dtype that has factorisations, and a note if the dtype changed."""
    if tensor.dtype in COMPUTED:
        return tensor, ()
    if tensor.dtype.is_complex:
        wanted = torch.complex64
    else:
        wanted = torch.float32 if tensor.dtype.is_floating_point else torch.float64
    note = f"computed in {dtype_name(wanted)}, as {dtype_name(tensor.dtype)} has no factorisations"
    return tensor.to(wanted), (note,)
