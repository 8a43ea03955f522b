"""Positive semi-definite matrices: near the best, certified, and refused if they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noisewise import lowrank
from spectra import error_of, orthonormal, seeded, values

DECAYS = ["1/i^2", "1/i", "10^(-i/10)", "step"]


def semi_definite(
    n: int,
    decay: str,
    dtype: torch.dtype = torch.float64,
    batch: tuple[int, ...] = (),
) -> torch.Tensor:
    double = torch.complex128 if dtype.is_complex else torch.float64
    u = orthonormal(n, n, seeded(), double, batch)
    return ((u * values(decay, n).to(double)) @ u.mH).to(dtype)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
def test_the_error_is_near_the_best_and_certified(decay: str, dtype: torch.dtype) -> None:
    a = semi_definite(80, decay, dtype)
    s = values(decay, 80)
    best = float(torch.linalg.vector_norm(s[8:]))
    r = lowrank.nystrom(a, rank=8)
    true = float(error_of(a, r.dense()))
    assert true <= float(r.error.upper)
    assert true <= 1.1 * best + 1e-5 * (dtype == torch.float32)
    assert float(r.error.optimal_lower) <= best * (1 + 1e-6) + 1e-6 * (dtype == torch.float32)
    assert torch.allclose(r.U.mH @ r.U, torch.eye(8, dtype=dtype), atol=1e-4)
    assert torch.equal(r.Vh, r.U.mH)


@pytest.mark.parametrize("decay", DECAYS)
def test_it_stays_below_the_matrix_and_beats_a_projection(decay: str) -> None:
    """A - Nystrom is positive semi-definite, and nearer to A than Q Q^H A from the same Q."""
    a = semi_definite(60, decay)
    ours, theirs = [], []
    for seed in range(5):
        r = lowrank.nystrom(a, rank=10, oversample=5, generator=seed)
        rest = torch.linalg.eigvalsh(a - r.dense())
        assert float(rest[0]) > -1e-10
        ours.append(float(error_of(a, r.dense())))
        q = torch.linalg.qr(a @ torch.randn(60, 15, dtype=a.dtype, generator=seeded(seed))).Q
        projected = lowrank.svd(q @ (q.mH @ a), rank=10).dense()
        theirs.append(float(error_of(a, projected)))
    assert sum(ours) < sum(theirs)
    once = lowrank.nystrom(a, rank=10, power=0)
    assert float(error_of(a, once.dense())) <= float(once.error.upper)


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5])
def test_by_tolerance(norm: str, tol: float) -> None:
    a = semi_definite(100, "10^(-i/10)")
    r = lowrank.nystrom(a, tol=tol, norm=norm)  # pyrefly: ignore
    assert r.converged
    assert float(error_of(a, r.dense(), norm)) <= tol * float(r.error.scale)
    smallest = lowrank.rank_for(values("10^(-i/10)", 100), tol, norm)  # pyrefly: ignore
    assert r.rank <= smallest + 8
    short = lowrank.nystrom(a, 3, tol=1e-5)
    assert short.rank == 3
    assert not short.converged
    assert "within rank 3" in str(short)


def test_operators_need_one_function() -> None:
    a = semi_definite(70, "1/i^2")
    calls = []

    def multiply(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape[-1])
        return a @ x

    op = lowrank.operator((70, 70), multiply, hermitian=True)
    r = lowrank.nystrom(op, tol=0.01)
    assert r.error.kind == "probes"
    assert r.converged
    assert float(error_of(a, r.dense())) <= float(r.error.upper)
    assert float(error_of(a, lowrank.svd(op, 5).dense())) < 0.2
    with pytest.raises(ValueError, match="hermitian=True"):
        lowrank.operator((70, 70), multiply)
    with pytest.raises(ValueError, match="square"):
        lowrank.operator((70, 60), multiply, hermitian=True)
    skew = torch.ones(70, 70, dtype=torch.float64).tril()
    wrong = lowrank.operator((70, 70), lambda x: skew @ x, hermitian=True)
    with pytest.raises(ValueError, match="conjugate transpose"):
        lowrank.nystrom(wrong, 3)
    with pytest.raises(ValueError, match="adjoint"):
        lowrank.svd(wrong, 3)


def test_batches_sizes_and_corners() -> None:
    batch = semi_definite(40, "1/i^2", batch=(2,)) * torch.tensor([1.0, 1e-3])[:, None, None]
    r = lowrank.nystrom(batch.double(), rank=5)
    assert bool((error_of(batch, r.dense()) <= r.error.upper).all())
    for size in (1e-30, 1e-20, 1e20, 1e30):
        scaled = lowrank.nystrom((semi_definite(40, "1/i^2") * size).float(), rank=5)
        expected = values("1/i^2", 5) * size
        assert torch.allclose(scaled.S.double() / size, expected / size, rtol=1e-2)
        assert 0 < float(scaled.error.relative_upper) < 0.1
    low = semi_definite(40, "1/i^2")[:, :3]
    low = low @ low.mT
    assert float(error_of(low, lowrank.nystrom(low, rank=6).dense())) < 1e-12
    assert float(lowrank.nystrom(torch.zeros(6, 6), rank=2).dense().abs().max()) == 0
    assert lowrank.nystrom(torch.zeros(6, 6), tol=0.1).rank == 0
    assert lowrank.nystrom(torch.zeros(0, 0), rank=0).shape == (0, 0)
    assert lowrank.nystrom(semi_definite(5, "1/i"), rank=0).rank == 0
    full = lowrank.nystrom(semi_definite(12, "1/i"), rank=12)
    assert float(full.error.relative_upper) < 1e-12


def test_what_it_is_not_for_is_refused() -> None:
    a = semi_definite(30, "1/i")
    for wrong, says in (
        (a - 0.1 * torch.eye(30), "negative eigenvalue"),
        (-a, "negative eigenvalue"),
        (a + torch.ones(30, 30).tril(), "conjugate transpose"),
        (a[:, :20], "square"),
        (a.clone().requires_grad_(), "detach"),
        (a * float("nan"), "NaN or Inf"),
    ):
        with pytest.raises(ValueError, match=says):
            lowrank.nystrom(wrong, rank=10)
    with pytest.raises(ValueError, match="takes no route"):
        lowrank.pinv(a, hermitian=True, route="svd")
    with pytest.raises(ValueError, match="conjugate transpose"):
        lowrank.pinv(a + torch.ones(30, 30).tril(), hermitian=True)
    with pytest.raises(ValueError, match="square"):
        lowrank.pinv(a[:, :20], hermitian=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_hermitian_pseudo_inverses_are_those_of_numpy(dtype: torch.dtype) -> None:
    u = orthonormal(12, 12, seeded(), dtype)
    for s in (
        torch.linspace(-2, 2, 12),  # none is near 0, and some are negative
        torch.tensor([3.0, -2.0, 1.0, *[0.0] * 9]),
    ):
        a = (u * s.to(dtype)) @ u.mH
        a = (a + a.mH) / 2
        x = lowrank.pinv(a, hermitian=True)
        assert x.rank == int((s != 0).sum())
        assert np.allclose(x.dense(), np.linalg.pinv(a.numpy(), hermitian=True), atol=1e-12)
        assert float(x.penrose().worst) < 1e-12
        b = torch.ones(12, 1, dtype=dtype)
        assert torch.allclose(lowrank.lstsq(a, b, hermitian=True).x, x @ b)
