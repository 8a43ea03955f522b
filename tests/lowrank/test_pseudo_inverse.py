"""Pseudo-inverses: Penrose's conditions by every route, ranks and gaps, the limit's own path."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank.pseudo_inverse import Route
from spectra import error_of, orthonormal, seeded, values, with_values

PRECISIONS = [torch.float32, torch.float64, torch.complex64, torch.complex128]
SHAPES = [(30, 30), (40, 12), (12, 40), (1, 9), (9, 1), (1, 1)]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("route", ["auto", "svd", "qr", "cholesky"])
def test_the_four_conditions(dtype: torch.dtype, shape: tuple[int, int], route: Route) -> None:
    a = with_values(*shape, torch.linspace(3, 1, min(shape)), dtype, batch=(2,))
    x = lowrank.pinv(a, route=route)
    eps = torch.finfo(dtype).eps
    assert float(x.penrose().worst.max()) < 200 * eps
    assert torch.allclose(x.dense(), torch.linalg.pinv(a), atol=200 * eps)
    assert x.rank == min(shape)
    assert bool((error_of(a, a @ x.dense() @ a) <= x.error.upper * 2).all())


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=25, deadline=None)
def test_any_rank_of_any_shape(m: int, n: int, share: float, seed: int) -> None:
    rank = round(share * min(m, n))
    g = seeded(seed)
    u, v = orthonormal(m, rank, g), orthonormal(n, rank, g)
    s = torch.linspace(2, 1, rank, dtype=torch.float64)
    a = (u * s) @ v.mT
    x = lowrank.pinv(a)
    assert x.rank == rank
    assert float(x.gap) > 1e10 if rank else True
    assert torch.allclose(x.dense(), (v / s) @ u.mT, atol=1e-12)


def test_the_gap_tells_how_near_the_decision_was() -> None:
    s = torch.tensor([1.0, 0.5, 0.02, 0.009])
    x = lowrank.pinv(with_values(8, 6, s), rtol=0.01)
    assert x.rank == 3
    assert float(x.gap) == pytest.approx(0.02 / 0.009, rel=1e-6)
    assert float(x.condition) == pytest.approx(50, rel=1e-6)
    assert float(x.margin) == pytest.approx(0.01 / 0.009, rel=1e-6)
    assert "rank is uncertain" in str(x)
    assert "rank is uncertain" not in str(lowrank.pinv(torch.eye(3)))


def test_a_batch_of_different_ranks() -> None:
    parts = [with_values(8, 6, torch.linspace(2, 1, r)) for r in (2, 6, 4)]
    x = lowrank.pinv(torch.stack([*parts, torch.zeros(8, 6, dtype=torch.float64)]))
    assert x.ranks.tolist() == [2, 6, 4, 0]
    assert x.rank == 6
    for i, part in enumerate(parts):
        assert torch.allclose(x.dense()[i], lowrank.pinv(part).dense(), atol=1e-12)
    assert float(x.dense()[3].norm()) == 0


def test_auto_takes_the_quickest_route_that_is_safe() -> None:
    def route(condition: float, dtype: torch.dtype = torch.float64) -> str:
        s = torch.logspace(0, -torch.tensor(condition).log10().item(), 20, dtype=torch.float64)
        return lowrank.pinv(with_values(30, 20, s, dtype)).route

    assert route(3) == "cholesky"
    assert route(1e6) == "qr"
    assert route(1e15) == "svd"
    assert route(1e6, torch.float32) == "svd"
    assert lowrank.pinv(torch.eye(4), rtol=0.1).route == "svd"  # the user's cutoff decides


@pytest.mark.parametrize("condition", [2.0, 30.0, 1e3, 1e6, 1e9])
def test_shortcuts_are_as_accurate_as_the_svd(condition: float) -> None:
    s = torch.logspace(0, -torch.tensor(condition).log10().item(), 20, dtype=torch.float64)
    g = seeded(1)
    u, v = orthonormal(30, 20, g), orthonormal(20, 20, g)
    a, truth = (u * s) @ v.mT, (v / s) @ u.mT
    ours = float((lowrank.pinv(a).dense() - truth).norm() / truth.norm())
    by_svd = float((lowrank.pinv(a, route="svd").dense() - truth).norm() / truth.norm())
    assert ours <= 10 * by_svd + 1e-13


def test_shortcuts_are_refused_where_they_are_not_safe() -> None:
    """Kahan's matrix: the diagonal of R looks harmless, its condition is not."""
    n, c = 90, 0.285
    powers = (1 - c * c) ** (0.5 * torch.arange(n, dtype=torch.float64))
    kahan = powers[:, None] * (torch.eye(n) - c * torch.ones(n, n).triu(1)).double()
    diagonal = torch.linalg.qr(kahan).R.diagonal().abs()
    assert float(diagonal.max() / diagonal.min()) < 100
    assert float(torch.linalg.cond(kahan)) > 1e10
    assert lowrank.pinv(kahan).route == "svd"
    singular = with_values(10, 8, torch.linspace(2, 1, 5))
    for route in ("qr", "cholesky"):
        with pytest.raises(ValueError, match="not safe"):
            lowrank.pinv(singular, route=route)


