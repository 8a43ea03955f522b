"""The certificate fails no more often than it says, in the worst case, and is not slack either."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank.certificate import (
    PROBES,
    Residual,
    certificate,
    probed,
    quantile,
    sketched,
)
from noisewise.lowrank.operators import Dense, gaussian
from spectra import error_of, seeded, values, with_values

DRAWS = 10_000


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 20, 40, 300])
@pytest.mark.parametrize("probability", [0.1, 0.05, 1e-3, 1e-6, 1e-15])
def test_quantiles_are_scipys(freedom: int, probability: float) -> None:
    expected = scipy.stats.chi2.ppf(probability, freedom)
    assert lowrank.chi_square_quantile(freedom, probability) == pytest.approx(expected, rel=1e-9)


def test_quantiles_do_not_underflow() -> None:
    """P(chi-square_2 <= q) = 1 - e^(-q/2), about q / 2."""
    assert lowrank.chi_square_quantile(2, 1e-300) == pytest.approx(2e-300, rel=1e-9)
    assert lowrank.chi_square_quantile(1, 1e-150) == pytest.approx(1e-300 * math.pi / 2, rel=1e-9)
    with pytest.raises(ValueError, match="probability"):
        lowrank.chi_square_quantile(3, 0.0)


def failures(weights: list[float], s: int, d: float, dtype: torch.dtype, norm: str = "") -> float:
    """Share of draws in which the bound of a residual of these singular values fails."""
    n = len(weights)
    e = torch.diag(torch.tensor(weights)).to(dtype)
    batch = e.expand(DRAWS, n, n)
    residual = Residual(Dense(batch), batch[..., :0], batch[..., :0, :])
    g = batch @ gaussian((DRAWS, n, s), dtype, e.device, seeded(7))
    order = "spectral" if norm else "frobenius"
    # One certificate each, not one for the batch: the probability is multiplied by its size.
    _, upper = probed(residual, g, order, d * DRAWS)
    truth = max(weights) if norm else math.hypot(*weights)
    return float((upper < truth).double().mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("s", "d"), [(5, 0.05), (10, 0.01), (20, 0.05), (20, 1e-3)])
def test_a_rank_one_residual_fails_as_often_as_stated(s: int, d: float, dtype: torch.dtype) -> None:
    spread = math.sqrt(d * (1 - d) / DRAWS)
    found = failures([1.0, 0.0], s, d, dtype)
    assert d - 4 * spread <= found <= d + 3 * spread


@pytest.mark.parametrize("weights", [[1.0, 0.3], [1.0, 1.0], [1.0] * 10, [1.0, 0.1, 0.1, 0.1]])
def test_no_residual_fails_more_often(weights: list[float]) -> None:
    d, s = 0.05, 5
    assert failures(weights, s, d, torch.float64) <= d + 3 * math.sqrt(d / DRAWS)
    assert failures(weights, s, d, torch.float64, "spectral") <= d + 3 * math.sqrt(d / DRAWS)


def test_our_probes_are_not_rescaled_which_would_fail_far_more_often() -> None:
    """Columns scaled to the length sqrt(n): the trap that a peer falls into."""
    d, n = 0.001, 2
    e = torch.zeros(DRAWS, n, n, dtype=torch.float64)
    e[:, 0] = 1 / math.sqrt(2)
    residual = Residual(Dense(e), e[..., :0], e[..., :0, :])

    def failed(g: Tensor) -> float:
        # One certificate each, not one for the batch: the probability is multiplied by its size.
        return float((probed(residual, g, "frobenius", d * DRAWS)[1] < 1).double().mean())

    def scaled(x: Tensor) -> Tensor:
        return residual.matmat(x * math.sqrt(n) / x.norm(dim=-2, keepdim=True))

    honest = failed(sketched(residual, 1, seeded(1)))
    assert honest <= d + 3 * math.sqrt(d / DRAWS)
    q = lowrank.chi_square_quantile(1, d)
    naive = failed(scaled(residual.matrix.gaussian(1, seeded(1))))
    assert naive == pytest.approx(2 / math.pi * math.asin(math.sqrt(q / 2)), rel=0.5)
    # The size of a rank-one residual seen through one probe is a half-normal number.
    sizes = sketched(residual, 1, seeded(2)).norm(dim=(-2, -1))
    assert scipy.stats.kstest(sizes.numpy(), scipy.stats.halfnorm.cdf).pvalue > 1e-3
    rescaled = scaled(residual.matrix.gaussian(1, seeded(2))).norm(dim=(-2, -1))
    assert scipy.stats.kstest(rescaled.numpy(), scipy.stats.halfnorm.cdf).pvalue < 1e-6


def test_build_probes_would_see_nothing() -> None:
    """The sketch that made Q lies in its span: reused, it certifies an error of zero."""
    a = Dense(with_values(100, 80, values("i^-1/2", 80)))
    omega = a.gaussian(30, seeded())
    q = torch.linalg.qr(a.matmat(omega)).Q
    reused = a.matmat(omega) - q @ (q.mT @ a.matmat(omega))
    truth = float(error_of(a.tensor, q @ (q.mT @ a.tensor)))
    assert float(reused.norm()) < 1e-10 * truth
    fresh = lowrank.certify(a, q, q.mT @ a.tensor, generator=seeded(1))
    assert truth <= float(fresh.upper) <= 4 * truth


def test_it_is_sharp_enough() -> None:
    """The median of upper / true: below 1.9 for 20 probes and d = 1e-3."""
    a = with_values(100, 80, values("i^-1/2", 80))
    left, right = a[:, :40], torch.eye(40, 80, dtype=torch.float64)
    truth = float(error_of(a, left @ right))
    ratios = []
    for seed in range(40):
        e = lowrank.certify(
            a, left, right, failure_probability=1e-3, generator=seeded(seed), probes=20
        )
        assert e.kind == "probes"
        ratios.append(float(e.upper) / truth)
    assert 1 < min(ratios)
    assert sorted(ratios)[20] < 1.9


def test_the_spectral_bound_is_sharper_with_power() -> None:
    a = with_values(200, 150, values("1/i", 150))
    r = lowrank.svd(a, rank=20)
    residual = Residual(Dense(a), r.left, r.right)
    truth = float(error_of(a, r.dense(), "spectral"))
    g = residual.matmat(residual.matrix.gaussian(PROBES, seeded(1)))
    ratios = [float(probed(residual, g, "spectral", 1e-6, p)[1]) / truth for p in (0, 1, 2, 4)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 5
    assert 1 < ratios[3] < 1.6
    lower = [float(probed(residual, g, "spectral", 1e-6, p)[0]) / truth for p in (1, 2, 4)]
    assert lower == sorted(lower)
    assert lower[-1] <= 1 + 1e-9


def test_the_spectral_bound_does_not_leave_the_range_of_float32() -> None:
    for scale in (1e-18, 1e18):
        e = torch.diag(torch.tensor([1.0, 0.5])) * scale
        residual = Residual(Dense(e), e[:, :0], e[:0])
        found = probed(residual, residual.matmat(torch.eye(2)), "spectral", 1e-3, 4)
        assert found[1].isfinite()
        assert float(found[1]) >= scale * (1 - 1e-6)


def test_a_batch_shares_one_probability() -> None:
    one, many = Dense(torch.ones(4, 4)), Dense(torch.ones(100, 4, 4))
    assert quantile(many, 10, 0.01) == quantile(one, 10, 0.0001)
    found = [
        certificate(
            Residual(Dense(e), e[..., :0], e[..., :0, :]),
            "frobenius",
            0.05,
            seeded(seed),
            torch.ones(50, dtype=torch.float64),
            torch.zeros(50, dtype=torch.float64),
            probes=5,
        )
        for seed in range(400)
        for e in [_rank_one_batch()]
    ]
    assert all(error.kind == "exact" for error in found)  # rank 0 costs nothing: exact
    wrong = 0
    for seed in range(400):
        e = _rank_one_batch()
        residual = Residual(Dense(e), e[..., :0], e[..., :0, :])
        g = residual.matmat(residual.matrix.gaussian(5, seeded(seed)))
        wrong += bool((probed(residual, g, "frobenius", 0.05)[1] < 1).any())
    assert wrong / 400 <= 0.05 + 3 * math.sqrt(0.05 / 400)


def _rank_one_batch() -> Tensor:
    e = torch.zeros(50, 3, 3, dtype=torch.float64)
    e[:, 0, 0] = 1
    return e


def test_looks_of_a_search_spend_the_probability_once() -> None:
    """An operator's search looks after every block; here what it sees is nearly of rank one.

    The first block of 20 leaves an error just above the tolerance, of one direction: stopping there
    is wrong, and that look may spend d / 6. The next block leaves one direction again, and spends
    d / 12. A search that spent d at every look would fail eight times as often.
    """
    d, seeds = 0.1, 400
    s = torch.full((50,), 1e-8, dtype=torch.float64)
    s[:20], s[20], s[21:40], s[40] = 1.0, 1e-2, 1e-4, 1e-6
    a = with_values(60, 50, s)
    op = lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64)
    tol = 0.999 * 1e-2 / float(s.norm())
    wrong = 0
    for seed in range(seeds):
        r = lowrank.svd(op, tol=tol, generator=seeded(seed), failure_probability=d)
        wrong += float(error_of(a, r.dense())) > float(r.error.upper)
    spent = d / 6 + d / 12
    assert 0 < wrong / seeds <= spent + 3 * math.sqrt(spent / seeds)


def test_factors_of_another_dtype_are_certified_as_they_are() -> None:
    a = with_values(60, 50, values("1/i", 50), torch.float32)
    r = lowrank.svd(a.double(), 25)
    turned = r.left.to(torch.complex128) * 1j, r.right.to(torch.complex128)
    op = lowrank.operator(a.shape, a.matmul, a.mT.matmul)
    for left, right in (turned, (r.left, r.right)):
        truth = float(error_of(a, left @ right))
        for matrix in (a, a.to_sparse(), op):
            for probability in (1e-6, 0):
                e = lowrank.certify(matrix, left, right, failure_probability=probability)  # pyrefly: ignore
                assert truth <= float(e.upper) * (1 + 1e-6) <= 4 * truth


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-25, torch.float32), (1e25, torch.float32), (1e-200, torch.float64)]
)
def test_certificates_of_extreme_size(scale: float, dtype: torch.dtype) -> None:
    a = with_values(60, 50, values("1/i", 50), dtype)
    left, right = a[:, :30], torch.eye(30, 50, dtype=dtype)
    for norm in ("frobenius", "spectral"):
        for probability in (1e-6, 0):
            plain, extreme = (
                lowrank.certify(x, y, right, norm=norm, failure_probability=probability)  # pyrefly: ignore
                for x, y in ((a, left), (a * scale, left * scale))
            )
            assert float(extreme.upper) == pytest.approx(float(plain.upper) * scale, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_error_by_entries_and_by_products(dtype: torch.dtype) -> None:
    a = with_values(300, 40, values("1/i", 40), dtype)
    left, right = a[:, :30].clone(), torch.eye(30, 40, dtype=dtype)
    op = lowrank.operator(a.shape, a.matmul, a.mT.matmul, dtype)
    for norm in ("frobenius", "spectral"):
        truth = float(error_of(a, left @ right, norm))
        for matrix in (a, op):
            e = lowrank.certify(matrix, left, right, norm=norm, failure_probability=0)  # pyrefly: ignore
            assert e.kind == "exact"
            assert float(e.estimate) == pytest.approx(truth, rel=1e-5)
            assert truth <= float(e.upper)


def test_leave_one_out_is_near_the_truth_without_a_product_more() -> None:
    a = with_values(200, 150, values("1/i", 150))
    calls: list[int] = []

    def matmat(x: Tensor) -> Tensor:
        calls.append(x.shape[-1])
        return a @ x

    op = lowrank.operator(a.shape, matmat, a.mT.matmul, torch.float64)
    ratios = []
    for seed in range(20):
        calls.clear()
        r = lowrank.svd(op, 20, power=0, failure_probability=None, generator=seeded(seed))
        assert sum(calls) == 1 + 30  # the check of the adjoint and the sketch
        assert r.error.kind == "estimate"
        assert float(r.error.upper) == math.inf
        assert "no bound" in str(r)
        ratios.append(float(r.error.estimate) / float(error_of(a, r.dense())))
    assert 0.9 < min(ratios) < max(ratios) < 1.2


def test_an_estimate_in_the_spectral_norm_is_one_of_the_spectral_norm() -> None:
    """Leave-one-out sees the Frobenius norm, ten times as large on a flat tail."""
    a = with_values(200, 150, values("i^-1/2", 150))
    r = lowrank.svd(a, 20, power=0, failure_probability=None, norm="spectral")
    truth = float(error_of(a, r.dense(), "spectral"))
    assert r.error.kind == "estimate"
    assert 0.5 * truth <= float(r.error.estimate) <= 1.5 * truth
    assert float(error_of(a, r.dense())) > 2.5 * truth


def test_wrong_factors_and_wrong_wishes_are_refused() -> None:
    a = torch.eye(5)
    with pytest.raises(ValueError, match="do not multiply"):
        lowrank.certify(a, torch.ones(5, 2), torch.ones(3, 5))
    with pytest.raises(ValueError, match="a number up to 0"):
        lowrank.certify(a, torch.ones(5, 2), torch.ones(2, 5), failure_probability=0.3)
    with pytest.raises(ValueError, match="give 1 or more"):
        lowrank.certify(a, torch.ones(5, 2), torch.ones(2, 5), probes=0)
