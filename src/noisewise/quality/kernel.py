"""Distances of two feature sets: unbiased kernel distance (MMD), Frechet distance.

Papers: Gretton et al. 2012, "A kernel two-sample test" (the unbiased MMD); Binkowski et al. 2018,
"Demystifying MMD GANs" (its cubic kernel, KID); Rubin 1981, "The Bayesian bootstrap"; Dowson and
Landau 1982 (the Frechet distance of two Gaussians).

Kernel sums are computed in blocks of rows, in float64, for many sets of row weights at once: equal
weights give the statistic, random weights its resamples. A row is never paired with itself, so a
weighted mean has the same expectation as the plain mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 1024  # kernel rows computed at once


def mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared MMD of two feature sets without scaling, cubic kernel (KID).

    ``mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)``,
    ``k(x, y) = (x.y / d + 1)^3``.

    Args:
        x: features [n, d], n >= 2.
        y: features [m, d], m >= 2.

    Raises:
        ValueError: if the shapes do not fit or a set has fewer than two rows.

    Source: Gretton et al. 2012, equation 3; Binkowski et al. 2018, equation 4.

    Example:
        >>> round(mmd(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [1.0]])), 6)
        0.0
    """
    _check_features(x, y)
    one_x, one_y = torch.ones(1, len(x)).double(), torch.ones(1, len(y)).double()
    return float(within(one_x, x) + within(one_y, y) - 2 * between(one_x, x, one_y, y))


def frechet(features_a: Tensor, features_b: Tensor) -> float:
    """Return the squared Frechet distance of the Gaussians that fit two feature sets.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)``. Unlike the kernel distance it
    is biased upwards, and more so with fewer pictures: compare only at equal numbers of pictures.

    Args:
        features_a: [n, d], n >= 2; computed in float64.
        features_b: [m, d], m >= 2.

    Raises:
        ValueError: if the shapes do not fit or a set has fewer than two rows.

    Source: Dowson and Landau 1982; Heusel et al. 2017, equation 6.

    Example:
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet(x, x + 2), 6)
        12.0
    """
    _check_features(features_a, features_b)
    a, b = features_a.double(), features_b.double()
    d = a.shape[1]
    cov_a, cov_b = a.T.cov().reshape(d, d), b.T.cov().reshape(d, d)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, float(shift + cov_a.trace() + cov_b.trace() - 2 * cross))


def _check_features(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"Features have shapes {list(x.shape)} and {list(y.shape)}: "
            "give [n, d] and [m, d], each with at least two rows."
        )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / d + 1)^3, float64 [n, m]."""
    k = (x @ y.T / x.shape[1] + 1).double()
    return k * k * k


def resampling_weights(num_images: int, num_resamples: int, generator: torch.Generator) -> Tensor:
    """Weights [1 + resamples, n]: a row of ones, then exponential draws (Bayesian bootstrap)."""
    uniform = torch.rand(num_resamples, num_images, generator=generator, dtype=torch.float64)
    drawn = -torch.log1p(-uniform)
    return torch.cat([torch.ones(1, num_images, dtype=torch.float64), drawn])


def within(weights: Tensor, x: Tensor) -> Tensor:
    """Weighted mean of k(x_i, x_j) over i != j, for each row of weights."""
    total = torch.zeros(len(weights), dtype=torch.float64)
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        k = _kernel(x[start:stop], x)
        k[:, start:stop].fill_diagonal_(0)
        total += (weights[:, start:stop] @ k * weights).sum(1)
    return total / (weights.sum(1).square() - weights.square().sum(1))


def between(weights_x: Tensor, x: Tensor, weights_y: Tensor, y: Tensor) -> Tensor:
    """Weighted mean of k(x_i, y_j) over all pairs, for each row of weights."""
    total = torch.zeros(len(weights_x), dtype=torch.float64)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        total += (weights_x[:, rows] @ _kernel(x[rows], y) * weights_y).sum(1)
    return total / (weights_x.sum(1) * weights_y.sum(1))
