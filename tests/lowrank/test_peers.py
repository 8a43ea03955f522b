"""The documented examples of scipy, scikit-learn and numpy, reproduced."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.linalg.interpolative
import scipy.sparse
import scipy.sparse.linalg
import torch

from noisewise import lowrank
from spectra import values, with_values


def test_scipys_hilbert_matrix_to_a_thousandth() -> None:
    """scipy.linalg.interpolative: A = hilbert(n), eps = 1e-3, by columns and by its svd."""
    a = scipy.linalg.hilbert(300)
    k = scipy.linalg.interpolative.interp_decomp(a, 1e-3, rng=0)[0]
    ours = lowrank.interpolative(a, tol=1e-3)
    assert ours.converged
    assert abs(ours.rank - int(k)) <= 2
    smallest = lowrank.rank_for(torch.from_numpy(np.linalg.svd(a)[1]), 1e-3)
    assert lowrank.svd(a, tol=1e-3).rank == smallest <= ours.rank
    assert lowrank.interpolative(a, rank=0).rank == 0  # scipy's eps_or_k = 0 gives all columns


def test_scikit_learns_example_with_its_signs() -> None:
    """randomized_svd([[1, 2, 3, 5], ...], n_components=2): shapes, values, u-based signs."""
    a = np.array([[1.0, 2, 3, 5], [3, 4, 5, 6], [7, 8, 9, 10]])
    u, s, vh = lowrank.svd(a, 2).factors
    assert (u.shape, s.shape, vh.shape) == ((3, 2), (2,), (2, 4))
    expected_u, expected_s, expected_vh = np.linalg.svd(a, full_matrices=False)
    assert np.allclose(s, expected_s[:2])
    signs = np.sign(expected_u[np.abs(expected_u).argmax(0), np.arange(3)])[:2]
    assert np.allclose(u, expected_u[:, :2] * signs)
    assert np.allclose(vh, expected_vh[:2] * signs[:, None])


def test_scikit_learn_itself_finds_the_same() -> None:
    extmath = pytest.importorskip("sklearn.utils.extmath")
    documented = np.array([[1.0, 2, 3, 5], [3, 4, 5, 6], [7, 8, 9, 10]])
    steep = with_values(200, 150, values("10^(-i/10)", 150)).numpy()
    for a, k in ((documented, 2), (steep, 10)):
        theirs = extmath.randomized_svd(a, k, random_state=0)
        for mine, expected in zip(lowrank.svd(a, k, accurate=True).factors, theirs, strict=True):
            assert np.allclose(mine, expected, atol=1e-6)


def test_complex_matrices_that_scikit_learn_got_silently_wrong() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((60, 5)) @ (rng.standard_normal((5, 50)) * (1 + 2j))
    assert np.allclose(lowrank.svd(a, 5).dense(), a)


def test_scipys_sparse_matrices_are_read() -> None:
    a = scipy.sparse.random_array((80, 60), density=0.1, rng=np.random.default_rng(0))
    expected = np.linalg.svd(a.toarray(), compute_uv=False)[:6]
    for given in (a, a.tocsr(), scipy.sparse.linalg.aslinearoperator(a)):
        r = lowrank.svd(given, 6, accurate=True)
        assert np.allclose(r.factors[1], expected, rtol=1e-2)
    assert lowrank.interpolative(a.tocsc(), 5).error.kind == "exact"


def test_numpys_pinv_and_lstsq_examples() -> None:
    """A @ pinv(a) @ a = a; the line y = mx + c through four points: m = 1, c = -0.95."""
    x, y = np.array([0.0, 1, 2, 3]), np.array([-1, 0.2, 0.9, 2.1])
    a = torch.from_numpy(np.vstack([x, np.ones(4)]).T)
    found = lowrank.lstsq(a, torch.from_numpy(y)).x
    assert found.tolist() == pytest.approx([1.0, -0.95])
    assert torch.allclose(a @ lowrank.pinv(a).dense() @ a, a)
