"""Real columns and rows: near the best, on Kahan's matrix too, with small coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.linalg.interpolative
import torch
from torch import Tensor

from noisewise import lowrank
from noisewise.lowrank.cur import rows_of
from noisewise.lowrank.pivoting import pivots, with_small_coefficients
from spectra import error_of, orthonormal, seeded, values, with_values


def kahan(n: int, c: float = 0.285) -> Tensor:
    powers = (1 - c * c) ** (0.5 * torch.arange(n, dtype=torch.float64))
    return powers[:, None] * (torch.eye(n) - c * torch.ones(n, n).triu(1)).double()


def digits() -> Tensor:
    """A Gaussian kernel of points on a curve: singular values that fall fast."""
    t = torch.linspace(0, 1, 160, dtype=torch.float64)
    points = torch.stack([t, torch.sin(9 * t), torch.cos(23 * t)], 1)
    return torch.exp(-torch.cdist(points, points).square() / 0.3)


def deterministic_pivots(a: Tensor) -> Tensor:
    """The columns as LAPACK's pivoted QR orders them."""
    return torch.from_numpy(np.array(scipy.linalg.qr(a.numpy(), pivoting=True, mode="r")[1])).long()


def best(a: Tensor, k: int) -> float:
    return float(torch.linalg.svdvals(a)[k:].norm())


def test_pivots_are_those_of_pivoted_qr() -> None:
    a = with_values(40, 60, values("1/i", 40))
    expected = deterministic_pivots(a)[:20]
    assert pivots(a, 20).tolist() == expected.tolist()
    batch = torch.stack([a, a.flip(1)])
    assert pivots(batch, 20)[0].tolist() == expected.tolist()
    assert (59 - pivots(batch, 20)[1]).tolist() == expected.tolist()


def test_pivots_are_different_beyond_the_rank_and_keep_to_what_is_allowed() -> None:
    a = with_values(20, 15, torch.ones(3))
    assert len(set(pivots(a, 15).tolist())) == 15
    assert len(set(pivots(torch.zeros(4, 6), 6).tolist())) == 6
    allowed = torch.tensor([True, False] * 7 + [True])
    chosen = pivots(a, 8, allowed)
    assert bool(allowed[chosen].all())
    assert len(set(chosen.tolist())) == 8


def test_columns_are_columns_and_their_coefficients_the_identity() -> None:
    a = with_values(70, 60, values("1/i", 60), torch.complex128, batch=(2,))
    r = lowrank.interpolative(a, rank=9)
    assert r.columns is not None
    for i in range(2):
        assert torch.equal(r.left[i], a[i][:, r.columns[i]])
        z = r.right[i][:, r.columns[i]]
        assert torch.allclose(z, torch.eye(9, dtype=z.dtype), atol=1e-12)
    by_rows = lowrank.interpolative(a, rank=9, axis="rows")
    assert by_rows.rows is not None
    assert by_rows.columns is None
    assert torch.equal(by_rows.right[1], a[1][by_rows.rows[1]])
    assert r.mT.rows is not None
    assert torch.equal(r.mT.rows, r.columns)


def test_the_fit_is_the_best_for_these_columns() -> None:
    a = digits()
    r = lowrank.interpolative(a, rank=20)
    assert r.columns is not None
    c = a[:, r.columns]
    fit = torch.linalg.lstsq(c, a, driver="gelsd").solution
    assert float(error_of(a, r.dense())) == pytest.approx(float(error_of(a, c @ fit)), rel=1e-3)


@pytest.mark.parametrize("rank", [10, 30])
def test_columns_are_near_the_best_as_scipys_are(rank: int) -> None:
    a = digits()
    theirs = []
    for seed in range(3):
        found = scipy.linalg.interpolative.interp_decomp(a.numpy(), rank, rng=seed)
        index, z = found[0], found[1]
        c = scipy.linalg.interpolative.reconstruct_skel_matrix(a.numpy(), rank, index)
        full = scipy.linalg.interpolative.reconstruct_matrix_from_id(c, index, z)
        theirs.append(float(error_of(a, torch.from_numpy(full))))
    ours = [
        float(lowrank.interpolative(a, rank, generator=seeded(s)).error.estimate) for s in range(3)
    ]
    assert max(ours) <= 1.25 * max(theirs)
    assert max(ours) <= 4 * best(a, rank)


