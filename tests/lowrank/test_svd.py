"""The SVD by rank and by tolerance: near the best, signed, reproducible, honest at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from noisewise import lowrank
from spectra import DECAYS, error_of, seeded, values, with_values


def best(singular_values: Tensor, rank: int) -> float:
    return float(torch.linalg.vector_norm(singular_values[rank:]))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(("accurate", "most"), [(False, 1.03), (True, 1.001)])
def test_the_error_is_near_the_best(decay: str, accurate: bool, most: float) -> None:
    s = values(decay, 150)
    a = with_values(200, 150, s)
    r = lowrank.svd(a, rank=20, accurate=accurate, generator=seeded())
    truth = float(error_of(a, r.dense()))
    assert best(s, 20) * (1 - 1e-9) <= truth <= most * best(s, 20)
    assert r.error.kind == "exact"
    assert float(r.error.estimate) == pytest.approx(truth, rel=1e-6)
    assert float(r.error.optimal_lower) <= best(s, 20) * (1 + 1e-9)
    assert torch.allclose(r.factors[1], s[:20], rtol=0.15)


def test_plain_sketches_keep_the_bound_of_halko_martinsson_and_tropp() -> None:
    """E |A - Q Q^H A|_F^2 <= (1 + k / (p - 1)) sum_{j > k} s_j^2, their theorem 10.5."""
    s = values("1/i", 80)
    a = with_values(100, 80, s)
    k, p = 10, 5
    squares = []
    for seed in range(50):
        # All k + p columns are kept: the projection itself.
        r = lowrank.svd(a, rank=k + p, oversample=0, power=0, generator=seeded(seed))
        squares.append(float(error_of(a, r.dense())) ** 2)
    assert np.mean(squares) <= (1 + k / (p - 1)) * best(s, k) ** 2


def test_power_iteration_is_what_brings_it_near() -> None:
    s = values("i^-1/2", 300)
    a = with_values(300, 300, s)
    errors = [
        float(error_of(a, lowrank.svd(a, rank=20, power=q).dense())) / best(s, 20)
        for q in (0, 1, 2)
    ]
    assert errors[0] > errors[1] > errors[2] > 1
    assert errors[0] > 1.05 > 1.02 > errors[2]


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-3])
def test_a_tolerance_is_met_by_nearly_the_smallest_rank(decay: str, tol: float) -> None:
    s = values(decay, 120)
    a = with_values(150, 120, s)
    r = lowrank.svd(a, tol=tol)
    smallest = lowrank.rank_for(s, tol)
    assert r.converged
    assert float(error_of(a, r.dense())) <= tol * float(s.norm()) * (1 + 1e-9)
    assert smallest <= r.rank <= smallest + max(2, smallest // 20)


@pytest.mark.parametrize("tol", [1e-5, 1e-9, 1e-12])
def test_the_rank_is_found_below_what_the_indicator_can_see(tol: float) -> None:
    """|A|^2 - |B|^2 shows nothing below 4e-8; the residual does."""
    s = values("10^(-i/10)", 140)
    a = with_values(160, 140, s)
    r = lowrank.svd(a, tol=tol)
    assert r.converged
    assert lowrank.rank_for(s, tol) <= r.rank <= lowrank.rank_for(s, tol) + 3
    assert float(error_of(a, r.dense())) <= tol * float(s.norm())


def test_the_spectral_norm_has_its_own_tolerance() -> None:
    s = values("1/i", 120)
    a = with_values(150, 120, s)
    r = lowrank.svd(a, tol=0.1, norm="spectral")
    assert r.converged
    assert float(error_of(a, r.dense(), "spectral")) <= 0.1
    assert 9 <= r.rank <= 20
    exact = lowrank.svd(a, tol=0.1, norm="spectral", failure_probability=0)
    assert exact.error.kind == "exact"
    assert 9 <= exact.rank <= r.rank


def test_a_tolerance_below_the_precision_says_so() -> None:
    a = with_values(60, 50, values("1/i", 50), torch.float32)
    r = lowrank.svd(a, tol=1e-9)
    assert not r.converged
    assert "float32" in str(r)
    assert "not converged" in str(r)
    assert float(error_of(a, r.dense())) <= float(r.error.upper)


def test_a_tolerance_with_a_highest_rank_says_what_was_reached() -> None:
    s = values("1/i", 120)
    a = with_values(150, 120, s)
    r = lowrank.svd(a, rank=7, tol=0.01)
    assert r.rank == 7
    assert not r.converged
    assert "within rank 7" in str(r)
    assert float(r.error.upper) >= best(s, 7)


def test_the_largest_entry_of_each_left_vector_is_positive() -> None:
    a = with_values(70, 60, values("1/i", 60), torch.complex128, batch=(3,))
    u, s, vh = lowrank.svd(a, rank=6).factors
    largest = u.gather(-2, u.abs().argmax(-2, keepdim=True))
    assert torch.allclose(largest, largest.abs().to(largest.dtype))
    assert torch.equal(s, s.sort(descending=True).values)
    eye = torch.eye(6, dtype=u.dtype)
    for basis in (u.mH @ u, vh @ vh.mH):
        assert torch.allclose(basis, eye.expand_as(basis), atol=1e-12)


def test_the_same_seed_gives_the_same_result_and_none_is_a_fixed_one() -> None:
    a = with_values(80, 70, values("1/i", 70))
    first, again = (lowrank.svd(a, rank=5, generator=seeded(3)) for _ in range(2))
    assert torch.equal(first.left, again.left)
    state = torch.get_rng_state()
    assert torch.equal(lowrank.svd(a, rank=5).left, lowrank.svd(a, rank=5).left)
    assert torch.equal(torch.get_rng_state(), state)  # nothing global was used


def test_float32_keeps_its_basis_on_a_steep_spectrum() -> None:
    """CholeskyQR is not positive here, and one re-orthogonalisation leaves |Q^T Q - 1| = 0.4."""
    s = values("10^(-i/10)", 200)
    a = with_values(300, 200, s, torch.float32)
    for r in (
        lowrank.svd(a, rank=50, accurate=True),
        lowrank.svd(a, tol=1e-4),
        lowrank.svd(a, rank=50),
    ):
        u = r.factors[0]
        assert float((u.mT @ u - torch.eye(r.rank)).abs().max()) < 1e-5
        assert float(error_of(a, r.dense())) < 1e-4 * float(s.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_other_dtypes_are_converted_and_it_is_said(dtype: torch.dtype) -> None:
    a = (with_values(50, 40, values("1/i", 40)) * 50).to(dtype)
    r = lowrank.svd(a, rank=4)
    assert r.dtype == (torch.float32 if dtype.is_floating_point else torch.float64)
    assert str(dtype).removeprefix("torch.") in str(r)
    assert float(error_of(a, r.dense())) <= float(r.error.upper)


# ------------------------------------------------------------------------------- shapes at the edge
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 4, 3), (2, 0, 3)])
def test_empty_matrices(shape: tuple[int, ...]) -> None:
    a = torch.zeros(shape)
    for r in (lowrank.svd(a, rank=0), lowrank.svd(a, tol=0.1)):
        assert r.shape == a.shape
        assert r.dense().shape == a.shape
        assert r.rank == 0
        assert float(r.error.upper.sum()) == 0


@pytest.mark.parametrize("size", [1, 20, 50])
def test_zero_and_thin_matrices(size: int) -> None:
    zero = lowrank.svd(torch.zeros(size, 60), tol=1e-3)
    assert zero.rank == 0
    assert zero.converged
    assert float(zero.error.upper) == 0
    kept = lowrank.svd(torch.zeros(size, 60), rank=1)
    assert kept.rank == 1
    assert float(kept.dense().norm()) == 0
    row = torch.randn(1, 40, generator=seeded())
    for a in (row, row.mT):
        r = lowrank.svd(a, tol=1e-3)
        assert r.rank == 1
        assert torch.allclose(r.dense(), a, atol=1e-6)


def test_rank_zero_is_an_approximation_too() -> None:
    a = with_values(60, 50, values("1/i", 50))
    for r in (lowrank.svd(a, rank=0), lowrank.svd(a, tol=1.0), lowrank.svd(a[:20], tol=2.0)):
        assert r.rank == 0
        assert r.converged
        assert float(r.error.upper) >= float(r.error.scale) * (1 - 1e-12)
        assert (r @ torch.ones(50, dtype=torch.float64)).shape == (r.shape[0],)


def test_repeated_singular_values_are_no_trouble() -> None:
    s = torch.tensor([3.0] * 10 + [1.0] * 30 + [1e-3] * 40)
    a = with_values(90, 80, s)
    assert lowrank.svd(a, tol=0.01).rank == 40
    assert torch.allclose(lowrank.svd(a, rank=10).factors[1], s[:10].double(), rtol=1e-3)


def test_a_batch_has_one_rank_and_one_certificate() -> None:
    parts = [with_values(50, 40, values(d, 40), seed=i) for i, d in enumerate(DECAYS)]
    a = torch.stack(parts)
    r = lowrank.svd(a, tol=0.05)
    assert r.rank == max(lowrank.svd(part, tol=0.05).rank for part in parts)
    truth = error_of(a, r.dense())
    assert r.error.upper.shape == (len(parts),)
    assert bool((truth <= r.error.upper).all())
    assert bool((truth <= 0.05 * torch.linalg.matrix_norm(a)).all())


def test_magnitudes_at_the_ends_of_the_range() -> None:
    base = with_values(60, 50, values("1/i", 50))
    for scale, dtype in ((1e200, torch.float64), (1e-200, torch.float64), (1e30, torch.float32)):
        r = lowrank.svd((base * scale).to(dtype), rank=5)
        assert float(r.error.relative_upper) == pytest.approx(
            float(lowrank.svd(base, rank=5).error.relative_upper), rel=1e-3
        )


# ------------------------------------------------------------------------------- what is refused
def test_nan_and_inf_are_refused_by_batch_index() -> None:
    a = torch.ones(5, 6, 7)
    a[3, 2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf at batch index 3"):
        lowrank.svd(a, rank=2)
    a[3, 2, 1], a[1, 0, 0] = 1.0, torch.inf
    with pytest.raises(ValueError, match="batch index 1"):
        lowrank.svd(a.to_dense(), tol=0.1)
    with pytest.raises(ValueError, match="NaN or Inf"):
        lowrank.svd((a[1]).to_sparse(), tol=0.1)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({}, "a rank or a relative tolerance"),
        ({"rank": 21}, "ranks from 0 to 20"),
        ({"rank": -1}, "ranks from 0 to 20"),
        ({"tol": 0.0}, "positive"),
        ({"tol": float("nan")}, "positive"),
        ({"rank": 1, "failure_probability": 0.5}, "up to 0.1"),
        ({"rank": 1, "norm": "nuclear"}, "frobenius"),
        ({"rank": 1, "power": -1}, "0 or more"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(wish: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lowrank.svd(torch.ones(30, 20), **wish)


def test_vectors_and_strangers_are_refused() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        lowrank.svd(torch.ones(5), rank=1)
    with pytest.raises(ValueError, match="is not a matrix"):
        lowrank.svd("matrix", rank=1)


# ------------------------------------------------------------------------------- other libraries
def test_numpy_arrays_and_scipy_operators_are_read() -> None:
    a = with_values(80, 60, values("1/i^2", 60)).numpy()
    direct = lowrank.svd(a, rank=5)
    through = lowrank.svd(scipy.sparse.linalg.aslinearoperator(a), rank=5)
    assert through.error.kind == "probes"
    assert np.allclose(direct, through, atol=1e-3)
    expected = scipy.sparse.linalg.svds(a, k=5, return_singular_vectors=False, random_state=0)
    assert np.allclose(np.sort(expected)[::-1], direct.factors[1], rtol=1e-6)


def test_a_1_by_n_operator_and_one_that_is_not_square() -> None:
    """Both broke scipy's own once."""
    for m, n in ((1, 30), (30, 1), (50, 40)):
        a = torch.randn(m, n, dtype=torch.float64, generator=seeded())
        r = lowrank.svd(lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64), tol=1e-6)
        assert float(error_of(a, r.dense())) <= float(r.error.upper) <= 1e-6 * float(a.norm())


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (1e25, torch.float32),
        (1e-25, torch.float32),
        (1e250, torch.float64),
        (1e-250, torch.float64),
    ],
)
def test_sparse_matrices_and_products_may_have_any_size(size: float, dtype: torch.dtype) -> None:
    plain = with_values(90, 60, values("1/i", 60))
    a = (plain * size).to(dtype)
    for given in (a.to_sparse(), a.to_sparse().mT, lowrank.svd(a, 60)):
        wishes: list[dict[str, Any]] = [{"rank": 5}, {"tol": 0.3}]
        for wish in wishes:
            r = lowrank.svd(given, **wish)
            best = torch.linalg.svdvals(plain)[: r.rank]
            torch.testing.assert_close(r.S.double() / size, best, rtol=1e-3, atol=0)
            assert 0 < float(r.error.relative_upper) < 1
    small = (plain.mT / size).to(dtype)
    square = lowrank.svd(lowrank.product(a, small), 5)
    best = torch.linalg.svdvals(plain)[:5].square()
    torch.testing.assert_close(square.S.double(), best, rtol=1e-3, atol=0)
