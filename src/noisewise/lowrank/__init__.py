"""Low-rank algebra with a certificate: how small, and how wrong, with what probability."""

from __future__ import annotations

from noisewise.lowrank.certificate import Error, certify, chi_square_quantile
from noisewise.lowrank.factors import LowRank, from_state
from noisewise.lowrank.operators import Matrix
from noisewise.lowrank.reading import as_matrix, operator, outputs, product
from noisewise.lowrank.singular import SVD, rank_for
from noisewise.lowrank.svd import svd

__all__ = [
    "SVD",
    "Error",
    "LowRank",
    "Matrix",
    "as_matrix",
    "certify",
    "chi_square_quantile",
    "from_state",
    "operator",
    "outputs",
    "product",
    "rank_for",
    "svd",
]
