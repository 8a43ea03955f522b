"""The judge of a run: its real pictures, in frozen features and in those of its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from noisewise.quality.denoiser_features import DenoiserFeatures
from noisewise.quality.distance import Reference
from noisewise.quality.eight_bits import rounded
from noisewise.quality.enough import LEAST
from noisewise.quality.features import Extractor, extract
from noisewise.quality.judge import Floors, Judge
from noisewise.quality.native_features import NativeFeatures
from noisewise.sizes import Size, num_pixels
from noisewise.training.stages.at_once import at_once

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures

_ENOUGH = 256  # held-out pictures; with fewer, the judge reads training pictures
_SIGMA = 0.1  # noise on the pictures whose features a denoiser gives
_GROUPS = 2  # of `at_once` pictures in memory
_FEWEST, _PIXELS = 500, 1000 * 32 * 32  # larger pictures: fewer of them, but not below this number


def told_floors(found: Floors | None) -> float | None:
    """The number for people, at 500 pictures; None where so few pictures can tell nothing."""
    if found is None or min(found.num_a, found.num_b) < LEAST:
        return None
    return found.at_standard


def frozen_distance(found: Floors | None) -> float | None:
    """The distance in frozen features, which numbers of other runs can be compared with."""
    return None if found is None else found.parts[0].value


def real_indices(
    training: np.ndarray, held_out: np.ndarray, size: Size, most: int
) -> tuple[np.ndarray, str]:
    """Indices of the real pictures that the judge reads, and their name.

    Args:
        training: indices of the training pictures.
        held_out: indices of the held-out pictures; used if there are at least 256.
        size: of the pictures.
        most: number of pictures at most; above 32 pixels fewer, but at least 500.
    """
    most = min(most, max(_FEWEST, _PIXELS // num_pixels(size)))
    if len(held_out) >= _ENOUGH:
        return held_out[:most], "held-out pictures"
    return training[:most], "training pictures (too few are held out)"


def real_judge(
    pictures: Pictures,
    chosen: np.ndarray,
    teacher: nn.Module | None = None,
    conditioned: bool = False,
    sigma_range: tuple[float, float] | None = None,
    frozen: Judge | None = None,
    late: Callable[[], bool] = lambda: False,
) -> Judge:
    """Make the judge of real pictures.

    Args:
        pictures: all pictures.
        chosen: indices of those that are read.
        teacher: a finished denoiser, whose features are read too; None: frozen features alone, as
            long as the teacher itself is in training.
        conditioned: the teacher needs a class for each picture.
        sigma_range: noise levels that the teacher knows; None: all.
        frozen: the judge of these pictures in frozen features, if there is one.
        late: whether there is no time for more pictures; 64 are read at least.
    """
    extractors: list[Extractor] = [NativeFeatures()] if frozen is None else []
    if teacher is not None and (seen := teacher_features(teacher, conditioned, sigma_range)):
        extractors.append(seen)
    found = [] if frozen is None else list(frozen.references)
    for extractor in extractors:
        features = _features(pictures, chosen, extractor, late)
        chosen = chosen[: len(features)]
        found.append(Reference.of_features(features, extractor))
    return Judge.of_references(*(reference.of_first(len(chosen)) for reference in found))


def teacher_features(
    denoiser: nn.Module, conditioned: bool, sigma_range: tuple[float, float] | None
) -> DenoiserFeatures | None:
    """The features of a denoiser; None if it has no layers that could be read.

    Args:
        denoiser: ``D(x, sigma, condition)``.
        conditioned: it needs a class for each picture.
        sigma_range: noise levels that it knows; None: all.
    """
    low, high = sigma_range or (0.0, _SIGMA)
    try:
        return DenoiserFeatures(denoiser, min(max(_SIGMA, low), high), conditioned)
    except ValueError:
        return None


def _features(
    pictures: Pictures, chosen: np.ndarray, extractor: Extractor, late: Callable[[], bool]
) -> torch.Tensor:
    found, group = [], _GROUPS * at_once(num_pixels(pictures.size))
    for start in range(0, len(chosen), group):
        if start >= LEAST and late():
            break
        part = pictures.shown(chosen[start : start + group])
        found.append(extract(rounded(part), extractor))
    return torch.cat(found)
