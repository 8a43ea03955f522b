"""Principal components as an estimator of scikit-learn, with a certificate of their error.

This module loads scikit-learn (the extra `sklearn`); `noisewise.lowrank` loads it when `PCA` is
first used.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from noisewise.lowrank.centred import Centred
from noisewise.lowrank.factors import SVD
from noisewise.lowrank.inputs import as_matrix
from noisewise.lowrank.operators import Sparse
from noisewise.lowrank.request import whole
from noisewise.lowrank.svd import svd

_FORMATS = ("csr", "csc")


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal components by rank or by tolerance; sparse data are centred and stay sparse.

    ``X - 1 mean^T ~ U diag(s) V^T``; the components are the rows of V^T, and transform(X) gives
    ``(X - 1 mean^T) V``. The data are those of scikit-learn's PCA: dense, or sparse in CSR or CSC
    (others are converted). Signs: the largest entry of each column of U is positive.

    Args:
        n_components: number of components; a share below 1, such as 0.95, of the variance to
            explain; by default all, or with `tol` as many as it needs.
        tol: relative error of the centred data in the Frobenius norm; 0.1 explains 99 % of the
            variance. With `n_components`, that is the largest number.
        center: whether to subtract the mean; without it, a truncated SVD as of text counts.
        whiten: divide each component by its standard deviation.
        accurate: nearer to the exact components, in about twice the time; see `svd`.
        failure_probability: of the bound in `error_`; 0 computes the exact error.
        random_state: a seed, or a RandomState of numpy; None is a fixed seed.

    Attributes:
        components_: [n_components_, n_features_in_].
        singular_values_: largest first.
        explained_variance_: variance of each component, with n_samples - 1 degrees of freedom.
        explained_variance_ratio_: the same over the variance of the data.
        mean_: of each feature; zeros without centring.
        n_components_: how many were found.
        n_samples_: rows of the data.
        noise_variance_: mean variance of what is left out.
        error_: the error of the centred data, see `noisewise.lowrank.Error`.

    Raises:
        ValueError: from `fit`, for data that scikit-learn refuses, and for numbers out of range.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3)) @ np.ones((3, 8))
        >>> pca = PCA(tol=0.01).fit(x)
        >>> pca.n_components_, bool(pca.error_.relative_upper <= 0.01)
        (1, True)
        >>> bool(np.allclose(pca.inverse_transform(pca.transform(x)), x))
        True
    """

    def __init__(
        self,
        n_components: float | None = None,
        *,
        tol: float | None = None,
        center: bool = True,
        whiten: bool = False,
        accurate: bool = False,
        failure_probability: float | None = 1e-6,
        random_state: Any = None,  # noqa: ANN401 (scikit-learn's convention)
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.center = center
        self.whiten = whiten
        self.accurate = accurate
        self.failure_probability = failure_probability
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ANN401
        """Find the components of X [n_samples, n_features]; y is not used."""
        data = self._data(X, is_new=True)
        self.n_samples_ = data.shape[0]
        self.mean_ = np.zeros(data.shape[1], data.dtype)
        if self.center:
            self.mean_ = np.asarray(data.mean(axis=0), dtype=data.dtype).ravel()
        found, size = self._decomposed(data)
        self.components_, self.singular_values_ = found.Vh, found.S
        self.n_components_ = found.rank
        free = self.n_samples_ - 1
        self.explained_variance_ = found.S**2 / free
        total = size**2 / free
        shares = self.explained_variance_ / total if total > 0 else 0 * self.explained_variance_
        self.explained_variance_ratio_ = shares.astype(data.dtype)
        left = min(data.shape) - found.rank
        rest = max(total - float(self.explained_variance_.sum()), 0.0)
        self.noise_variance_ = rest / left if left else 0.0
        self.error_ = found.error
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Return the components of X, [n_samples, n_components_]."""
        check_is_fitted(self)
        data = self._data(X, is_new=False)
        if scipy.sparse.issparse(data):  # the mean is subtracted after the product
            made = data @ self.components_.T - self.mean_ @ self.components_.T
        else:
            made = (data - self.mean_) @ self.components_.T
        return made / self._scale(made.dtype) if self.whiten else made

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: ANN401
        """Return data with these components X [n_samples, n_components_]."""
        check_is_fitted(self)
        parts = np.asarray(X)
        if parts.ndim != 2 or parts.shape[1] != self.n_components_:
            raise ValueError(
                f"X has the shape {list(parts.shape)}, but there are {self.n_components_} "
                "components: give one column for each."
            )
        parts = parts * self._scale(parts.dtype) if self.whiten else parts
        return parts @ self.components_ + self.mean_

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _data(self, given: Any, is_new: bool) -> Any:  # noqa: ANN401
        return validate_data(
            self,
            given,
            reset=is_new,
            accept_sparse=_FORMATS,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2 if is_new else 1,
        )

    def _scale(self, dtype: np.dtype) -> np.ndarray:
        """The standard deviation of each component; 1 for one without variance."""
        scale = np.sqrt(self.explained_variance_)
        return np.where(scale > 0, scale, 1).astype(dtype)

    def _decomposed(self, data: Any) -> tuple[SVD, float]:  # noqa: ANN401
        """The SVD of the centred data, and their Frobenius norm."""
        rank, tol = self._request(min(data.shape))
        matrix = as_matrix(data) if scipy.sparse.issparse(data) else as_matrix(data - self.mean_)
        if isinstance(matrix, Sparse):
            matrix = Centred(matrix, torch.from_numpy(self.mean_))
        matrix.is_numpy = True
        seed = 0
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        found = svd(
            matrix,
            rank,
            tol=tol,
            generator=seed,
            accurate=self.accurate,
            failure_probability=self.failure_probability,
        )
        size = matrix.frobenius()
        assert size is not None
        return found, float(size)

    def _request(self, most: int) -> tuple[int | None, float | None]:
        """The largest rank and the tolerance; a share of the variance is a tolerance."""
        number, tol = self.n_components, self.tol
        if number is None:
            return (most if tol is None else None), tol
        if isinstance(number, float | np.floating) and 0 < number < 1 and tol is None:
            return None, math.sqrt(1 - number)
        count = whole("n_components", number)
        if count > most:
            raise ValueError(
                f"n_components is {count}: there are at most min(n_samples, n_features) = {most}."
            )
        return count, tol
