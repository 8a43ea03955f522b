"""Judge generated pictures without downloads: a distance, one per scale, copies, near copies."""

from __future__ import annotations

from noisewise.quality.copies import (
    CopyReference,
    CopyTest,
    Nearest,
    copy_test,
    duplicates,
    nearest,
)
from noisewise.quality.denoiser_features import DenoiserFeatures
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
from noisewise.quality.features import Extractor, extract
from noisewise.quality.frozen_filters import weights_sha256
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.near_copies import NearCopyReference, NearCopyTest
from noisewise.quality.place_features import DenoiserPlaces, NativePlaces, PlaceFeatures
from noisewise.quality.planted_copies import planted_copies
from noisewise.quality.random_features import RandomConvFeatures

__all__ = [
    "CopyReference",
    "CopyTest",
    "DenoiserFeatures",
    "DenoiserPlaces",
    "Distance",
    "Extractor",
    "NativeFeatures",
    "NativePlaces",
    "NearCopyReference",
    "NearCopyTest",
    "Nearest",
    "PlaceFeatures",
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
    "planted_copies",
    "sliced_wasserstein",
    "wasserstein_1d",
    "weights_sha256",
]