# ------------------------------------------------------------------------------- the limit
def test_the_limit_follows_its_formula() -> None:
    """|X_e - A^+|: sqrt(sum (e / (s (s^2 + e)))^2), for full rank down to rounding."""
    s = torch.tensor([2.0, 1.0, 0.5, 0.25])
    a = with_values(7, 4, s)
    steps = lowrank.limit_path(a, [10.0**-k for k in range(1, 13)])
    for step in steps:
        assert float(step.change) == pytest.approx(float(step.predicted), rel=1e-3, abs=1e-14)
    assert float(steps[-1].change) < 1e-9
    ratios = [float(x.change / y.change) for x, y in pairwise(steps[4:9])]
    assert ratios == pytest.approx([10] * 4, rel=1e-2)  # first order in e


def test_the_limit_of_a_deficient_matrix_turns_back_at_rounding() -> None:
    a = with_values(9, 7, torch.tensor([2.0, 1.0, 0.5]))
    steps = lowrank.limit_path(a, [10.0**-k for k in range(2, 26)])
    changes = [float(step.change) for step in steps]
    least = min(range(len(changes)), key=changes.__getitem__)
    assert 3 < least < len(changes) - 3
    assert 1e-11 < changes[least] < 1e-6
    assert changes[-1] > 100 * changes[least]


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)])
def test_the_limit_is_what_its_definition_says(shape: tuple[int, int]) -> None:
    a = with_values(*shape, torch.linspace(2, 0.1, 8), torch.complex128)
    e = 1e-3
    x = lowrank.pinv(a, route="limit", epsilon=e)
    gram = a.mH @ a + e * 4 * torch.eye(shape[1], dtype=a.dtype)
    assert torch.allclose(x.dense(), torch.linalg.solve(gram, a.mH), atol=1e-12)
    assert "damped" in str(x)


# ------------------------------------------------------------------------------- least squares
@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (15, 15)])
def test_least_squares_has_the_least_residual_and_norm(shape: tuple[int, int]) -> None:
    a = with_values(*shape, torch.linspace(2, 1, 5))  # rank 5
    b = torch.randn(shape[0], 3, dtype=torch.float64, generator=seeded())
    found = lowrank.lstsq(a, b)
    expected = torch.linalg.lstsq(a, b, driver="gelsd").solution
    assert torch.allclose(found.x, expected, atol=1e-10)
    assert found.rank == 5
    assert torch.allclose(found.residual, torch.linalg.vector_norm(a @ expected - b, dim=0))
    other = found.x + (torch.eye(shape[1]) - lowrank.pinv(a).dense() @ a) @ torch.ones(
        shape[1], 3, dtype=torch.float64
    )
    assert torch.allclose(a @ other, a @ found.x, atol=1e-10)
    assert bool((other.norm(dim=0) > found.x.norm(dim=0)).all())
    assert lowrank.lstsq(a, b[:, 0]).x.shape == (shape[1],)


def test_a_low_rank_value_is_inverted_as_it_is() -> None:
    a = with_values(60, 50, values("1/i", 50))
    r = lowrank.svd(a, rank=4)
    x = lowrank.pinv(r)
    assert x.rank == 4
    assert float(x.penrose().worst) < 1e-12


def test_half_precision_and_integers_are_converted_and_it_is_said() -> None:
    x = lowrank.pinv(torch.tensor([[1, 2], [3, 4]]))
    assert x.dtype == torch.float64
    assert "int64" in str(x)
    assert lowrank.pinv(torch.eye(3, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 0, 2), (0, 3, 2)])
def test_empty_matrices_have_empty_inverses(shape: tuple[int, ...]) -> None:
    x = lowrank.pinv(torch.zeros(shape))
    assert x.dense().shape == (*shape[:-2], shape[-1], shape[-2])
    assert x.rank == 0
    assert str(x)


def test_nonsense_is_refused() -> None:
    a = torch.eye(3)
    wrong: list[tuple[dict, str]] = [
        ({"rtol": 1.5}, "rtol"),
        ({"epsilon": 0.1}, "epsilon"),
        ({"route": "limit", "epsilon": -1.0}, "epsilon"),
        ({"route": "lu"}, "route"),
    ]
    for arguments, words in wrong:
        with pytest.raises(ValueError, match=words):
            lowrank.pinv(a, **arguments)
    with pytest.raises(ValueError, match="NaN or Inf"):
        lowrank.pinv(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="must agree"):
        lowrank.lstsq(a, torch.ones(4))
    with pytest.raises(ValueError, match="NaN"):
        lowrank.lstsq(a, torch.full((3,), torch.inf))
    with pytest.raises(ValueError, match="needs the entries"):
        lowrank.pinv(a.to_sparse())
    assert set(get_args(Route)) == {"auto", "svd", "qr", "cholesky", "limit"}


