"""CR: unbiased where it says so, errors as the closed forms say, bounds that hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank.sampled_product import Method
from spectra import error_of, seeded


def pair(terms: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Factors whose terms have sizes of a heavy tail."""
    g = seeded(seed)
    size = torch.arange(1, terms + 1, dtype=torch.float64) ** -0.8
    x = torch.randn(20, terms, dtype=torch.float64, generator=g) * size
    return x, torch.randn(terms, 15, dtype=torch.float64, generator=g)


def repeated(method: Method, samples: int, runs: int = 800) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the products, mean square error, mean of the expected square."""
    x, y = pair()
    exact, total = x @ y, torch.zeros(20, 15, dtype=torch.float64)
    square, expected = torch.zeros(()).double(), torch.zeros(()).double()
    g = seeded(5)
    for _ in range(runs):
        r = lowrank.sampled_matmul(
            x,
            y,
            samples,
            method=method,
            generator=g,
            failure_probability=None,  # pyrefly: ignore
        )
        product = r.dense()
        total += product / runs
        square += (product - exact).square().sum() / runs
        expected += r.expected.square() / runs
    return total, square, expected


def test_independent_draws_err_as_the_closed_form_says() -> None:
    x, y = pair()
    mean, square, _ = repeated("independent", 15)
    theory = float(lowrank.expected_error(x, y, 15)) ** 2
    assert float(square) == pytest.approx(theory, rel=0.1)
    # Unbiased: the mean of 800 is within some standard errors of the product.
    assert float(error_of(x @ y, mean)) ** 2 < 2 * theory / 800


def test_priority_sampling_is_unbiased_and_estimates_its_own_error() -> None:
    x, y = pair()
    mean, square, expected = repeated("priority", 15)
    assert float(square) == pytest.approx(float(expected), rel=0.1)
    assert float(error_of(x @ y, mean)) ** 2 < 2 * float(square) / 800
    sizes = torch.linalg.vector_norm(x, dim=0) * torch.linalg.vector_norm(y, dim=1)
    assert float(square) <= float(sizes.sum()) ** 2 / 14 * 1.1
    assert float(square) < float(lowrank.expected_error(x, y, 15)) ** 2  # beats independent draws


def test_priority_sampling_of_all_terms_is_the_product() -> None:
    x, y = pair()
    r = lowrank.sampled_matmul(x, y, 60)
    assert torch.allclose(r.dense(), x @ y, atol=1e-12)
    assert len(set(r.columns.tolist())) == 60
    assert float(r.expected) == 0


def test_the_largest_terms_keep_their_bound_and_it_can_be_attained() -> None:
    x, y = pair()
    r = lowrank.sampled_matmul(x, y, 40, method="top")
    assert float(error_of(x @ y, r.dense())) <= float(r.bound)
    assert float(r.error.upper) <= float(r.bound) * (1 + 1e-9)
    # Terms that point the same way: the sum of what is dropped, exactly.
    x, y = torch.ones(3, 10, dtype=torch.float64), torch.ones(10, 4, dtype=torch.float64)
    r = lowrank.sampled_matmul(x, y, 7, method="top")
    assert float(error_of(x @ y, r.dense())) == pytest.approx(float(r.bound))
    # There the biased method errs, and independent draws of equal terms do not.
    drawn = lowrank.sampled_matmul(x, y, 7, method="independent")
    assert float(error_of(x @ y, drawn.dense())) < 1e-12


@pytest.mark.parametrize("method", ["priority", "independent", "top"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16])
def test_every_dtype_and_batch_keeps_its_certificate(method: str, dtype: torch.dtype) -> None:
    g = seeded()
    x = torch.randn(3, 40, 50, dtype=torch.complex128, generator=g).to(torch.complex64)
    x = x.to(dtype) if dtype.is_complex else x.real.to(dtype)
    y = x.mT[..., :30]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for samples in (1, 30, 50):
        r = lowrank.sampled_matmul(x, y, samples, method=method)  # pyrefly: ignore
        assert r.rank == samples
        truth = error_of(x.to(wide) @ y.to(wide), r.dense())
        assert bool((truth <= r.error.upper).all())
        assert r.columns.shape == (3, samples)
        assert torch.equal(r.columns, r.rows)


def test_the_bound_of_independent_draws_holds() -> None:
    x, y = pair()
    r = lowrank.sampled_matmul(x, y, 200, method="independent", failure_probability=0.01)
    assert float(error_of(x @ y, r.dense())) <= float(r.bound)


def test_a_gradient_flows_to_what_was_sampled() -> None:
    x, y = (part[:, :6] if i == 0 else part[:6] for i, part in enumerate(pair()))
    x, y = x[:4].clone().requires_grad_(), y[:, :3].clone().requires_grad_()
    weights = lowrank.sampled_matmul(x.detach(), y.detach(), 3)
    index = weights.columns

    r = lowrank.sampled_matmul(x, y, 3)
    r.dense().sum().backward()
    assert x.grad is not None
    expected = torch.zeros_like(x)
    expected[:, index] = (weights.weights[:, None] * y.detach()[index]).sum(1)
    assert torch.allclose(x.grad, expected)


def test_zero_terms_and_nonsense() -> None:
    zero = torch.zeros(4, 6)
    for method in ("priority", "independent", "top"):
        r = lowrank.sampled_matmul(zero, zero.mT, 3, method=method)  # pyrefly: ignore
        assert float(r.dense().norm()) == 0
        assert float(r.error.upper) == 0
    wrong: list[tuple[tuple, dict, str]] = [
        ((zero, zero, 2), {}, "cannot be multiplied"),
        ((zero, zero.mT, 7), {}, "from 1 to 6"),
        ((zero, zero.mT, 0), {"method": "independent"}, "at least 1"),
        ((zero, zero.mT, 2), {"method": "uniform"}, "method"),
        ((zero.to_sparse(), zero.mT, 2), {}, "two dense"),
        ((zero / 0, zero.mT, 2), {}, "NaN"),
    ]
    for given, arguments, words in wrong:
        with pytest.raises(ValueError, match=words):
            lowrank.sampled_matmul(*given, **arguments)


@pytest.mark.parametrize("method", ["priority", "independent", "top"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_draws_do_not_depend_on_the_scale(method: str, scale: float) -> None:
    x, y = (part.float() for part in pair())
    plain = lowrank.sampled_matmul(x, y, 15, method=method)  # pyrefly: ignore
    extreme = lowrank.sampled_matmul(x * scale, y / scale, 15, method=method)  # pyrefly: ignore
    assert torch.equal(extreme.columns, plain.columns)
    for mine, theirs in (
        (extreme.dense(), plain.dense()),
        (extreme.expected, plain.expected),
        (extreme.error.upper, plain.error.upper),
    ):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4)
