"""Gradients against finite differences, where the naive way through the sketch must fail too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from noisewise import lowrank
from spectra import error_of, seeded, values, with_values

DOUBLES = [torch.float64, torch.complex128]


def small(m: int, n: int, dtype: torch.dtype, batch: tuple[int, ...] = ()) -> Tensor:
    s = torch.tensor([3.0, 2.2, 1.5, 0.9, 0.4, 0.1])[: min(m, n)]
    return with_values(m, n, s, dtype, batch).requires_grad_()


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7), (6, 6)])
def test_factors_of_a_truncated_svd(dtype: torch.dtype, m: int, n: int) -> None:
    """U, S and Vh each, with what is cut off counted: it turns the kept vectors."""

    def factors(a: Tensor) -> tuple[Tensor, ...]:
        return lowrank.svd(a, rank=3).factors

    assert torch.autograd.gradcheck(factors, small(m, n, dtype), atol=1e-6)


@pytest.mark.parametrize("dtype", DOUBLES)
def test_the_truncated_product_in_a_batch(dtype: torch.dtype) -> None:
    a = small(6, 5, dtype, batch=(2,))
    x = torch.randn(5, 2, dtype=dtype, generator=seeded()).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: lowrank.svd(a, rank=2).dense(), a)
    assert torch.autograd.gradcheck(lambda a, x: lowrank.svd(a, rank=2) @ x, (a, x))


def test_equal_singular_values_do_not_harm_the_product() -> None:
    """The vectors have no derivative there, and torch's own gives nan; the product has one."""
    a = with_values(8, 6, torch.tensor([2.0, 2.0, 2.0, 0.5, 0.5])).requires_grad_()
    weight = torch.randn(8, 6, dtype=torch.float64, generator=seeded(1))
    (lowrank.svd(a, rank=3).dense() * weight).sum().backward()
    step, found = 1e-6, a.grad
    assert found is not None
    direction = torch.randn(8, 6, dtype=torch.float64, generator=seeded(2))

    def value(t: float) -> Tensor:
        return (lowrank.svd(a.detach() + t * direction, rank=3).dense() * weight).sum()

    expected = (value(step) - value(-step)) / (2 * step)
    assert torch.allclose((found * direction).sum(), expected, rtol=1e-6)


def test_a_randomised_decomposition_has_the_gradient_of_the_exact_one() -> None:
    s = values("10^(-i/10)", 60)
    a = with_values(80, 60, s).requires_grad_()
    weight = torch.randn(80, 60, dtype=torch.float64, generator=seeded(1))
    (lowrank.svd(a, rank=10, accurate=True).dense() * weight).sum().backward()
    exact = a.detach().clone().requires_grad_()
    u, sv, vh = torch.linalg.svd(exact, full_matrices=False)
    ((u[:, :10] * sv[:10]) @ vh[:10] * weight).sum().backward()
    assert a.grad is not None
    assert exact.grad is not None
    assert float((a.grad - exact.grad).norm() / exact.grad.norm()) < 1e-4


def test_float32_above_the_numerical_rank_where_the_way_through_the_sketch_fails() -> None:
    """Rank one, asked for three: torch.svd_lowrank's gradient is wrong by percents and more."""
    ours, theirs = [], []
    for seed in range(10):
        b = torch.randn(40, 1, generator=seeded(seed))
        c = torch.randn(1, 30, generator=seeded(seed + 100))
        weight = torch.randn(40, 30, generator=seeded(seed + 200))
        truth = weight @ c.mT  # of sum(weight * (b c)) with respect to b
        for kept in (ours, theirs):
            leaf = b.clone().requires_grad_()
            if kept is ours:
                product = lowrank.svd(leaf @ c, rank=3).dense()
            else:
                torch.manual_seed(seed)
                u, s, v = torch.svd_lowrank(leaf @ c, q=3)
                product = (u * s) @ v.mT
            (product * weight).sum().backward()
            assert leaf.grad is not None
            kept.append(float((leaf.grad - truth).norm() / truth.norm()))
    assert max(ours) < 1e-4
    assert not max(theirs) < 1e-3  # nan counts as a failure


def test_singular_values_alone_have_a_plain_gradient() -> None:
    a = small(9, 6, torch.float64)
    s = lowrank.svd(a, rank=4).factors[1]
    s.sum().backward()
    u, _, vh = torch.linalg.svd(a.detach(), full_matrices=False)
    assert a.grad is not None
    assert torch.allclose(a.grad, u[:, :4] @ vh[:4], atol=1e-10)


def test_a_cut_through_equal_values_is_refused() -> None:
    a = with_values(8, 6, torch.tensor([2.0, 1.0, 1.0, 0.5])).requires_grad_()
    product = lowrank.svd(a, rank=2).dense()
    with pytest.raises(ValueError, match="no gradient here"):
        product.sum().backward()


def test_no_gradient_is_kept_where_none_was_asked_for() -> None:
    a = small(6, 5, torch.float64)
    assert not lowrank.svd(a, rank=2).detach().dense().requires_grad
    assert not lowrank.svd(a.detach(), rank=2).left.requires_grad
    with pytest.raises(ValueError, match="sparse"):
        lowrank.svd(a.detach().to_sparse().requires_grad_(), rank=2)


