"""The factorisations that `factorisations` compares, ours and those of peers, with one signature.

Each takes the matrix (torch, on the CPU), the rank and a seed, and returns the two factors of the
approximation, so that the same residual judges all. A peer that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import scipy.linalg.interpolative
import scipy.sparse.linalg
import torch
from torch import Tensor

from noisewise import lowrank

Factors = tuple[Tensor, Tensor]
Way = Callable[[Tensor, int, int], Factors]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ours(a: Tensor, k: int, seed: int) -> Factors:
    """`svd` with its defaults and its certificate."""
    r = lowrank.svd(a, k, generator=_seeded(seed))
    return r.left, r.right


def ours_accurate(a: Tensor, k: int, seed: int) -> Factors:
    """`svd` by block Krylov, with its certificate."""
    r = lowrank.svd(a, k, accurate=True, generator=_seeded(seed))
    return r.left, r.right


def torch_svd_lowrank(a: Tensor, k: int, seed: int) -> Factors:
    """`torch.svd_lowrank` with q = k + 10 and two power steps (the default), cut to k."""
    torch.manual_seed(seed)
    u, s, v = torch.svd_lowrank(a, q=min(k + 10, *a.shape[-2:]))
    return u[..., :k] * s[..., None, :k], v[..., :k].mT


def torch_without_more(a: Tensor, k: int, seed: int) -> Factors:
    """`torch.svd_lowrank` with q = k, as in the example of its documentation."""
    torch.manual_seed(seed)
    u, s, v = torch.svd_lowrank(a, q=k)
    return u * s[..., None, :], v.mT


def sklearn_default(a: Tensor, k: int, seed: int) -> Factors:
    """scikit-learn's randomized_svd with its defaults."""
    from sklearn.utils.extmath import randomized_svd

    u, s, vh = randomized_svd(a.numpy(), k, random_state=seed)
    return torch.from_numpy(u * s), torch.from_numpy(np.ascontiguousarray(vh))


def svds(solver: str) -> Way:
    """Scipy's Lanczos methods, which aim at the exact result."""

    def solve(a: Tensor, k: int, seed: int) -> Factors:
        u, s, vh = scipy.sparse.linalg.svds(a.numpy(), k=k, solver=solver, rng=seed)
        return torch.from_numpy(u * s), torch.from_numpy(np.ascontiguousarray(vh))

    return solve


def skerch_ssvd(a: Tensor, k: int, seed: int) -> Factors:
    """Skerch's HMT recovery with k + 10 measurements, cut to k."""
    from skerch.algorithms import ssvd

    u, s, vh = ssvd(a, "cpu", a.dtype, min(k + 10, *a.shape), seed=1000 * seed + 7)
    return u[:, :k] * s[:k], vh[:k]


def lapack(a: Tensor, k: int, seed: int) -> Factors:
    """The complete SVD, which gives the best approximation."""
    del seed
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return u[..., :k] * s[..., None, :k], vh[..., :k, :]


def ours_columns(a: Tensor, k: int, seed: int) -> Factors:
    """Our interpolative decomposition, with its certificate."""
    r = lowrank.interpolative(a, k, generator=_seeded(seed))
    return r.left, r.right


def scipy_columns(a: Tensor, k: int, seed: int) -> Factors:
    """Scipy's interp_decomp with a given rank; float64 only."""
    found = scipy.linalg.interpolative.interp_decomp(a.numpy(), k, rng=seed)
    index, projection = found[0], found[1]
    z = np.empty((k, a.shape[1]))
    z[:, index] = np.concatenate([np.eye(k), projection], axis=1)
    return a[:, torch.from_numpy(np.array(index[:k])).long()], torch.from_numpy(z)


def lapack_columns(a: Tensor, k: int, seed: int) -> Factors:
    """A pivoted QR of the whole matrix, and the least-squares fit."""
    del seed
    order = scipy.linalg.qr(a.numpy(), pivoting=True, mode="r")[1]
    q = torch.linalg.qr(a[:, torch.from_numpy(np.array(order[:k])).long()]).Q
    return q, q.mT @ a


def ours_cur(a: Tensor, k: int, seed: int) -> Factors:
    """Our CUR with the projection core and its certificate."""
    r = lowrank.cur(a, k, generator=_seeded(seed))
    return r.left, r.right


def ours_cross(a: Tensor, k: int, seed: int) -> Factors:
    """Our CUR with the cross core, half as many more rows, and its certificate."""
    r = lowrank.cur(a, k, core="cross", generator=_seeded(seed))
    return r.left, r.right


def independent_cross(a: Tensor, k: int, seed: int) -> Factors:
    """The cross of columns and rows that were chosen independently."""
    columns = lowrank.interpolative(a, k, generator=_seeded(seed)).columns
    rows = lowrank.interpolative(a, k, axis="rows", generator=_seeded(seed)).rows
    assert columns is not None
    assert rows is not None
    q = torch.linalg.qr(a[:, columns]).Q
    return q, torch.linalg.lstsq(q[rows], a[rows], driver="gelsd").solution


SINGULAR: dict[str, Way] = {
    "noisewise svd": ours,
    "noisewise svd, accurate": ours_accurate,
    "torch.svd_lowrank, q = k + 10": torch_svd_lowrank,
    "torch.svd_lowrank, q = k": torch_without_more,
    "scipy svds, arpack": svds("arpack"),
    "scipy svds, propack": svds("propack"),
    "LAPACK gesdd": lapack,
}
BATCHED: dict[str, Way] = {
    "noisewise svd": ours,
    "noisewise svd, accurate": ours_accurate,
    "torch.svd_lowrank, q = k + 10": torch_svd_lowrank,
    "torch.svd_lowrank, q = k": torch_without_more,
    "LAPACK gesdd": lapack,
}
SKELETON: dict[str, Way] = {
    "noisewise interpolative": ours_columns,
    "scipy interp_decomp": scipy_columns,
    "LAPACK pivoted QR": lapack_columns,
    "noisewise cur": ours_cur,
    "noisewise cur, cross": ours_cross,
    "cross, rows chosen alone": independent_cross,
}
if find_spec("sklearn"):
    SINGULAR["scikit-learn randomized_svd"] = sklearn_default
if find_spec("skerch") and find_spec("torch_dct"):
    SINGULAR["skerch ssvd, hmt"] = skerch_ssvd
