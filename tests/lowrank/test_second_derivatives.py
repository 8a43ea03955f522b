"""Derivatives of every order and kind: twice backward, forward, batched; right, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from noisewise import lowrank
from spectra import seeded, with_values

# torch's own, at its first forward derivative.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

DOUBLES = [torch.float64, torch.complex128]
Function = Callable[..., Tensor | tuple[Tensor, ...]]


def small(m: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    s = torch.tensor([3.0, 2.2, 1.5, 0.9])[: min(m, n)]
    return with_values(m, n, s, dtype, seed=seed).requires_grad_()


def right_side(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 9) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed)).requires_grad_()


def is_right(function: Function, *given: Tensor) -> bool:
    """Backward, forward, and twice backward, along random directions of finite differences."""
    once = gradcheck(function, given, fast_mode=True, check_forward_ad=True)
    return once and gradgradcheck(function, given, fast_mode=True)


# -------------------------------------------------------------------------------------- the SVD
@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize(("m", "n"), [(5, 4), (4, 5)])
def test_the_product_and_the_factors_of_a_truncated_svd(dtype: torch.dtype, m: int, n: int) -> None:
    a = small(m, n, dtype)
    assert is_right(lambda a: lowrank.svd(a, rank=2).dense(), a)
    assert is_right(lambda a: lowrank.svd(a, rank=2).factors, a)


def test_equal_kept_values_and_all_values() -> None:
    equal = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)).requires_grad_()
    assert is_right(lambda a: lowrank.svd(a, rank=2).dense(), equal)
    assert is_right(lambda a: lowrank.svd(a, rank=3).dense(), equal)
    tokens = right_side(3, 2)
    assert is_right(lambda a, x: lowrank.svd(a, rank=2).compress(1) @ x, small(4, 3), tokens)


def test_a_rank_above_the_numerical_rank() -> None:
    """A = B C of rank 1, rank 2 asked for: A itself, to every order."""
    b, c = right_side(4, 1, seed=1), right_side(1, 5, seed=2)
    assert is_right(lambda b, c: lowrank.svd(b @ c, rank=2).dense(), b, c)
    # One changed entry adds 1 to the rank, which is then still within 2.
    batch = torch.stack([(b @ c).detach(), small(4, 5).detach()]).requires_grad_()
    assert gradcheck(lambda a: lowrank.svd(a, rank=2).dense(), batch)


def test_rank_zero_and_empty_matrices() -> None:
    """Of rank 0, the product is 0 for every A, and so is its derivative."""
    a = small(4, 3)
    made = lowrank.svd(a, rank=0)
    (made.dense().sum() + made.left.sum() + (made @ torch.ones(3, dtype=a.dtype)).sum()).backward()
    assert a.grad is not None
    assert not a.grad.any()
    assert is_right(lambda a: lowrank.svd(a, rank=0).dense() + a**3, small(4, 3))
    for shape in ((0, 3), (3, 0), (0, 4, 3)):
        empty = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        rank = min(1, *shape[-2:])
        (lowrank.svd(empty, rank=rank).dense().sum() + lowrank.pinv(empty).dense().sum()).backward()
        assert empty.grad is not None


def test_third_derivatives() -> None:
    a, weight = small(3, 3), right_side(3, 3).detach()

    def gradient(a: Tensor) -> Tensor:
        value = (lowrank.svd(a, rank=1).dense() * weight).sum()
        return torch.autograd.grad(value, a, create_graph=True)[0]

    assert gradgradcheck(gradient, a, fast_mode=True)


def test_the_hessian_is_that_of_the_exact_svd() -> None:
    a = small(4, 3).detach()

    def ours(a: Tensor) -> Tensor:
        return lowrank.svd(a, rank=2).dense().pow(3).sum()

    def exact(a: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return ((u[:, :2] * s[:2]) @ vh[:2]).pow(3).sum()

    assert torch.allclose(torch.func.hessian(ours)(a), torch.func.hessian(exact)(a))


# ------------------------------------------------------------------------------ pseudo-inverses
def test_the_second_derivative_of_a_pseudo_inverse_does_not_vanish() -> None:
    """The sum y of A^+ b, then y + |dy/dA|^2: the same as through torch.linalg.pinv."""
    found: list[Tensor] = []
    for inverse in (lambda a: lowrank.pinv(a).dense(), torch.linalg.pinv):
        a = small(4, 3)
        y = (inverse(a) @ right_side(4, 1).detach()).sum()
        (g,) = torch.autograd.grad(y, a, create_graph=True)
        (y + (g**2).sum()).backward()
        assert a.grad is not None
        found.append(a.grad)
    assert torch.allclose(found[0], found[1])


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("route", ["auto", "svd", "qr", "limit"])
def test_pseudo_inverses_of_full_rank(dtype: torch.dtype, route: str) -> None:
    epsilon = 1e-2 if route == "limit" else None
    for m, n in ((4, 3), (3, 4)):
        assert is_right(
            lambda a: lowrank.pinv(a, route=route, epsilon=epsilon).dense(),  # pyrefly: ignore
            small(m, n, dtype),
        )


def test_pseudo_inverses_below_full_rank() -> None:
    b, c = right_side(4, 2, seed=1), right_side(2, 3, seed=2)
    assert is_right(lambda b, c: lowrank.pinv(b @ c).dense(), b, c)
    cut = with_values(4, 4, torch.tensor([3.0, 2.0, 0.1, 0.05])).requires_grad_()
    assert is_right(lambda a: lowrank.pinv(a, rtol=0.1).dense(), cut)


def test_every_matrix_of_a_batch_has_its_own_rank() -> None:
    """Ranks 3 and 2 at one cutoff: what is cut off turns what is kept, in both."""
    one = with_values(4, 4, torch.tensor([3.0, 2.0, 1.0, 0.05]))
    other = with_values(4, 4, torch.tensor([3.0, 2.0, 0.1, 0.05]), seed=1)
    batch = torch.stack([one, other]).requires_grad_()
    assert lowrank.pinv(batch, rtol=0.1).ranks.tolist() == [3, 2]
    assert is_right(lambda a: lowrank.pinv(a, rtol=0.1).dense(), batch)


def test_the_zero_matrix() -> None:
    a = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    (lowrank.pinv(a).dense().sum() + lowrank.svd(a, rank=1).dense().sum()).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_least_squares() -> None:
    assert is_right(lambda a, b: lowrank.lstsq(a, b).x, small(4, 3), right_side(4, 2))
    assert is_right(lambda a, b: lowrank.lstsq(a, b).x, small(3, 4), right_side(3))


@pytest.mark.parametrize("dtype", DOUBLES)
def test_hermitian_pseudo_inverses(dtype: torch.dtype) -> None:
    root = small(3, 3, dtype)
    assert is_right(lambda r: lowrank.pinv(r + r.mH, hermitian=True).dense(), root)


# ----------------------------------------------------------------------- columns, sampled products
@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_interpolative(axis: str) -> None:
    a = small(4, 5)
    assert is_right(
        lambda a: lowrank.interpolative(a, 2, axis=axis).dense(),  # pyrefly: ignore
        a,
    )


def test_more_columns_than_the_rank_has() -> None:
    """The fit is not unique there; its product is, and so is the derivative."""
    b, c = right_side(5, 2, seed=1), right_side(2, 6, seed=2)
    assert is_right(lambda b, c: lowrank.interpolative(b @ c, 3).dense(), b, c)


def test_sampled_products() -> None:
    x, y = right_side(3, 5, seed=1), right_side(5, 4, seed=2)
    assert is_right(lambda x, y: lowrank.sampled_matmul(x, y, 5).dense(), x, y)
    assert is_right(lambda x, y: lowrank.sampled_matmul(x, y, 3, method="top").dense(), x, y)


# ------------------------------------------------------------------------------- torch.func
def _functions() -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    def cut(a: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return (u[:, :2] * s[:2]) @ vh[:2]

    return {
        "svd": (lambda a: lowrank.svd(a, rank=2).dense(), cut),
        "values": (lambda a: lowrank.svd(a, rank=2).S, lambda a: torch.linalg.svdvals(a)[:2]),
        "pinv": (lambda a: lowrank.pinv(a).dense(), torch.linalg.pinv),
        "pinv by svd": (lambda a: lowrank.pinv(a, route="svd").dense(), torch.linalg.pinv),
        "lstsq": (
            lambda a: lowrank.lstsq(a, torch.ones(4, 1, dtype=a.dtype)).x,
            lambda a: torch.linalg.pinv(a) @ torch.ones(4, 1, dtype=a.dtype),
        ),
    }


@pytest.mark.parametrize("name", _functions())
def test_jacobians_of_torch_func(name: str) -> None:
    """By rows (vmap over backward), by columns (vmap over forward), and all at once, as before."""
    ours, theirs = _functions()[name]
    a = small(4, 3).detach()
    expected = torch.func.jacrev(theirs)(a)
    assert torch.allclose(torch.func.jacrev(ours)(a), expected)
    assert torch.allclose(torch.func.jacfwd(ours)(a), expected)
    vectorized = torch.autograd.functional.jacobian(ours, a, vectorize=True)
    assert torch.allclose(vectorized, expected)
    twice = torch.func.jacfwd(torch.func.jacrev(lambda a: theirs(a).pow(2).sum()))(a)
    found = torch.func.jacfwd(torch.func.jacrev(lambda a: ours(a).pow(2).sum()))(a)
    assert torch.allclose(found, twice)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: lowrank.svd(a, rank=2).dense(),
        lambda a: lowrank.svd(a, tol=0.1).S,
        lambda a: lowrank.pinv(a).dense(),
        lambda a: lowrank.lstsq(a, a[:, :1]).x,
        lambda a: lowrank.lstsq(torch.ones(4, 3, dtype=torch.float64), a[:, :1]).x,
        lambda a: lowrank.interpolative(a, rank=2).right,
        lambda a: lowrank.cur(a, rank=2).right,
        lambda a: lowrank.sampled_matmul(a, a.mT, 2).dense(),
        lambda a: lowrank.certify(a, a, torch.eye(3, dtype=a.dtype)).upper,
    ],
)
def test_vmap_is_refused_with_the_way_out(call: Callable[[Tensor], Tensor]) -> None:
    batch = torch.stack([small(4, 3).detach(), small(4, 3, seed=1).detach()])
    with pytest.raises(ValueError, match="whole batch"):
        torch.vmap(call)(batch)


def test_vmap_over_products_of_a_value() -> None:
    r = lowrank.svd(small(4, 3).detach(), rank=2)
    x = torch.randn(5, 3, dtype=torch.float64, generator=seeded())
    assert torch.allclose(torch.vmap(lambda row: r @ row)(x), x @ r.mT)


def test_forward_tangents_of_vectors_of_equal_values_are_not_numbers() -> None:
    """Backward refuses them with a sentence; forward cannot know whether they will be used."""
    a = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    change = torch.randn(3, 3, dtype=torch.float64, generator=seeded())
    moved = torch.func.jvp(lambda a: lowrank.svd(a, rank=2).U, (a,), (change,))[1]
    assert moved.isnan().any()
    moved = torch.func.jvp(lambda a: lowrank.svd(a, rank=2).dense(), (a,), (change,))[1]
    assert moved.isfinite().all()


def test_a_cut_through_equal_values_is_refused_forward_and_batched() -> None:
    a = with_values(5, 4, torch.tensor([2.0, 1.0, 1.0, 0.5]))
    change = torch.ones_like(a)
    with pytest.raises(ValueError, match="no gradient here"):
        torch.func.jvp(lambda a: lowrank.svd(a, rank=2).dense(), (a,), (change,))
    with pytest.raises(ValueError, match="no gradient here"):
        torch.func.jacrev(lambda a: lowrank.svd(a, rank=2).dense())(a)


# ------------------------------------------------------------------------------- extreme sizes
SIZES = [1e-25, 1e-20, 1e-12, 1e12, 1e19, 1e25]


def _sized(call: Callable[[Tensor], Tensor], size: float) -> Tensor:
    """The gradient at A times `size`, in float32."""
    a = (small(5, 4, torch.float32).detach() * size).requires_grad_()
    made = call(a)
    weight = torch.randn(made.shape, generator=seeded(3))
    (made * weight).sum().backward()
    assert a.grad is not None
    return a.grad


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_matrices_of_extreme_size(size: float) -> None:
    """Degree 1: the gradient of the product is the same at every size; that of U is smaller."""
    calls: list[tuple[Callable[[Tensor], Tensor], int]] = [
        (lambda a: lowrank.svd(a, rank=2).dense(), 0),
        (lambda a: lowrank.svd(a, rank=2) @ torch.ones(4), 0),
        (lambda a: lowrank.svd(a, rank=2).S, 0),
        (lambda a: lowrank.svd(a, rank=2).left, 0),
        (lambda a: lowrank.svd(a, rank=2).compress(1).dense(), 0),
        (lambda a: lowrank.svd(a, rank=2).U, -1),
        (lambda a: lowrank.interpolative(a, rank=2).dense(), 0),
        (lambda a: lowrank.lstsq(a, a[:, :1] * 2).x, -1),
    ]
    for call, degree in calls:
        found = _sized(call, size).double() * size**-degree
        expected = _sized(call, 1.0).double()
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4), call


@pytest.mark.parametrize("size", [1e-15, 1e-12, 1e12, 1e15])
def test_gradients_of_pseudo_inverses_of_extreme_size(size: float) -> None:
    """Degree -1, so the gradient has degree -2 and soon leaves the range of float32."""
    for route in ("auto", "svd", "qr"):

        def call(a: Tensor, route: str = route) -> Tensor:
            return lowrank.pinv(a, route=route).dense()  # pyrefly: ignore

        found = _sized(call, size).double() * size * size
        assert torch.allclose(found, _sized(call, 1.0).double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e-25, 1e25, 1e30])
def test_incoming_gradients_of_extreme_size(size: float) -> None:
    """The loss is multiplied by a size; so is the gradient."""
    for call in (
        lambda a: lowrank.svd(a, rank=2).dense(),
        lambda a: lowrank.svd(a, rank=2).U,
        lambda a: lowrank.pinv(a).dense(),
    ):
        a = small(5, 4, torch.float32)
        (call(a).sum() * size).backward()
        assert a.grad is not None
        found, a.grad = a.grad.double() / size, None
        call(a).sum().backward()
        assert a.grad is not None
        assert torch.allclose(found, a.grad.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_measurements_of_extreme_size(size: float) -> None:
    a = small(5, 4, torch.float32).detach() * size
    x = lowrank.pinv(a)
    assert float(x.penrose().worst) < 1e-5
    assert 0 <= float(x.error.relative_upper) < 1e-4
    b = torch.ones(5) * size
    found = lowrank.lstsq(a, b)
    expected = torch.linalg.lstsq(a.double(), b.double()[:, None])
    assert torch.allclose(found.x.double(), expected.solution[:, 0], rtol=1e-3, atol=1e-4)
    lost = torch.linalg.vector_norm(a.double() @ expected.solution - b.double()[:, None])
    assert abs(float(found.residual) / float(lost) - 1) < 1e-3


# ---------------------------------------------------------------------- what has no gradient
def test_what_is_detached_has_no_tangent_either() -> None:
    """A tangent through a random sketch would be wrong; there is none, as there is no gradient."""
    a, change = small(6, 5).detach(), torch.ones(6, 5, dtype=torch.float64)
    for call in (
        lambda a: lowrank.svd(lowrank.product(a, a.mT), rank=2).dense(),
        lambda a: lowrank.cur(a, rank=2).dense(),
        lambda a: lowrank.single_pass([a], rank=2).dense(),
        lambda a: lowrank.svd(lowrank.svd(a, rank=3), rank=2).dense(),
        lambda a: lowrank.certify(a, a[:, :2], torch.eye(2, 5, dtype=a.dtype)).upper,
    ):
        moved = torch.func.jvp(call, (a,), (change,))[1]
        assert not moved.any()


def test_compressed_columns_have_the_gradient_of_the_product() -> None:
    """Also where their singular values are equal, which torch.linalg.svd does not allow."""
    a = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)).requires_grad_()
    assert is_right(lambda a: lowrank.interpolative(a, rank=3).compress(2).dense(), a)


def test_ranks_down_to_rounding_have_derivatives() -> None:
    """The gradient of |T(A)|_F^2 is 2 T(A), and that of |2 T(A)|_F^2 is 8 T(A), at every rank."""
    i = torch.arange(30, dtype=torch.float64)
    a = (1 / (i[:, None] + i + 1)).requires_grad_()  # Hilbert: the values fall to 1e-17
    for rank in (1, 5, 10, 12, 13, 14, 15, 20, 30):
        cut = lowrank.svd(a, rank=rank).dense()
        (g,) = torch.autograd.grad(cut.pow(2).sum(), a, create_graph=True)
        assert torch.allclose(g, 2 * cut, rtol=1e-9, atol=1e-12)
        (gg,) = torch.autograd.grad(g.pow(2).sum(), a)
        assert torch.allclose(gg, 8 * cut, rtol=1e-6, atol=1e-9)
