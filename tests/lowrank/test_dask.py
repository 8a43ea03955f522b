"""Arrays of dask: right on every scheduler, and never in memory whole."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from noisewise import lowrank
from spectra import values, with_values

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

A = with_values(120, 70, values("1/i", 70)).numpy()
KINDS = ("float32", "float64", ">f4", "complex64", "float16", "int16")


def chunked(a: np.ndarray, chunks: tuple[int, int] = (50, 40)) -> Any:  # noqa: ANN401
    return da.from_array(a, chunks=chunks)


def as_kind(kind: str) -> np.ndarray:
    if kind == "complex64":
        return (A + 1j * A[::-1]).astype(kind)
    return (A * 1000).astype(kind) if kind == "int16" else A.astype(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_that_of_the_array_in_memory(kind: str) -> None:
    a = as_kind(kind)
    wishes: list[dict[str, Any]] = [{"rank": 5}, {"tol": 0.1}]
    for wish in wishes:
        whole, read = lowrank.svd(a, **wish), lowrank.svd(chunked(a), **wish)
        assert isinstance(read.U, np.ndarray)
        assert whole.rank == read.rank
        np.testing.assert_allclose(read.S, whole.S, rtol=1e-4)
        truth = np.linalg.norm(a - np.asarray(read))
        assert truth <= read.error.upper <= 6 * truth


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_entries_of_any_size(size: float) -> None:
    r = lowrank.svd(chunked(A * size), 5)
    np.testing.assert_allclose(r.S / size, lowrank.svd(A, 5).S, rtol=1e-9)
    assert 0 < r.error.upper / size < 1


def test_columns_products_and_certificates() -> None:
    d = chunked(A)
    for function in (lowrank.interpolative, lowrank.cur):
        r = function(d, 6)
        assert np.array_equal(np.asarray(r.columns), np.asarray(function(A, 6).columns))
        assert np.array_equal(r.factors[0], A[:, r.columns])
    r = lowrank.svd(d, 6)
    assert lowrank.certify(d, r.left, chunked(np.asarray(r.right))).upper > 0
    square = lowrank.svd(lowrank.product(d, d.T), 4)
    np.testing.assert_allclose(square.S, np.linalg.svd(A)[1][:4] ** 2, rtol=1e-6)
    psd = chunked(A.T @ A, (30, 30))
    np.testing.assert_allclose(lowrank.nystrom(psd, 4).S, square.S, rtol=2e-3)


def test_one_pass_takes_an_array_block_by_block() -> None:
    d = chunked(A)
    whole = lowrank.single_pass(d, 5)
    parts = lowrank.single_pass((d[:50], d[50:100], d[100:]), 5)
    assert np.array_equal(whole.S, parts.S)
    assert np.linalg.norm(A - np.asarray(whole)) <= whole.error.upper


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_scheduler_is_the_one_that_is_chosen(scheduler: str) -> None:
    with dask.config.set(scheduler=scheduler, num_workers=2):
        r = lowrank.svd(chunked(A), 4)
    np.testing.assert_allclose(r.S, lowrank.svd(A, 4).S, rtol=1e-9)


def test_two_processes_of_dask_share_the_products() -> None:
    spawned = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(2, spawned) as pool,
        dask.config.set(scheduler="processes", pool=pool),
    ):
        r = lowrank.svd(chunked(A), 4)
    np.testing.assert_allclose(r.S, lowrank.svd(A, 4).S, rtol=1e-9)


def test_two_workers_of_distributed_share_the_products() -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )

    def of_worker(dask_worker: Any) -> tuple[int, bool]:  # noqa: ANN401
        return dask_worker.state.executed_count, "torch" in sys.modules

    with cluster, distributed.Client(cluster) as client:
        d = chunked(A, (10, 20)).persist()
        distributed.wait(d)
        before = client.run(of_worker)
        r = lowrank.svd(d, 4)
        after = client.run(of_worker)
    assert len(after) == 2
    for worker, (tasks, has_torch) in after.items():
        assert tasks > before[worker][0]
        assert not has_torch
    np.testing.assert_allclose(r.S, lowrank.svd(A, 4).S, rtol=1e-9)


def test_chunks_are_never_put_together() -> None:
    biggest = 0

    def piece(block: np.ndarray) -> np.ndarray:
        nonlocal biggest
        biggest = max(biggest, block.size)
        return block

    lowrank.svd(chunked(A).map_blocks(piece, dtype=A.dtype), 3)
    assert biggest == 50 * 40


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: da.ones((3, 4, 5)), "two dimensions"),
        (lambda: da.ma.masked_greater(chunked(A), 0.1), "MaskedArray"),
        (lambda: chunked(A)[chunked(A)[:, 0] > 0], "compute_chunk_sizes"),
        (lambda: chunked(np.where(A > 0, A, np.nan)), "NaN or Inf"),
        (lambda: dask.delayed(3), r"Delayed\w* of dask is not a matrix"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(make: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=words):
        lowrank.svd(make(), 2)


def test_a_pseudo_inverse_does_not_load_the_array() -> None:
    with pytest.raises(ValueError, match="entries"):
        lowrank.pinv(chunked(A))


def test_empty_arrays() -> None:
    assert lowrank.svd(da.zeros((0, 5)), 0).shape == (0, 5)


def test_dask_is_loaded_only_when_an_array_of_it_is_given() -> None:
    code = (
        "import sys, numpy; from noisewise import lowrank; lowrank.svd(numpy.eye(3), 1); "
        "assert 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