def test_kahans_matrix_defeats_pivots_on_the_matrix_and_not_ours() -> None:
    """Pivoted QR leaves the columns in order and errs 10,000 times the best at k = n - 1."""
    a, k = kahan(96), 95
    c = a[:, deterministic_pivots(a)[:k]]
    q = torch.linalg.qr(c).Q
    theirs = float(error_of(a, q @ (q.mT @ a)))
    assert theirs > 1e3 * best(a, k)
    for seed in range(5):
        ours = lowrank.interpolative(a, k, generator=seeded(seed))
        assert float(error_of(a, ours.dense())) < 10 * best(a, k)
        assert ours.max_coefficient < 50


def test_swaps_bound_the_coefficients() -> None:
    a = kahan(40)
    chosen = torch.arange(39)  # Kahan's own trap
    before = torch.linalg.lstsq(a[:, chosen], a).solution.abs().max()
    after = a[:, with_small_coefficients(a, chosen, 2.0)]
    assert float(before) > 100
    assert float(torch.linalg.lstsq(after, a).solution.abs().max()) <= 2.0 + 1e-6
    a = digits()
    plain = lowrank.interpolative(a, 25)
    bounded = lowrank.interpolative(a, 25, bound=1.05)
    assert bounded.max_coefficient <= max(1.3, plain.max_coefficient)
    with pytest.raises(ValueError, match="above 1"):
        lowrank.interpolative(a, 5, bound=1.0)


# ------------------------------------------------------------------------------- CUR
def test_cur_is_made_of_columns_and_rows_and_a_core() -> None:
    a = digits()
    for core in ("projection", "cross"):
        r = lowrank.cur(a, 12, core=core, oversample=3)  # pyrefly: ignore
        c, u, rows = r.factors
        assert torch.equal(c, a[:, r.columns])
        assert torch.equal(rows, a[r.rows])
        assert r.rows.shape == (15,)
        assert torch.allclose(c @ u @ rows, r.dense(), atol=1e-6)
        assert torch.allclose(r.mT.dense(), r.dense().mT)
        assert torch.equal(r.mT.columns, r.rows)


def test_the_projection_core_keeps_its_bound() -> None:
    """|A - C U R|^2 <= |A - C C^+ A|^2 + |A - A R^+ R|^2."""
    a = digits()
    r = lowrank.cur(a, 20)
    q = torch.linalg.qr(r.C).Q
    p = torch.linalg.qr(r.R.mT).Q
    bound = error_of(a, q @ (q.mT @ a)).square() + error_of(a, (a @ p) @ p.mT).square()
    assert error_of(a, r.dense()).square() <= bound * (1 + 1e-9)
    expected = torch.linalg.pinv(r.C) @ a @ torch.linalg.pinv(r.R)
    assert torch.allclose(r.C @ expected @ r.R, r.dense(), atol=1e-6)


def test_rows_from_the_columns_beat_rows_chosen_alone() -> None:
    """With a cross core, independent rows are at the mercy of a nearly singular crossing."""
    a, k = digits(), 25
    ours, alone = [], []
    for seed in range(8):
        g = seeded(seed)
        r = lowrank.cur(a, k, core="cross", generator=g)
        ours.append(float(error_of(a, r.dense())) / best(a, k))
        rows = lowrank.interpolative(a, k, axis="rows", generator=g).rows
        assert rows is not None
        j = torch.linalg.qr(r.C).Q
        naive = j @ torch.linalg.solve(j[rows], a[rows])
        alone.append(float(error_of(a, naive)) / best(a, k))
    assert max(ours) < 4
    assert max(alone) > max(ours)
    projected = lowrank.cur(a, k)
    assert float(error_of(a, projected.dense())) < 3 * best(a, k)


def test_the_cross_reads_only_its_columns_and_rows() -> None:
    a = digits()
    counted: list[int] = []

    def product(x: Tensor) -> Tensor:
        counted.append(x.shape[-1])
        return a @ x

    op = lowrank.operator(a.shape, product, product, torch.float64)
    lowrank.cur(op, 10, core="cross")
    # Adjoint check 2, sketch 20, columns 10, rows 15, probes 20.
    assert sum(counted) == 2 + 20 + 10 + 15 + 20


def test_rows_of_takes_every_row_once() -> None:
    q = torch.linalg.qr(torch.randn(12, 5, dtype=torch.float64, generator=seeded())).Q
    assert sorted(rows_of(q, 12).tolist()) == list(range(12))
    assert rows_of(q[:, :0], 3).shape == (3,)


