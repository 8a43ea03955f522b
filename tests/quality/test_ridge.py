"""The ridge is the exact solution, and its leave-one-out scores are those of n separate fits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from noisewise.quality.ridge import PENALTIES, Scaling, fit


def solved(x: Tensor, y: Tensor, w: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and offset from the normal equations."""
    full = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    ridge = penalty * torch.eye(full.shape[1], dtype=x.dtype)
    ridge[-1, -1] = 0
    found = torch.linalg.solve(full.T @ (w[:, None] * full) + ridge, full.T @ (w[:, None] * y))
    return found[:-1], found[-1]


@pytest.mark.parametrize(("n", "d"), [(12, 30), (30, 5)])
def test_it_is_the_solution_and_leaves_each_picture_out(n: int, d: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, k, generator=g, dtype=torch.float64) for k in (d, 2))
    w = torch.rand(n, generator=g, dtype=torch.float64) + 0.2
    found = fit(x, y, w, penalties=(0.3,))
    w = w * n / w.sum()
    centred = w.sqrt()[:, None] * (x - (w[:, None] * x).sum(0) / w.sum())
    penalty = 0.3 * float(centred.square().sum()) / n
    weights, offset = solved(x, y, w, penalty)
    assert torch.allclose(found(x), x @ weights + offset)
    for i in range(n):
        kept = torch.arange(n) != i
        weights, offset = solved(x[kept], y[kept], w[kept], penalty)
        assert torch.allclose(found.left_out[i], x[i] @ weights + offset)


def test_noise_gets_a_large_penalty_and_a_signal_a_small_one() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(100, 40, generator=g)
    assert fit(x, torch.randn(100, 1, generator=g)).penalty >= 10
    assert fit(x, x[:, :1]).penalty == min(PENALTIES)


def test_features_that_never_vary_do_no_harm() -> None:
    x = torch.ones(20, 3)
    found = fit(Scaling.of(x)(x), torch.ones(20, 1))
    assert found(Scaling.of(x)(x)).isfinite().all()
