"""A matrix read in blocks of rows gives what the matrix in memory gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank.row_blocks import RowBlocks, row_blocks
from spectra import error_of, seeded, values, with_values


def in_blocks(a: Tensor, step: int = 37) -> RowBlocks:
    size = step * a.shape[1] * lowrank.as_matrix(a[:1]).dtype.itemsize
    return row_blocks(a.shape, lambda start, stop: a[start:stop], block_bytes=size)


KINDS = (torch.float32, torch.float64, torch.complex128, torch.float16, torch.int32)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", [1.0, 1e200, 1e-200])
def test_factors_and_errors_are_those_of_the_matrix_in_memory(
    dtype: torch.dtype, size: float
) -> None:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    a = with_values(190, 80, values("1/i", 80), wide)
    if dtype.itemsize >= 8:
        a = a * size
    a = (a * 1000).round().to(dtype) if dtype == torch.int32 else a.to(dtype)
    wishes: list[dict[str, Any]] = [
        {"rank": 6},
        {"tol": 0.1},
        {"rank": 5, "failure_probability": 0},
    ]
    for kind in wishes:
        whole, read = lowrank.svd(a, **kind), lowrank.svd(in_blocks(a), **kind)
        assert whole.rank == read.rank
        torch.testing.assert_close(read.S, whole.S, rtol=1e-3, atol=0)
        unit = float(whole.S[0])
        truth = float(error_of(a.to(wide) / unit, read.dense().to(wide) / unit))
        assert truth <= float(read.error.upper) / unit <= 6 * truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_columns_rows_and_products_are_those_of_the_matrix(dtype: torch.dtype) -> None:
    a = with_values(70, 50, values("1/i", 50), dtype)
    read = in_blocks(a, 9)
    index = torch.tensor([3, 0, 49])
    assert torch.equal(read.columns(index), a[:, index])
    assert torch.equal(read.rows(index), a[index])
    x = torch.randn(50, 4, dtype=dtype, generator=seeded())
    y = torch.randn(70, 4, dtype=dtype, generator=seeded())
    torch.testing.assert_close(read.matmat(x), a @ x)
    torch.testing.assert_close(read.rmatmat(y), a.mH @ y)
    double = torch.complex128 if dtype.is_complex else torch.float64
    assert read.converted(double).matmat(x.to(double)).dtype == double
    flipped = row_blocks(a.mT.shape, lambda start, stop: a.mT[start:stop], conjugate=True)
    torch.testing.assert_close(flipped.rmatmat(x), a @ x)


@pytest.mark.parametrize("function", [lowrank.interpolative, lowrank.cur])
def test_columns_are_chosen_by_rank_and_by_tolerance(function: object) -> None:
    assert callable(function)
    a = with_values(150, 90, values("1/i", 90), torch.float32)
    for kind in ({"rank": 7}, {"tol": 0.2}):
        r = function(in_blocks(a), **kind)
        assert torch.equal(r.factors[0], a[:, r.columns])
        truth = float(error_of(a.double(), r.dense().double()))
        assert truth <= float(r.error.upper) <= 6 * truth
    assert 0 < r.rank < 90
    assert r.converged


def test_a_sparse_matrix_in_single_precision_meets_a_tolerance_by_columns() -> None:
    a = with_values(150, 90, values("1/i", 90), torch.float32)
    r = lowrank.interpolative(a.to_sparse(), tol=0.05)
    assert 0 < r.rank < 90
    assert r.converged


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_are_refused_with_their_rows(bad: float) -> None:
    a = torch.ones(100, 5)
    a[42, 1] = bad
    with pytest.raises(ValueError, match=r"NaN or Inf in rows 40 to 49"):
        in_blocks(a, 10)


def test_the_zero_matrix_has_no_error() -> None:
    r = lowrank.svd(in_blocks(torch.zeros(100, 50)), 3)
    assert float(r.error.upper) == 0


def test_rows_are_seen_and_products_of_no_columns_read_nothing() -> None:
    a, seen = torch.ones(100, 5), []
    read = row_blocks(a.shape, lambda i, j: a[i:j], block_bytes=30 * 20, seen=seen.append)
    assert seen == [30, 30, 30, 10]
    assert read.matmat(torch.zeros(5, 0)).shape == (100, 0)
    assert read.rmatmat(torch.zeros(100, 0)).shape == (5, 0)
    assert sum(seen) == 100