def test_a_gradient_flows_through_the_columns() -> None:
    a = with_values(8, 7, torch.linspace(2, 0.5, 7)).requires_grad_()
    index = lowrank.interpolative(a, 3).columns
    assert index is not None

    def approximation(a: Tensor) -> Tensor:
        return lowrank.interpolative(a, 3).dense()

    assert torch.autograd.gradcheck(approximation, a)


def test_nonsense_is_refused() -> None:
    a = torch.eye(6)
    wrong: list[tuple[dict, str]] = [
        ({}, "a rank or a relative tolerance"),
        ({"rank": 7}, "ranks from 0 to 6"),
        ({"tol": -1.0}, "positive"),
        ({"rank": 2, "failure_probability": 1.0}, "up to 0.1"),
    ]
    for arguments, words in wrong:
        for method in (lowrank.interpolative, lowrank.cur):
            with pytest.raises(ValueError, match=words):
                method(a, **arguments)
    with pytest.raises(ValueError, match="axis"):
        lowrank.interpolative(a, 2, axis="both")  # pyrefly: ignore
    with pytest.raises(ValueError, match="core"):
        lowrank.cur(a, 2, core="svd")  # pyrefly: ignore
    with pytest.raises(ValueError, match="core='cross' needs a rank"):
        lowrank.cur(a, tol=0.1, core="cross")
    with pytest.raises(ValueError, match="0 or more"):
        lowrank.cur(a, 2, oversample=-1)


# ------------------------------------------------------------------------------- extremes
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e-25, torch.float32),
        (1e25, torch.float32),
        (1e-38, torch.complex64),
        (1e-200, torch.float64),
        (1e200, torch.float64),
        (1e-300, torch.complex128),
    ],
)
def test_choices_do_not_depend_on_the_scale(scale: float, dtype: torch.dtype) -> None:
    """Squares of the entries are 0 or Inf: pivots by them would be the first columns."""
    base = with_values(60, 50, values("10^(-i/10)", 50), torch.complex128)
    base = (base if dtype.is_complex else base.real).flip(1)
    a = torch.stack([base, base.flip(0)]).to(dtype)
    scaled = a * 2.0 ** round(float(torch.tensor(scale, dtype=torch.float64).log2()))
    for method in (
        lambda a: lowrank.interpolative(a, 7),
        lambda a: lowrank.interpolative(a, 7, axis="rows"),
        lambda a: lowrank.interpolative(a, tol=0.02),
        lambda a: lowrank.cur(a, 7),
        lambda a: lowrank.cur(a, 7, core="cross"),
        lambda a: lowrank.cur(a, tol=0.02),
    ):
        plain, extreme = method(a), method(scaled)
        for mine, theirs in ((plain.columns, extreme.columns), (plain.rows, extreme.rows)):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.equal(mine, theirs)  # pyrefly: ignore
        expected = plain.error.relative_upper
        assert torch.allclose(extreme.error.relative_upper, expected, rtol=1e-3)
        assert extreme.converged == plain.converged
        if extreme.columns is not None:
            i = extreme.columns[..., None, :].expand(2, 60, -1)
            assert torch.equal(extreme.factors[0], scaled.gather(-1, i))


def test_gradients_do_not_depend_on_the_scale() -> None:
    base = with_values(30, 20, values("1/i", 20), torch.float32)
    found = []
    for size in (1.0, 2.0**-80):
        a = (base * size).requires_grad_()
        r = lowrank.interpolative(a, 4)
        (r.dense() / size).sum().backward()
        assert a.grad is not None
        found.append(a.grad * size)
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_rows_are_added_below_the_highest_number_allowed() -> None:
    """Columns are the singular directions here, rows are not: more rows than columns are needed."""
    a = orthonormal(90, 80, seeded()) * values("10^(-i/10)", 80)
    free = lowrank.cur(a, tol=1e-3)
    most = free.rows.shape[-1]
    assert most > free.columns.shape[-1]
    for cap in (most, most + 5):
        r = lowrank.cur(a, cap, tol=1e-3)
        assert r.converged
        assert r.rows.shape[-1] <= cap
        assert float(error_of(a, r.dense())) <= 1e-3 * float(a.norm())
    tight = lowrank.cur(a, 20, tol=1e-3)
    assert not tight.converged
    assert max(tight.rows.shape[-1], tight.columns.shape[-1]) == 20
