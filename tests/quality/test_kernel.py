"""MMD and Frechet distance against sums written out, other libraries and closed forms."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from noisewise.quality.kernel import between, frechet, mmd, resampling_weights, within


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x: Tensor, y: Tensor) -> float:
    def k(u: Tensor, v: Tensor) -> float:
        return (float(u.double() @ v.double()) / len(u) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(u, v) for u in x for v in y) / (n * m)


def test_mmd_is_the_sum_written_out() -> None:
    x, y = normal(7, 3), 0.5 + 2 * normal(4, 3, seed=1)
    assert mmd(x, y) == pytest.approx(by_hand(x, y), rel=1e-5)


def test_blocks_of_rows_change_nothing() -> None:
    x, y = normal(1300, 2), normal(1100, 2, seed=1) + 1

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u.double() @ v.double().T / 2 + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    expected = (xx.sum() - xx.trace()) / (1300 * 1299) + (yy.sum() - yy.trace()) / (1100 * 1099)
    expected = float(expected - 2 * kernel(x, y).mean())
    assert mmd(x, y) == pytest.approx(expected, rel=1e-5)


def test_mmd_is_unbiased_where_the_plain_mean_is_not() -> None:
    draws, n, m, d = 3000, 6, 9, 4
    values, plain = [], []
    g = torch.Generator().manual_seed(0)
    for _ in range(draws):
        x, y = torch.randn(n, d, generator=g), torch.randn(m, d, generator=g)
        values.append(mmd(x, y))
        both = torch.cat([x, y])
        k = (both @ both.T / d + 1) ** 3
        plain.append(float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()))
    found, biased = torch.tensor(values), torch.tensor(plain)
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(draws)
    assert biased.mean() > 20 * biased.std() / math.sqrt(draws)


def test_mmd_of_two_normal_laws_has_the_closed_form() -> None:
    # d = 1, k = (xy + 1)^3: MMD^2 = sum_k binom(3, k) (E x^k - E y^k)^2
    mean = 0.5
    truth = 3 * mean**2 + 3 * mean**4 + (mean**3 + 3 * mean) ** 2
    draws = [mmd(normal(400, 1, seed=i) + mean, normal(400, 1, seed=500 + i)) for i in range(200)]
    values = torch.tensor(draws)
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / math.sqrt(200)


def test_weights_never_pair_a_row_with_itself() -> None:
    x = normal(5, 3)
    weights = torch.tensor([[1.0, 2.0, 0.0, 3.0, 0.5]]).double()
    k = (x.double() @ x.double().T / 3 + 1) ** 3
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    w = weights[0]
    top = sum(float(w[i] * w[j] * k[i, j]) for i, j in pairs)
    bottom = sum(float(w[i] * w[j]) for i, j in pairs)
    assert float(within(weights, x)) == pytest.approx(top / bottom, rel=1e-6)
    y = normal(2, 3, seed=1)
    v = torch.tensor([[2.0, 1.0]]).double()
    expected = float((w @ ((x.double() @ y.double().T / 3 + 1) ** 3) @ v[0]) / (w.sum() * 3))
    assert float(between(weights, x, v, y)) == pytest.approx(expected, rel=1e-6)


def test_resampling_weights_are_exponential_after_ones() -> None:
    weights = resampling_weights(2000, 100, torch.Generator().manual_seed(0))
    assert torch.equal(weights[0], torch.ones(2000).double())
    assert float(weights[1:].mean()) == pytest.approx(1, abs=0.01)
    assert float(weights[1:].var()) == pytest.approx(1, abs=0.03)


def test_frechet_agrees_with_the_matrix_root_of_scipy() -> None:
    x = normal(60, 6) @ normal(6, 6, seed=1)
    y = normal(80, 6, seed=2) @ normal(6, 6, seed=3) + 0.3
    a, b = x.double(), y.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = torch.from_numpy(scipy.linalg.sqrtm((cov_a @ cov_b).numpy()).real)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    expected = float(shift + (cov_a + cov_b - 2 * root).trace())
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)


def test_frechet_in_one_dimension_and_of_flat_sets() -> None:
    x = torch.tensor([[0.0], [2.0], [4.0]])
    assert frechet(x, 3 * x + 1) == pytest.approx((2 - 7) ** 2 + (2 - 6) ** 2)
    flat = torch.zeros(3, 4)
    assert frechet(flat, flat + 1) == pytest.approx(4)
    few = normal(3, 20)  # fewer rows than features: singular covariances
    assert frechet(few, few) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("measure", [mmd, frechet])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(1, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3), torch.zeros(4, 2)),
        (torch.zeros(4), torch.zeros(4, 3)),
    ],
)
def test_features_that_do_not_fit_are_refused(measure, x: Tensor, y: Tensor) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match="at least two rows"):
        measure(x, y)