def test_the_residual_of_a_wrong_inverse_is_seen() -> None:
    a: Tensor = with_values(6, 5, torch.linspace(2, 1, 5))
    report = lowrank.penrose(a, torch.linalg.pinv(a) * 1.01)
    assert float(report.axa) == pytest.approx(0.01, rel=1e-6)
    assert "AXA" in str(report)


def test_complex_and_double_right_sides_keep_all_their_digits() -> None:
    a = with_values(20, 8, torch.linspace(2, 1, 8), torch.float32)
    b = torch.randn(20, 3, dtype=torch.complex128, generator=seeded())
    for right in (b, b.real.clone(), b.to(torch.complex64)):
        found = lowrank.lstsq(a, right)
        expected = torch.linalg.lstsq(a.to(right.dtype), right).solution
        assert found.x.dtype == right.dtype
        assert torch.allclose(found.x, expected, atol=100 * torch.finfo(right.dtype).eps)
    half = lowrank.lstsq(a.to(torch.bfloat16), b.real)
    assert "bfloat16" in str(half)


def test_a_solution_is_a_value_and_a_sentence() -> None:
    a = with_values(20, 8, torch.linspace(2, 1, 8))
    b = torch.randn(20, 3, dtype=torch.float64, generator=seeded())
    found = lowrank.lstsq(a, b)
    assert torch.equal(found.dense(), found.x)
    weights = torch.randn(3, 2, dtype=torch.float64, generator=seeded(1))
    assert torch.allclose(found @ weights, found.x @ weights)
    residual = torch.linalg.vector_norm(a @ found - b, dim=0)
    assert torch.allclose(residual, found.residual)
    assert str(found).startswith("LeastSquares of a 20x8 matrix, rank 8 by cholesky; ")
    assert f"{float(found.residual.max()):.2g}" in str(found)
    assert "\n" not in str(found)
    assert "tensor" not in str(found)


def test_the_limit_takes_its_epsilon_in_least_squares_too() -> None:
    a = with_values(20, 8, torch.linspace(2, 1, 8))
    b = torch.randn(20, 3, dtype=torch.float64, generator=seeded())
    found = lowrank.lstsq(a, b, route="limit", epsilon=0.1)
    gram = a.mT @ a + 0.1 * 4 * torch.eye(8, dtype=torch.float64)
    assert torch.allclose(found.x, torch.linalg.solve(gram, a.mT @ b), atol=1e-12)
    with pytest.raises(ValueError, match="epsilon"):
        lowrank.lstsq(a, b, epsilon=0.1)


@pytest.mark.parametrize("shape", [(200_000, 5), (5, 200_000)])
def test_a_long_thin_matrix_needs_no_square_of_its_length(shape: tuple[int, int]) -> None:
    """A matrix 200,000 x 200,000 would hold 320 GB."""
    a = torch.randn(shape, dtype=torch.float64, generator=seeded()).requires_grad_()
    b = torch.randn(shape[0], dtype=torch.float64, generator=seeded(1))
    weight = torch.randn(shape[1], dtype=torch.float64, generator=seeded(2))
    found = lowrank.lstsq(a, b)
    (found.x * weight).sum().backward()
    again = a.detach().clone().requires_grad_()
    if shape[0] > shape[1]:
        x = torch.linalg.solve(again.mT @ again, again.mT @ b)
    else:
        x = again.mT @ torch.linalg.solve(again @ again.mT, b)
    (x * weight).sum().backward()
    assert torch.allclose(found.x, x, atol=1e-10)
    assert a.grad is not None
    assert again.grad is not None
    assert torch.allclose(a.grad, again.grad, atol=1e-10)
    assert float(found.inverse.penrose().worst) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_report_of_a_thin_matrix_is_the_definition(dtype: torch.dtype) -> None:
    a = with_values(60, 5, torch.linspace(2, 1, 5), dtype, batch=(2,))
    x = torch.linalg.pinv(a) + 0.01 * a.mH
    x = x + 0.02 * torch.randn(x.shape, dtype=dtype, generator=seeded())
    norm = torch.linalg.matrix_norm
    for matrix, inverse in ((a, x), (x, a)):
        report = lowrank.penrose(matrix, inverse)
        ax, xa = matrix @ inverse, inverse @ matrix
        expected = {
            "axa": norm(ax @ matrix - matrix) / norm(matrix),
            "xax": norm(xa @ inverse - inverse) / norm(inverse),
            "ax": norm(ax.mH - ax) / norm(ax),
            "xa": norm(xa.mH - xa) / norm(xa),
        }
        for name, value in expected.items():
            assert torch.allclose(getattr(report, name), value, rtol=1e-9), name
