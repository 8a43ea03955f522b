"""Judge generated pictures without downloads: a distance, a distance per scale, and copies."""

from __future__ import annotations

from noisewise.quality.copies import (
    CopyReference,
    CopyTest,
    Nearest,
    copy_test,
    duplicates,
    nearest,
)
from noisewise.quality.distance import (
    Distance,
    Reference,
    distance,
    floor,
    frechet,
    mmd,
    sliced_wasserstein,
    wasserstein_1d,
)
from noisewise.quality.features import Extractor, RandomConvFeatures, extract, weights_sha256

__all__ = [
    "CopyReference",
    "CopyTest",
    "Distance",
    "Extractor",
    "Nearest",
    "RandomConvFeatures",
    "Reference",
    "copy_test",
    "distance",
    "duplicates",
    "extract",
    "floor",
    "frechet",
    "mmd",
    "nearest",
    "sliced_wasserstein",
    "wasserstein_1d",
    "weights_sha256",
]
