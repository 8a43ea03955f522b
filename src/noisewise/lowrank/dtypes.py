"""The dtypes that something is computed in, and the one in which matrices can meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from noisewise.lowrank.operators import Matrix

COMPUTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SINGLE = (torch.float32, torch.complex64)


def promoted(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """The dtype that holds all numbers of all."""
    return reduce(torch.promote_types, (*(matrix.dtype for matrix in matrices), *others))


def common_dtype(matrices: Sequence[Matrix], *others: torch.dtype) -> torch.dtype:
    """Return the dtype in which matrices and tensors can meet.

    Complex where one is; double only where all can be had in it, as errors are counted in its eps.
    """
    dtype = promoted(matrices, *others)
    if all(matrix.precision == torch.float64 for matrix in matrices):
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
