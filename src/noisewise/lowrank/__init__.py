"""Low-rank algebra with a certificate: small factors, their error, and how sure it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from noisewise.lowrank.certificate import Error, certify
from noisewise.lowrank.chi_square import chi_square_quantile
from noisewise.lowrank.cur import CUR, cur
from noisewise.lowrank.factors import SVD, LowRank
from noisewise.lowrank.inputs import as_matrix, operator, outputs, product
from noisewise.lowrank.interpolative import Interpolative, interpolative
from noisewise.lowrank.least_squares import LeastSquares, lstsq
from noisewise.lowrank.loading import from_state
from noisewise.lowrank.nystrom import nystrom
from noisewise.lowrank.operators import Matrix
from noisewise.lowrank.penrose import Penrose, penrose
from noisewise.lowrank.pseudo_inverse import PseudoInverse, limit_path, pinv
from noisewise.lowrank.sampled_product import SampledProduct, expected_error, sampled_matmul
from noisewise.lowrank.single_pass import single_pass
from noisewise.lowrank.singular_values import rank_for
from noisewise.lowrank.svd import svd

if TYPE_CHECKING:
    from noisewise.lowrank.pca import PCA as PCA

__all__ = [  # and PCA, which loads scikit-learn and is therefore not part of `import *`
    "CUR",
    "SVD",
    "Error",
    "Interpolative",
    "LeastSquares",
    "LowRank",
    "Matrix",
    "Penrose",
    "PseudoInverse",
    "SampledProduct",
    "as_matrix",
    "certify",
    "chi_square_quantile",
    "cur",
    "expected_error",
    "from_state",
    "interpolative",
    "limit_path",
    "lstsq",
    "nystrom",
    "operator",
    "outputs",
    "penrose",
    "pinv",
    "product",
    "rank_for",
    "sampled_matmul",
    "single_pass",
    "svd",
]


def __getattr__(name: str) -> object:
    if name != "PCA":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module("noisewise.lowrank.pca").PCA
    except ModuleNotFoundError as error:
        raise ImportError(
            "noisewise.lowrank.PCA needs scikit-learn: pip install 'noisewise[sklearn]'"
        ) from error
