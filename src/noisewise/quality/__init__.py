"""Judge generated pictures without downloads: the judge, copies, and numbers for people."""

from __future__ import annotations

from noisewise.quality.class_shares import ClassShare, ClassShares, class_shares
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
from noisewise.quality.eight_bits import levels, rounded
from noisewise.quality.features import Extractor, extract, extract_rounded
from noisewise.quality.flats import (
    FlatValue,
    SnapLevel,
    even_area,
    exact_flat_share,
    flat_area,
    flat_values,
    snap_levels,
    snapped,
)
from noisewise.quality.frozen_filters import weights_sha256
from noisewise.quality.inception import InceptionDistance, inception_distance
from noisewise.quality.judge import Difference, Floors, Judge
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.near_copies import NearCopyReference, NearCopyTest
from noisewise.quality.place_features import DenoiserPlaces, NativePlaces, PlaceFeatures
from noisewise.quality.planted_copies import planted_copies
from noisewise.quality.precision_recall import PrecisionRecall, precision_recall
from noisewise.quality.random_features import RandomConvFeatures
from noisewise.quality.spectrum import SpectrumError, power_spectrum, spectrum_error
from noisewise.quality.told_apart import ToldApart, evidence_maps, told_apart
from noisewise.quality.variety import Variety, variety

__all__ = [
    "ClassShare",
    "ClassShares",
    "CopyReference",
    "CopyTest",
    "DenoiserFeatures",
    "DenoiserPlaces",
    "Difference",
    "Distance",
    "Extractor",
    "FlatValue",
    "Floors",
    "InceptionDistance",
    "Judge",
    "NativeFeatures",
    "NativePlaces",
    "NearCopyReference",
    "NearCopyTest",
    "Nearest",
    "PlaceFeatures",
    "PrecisionRecall",
    "RandomConvFeatures",
    "Reference",
    "SnapLevel",
    "SpectrumError",
    "ToldApart",
    "Variety",
    "class_shares",
    "copy_test",
    "distance",
    "duplicates",
    "even_area",
    "evidence_maps",
    "exact_flat_share",
    "extract",
    "extract_rounded",
    "flat_area",
    "flat_values",
    "floor",
    "frechet",
    "inception_distance",
    "levels",
    "mmd",
    "nearest",
    "planted_copies",
    "power_spectrum",
    "precision_recall",
    "rounded",
    "sliced_wasserstein",
    "snap_levels",
    "snapped",
    "spectrum_error",
    "told_apart",
    "variety",
    "wasserstein_1d",
    "weights_sha256",
]
