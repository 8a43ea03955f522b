"""One pass over the rows: worse than two, and honest about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise import lowrank
from spectra import error_of, seeded, values, with_values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128, torch.bfloat16])
def test_rows_are_seen_once_and_the_bound_holds(dtype: torch.dtype) -> None:
    a = with_values(
        300, 120, values("1/i", 120), torch.complex128 if dtype.is_complex else torch.float64
    )
    a = a.to(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def once() -> Iterator[Tensor]:
        yield from a.split(37)

    r = lowrank.single_pass(once(), 15)
    truth = float(error_of(a.to(wide), r.dense()))
    best = float(torch.linalg.svdvals(a.to(wide))[15:].norm())
    assert best <= truth * (1 + 1e-5) <= 3 * best
    assert r.error.kind == "probes"
    assert truth <= float(r.error.upper) <= 6 * truth
    assert float(r.error.scale) == pytest.approx(float(a.to(wide).norm()), rel=1e-4)


def test_two_looks_are_better_than_one() -> None:
    a = with_values(300, 120, values("i^-1/2", 120))
    one, two = lowrank.single_pass(a.split(50), 15), lowrank.svd(a, 15)
    assert float(error_of(a, one.dense())) > float(error_of(a, two.dense()))


def test_a_low_rank_stream_is_found_exactly_and_cut_by_tolerance() -> None:
    a = with_values(200, 90, torch.linspace(2, 1, 6))
    r = lowrank.single_pass(a.split(30), 6)
    assert float(error_of(a, r.dense())) < 1e-9
    cut = lowrank.single_pass(a.split(30), 20, tol=1e-6)
    assert cut.rank == 6
    assert cut.converged
    short = lowrank.single_pass(a.split(30), 3, tol=1e-6)
    assert not short.converged
    assert "not certified" in str(short)


def test_the_split_changes_nothing_but_the_draws() -> None:
    a = with_values(64, 40, torch.linspace(2, 1, 5))
    products = [lowrank.single_pass(a.split(n), 5, generator=seeded()).dense() for n in (1, 7, 64)]
    for product in products:
        assert torch.allclose(product, a, atol=1e-9)


def test_an_estimate_without_a_bound() -> None:
    a = with_values(100, 60, values("1/i", 60))
    r = lowrank.single_pass(a.split(20), 5, failure_probability=None)
    assert r.error.kind == "estimate"
    assert float(r.error.estimate) == pytest.approx(float(error_of(a, r.dense())), rel=0.4)


def test_what_cannot_be_streamed_is_refused() -> None:
    a = torch.ones(10, 6)
    wrong: list[tuple[list, dict, str]] = [
        ([], {"rank": 1}, "no rows"),
        ([a, a[:, :5]], {"rank": 1}, "all blocks must agree"),
        ([a, a.double()], {"rank": 1}, "all blocks must agree"),
        ([a[None]], {"rank": 1}, "two dimensions"),
        ([a], {"rank": 7}, "ranks from 0 to 6"),
        ([a], {"rank": -1}, "give 0 or more"),
        ([a], {"rank": 3, "sketch": 2}, "0 <= rank <= sketch"),
        ([a], {"rank": 1, "failure_probability": 0}, "rows again"),
        ([a], {"rank": 1, "tol": 0.0}, "positive"),
        ([a / 0], {"rank": 1}, "Block 0 of the rows holds NaN or Inf"),
        ([a, a, a / 0, a], {"rank": 1}, "Block 2 of the rows holds NaN or Inf"),
        ([a.to_sparse()], {"rank": 1}, "dense"),
    ]
    for blocks, arguments, words in wrong:
        with pytest.raises(ValueError, match=words):
            lowrank.single_pass(blocks, **arguments)


@pytest.mark.parametrize("decay", ["1/i", "1/i^2", "10^(-i/10)"])
def test_a_tolerance_is_certified_on_a_stream_that_is_not_of_low_rank(decay: str) -> None:
    a = with_values(200, 90, values(decay, 90))
    for tol in (0.5, 0.4):
        r = lowrank.single_pass(a.split(30), 40, tol=tol)
        assert r.converged
        assert float(error_of(a, r.dense())) <= tol * float(a.norm())
        assert float(r.error.relative_upper) <= tol
        assert r.rank < 40
        guess = lowrank.single_pass(a.split(30), 40, tol=tol, failure_probability=None)
        assert guess.converged
        assert guess.rank < r.rank  # what it costs to be sure


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e-25, torch.float32),
        (1e25, torch.float32),
        (1e-200, torch.float64),
        (1e150, torch.complex128),
    ],
)
def test_streams_of_extreme_size(scale: float, dtype: torch.dtype) -> None:
    base = with_values(100, 60, values("1/i", 60), torch.float64).to(dtype)
    plain = lowrank.single_pass(base.split(15), 8, tol=0.9)
    extreme = lowrank.single_pass((base * scale).split(15), 8, tol=0.9)
    assert extreme.rank == plain.rank
    assert extreme.converged == plain.converged
    expected = float(plain.error.relative_upper)
    assert float(extreme.error.relative_upper) == pytest.approx(expected, rel=1e-3)
    assert torch.allclose(extreme.factors[1] / scale, plain.factors[1], rtol=1e-3)


_CHILD = """
import json
import torch
from noisewise import lowrank

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

def blocks(m, n, step):
    g = torch.Generator().manual_seed(0)
    right = torch.randn(30, n, generator=g)
    for _ in range(0, m, step):
        yield torch.randn(step, 30, generator=g) @ right

lowrank.single_pass(blocks(400, 200, 50), 20)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before = status("VmRSS")
lowrank.single_pass(blocks(M, N, 1000), 20)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory"
)
def test_it_takes_the_memory_that_is_stated() -> None:
    m, n = 300_000, 100
    code = f"M, N = {m}, {n}\n{_CHILD}"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    sketch = 2 * 20 + 10
    stated = 4 * ((3 * sketch + 40) * m + (8 * sketch + 40) * n)
    blocks = 4 * 4 * 1000 * n
    own = 64 * 2**20  # buffers of BLAS and LAPACK, whatever the size
    assert stated / 4 <= int(result.stdout) <= stated + blocks + own


def test_blocks_may_be_arrays_of_any_kind() -> None:
    a = with_values(60, 20, values("1/i", 20))
    parts = lowrank.single_pass((part.numpy() for part in a.split(13)), 3)
    assert isinstance(parts.S, np.ndarray)
    np.testing.assert_allclose(parts.S, lowrank.single_pass(a.split(13), 3).S)
