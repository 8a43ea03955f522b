"""Matrices whose singular values are known, for tests of every floor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Value i = 1, 2, ... of each decay.
DECAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "1/i^2": lambda i: i**-2.0,
    "1/i": lambda i: i**-1.0,
    "i^-1/2": lambda i: i**-0.5,
    "10^(-i/10)": lambda i: 10 ** (-0.1 * i),
    "step": lambda i: torch.where(i <= 5, 1.0, 0.01).double(),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(decay: str, count: int) -> Tensor:
    """The singular values of a decay, float64."""
    return DECAYS[decay](torch.arange(1, count + 1, dtype=torch.float64))


def orthonormal(
    rows: int,
    columns: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    batch: tuple[int, ...] = (),
) -> Tensor:
    """Uniformly drawn orthonormal columns, [*batch, rows, columns]."""
    return torch.linalg.qr(torch.randn(*batch, rows, columns, dtype=dtype, generator=generator)).Q


def with_values(
    m: int,
    n: int,
    singular_values: Tensor,
    dtype: torch.dtype = torch.float64,
    batch: tuple[int, ...] = (),
    seed: int = 0,
) -> Tensor:
    """A random matrix of these singular values, computed in double and rounded to the dtype."""
    generator = seeded(seed)
    double = torch.complex128 if dtype.is_complex else torch.float64
    r = len(singular_values)
    u = orthonormal(m, r, generator, double, batch)
    v = orthonormal(n, r, generator, double, batch)
    return ((u * singular_values.to(double)) @ v.mH).to(dtype)


def error_of(a: Tensor, approximation: Tensor, norm: str = "frobenius") -> Tensor:
    """The true error, in double precision."""
    double = torch.complex128 if a.is_complex() or approximation.is_complex() else torch.float64
    e = a.detach().to(double) - approximation.detach().to(double)
    if 0 in e.shape[-2:]:
        return torch.zeros(e.shape[:-2], dtype=torch.float64)
    order = "fro" if norm == "frobenius" else 2
    return torch.linalg.matrix_norm(e, order)
