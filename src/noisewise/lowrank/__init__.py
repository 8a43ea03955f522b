"""Low-rank algebra with a certificate: how small, and how wrong, with what probability."""

from __future__ import annotations

from noisewise.lowrank.certificate import Error, certify, chi_square_quantile
from noisewise.lowrank.factors import LowRank, from_state
from noisewise.lowrank.operators import Matrix
from noisewise.lowrank.pseudo_inverse import (
    LeastSquares,
    Penrose,
    PseudoInverse,
    limit_path,
    lstsq,
    penrose,
    pinv,
)
from noisewise.lowrank.reading import as_matrix, operator, outputs, product
from noisewise.lowrank.singular import SVD, rank_for
from noisewise.lowrank.svd import svd

__all__ = [
    "SVD",
    "Error",
    "LeastSquares",
    "LowRank",
    "Matrix",
    "Penrose",
    "PseudoInverse",
    "as_matrix",
    "certify",
    "chi_square_quantile",
    "from_state",
    "limit_path",
    "lstsq",
    "operator",
    "outputs",
    "penrose",
    "pinv",
    "product",
    "rank_for",
    "svd",
]