# ------------------------------------------------------------------------------- pseudo-inverse
@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("route", ["auto", "svd", "qr", "limit"])
@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 6)])
def test_pseudo_inverses_of_full_rank(dtype: torch.dtype, route: str, m: int, n: int) -> None:
    a = small(m, n, dtype, batch=(2,))
    epsilon = 1e-2 if route == "limit" else None

    def inverse(a: Tensor) -> Tensor:
        return lowrank.pinv(a, route=route, epsilon=epsilon).dense()  # pyrefly: ignore

    assert torch.autograd.gradcheck(inverse, a)


def test_a_pseudo_inverse_at_constant_rank() -> None:
    """A = B C of rank 2: finite differences through B and C keep the rank."""
    b = torch.randn(6, 2, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    c = torch.randn(2, 5, dtype=torch.float64, generator=seeded(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda b, c: lowrank.pinv(b @ c).dense(), (b, c))


def test_a_cutoff_among_real_values_counts_what_it_cuts() -> None:
    a = with_values(7, 6, torch.tensor([3.0, 2.0, 1.0, 0.1, 0.05])).requires_grad_()
    assert lowrank.pinv(a, rtol=0.1).rank == 3
    assert torch.autograd.gradcheck(lambda a: lowrank.pinv(a, rtol=0.1).dense(), a)


def test_a_singular_value_at_the_cutoff_has_no_derivative() -> None:
    """With s / s_1 = 0.3 against a cutoff of 0.25: a change of a fifth makes the inverse jump."""
    a = small(7, 6, torch.float64)
    x = lowrank.pinv(a, rtol=0.25)
    assert float(x.margin) < 2
    with pytest.raises(ValueError, match="no derivative here"):
        x.dense().sum().backward()


def test_least_squares_flow_to_both_sides() -> None:
    a = small(7, 4, torch.float64)
    b = torch.randn(7, 2, dtype=torch.float64, generator=seeded()).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: lowrank.lstsq(a, b).x, (a, b))
    assert float(error_of(lowrank.lstsq(a, b).x, torch.linalg.lstsq(a, b).solution)) < 1e-12


# ------------------------------------------------------------------------------- what is made of it
def _uses() -> dict[str, Callable[[lowrank.LowRank], Tensor]]:
    g = seeded(5)
    x = torch.randn(4, 3, dtype=torch.float64, generator=g)
    other = lowrank.svd(torch.randn(3, 3, dtype=torch.float64, generator=g), rank=1)
    return {
        "from the left": lambda r: x @ r,
        "a vector from the left": lambda r: x[0] @ r,
        "transposed": lambda r: r.mT @ x.mT,
        "adjoint": lambda r: r.mH.dense(),
        "scaled": lambda r: x @ (2 * r),
        "negative": lambda r: (-r / 3) @ x.mT,
        "a sum": lambda r: (r + other) @ x.mT,
        "the other sum": lambda r: x @ (other - r).mT,
        "compressed": lambda r: (r + r).compress(2).dense(),
        "rounded": lambda r: r.to(torch.float32).dense().double(),
        "elsewhere": lambda r: x @ r.to("cpu"),
    }


@pytest.mark.parametrize("name", _uses())
def test_equal_singular_values_do_not_harm_what_is_made_of_the_value(name: str) -> None:
    """A = diag(2, 2, 1) cut to rank 2: the product is smooth there, the vectors are not."""
    use = _uses()[name]
    a = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)).requires_grad_()
    made = use(lowrank.svd(a, rank=2))
    weight = torch.randn(made.shape, dtype=torch.float64, generator=seeded(1))
    (made * weight).sum().backward()
    direction = torch.randn(3, 3, dtype=torch.float64, generator=seeded(2))
    is_single = name == "rounded"
    step, near = (1e-2, 1e-3) if is_single else (1e-6, 1e-7)

    def value(t: float) -> Tensor:
        return (use(lowrank.svd(a.detach() + t * direction, rank=2)) * weight).sum()

    expected = (value(step) - value(-step)) / (2 * step)
    assert a.grad is not None
    assert torch.allclose((a.grad * direction).sum(), expected, rtol=near, atol=near)


def test_vectors_of_equal_values_are_refused_and_the_values_are_not() -> None:
    a = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)).requires_grad_()
    weight = torch.randn(3, 3, dtype=torch.float64, generator=seeded(1))
    r = lowrank.svd(a, rank=2)
    with pytest.raises(ValueError, match="equal singular values"):
        (r.left @ r.right * weight).sum().backward()
    r.factors[1].sum().backward()
    assert a.grad is not None
    assert torch.allclose(a.grad, torch.diag(torch.tensor([1.0, 1.0, 0.0])).double(), atol=1e-12)


def test_what_is_made_of_a_pseudo_inverse_has_its_gradient() -> None:
    a = small(5, 4, torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64, generator=seeded())
    uses: list[Callable[[lowrank.LowRank], Tensor]] = [
        lambda r: (2 * r).dense(),
        lambda r: r.mT @ x.mT,
        lambda r: x @ r,
        lambda r: (r + r).dense(),
    ]
    for use in uses:
        assert torch.autograd.gradcheck(lambda a, use=use: use(lowrank.pinv(a)), a)
    assert not lowrank.pinv(a).detach().dense().requires_grad
    assert not (2 * lowrank.pinv(a)).detach().dense().requires_grad
