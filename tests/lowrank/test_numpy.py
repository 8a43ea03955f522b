"""NumPy and scipy at home: what comes as an array is answered by arrays, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from noisewise import lowrank
from noisewise.lowrank.arrays import is_numpy
from spectra import seeded, values, with_values

A = with_values(30, 20, values("1/i^2", 20)).numpy()


def _results() -> dict[str, Callable[[Any], Any]]:
    return {
        "svd": lambda a: lowrank.svd(a, 3),
        "svd by tolerance": lambda a: lowrank.svd(a, tol=0.1),
        "interpolative": lambda a: lowrank.interpolative(a, 3),
        "rows": lambda a: lowrank.interpolative(a, 3, axis="rows"),
        "cur": lambda a: lowrank.cur(a, 3),
        "pinv": lambda a: lowrank.pinv(a),
        "single_pass": lambda a: lowrank.single_pass(np.split(a, 3), 3),
        "sampled": lambda a: lowrank.sampled_matmul(a, a.T, 5),
        "nystrom": lambda a: lowrank.nystrom(a @ a.T, 3),
        "a product": lambda a: lowrank.svd(lowrank.product(a, a.T), 3),
        "a matrix": lambda a: lowrank.svd(lowrank.as_matrix(a), 3),
        "sparse": lambda a: lowrank.svd(scipy.sparse.csr_array(a), 3),
        "an operator": lambda a: lowrank.svd(scipy.sparse.linalg.aslinearoperator(a), 3),
        "again": lambda a: lowrank.svd(lowrank.svd(a, 5), 3),
    }


@pytest.mark.parametrize("name", _results())
def test_arrays_in_arrays_out(name: str) -> None:
    r = _results()[name](A)
    whole = np.asarray(r)
    assert isinstance(r.left, np.ndarray)
    assert isinstance(r.dense(), np.ndarray)
    assert all(isinstance(part, np.ndarray) for part in r)
    assert all(isinstance(part, np.ndarray) for part in r.factors)
    assert np.allclose(whole, r.left @ r.right)
    assert whole.shape == tuple(r.shape)
    x = np.random.default_rng(0).standard_normal((r.shape[1], 2))
    assert isinstance(r @ x, np.ndarray)
    assert np.allclose(r @ x, whole @ x)
    assert np.allclose(r @ x[:, 0], whole @ x[:, 0])
    assert isinstance(r.T @ np.ones(r.shape[0]), np.ndarray)
    y = np.ones((4, r.shape[0]))
    assert isinstance(y @ r, np.ndarray)
    assert np.allclose(y @ r, y @ whole)
    assert np.allclose(np.float32(2) * r @ x, 2 * whole @ x)
    assert np.allclose(np.asarray((r + r) / 2 - r), 0, atol=1e-12 * np.abs(whole).max())
    assert np.allclose(r.compress(2).dense(), r.compress(r.rank).compress(2).dense())
    assert isinstance(r.error.upper, np.float64)
    assert isinstance(r.error.relative_upper, np.float64)
    assert isinstance(r.norm(), np.float64)
    assert str(r)


def test_the_factors_unpack_as_those_of_numpy() -> None:
    u, s, vh = lowrank.svd(A, 3)
    expected = np.linalg.svd(A, full_matrices=False)
    assert np.allclose(s, expected[1][:3], rtol=1e-6)
    assert np.allclose((u * s) @ vh, np.asarray(lowrank.svd(A, 3)))
    c, z = lowrank.interpolative(A, 3)
    assert (c.shape, z.shape) == ((30, 3), (3, 20))
    _, core, _ = lowrank.cur(A, 3)
    assert core.shape == (3, 3)
    left, right = lowrank.svd(torch.from_numpy(A), 3) + lowrank.svd(torch.from_numpy(A), 2)
    assert isinstance(left, torch.Tensor)
    assert isinstance(right, torch.Tensor)


def test_tensors_stay_tensors_and_meet_arrays() -> None:
    r = lowrank.svd(torch.from_numpy(A), 3)
    assert isinstance(r.left, torch.Tensor)
    assert isinstance(r.error.upper, torch.Tensor)
    assert isinstance(r @ np.ones(20), np.ndarray)
    assert isinstance(np.ones(30) @ r, np.ndarray)
    assert isinstance(r @ torch.ones(20), torch.Tensor)
    numpys = lowrank.svd(A, 3)
    assert isinstance(numpys @ torch.ones(20), torch.Tensor)
    assert isinstance(torch.ones(30) @ numpys, torch.Tensor)
    assert np.asarray(r, dtype=np.float32).dtype == np.float32
    for wrong in ([1.0] * 20, "x", None):
        with pytest.raises(TypeError):
            r @ wrong  # pyrefly: ignore
        with pytest.raises(TypeError):
            wrong @ r  # pyrefly: ignore
    leaf = torch.from_numpy(A.copy()).requires_grad_()
    kept = lowrank.svd(leaf, 3) @ np.ones(20)
    assert isinstance(kept, torch.Tensor)
    assert kept.requires_grad
    with pytest.raises(ValueError, match="always a copy"):
        np.asarray(r, copy=False)


def test_least_squares_and_pseudo_inverses_of_arrays() -> None:
    b = np.random.default_rng(0).standard_normal((30, 2))
    found = lowrank.lstsq(A, b)
    expected = np.linalg.lstsq(A, b)[0]
    assert isinstance(found.x, np.ndarray)
    assert np.allclose(found.x, expected)
    assert np.allclose(np.asarray(found), expected)
    assert np.allclose(A @ found, A @ expected)
    assert isinstance(found.residual, np.ndarray)
    assert np.allclose(lowrank.lstsq(A, b[:, 0]).x, expected[:, 0])
    x = lowrank.pinv(A)
    assert np.allclose(np.asarray(x), np.linalg.pinv(A))
    assert float(x.penrose().worst) < 1e-9
    assert "PseudoInverse 20x30" in repr(x)
    symmetric = A.T @ A
    by_values = lowrank.pinv(symmetric, hermitian=True, rtol=1e-6)
    assert by_values.route == "eigh"
    expected = np.linalg.pinv(symmetric, hermitian=True, rcond=1e-6)
    assert np.allclose(np.asarray(by_values), expected)
    steps = lowrank.limit_path(A, [1e-2, 1e-4])
    assert isinstance(steps[0].change, np.float64)


def test_measurements_of_arrays() -> None:
    u, s, vh = np.linalg.svd(A, full_matrices=False)
    e = lowrank.certify(A, u[:, :3] * s[:3], vh[:3])
    assert isinstance(e.upper, np.float64)
    assert np.linalg.norm(s[3:]) <= e.upper <= 4 * np.linalg.norm(s[3:])
    assert "(exact)" in str(e)
    assert lowrank.rank_for(s, 0.1) == lowrank.svd(A, tol=0.1).rank
    assert isinstance(lowrank.expected_error(A, A.T, 5), np.float64)
    assert isinstance(lowrank.penrose(A, np.linalg.pinv(A)).axa, np.float64)


def test_batches_of_arrays() -> None:
    batch = np.stack([A, 2 * A])
    r = lowrank.svd(batch, 2)
    assert r.error.upper.shape == (2,)
    assert np.asarray(r.mT).shape == (2, 20, 30)
    with pytest.raises(ValueError, match=r"use \.mT"):
        _ = r.T


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">c16", ">i4", "<u2", "<u4", "float16", "bool"])
def test_every_dtype_and_byte_order(dtype: str) -> None:
    a = (A * 100).astype(dtype)
    r = lowrank.svd(a, 20)
    assert np.allclose(np.asarray(r), a.astype(complex), atol=1e-3)
    b = lowrank.lstsq(a, a[:, :1]).x if dtype != "bool" else None
    assert b is None or isinstance(b, np.ndarray)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_unusual_arrays() -> None:
    r = np.asarray(lowrank.svd(A, 20))
    assert np.allclose(np.asarray(lowrank.svd(A[::-1], 20)), r[::-1])
    assert np.allclose(np.asarray(lowrank.svd(np.asfortranarray(A), 20)), r)
    assert np.allclose(np.asarray(lowrank.svd(np.matrix(A), 20)), r)
    fixed = A.copy()
    fixed.flags.writeable = False
    assert np.allclose(np.asarray(lowrank.svd(fixed, 20)), r)
    with pytest.raises(ValueError, match="two dimensions"):
        lowrank.svd(scipy.sparse.coo_array(A[0]), 1)
    with pytest.raises(ValueError, match="convert it to float64"):
        lowrank.svd(A.astype(np.longdouble), 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: lowrank.svd(a, 2),
        lambda a: lowrank.pinv(a),
        lambda a: lowrank.lstsq(A, a[:, 0]),
        lambda a: lowrank.svd(A, 2) @ a.T,
        lambda a: lowrank.certify(A, a, np.eye(20)),
        lambda a: lowrank.single_pass([a], 2),
    ],
)
def test_masked_arrays_are_refused(call: Callable[[Any], Any]) -> None:
    masked = np.ma.masked_array(A, mask=np.zeros_like(A, dtype=bool))
    call(masked)  # nothing is masked
    masked[0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="masked"):
        call(masked)


# ------------------------------------------------------------------------------ numbers given
@pytest.mark.parametrize(
    "call", [lowrank.svd, lowrank.interpolative, lowrank.cur, lambda a, *k: lowrank.nystrom(S, *k)]
)
def test_ranks_and_tolerances_as_people_write_them(call: Callable[..., Any]) -> None:
    two = call(A, 2)
    for rank in (2.0, np.float64(2), np.int32(2), np.uint8(2), np.array(2), torch.tensor(2)):
        assert call(A, rank).rank == two.rank == 2
        assert isinstance(call(A, rank).left, np.ndarray)
    for wrong, says in (
        (1e-3, "tol=0.001"),
        (np.float32(0.5), "tol=0.5"),
        (2.5, "whole number"),
        (True, "whole number"),
        ("2", "whole number"),
        (float("nan"), "whole number"),
        (-1, "from 0 to"),
        (1000, "from 0 to"),
    ):
        with pytest.raises(ValueError, match=says):
            call(A, wrong)


S = A @ A.T


def test_tolerances_as_people_write_them() -> None:
    rank = lowrank.svd(A, tol=0.1).rank
    for tol in (np.float32(0.1), np.array(0.1), torch.tensor(0.1, dtype=torch.float64)):
        assert lowrank.svd(A, tol=tol).rank == rank  # pyrefly: ignore
    for wrong in ("0.1", True, 0, -1, float("nan"), 1j):
        with pytest.raises(ValueError, match=r"tol is .* give a positive"):
            lowrank.svd(A, tol=wrong)  # pyrefly: ignore
    with pytest.raises(ValueError, match=r"samples is 2\.5: give a whole number"):
        lowrank.sampled_matmul(A, A.T, 2.5)  # pyrefly: ignore
    with pytest.raises(ValueError, match="power is -1: give 0 or more"):
        lowrank.svd(A, 2, power=-1)
    assert lowrank.single_pass([A], 2.0).rank == 2  # pyrefly: ignore
    assert lowrank.svd(A, 3).compress(2.0).rank == 2  # pyrefly: ignore


@pytest.mark.parametrize(
    "call",
    [
        lambda g: lowrank.svd(A, 3, generator=g),
        lambda g: lowrank.interpolative(A, 3, generator=g),
        lambda g: lowrank.cur(A, 3, generator=g),
        lambda g: lowrank.nystrom(S, 3, generator=g),
        lambda g: lowrank.single_pass([A], 3, generator=g),
        lambda g: lowrank.sampled_matmul(A, A.T, 3, generator=g),
    ],
)
def test_a_seed_is_a_generator(call: Callable[[Any], Any]) -> None:
    assert np.array_equal(np.asarray(call(7)), np.asarray(call(seeded(7))))
    assert np.array_equal(np.asarray(call(np.int64(7))), np.asarray(call(seeded(7))))
    for wrong in (-1, 1.5, True, "0", np.random.default_rng(0)):
        with pytest.raises(ValueError, match="as its seed"):
            call(wrong)


# -------------------------------------------------------------------------------- operators
def test_a_complex_linear_operator() -> None:
    rng = np.random.default_rng(0)
    a = A + 1j * rng.standard_normal(A.shape)
    op = scipy.sparse.linalg.aslinearoperator(a)
    for r in (
        lowrank.interpolative(op, 3),
        lowrank.interpolative(op, 3, axis="rows"),
        lowrank.cur(op, 3),
        lowrank.svd(op, tol=0.5),
    ):
        error = np.linalg.norm(a - np.asarray(r))
        assert error <= r.error.upper * (1 + 1e-9)
    found = lowrank.interpolative(op, 3)
    assert np.allclose(found.left, a[:, found.columns])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_an_operator_takes_the_dtype_of_its_products(dtype: type) -> None:
    a = torch.from_numpy(A.astype(dtype))
    op = lowrank.operator((30, 20), lambda x: a @ x, lambda y: a.mH @ y)
    assert op.dtype == a.dtype
    assert lowrank.svd(op, 3).left.dtype == a.dtype
    array = A.astype(dtype)
    of_arrays = lowrank.operator(
        (30, 20), lambda x: array @ x.numpy(), lambda y: array.conj().T @ y.resolve_conj().numpy()
    )
    assert of_arrays.dtype == a.dtype
    assert float(lowrank.svd(of_arrays, 3).error.relative_upper) < 0.3


def test_an_operator_of_scipy_without_an_adjoint_is_refused_with_a_sentence() -> None:
    made: Any = scipy.sparse.linalg.LinearOperator
    op = made(A.shape, matvec=lambda x: A @ x)
    with pytest.raises(ValueError, match="give it rmatvec"):
        lowrank.svd(op, 3)


def test_a_sparse_matrix_of_scipy_multiplies_a_value() -> None:
    r = lowrank.svd(A, 3)
    eye = scipy.sparse.eye_array(30, format="csr")
    assert r.ndim == 2
    np.testing.assert_allclose(eye @ r, np.asarray(r))
    np.testing.assert_allclose(r @ scipy.sparse.eye_array(20, format="csr"), np.asarray(r))


def test_an_operator_that_fails_says_why() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such matrix")

    with pytest.raises(RuntimeError, match="no such matrix"):
        lowrank.operator((3, 3), broken, broken)


# ------------------------------------------------------------------------------------ files
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_factors_are_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    a = with_values(12, 9, values("1/i", 9), dtype)
    for r in (lowrank.svd(a, 3), lowrank.interpolative(a, 3), lowrank.svd(a, 3).mH):
        tensors, metadata = r.state("a")
        save_file(tensors, tmp_path / "c.safetensors")
        again = lowrank.from_state(load_file(tmp_path / "c.safetensors"), metadata, "a")
        assert again.dtype == dtype
        assert torch.equal(again.dense(), r.dense())


def test_values_of_arrays_are_saved_as_arrays(tmp_path: Path) -> None:
    r = lowrank.cur(A, 3)
    arrays, metadata = r.state()
    save_arrays({k: np.asarray(v) for k, v in arrays.items()}, tmp_path / "a.safetensors")
    again = lowrank.from_state(load_arrays(tmp_path / "a.safetensors"), metadata)
    assert isinstance(again.left, np.ndarray)
    assert np.array_equal(again.dense(), r.dense())
    assert again.columns is not None
    assert np.array_equal(again.columns, r.columns)
    assert r.to(np.float32).left.dtype == np.float32


def test_what_is_numpy() -> None:
    assert is_numpy(A)
    assert is_numpy(scipy.sparse.csr_array(A))
    assert is_numpy(scipy.sparse.linalg.aslinearoperator(A))
    assert not is_numpy(torch.ones(2, 2))
    assert not is_numpy(lowrank.svd(torch.ones(2, 2), 1))
    assert not is_numpy(lowrank.as_matrix(torch.ones(2, 2)))
    assert not is_numpy(np.float64(2))
    assert not is_numpy(np.array(2))
