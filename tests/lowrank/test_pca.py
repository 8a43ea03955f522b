"""The estimator: scikit-learn's own checks, its PCA, and sparse data that stay sparse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from noisewise import lowrank
from noisewise.lowrank.centred import Centred
from noisewise.lowrank.operators import Sparse


def test_the_package_loads_no_scikit_learn() -> None:
    code = "import sys; import noisewise.lowrank; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in [
        name for name in sys.modules if name.startswith(("sklearn.", "noisewise.lowrank.pca"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"noisewise\[sklearn\]"):
        _ = lowrank.PCA
    with pytest.raises(AttributeError, match="no attribute"):
        _ = lowrank.nothing  # pyrefly: ignore


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
def test_a_centred_sparse_matrix_is_the_dense_one(dtype: torch.dtype) -> None:
    a = torch.randn(40, 30, dtype=dtype, generator=torch.Generator().manual_seed(0))
    a = torch.where(a.real > 0.8, a, 0.0)
    mean = a.mean(0)
    expected = a - mean
    centred = Centred(Sparse(a.to_sparse()), mean)
    x = torch.ones(30, 2, dtype=dtype)
    assert torch.allclose(centred.matmat(x), expected @ x, atol=1e-5)
    y = torch.ones(40, 2, dtype=dtype)
    assert torch.allclose(centred.rmatmat(y), expected.mH @ y, atol=1e-5)
    size = torch.linalg.matrix_norm(expected).double()
    assert torch.allclose(centred.frobenius(), size, rtol=1e-6)
    r = lowrank.svd(centred, rank=5)
    best = torch.linalg.svdvals(expected).double()[5:].norm()
    assert r.error.kind == "exact"
    assert float(best) * (1 - 1e-5) <= float(r.error.upper) <= 1.02 * float(best)


# ------------------------------------------------------------------ with scikit-learn installed
def _data(kind: str = "dense", dtype: type = np.float64) -> Any:  # noqa: ANN401
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 20)) + 0.01 * rng.normal(size=(60, 20)) + 3
    if kind == "dense":
        return x.astype(dtype)
    return scipy.sparse.csr_array(np.where(x > 4, x, 0).astype(dtype))


def test_it_passes_check_estimator() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    for estimator in (lowrank.PCA(), lowrank.PCA(tol=0.1), lowrank.PCA(1, whiten=True)):
        checks.check_estimator(estimator, on_skip=None)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_finds_what_scikit_learn_finds(dtype: type, whiten: bool) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = _data(dtype=dtype)
    ours = lowrank.PCA(4, whiten=whiten, accurate=True).fit(x)
    theirs = decomposition.PCA(4, whiten=whiten, svd_solver="full").fit(x)
    near = 1e-6 if dtype == np.float64 else 1e-3
    signs = np.sign((ours.components_ * theirs.components_).sum(1))
    assert np.allclose(ours.components_, theirs.components_ * signs[:, None], atol=near)
    for name in ("singular_values_", "explained_variance_", "explained_variance_ratio_", "mean_"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=near), name
        assert getattr(ours, name).dtype == dtype
    assert np.allclose(ours.noise_variance_, theirs.noise_variance_, rtol=1e-2)
    made = ours.transform(x)
    assert made.dtype == dtype
    assert np.allclose(made, theirs.transform(x) * signs, atol=100 * near)
    back = ours.inverse_transform(made)
    assert np.allclose(back, theirs.inverse_transform(theirs.transform(x)), atol=100 * near)
    assert np.linalg.norm(x - back) <= ours.error_.upper * (1 + 1e-3)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_data_are_centred_without_being_dense(kind: str) -> None:
    pytest.importorskip("sklearn")
    x = _data("sparse")
    dense = lowrank.PCA(5, accurate=True).fit(x.toarray())
    sparse = lowrank.PCA(5, accurate=True).fit(x.asformat(kind))
    assert np.allclose(sparse.singular_values_, dense.singular_values_, rtol=1e-3)
    assert np.allclose(sparse.mean_, dense.mean_)
    signs = np.sign((sparse.components_ * dense.components_).sum(1))
    expected = dense.transform(x.toarray()) * signs
    assert np.allclose(sparse.transform(x), expected, atol=1e-1)
    assert sparse.error_.kind == "exact"


def test_a_sparse_matrix_too_large_to_be_dense() -> None:
    """100,000 x 200,000 with 50,000 values: 160 GB as a dense matrix."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    places = rng.integers(100_000, size=50_000), rng.integers(200_000, size=50_000)
    wide = scipy.sparse.csr_array((rng.normal(size=50_000), places), shape=(100_000, 200_000))
    assert lowrank.PCA(2).fit(wide).transform(wide).shape == (100_000, 2)


def test_by_tolerance_and_by_share_of_the_variance() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = _data()
    for share in (0.5, 0.9, 0.999):
        theirs = decomposition.PCA(share, svd_solver="full").fit(x)
        ours = lowrank.PCA(share).fit(x)
        assert ours.n_components_ == theirs.n_components_
        assert float(ours.explained_variance_ratio_.sum()) >= share
    by_tol = lowrank.PCA(tol=0.1).fit(x)
    assert by_tol.error_.relative_upper <= 0.1
    assert lowrank.PCA(2, tol=0.1).fit(x).n_components_ == 2
    uncentred = lowrank.PCA(3, center=False, accurate=True).fit(x)
    assert np.allclose(uncentred.singular_values_, np.linalg.svd(x)[1][:3], rtol=1e-6)
    assert not uncentred.mean_.any()


def test_in_a_pipeline_with_names_and_seeds() -> None:
    pipeline = pytest.importorskip("sklearn.pipeline")
    base = pytest.importorskip("sklearn.base")
    x = _data()
    made = pipeline.make_pipeline(lowrank.PCA(3), lowrank.PCA(2)).fit_transform(x)
    assert made.shape == (60, 2)
    pca = lowrank.PCA(2, random_state=3).fit(x)
    assert list(pca.get_feature_names_out()) == ["pca0", "pca1"]
    again = base.clone(pca).fit(x)
    assert np.array_equal(again.components_, pca.components_)
    state = np.random.RandomState(0)
    assert lowrank.PCA(2, random_state=state).fit(x).n_components_ == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n_components": 21}, "at most min"),
        ({"n_components": 2.5}, "whole number"),
        ({"n_components": -1}, "0 or more"),
        ({"tol": -1}, "positive"),
        ({"failure_probability": 0.5}, "failure_probability"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], says: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=says):
        lowrank.PCA(**given).fit(_data())
