"""The value itself: its algebra keeps the promise, it is kept and read back, it says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from noisewise import lowrank
from spectra import error_of, seeded, values, with_values


def two() -> tuple[torch.Tensor, torch.Tensor]:
    return (with_values(50, 40, values("1/i", 40), seed=s) for s in (0, 1))  # pyrefly: ignore


def test_a_sentence() -> None:
    a = with_values(150, 100, values("1/i^2", 100))
    r = lowrank.svd(a, tol=1e-2)
    assert str(r).startswith(f"LowRank 150x100, rank {r.rank}, ||A-LR||_F <= 0.00")
    assert str(r).endswith("||A||_F (exact)")
    op = lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64)
    assert "fails with probability <= 1e-06" in str(lowrank.svd(op, 5))
    assert "||A-LR||_2" in str(lowrank.svd(a, 5, norm="spectral"))
    assert "batch 3" in str(lowrank.svd(a.expand(3, 150, 100), 5))


def test_sums_scalings_and_compression_keep_their_bounds() -> None:
    a, b = two()
    p, q = lowrank.svd(a, 6), lowrank.svd(b, 8)
    sum_ = p + 2 * q
    assert sum_.rank == 14
    assert sum_.error.kind == "bound"
    assert torch.allclose(sum_.dense(), p.dense() + 2 * q.dense())
    assert error_of(a + 2 * b, sum_.dense()) <= sum_.error.upper
    assert sum_.error.scale <= torch.linalg.matrix_norm(a + 2 * b)
    small = sum_.compress(5)
    assert small.rank == 5
    assert error_of(a + 2 * b, small.dense()) <= small.error.upper
    truncated = torch.linalg.svdvals(sum_.dense())[5:].norm()
    assert torch.allclose(error_of(sum_.dense(), small.dense()), truncated, rtol=1e-9)
    zero = (p - p).compress(tol=0.1)
    assert float(error_of(p.dense() * 0, (p - p).dense())) < 1e-12
    assert zero.rank <= 12
    assert torch.allclose((-p / 2).dense(), -p.dense() / 2)


def test_compression_by_tolerance_and_its_refusals() -> None:
    r = lowrank.svd(with_values(50, 40, values("1/i", 40)), 30)
    small = r.compress(tol=0.2)
    assert small.rank == lowrank.rank_for(values("1/i", 30), 0.2)
    assert r.compress(tol=2.0).rank == 0
    wrong: list[tuple[int | None, float | None, str]] = [
        (None, None, "a rank or a relative tolerance"),
        (3, 0.1, "either a rank"),
        (31, None, "from 0 to 30, the rank of the value"),
        (None, 0.0, "positive"),
    ]
    for rank, tol, words in wrong:
        with pytest.raises(ValueError, match=words):
            r.compress(rank, tol=tol)


def test_an_exact_product_stays_exact() -> None:
    g = seeded()
    parts = torch.randn(30, 4, generator=g).double(), torch.randn(4, 20, generator=g).double()
    zero = torch.zeros((), dtype=torch.float64)
    error = lowrank.Error("frobenius", "exact", zero, zero, 0.0, zero, zero)
    r = lowrank.LowRank(*parts, error).compress(tol=1e-9)
    assert r.rank == 4
    assert r.error.kind == "exact"


def test_it_multiplies_from_both_sides() -> None:
    a = with_values(50, 40, values("1/i", 40), batch=(2,))
    r = lowrank.svd(a, 5)
    dense, g = r.dense(), seeded()
    vector = torch.randn(40, dtype=torch.float64, generator=g)
    left = torch.randn(3, 50, dtype=torch.float64, generator=g)
    assert torch.allclose(r @ vector, dense @ vector)
    assert torch.allclose(left @ r, left @ dense)
    assert torch.allclose(torch.ones(50).double() @ r, torch.ones(50).double() @ dense)
    assert torch.allclose(r.mH.dense(), dense.mH)
    assert torch.allclose(r.norm(), torch.linalg.matrix_norm(dense))
    assert torch.allclose(r.norm("spectral"), torch.linalg.matrix_norm(dense, 2))


def test_what_does_not_fit_is_refused() -> None:
    a, b = two()
    p = lowrank.svd(a, 3)
    with pytest.raises(ValueError, match="cannot be added"):
        p + p.mT
    with pytest.raises(ValueError, match="cannot be added"):
        p + lowrank.svd(b, 3, norm="spectral")
    with pytest.raises(TypeError):
        p + a  # pyrefly: ignore
    with pytest.raises(TypeError):
        p * a  # pyrefly: ignore


def test_another_dtype_adds_its_rounding_to_the_error() -> None:
    a = with_values(50, 40, torch.linspace(2, 1, 5))
    r = lowrank.svd(a, 5)
    half = r.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    rounded = half.left.double() @ half.right.double()
    assert 1e-4 < error_of(a, rounded) <= half.error.upper
    assert r.to("cpu").left is not None


def test_two_layers_do_what_one_did() -> None:
    layer = torch.nn.Linear(40, 50)
    with torch.no_grad():
        layer.weight.copy_(with_values(50, 40, torch.linspace(2, 1, 4), torch.float32))
    r = lowrank.svd(layer.weight.detach(), tol=1e-4)
    x = torch.randn(7, 40, generator=seeded())
    assert torch.allclose(r.linear(layer.bias)(x), layer(x), atol=1e-4)
    assert r.num_values == 4 * 90
    assert r.compression == pytest.approx(2000 / 360)
    with pytest.raises(ValueError, match="not a batch"):
        lowrank.svd(torch.ones(2, 3, 4), 1).linear()


def test_a_layers_answers_are_factorised_without_being_formed() -> None:
    layer = torch.nn.Linear(40, 50, bias=False)
    g = seeded()
    data = torch.randn(200, 3, generator=g) @ torch.randn(3, 40, generator=g)  # of rank 3
    r = lowrank.svd(lowrank.outputs(layer, data.reshape(10, 20, 40)), tol=1e-4)
    assert r.rank == 3
    assert torch.allclose(r.dense(), layer(data).detach(), atol=1e-3)
    with pytest.raises(ValueError, match="40"):
        lowrank.outputs(layer, data[:, :30])


def test_it_is_kept_as_safetensors_and_read_back(tmp_path: Path) -> None:
    a = with_values(50, 40, values("1/i", 40))
    path = str(tmp_path / "kept.safetensors")
    for r in (lowrank.svd(a, 4), lowrank.cur(a, 4), lowrank.interpolative(a.float(), 4).mT):
        tensors, metadata = r.state()
        save_file(tensors, path, metadata)
        with safe_open(path, "pt") as stored:
            again = lowrank.from_state(load_file(path), stored.metadata())
        assert torch.equal(again.dense(), r.left @ r.right)
        assert str(again) == str(r)
        for mine, theirs in ((again.columns, r.columns), (again.rows, r.rows)):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.equal(mine, theirs)  # pyrefly: ignore
    with pytest.raises(ValueError, match="not a low-rank value"):
        lowrank.from_state({"weight": a}, {})


# ------------------------------------------------------------------------------- operators
def test_operators_that_lie_are_caught() -> None:
    a = with_values(30, 20, values("1/i", 20), torch.complex128)
    with pytest.raises(ValueError, match="not the adjoint"):
        lowrank.svd(lowrank.operator(a.shape, a.matmul, a.mT.matmul, a.dtype), 3)
    with pytest.raises(ValueError, match="must return"):
        lowrank.svd(lowrank.operator(a.shape, a.matmul, lambda y: y, a.dtype), 3)
    bad = a * torch.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        lowrank.svd(lowrank.operator(a.shape, bad.matmul, bad.mH.matmul, a.dtype), 3)
    with pytest.raises(ValueError, match="cannot be factorised"):
        lowrank.operator((3, 3), a.matmul, a.matmul, torch.bfloat16)
    with pytest.raises(ValueError, match="cannot be multiplied"):
        lowrank.product(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match="at least one"):
        lowrank.product()
    with pytest.raises(ValueError, match="two sparse dimensions"):
        lowrank.svd(torch.ones(2, 3, 4).to_sparse(), 1)


def test_a_batched_operator() -> None:
    a = with_values(60, 50, values("1/i", 50), batch=(3,))
    r = lowrank.svd(lowrank.operator(a.shape, a.matmul, a.mT.matmul, torch.float64), tol=0.3)
    assert r.shape == a.shape
    assert bool((error_of(a, r.dense()) <= r.error.upper).all())
    assert bool((error_of(a, r.dense()) <= 0.3 * torch.linalg.matrix_norm(a)).all())


def test_the_norm_of_a_product_is_known_where_it_is_cheap() -> None:
    g = seeded()
    x, y = torch.randn(30, 4, generator=g), torch.randn(4, 20, generator=g)
    thin, wide = lowrank.product(x, y), lowrank.product(y, y.mT)
    known = thin.frobenius()
    assert known is not None
    assert float(known) == pytest.approx(float((x @ y).norm()), rel=1e-5)
    assert wide.frobenius() is None
    three = lowrank.product(x, y, y.mT)
    assert torch.allclose(three.matmat(torch.eye(4)), x @ y @ y.mT, atol=1e-3)
    assert torch.allclose(three.columns(torch.tensor([1, 3])), (x @ y @ y.mT)[:, [1, 3]], atol=1e-3)
    assert torch.allclose(three.rows(torch.tensor([2])), (x @ y @ y.mT)[[2]], atol=1e-3)


@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_liars_are_caught_on_either_axis_and_inside_products(axis: str) -> None:
    a = with_values(30, 20, values("1/i", 20), torch.complex128)
    liar = lowrank.operator(
        a.shape, a.matmul, a.mT.matmul, a.dtype
    )  # transposes, and must conjugate
    with pytest.raises(ValueError, match="not the adjoint"):
        lowrank.interpolative(liar, 3, axis=axis)  # pyrefly: ignore
    y = torch.randn(20, 25, dtype=torch.complex128, generator=seeded())
    chain = lowrank.product(lowrank.product(liar, y), y.mH)
    for method in (lowrank.svd, lowrank.interpolative, lowrank.cur):
        with pytest.raises(ValueError, match="not the adjoint"):
            method(chain, 3)
    with pytest.raises(ValueError, match="not the adjoint"):
        lowrank.certify(liar, a[:, :3], torch.eye(3, 20), norm="spectral")


def test_products_of_real_and_complex_matrices_drop_nothing() -> None:
    g = seeded()
    x = torch.randn(40, 12, dtype=torch.complex128, generator=g)
    y, z = (torch.randn(12, 30, dtype=d, generator=g) for d in (torch.float64, torch.float32))
    single = lowrank.operator(z.shape, z.matmul, z.mT.matmul)
    double = lowrank.operator(y.shape, y.matmul, y.mT.matmul, torch.float64)
    for part, dense, dtype in (
        (y, y, torch.complex128),
        (y.to_sparse(), y, torch.complex128),
        (double, y, torch.complex128),
        (z, z, torch.complex128),
        (single, z, torch.complex64),  # no better than the operator can do
        (lowrank.product(single, torch.eye(30)), z, torch.complex64),
    ):
        truth = x @ dense.to(x.dtype)
        for a, exact in (
            (lowrank.product(x, part), truth),
            (lowrank.product(y.mT, x.mH), y.mT.to(x.dtype) @ x.mH),
        ):
            r = lowrank.svd(a, 12)
            assert r.dtype == (dtype if exact is truth else torch.complex128)
            eps = torch.finfo(r.dtype).eps
            assert float(error_of(exact, r.dense())) <= float(r.error.upper)
            assert float(r.error.relative_upper) < 100 * eps
    assert "precision of an operator" in str(lowrank.svd(lowrank.product(x, single), 3))
    assert "precision" not in str(lowrank.svd(lowrank.product(x, double), 3))


def test_a_table_of_columns_is_read() -> None:
    """As pandas has them: an array on request, a sequence of names otherwise."""

    class Table:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.array

        def __len__(self) -> int:
            return len(self.array)

        def __getitem__(self, name: str) -> np.ndarray:
            return self.array[:, int(name.removeprefix("column "))]

    a = with_values(30, 20, values("1/i", 20)).numpy()
    locked = a.copy()
    locked.flags.writeable = False
    for array in (a, locked, a[::-1]):
        r = lowrank.interpolative(Table(array), 4)
        assert r.columns is not None
        assert np.array_equal(r.left, array[:, r.columns])
    with pytest.raises(ValueError, match="does not hold only numbers"):
        lowrank.svd(Table(np.array([["a", 1.0]], dtype=object)), 1)


def test_moving_and_rounding_drop_nothing() -> None:
    a = with_values(50, 40, values("1/i", 40), torch.complex128)
    for r in (lowrank.svd(a, 4), lowrank.cur(a, 4), lowrank.interpolative(a, 4)):
        for target in ("cpu", torch.device("cpu"), torch.complex64):
            moved = r.to(target)
            assert type(moved) is type(r)
            assert len(moved.factors) == len(r.factors)
            for mine, theirs in zip(moved.factors, r.factors, strict=True):
                assert torch.allclose(mine.to(theirs.dtype), theirs, atol=1e-4)
                assert mine.is_complex() == theirs.is_complex()  # singular values stay real
            for mine, theirs in ((moved.columns, r.columns), (moved.rows, r.rows)):
                assert (mine is None) == (theirs is None)
                assert mine is None or torch.equal(mine, theirs)  # pyrefly: ignore
        assert float(error_of(a, moved.dense())) <= float(moved.error.upper)
        with pytest.raises(ValueError, match="imaginary"):
            r.to(torch.float32)
    x = lowrank.pinv(a[:, :5]).to(torch.complex64)
    assert float(x.penrose().worst) < 1e-5  # pyrefly: ignore


def test_a_complex_number_scales_a_real_value() -> None:
    a = with_values(50, 40, values("1/i", 40))
    r = lowrank.svd(a, 4)
    turned = (3 - 4j) * r
    assert torch.allclose(turned.dense(), (3 - 4j) * r.dense())
    assert torch.allclose(turned.error.upper, 5 * r.error.upper)
    assert torch.allclose((turned / (3 - 4j) - r).dense(), torch.zeros_like(a).to(torch.complex128))
    assert torch.allclose(turned @ torch.ones(40, dtype=turned.dtype), turned.dense().sum(-1))
