"""What holds for every method, every shape and every dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank import LowRank
from spectra import DECAYS, error_of, seeded, values, with_values

Method = Callable[[object, int, torch.Generator], LowRank]

BY_RANK: dict[str, Method] = {
    "svd": lambda a, k, g: lowrank.svd(a, k, generator=g),
    "svd accurate": lambda a, k, g: lowrank.svd(a, k, accurate=True, generator=g),
    "svd spectral": lambda a, k, g: lowrank.svd(a, k, norm="spectral", generator=g),
    "svd exact": lambda a, k, g: lowrank.svd(a, k, failure_probability=0, generator=g),
    "svd one product": lambda a, k, g: lowrank.svd(a, k, power=0, generator=g),
    "columns": lambda a, k, g: lowrank.interpolative(a, k, generator=g),
    "rows": lambda a, k, g: lowrank.interpolative(a, k, axis="rows", generator=g),
    "bounded columns": lambda a, k, g: lowrank.interpolative(a, k, bound=2, generator=g),
    "cur": lambda a, k, g: lowrank.cur(a, k, generator=g),
    "cross": lambda a, k, g: lowrank.cur(a, k, core="cross", generator=g),
}
BY_TOLERANCE: dict[str, Callable[[object, float, torch.Generator], LowRank]] = {
    "svd": lambda a, tol, g: lowrank.svd(a, tol=tol, generator=g),
    "svd spectral": lambda a, tol, g: lowrank.svd(a, tol=tol, norm="spectral", generator=g),
    "columns": lambda a, tol, g: lowrank.interpolative(a, tol=tol, generator=g),
    "rows": lambda a, tol, g: lowrank.interpolative(a, tol=tol, axis="rows", generator=g),
    "cur": lambda a, tol, g: lowrank.cur(a, tol=tol, generator=g),
}
DTYPES = [
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.bfloat16,
    torch.float16,
    torch.int64,
]
SIZES = st.sampled_from([1, 2, 7, 33, 48, 70])
BATCHES = st.sampled_from([(), (1,), (3,), (2, 2)])


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Tensor, str]:
    """A matrix of a known decay: thin, wide, square, in batches, of every dtype."""
    m, n = draw(SIZES), draw(SIZES)
    decay, dtype = draw(st.sampled_from(sorted(DECAYS))), draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 10**6))
    a = with_values(m, n, values(decay, min(m, n)), torch.float64, draw(BATCHES), seed)
    return (a if dtype.is_floating_point or dtype.is_complex else 100 * a).to(dtype), decay


def kinds(r: LowRank) -> None:
    """What an error may claim."""
    e = r.error
    assert e.kind in ("exact", "bound", "probes", "estimate")
    assert (e.kind == "probes") == (0 < e.failure_probability <= 1e-6)
    assert bool((e.estimate >= 0).all())
    assert bool((e.upper >= e.optimal_lower * (1 - 1e-6)).all())
    assert e.upper.shape == e.estimate.shape == e.scale.shape == r.shape[:-2]


@pytest.mark.parametrize("name", BY_RANK)
@given(drawn=matrices(), share=st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_by_rank(name: str, drawn: tuple[Tensor, str], share: float) -> None:
    a, _ = drawn
    m, n = a.shape[-2:]
    k = round(share * min(m, n))
    r = BY_RANK[name](a, k, seeded(1))
    kinds(r)
    # The shape, the rank, the parts.
    assert r.rank <= k if name == "cross" else r.rank == k
    assert r.shape == a.shape
    assert r.dense().shape == a.shape
    assert torch.isfinite(r.dense()).all()
    # The promise.
    truth = error_of(a, r.dense(), r.error.norm)
    slack = 20 * torch.finfo(r.dtype).eps * torch.linalg.matrix_norm(a.to(r.dtype)).double()
    assert bool((truth <= r.error.upper + slack).all())
    if r.error.kind == "exact":
        assert bool(((truth - r.error.estimate).abs() <= 0.02 * truth + 10 * slack).all())
    # Nothing beats the best.
    s = torch.linalg.svdvals(a.to(r.dtype)).double()
    best = s[..., k:].norm(dim=-1) if r.error.norm == "frobenius" else s[..., k : k + 1].sum(-1)
    assert bool((truth >= best * (1 - 1e-3) - slack).all())
    assert bool((r.error.optimal_lower <= best * (1 + 1e-3) + slack).all())
    # It multiplies like what it is.
    x = torch.randn(n, 2, dtype=r.dtype, generator=seeded(2))
    assert torch.allclose(r @ x, r.dense() @ x, atol=float(slack.max()) * 50 + 1e-30, rtol=1e-3)
    assert torch.allclose(r.mT.dense(), r.dense().mT, atol=float(slack.max()) * 10)
    # Once more is the same.
    assert torch.equal(BY_RANK[name](a, k, seeded(1)).dense(), r.dense())


@pytest.mark.parametrize("name", BY_TOLERANCE)
@given(drawn=matrices(), tol=st.sampled_from([2.0, 1.0, 0.5, 0.1, 3e-3, 1e-5, 1e-9]))
@settings(max_examples=12, deadline=None)
def test_by_tolerance(name: str, drawn: tuple[Tensor, str], tol: float) -> None:
    a, _ = drawn
    r = BY_TOLERANCE[name](a, tol, seeded(1))
    kinds(r)
    size = torch.linalg.matrix_norm(
        a.to(r.dtype), "fro" if r.error.norm == "frobenius" else 2
    ).double()
    truth = error_of(a, r.dense(), r.error.norm)
    slack = 20 * torch.finfo(r.dtype).eps * torch.linalg.matrix_norm(a.to(r.dtype)).double()
    assert bool((truth <= r.error.upper + slack).all())
    can_be_met = tol > 1e3 * torch.finfo(r.dtype).eps
    assert r.converged or not can_be_met
    if r.converged:
        assert bool((truth <= tol * size * (1 + 1e-6) + slack).all())
    else:
        assert "tolerance" in str(r)
    assert r.rank <= min(a.shape[-2:])


def holds(r: LowRank, a: Tensor) -> None:
    """The promise of an error, and the shape."""
    kinds(r)
    assert r.shape == a.shape
    truth = error_of(a, r.dense(), r.error.norm)
    slack = 20 * torch.finfo(r.dtype).eps * torch.linalg.matrix_norm(a.to(r.dtype)).double()
    assert bool((truth <= r.error.upper + slack).all())


@given(drawn=matrices(), share=st.floats(0, 1), block=st.integers(1, 80))
@settings(max_examples=25, deadline=None)
def test_streamed_rows(drawn: tuple[Tensor, str], share: float, block: int) -> None:
    a = drawn[0].flatten(0, -3)[0] if drawn[0].dim() > 2 else drawn[0]
    k = round(share * min(a.shape))
    for tol in (None, 0.3):
        r = lowrank.single_pass(a.split(block), k, tol=tol, generator=seeded(1))
        holds(r, a)
        assert r.rank == k if tol is None else r.rank <= k
        if tol is not None and r.converged:
            assert float(error_of(a, r.dense())) <= tol * float(
                torch.linalg.matrix_norm(a.to(r.dtype))
            )


@pytest.mark.parametrize("method", ["priority", "independent", "top"])
@given(drawn=matrices(), share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_sampled_products(method: str, drawn: tuple[Tensor, str], share: float) -> None:
    x, _ = drawn
    samples = max(1, round(share * x.shape[-1]))
    y = x.mH if x.is_complex() else x.mT
    r = lowrank.sampled_matmul(x, y, samples, method=method, generator=seeded(1))  # pyrefly: ignore
    wide = torch.complex128 if x.is_complex() else torch.float64
    product = x.to(wide) @ y.to(wide)
    # Rounding is relative to |X| |Y|, which may be larger than the product.
    kinds(r)
    assert r.shape == product.shape
    eps = 20 * torch.finfo(r.dtype).eps
    slack = eps * torch.linalg.matrix_norm(x.to(wide)) * torch.linalg.matrix_norm(y.to(wide))
    truth = error_of(product, r.dense())
    assert bool((truth <= r.error.upper + slack).all())
    if method == "top":
        assert bool((truth <= r.bound + slack).all())


@given(drawn=matrices(), share=st.floats(0, 1), tol=st.sampled_from([None, 0.3, 1e-3]))
@settings(max_examples=25, deadline=None)
def test_compressed_sums(drawn: tuple[Tensor, str], share: float, tol: float | None) -> None:
    a, _ = drawn
    k = round(share * min(a.shape[-2:]))
    p = lowrank.svd(a, k, generator=seeded(1))
    q = lowrank.interpolative(a.flip(-1), k, generator=seeded(1))
    wide = torch.complex128 if a.is_complex() else torch.float64
    truth = a.to(wide) - 3 * a.flip(-1).to(wide)
    whole = p - 3 * q
    small = whole.compress(k) if tol is None else whole.compress(tol=tol)
    for r in (whole, small):
        assert r.shape == a.shape
        slack = 80 * torch.finfo(r.dtype).eps * torch.linalg.matrix_norm(a.to(wide))
        assert bool((error_of(truth, r.dense()) <= r.error.upper + slack).all())
        assert bool((r.error.scale <= torch.linalg.matrix_norm(truth) + slack).all())
    assert small.rank <= (k if tol is None else whole.rank)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", [name for name in BY_RANK if name != "svd exact"])
def test_operators_sparse_and_products_give_what_the_dense_matrix_gives(name: str) -> None:
    s = values("1/i^2", 50)
    a = with_values(60, 50, s)
    x = with_values(60, 20, torch.linspace(2, 1, 20), seed=3)
    y = with_values(20, 50, torch.logspace(0, -6, 20), seed=4)
    given: dict[str, tuple[object, Tensor]] = {
        "operator": (lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64), a),
        "sparse": (a.to_sparse(), a),
        "compressed sparse": (a.to_sparse_csr(), a),
        "product": (lowrank.product(x, y), x @ y),
        "low rank": (lowrank.svd(a, rank=30), lowrank.svd(a, rank=30).dense()),
    }
    for matrix, dense in given.values():
        r = BY_RANK[name](matrix, 8, seeded(1))
        kinds(r)
        truth = error_of(dense, r.dense(), r.error.norm)
        by_entries = error_of(dense, BY_RANK[name](dense, 8, seeded(1)).dense(), r.error.norm)
        assert truth <= r.error.upper
        assert truth <= 3 * by_entries


@pytest.mark.parametrize("name", BY_TOLERANCE)
def test_operators_by_tolerance(name: str) -> None:
    a = with_values(90, 80, values("10^(-i/10)", 80))
    op = lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64)
    for matrix in (op, a.to_sparse()):
        for tol in (0.1, 1e-4):
            r = BY_TOLERANCE[name](matrix, tol, seeded(1))
            kinds(r)
            assert r.converged
            order = "fro" if r.error.norm == "frobenius" else 2
            truth = error_of(a, r.dense(), r.error.norm)
            assert truth <= r.error.upper
            assert truth <= tol * torch.linalg.matrix_norm(a, order)


@pytest.mark.parametrize("name", BY_RANK)
def test_rank_zero_and_full_rank(name: str) -> None:
    a = with_values(40, 36, values("1/i", 36))
    nothing = BY_RANK[name](a, 0, seeded())
    assert nothing.rank == 0
    assert float(nothing.dense().norm()) == 0
    assert float(nothing.error.upper) >= float(nothing.error.scale) * (1 - 1e-9)
    everything = BY_RANK[name](a, 36, seeded())
    assert float(error_of(a, everything.dense())) < 1e-12


@pytest.mark.parametrize("name", BY_RANK)
def test_zero_matrices_and_refusals(name: str) -> None:
    r = BY_RANK[name](torch.zeros(3, 40, 36), 4, seeded())
    assert float(r.dense().norm()) == 0
    assert float(r.error.upper.max()) == 0
    with pytest.raises(ValueError, match="ranks from 0 to 36"):
        BY_RANK[name](torch.zeros(40, 36), 37, seeded())
    bad = torch.zeros(3, 40, 36)
    bad[2, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="batch index 2"):
        BY_RANK[name](bad, 4, seeded())
    assert BY_RANK[name](torch.zeros(0, 40, 36), 0, seeded()).shape == (0, 40, 36)


@pytest.mark.parametrize("name", BY_TOLERANCE)
def test_empty_and_zero_by_tolerance(name: str) -> None:
    for shape in ((0, 5), (5, 0), (0, 4, 3), (40, 36)):
        r = BY_TOLERANCE[name](torch.zeros(shape), 0.1, seeded())
        assert r.rank == 0
        assert r.converged
        assert r.dense().shape == shape
