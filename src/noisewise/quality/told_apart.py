"""A classifier tells generated pictures from real ones in x of 100 cases.

Papers: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests" (arXiv 1610.06545): the
held-out accuracy of a classifier between two sets, 1/2 if they have one law. The noise before it,
the features and the map are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.quality.features import Extractor, check_alike, extract_rounded, extractor_name
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.ridge import PENALTIES, Scaling, fit

_NOISE = 0.05  # of pictures in [-1, 1]: 6 of 256 levels
_FOLDS = 5
_FEWEST = 10  # pictures of each set
_MOST = 500  # pictures of each set
_WINDOWS = 3  # a side, each half a picture wide
_CELLS = 4  # a side of a map


@dataclass(frozen=True)
class ToldApart:
    """How often a classifier tells generated pictures from real ones.

    Attributes:
        accuracy: share of pictures that a classifier which has not seen them puts into the right
            set, the mean of both sets; 0.5: they cannot be told apart. It grows with the number of
            pictures that the classifier learns from: compare at equal numbers.
        low: lower end of its 95 % interval.
        high: upper end of it.
        evidence: log odds that a picture is generated, of each judged generated picture, float
            [n]; above 0: the classifier is right.
        index: which generated pictures were judged, int64 [n]; all of them, unless there were more
            than `max_images`.
        num_generated: number of judged generated pictures.
        num_real: number of judged real pictures.
        noise: standard deviation of the noise that was added to both sets.
        extractor: name of the features.
    """

    accuracy: float
    low: float
    high: float
    evidence: Tensor
    index: Tensor
    num_generated: int
    num_real: int
    noise: float
    extractor: str

    def worst(self, num_images: int = 16) -> Tensor:
        """Return the generated pictures that look least real, the worst first.

        Args:
            num_images: how many at most.

        Returns:
            Indices of generated pictures, int64.
        """
        return self.index[self.evidence.argsort(descending=True, stable=True)[:num_images]]


def told_apart(
    generated: Tensor,
    real: Tensor,
    extractor: Extractor | None = None,
    noise: float = _NOISE,
    max_images: int = _MOST,
    generator: torch.Generator | None = None,
) -> ToldApart:
    """Return how often a linear classifier tells generated pictures from real ones.

    Both sets are rounded to 8 bits and get the same amount of noise. Without it, a classifier may
    live on what nobody sees: one that counts equal neighbours knows a ground that is not exactly
    flat every time. The noise costs little where a fault is seen (80 instead of 84 %). Five
    classifiers (ridge) are fitted, each without a fifth of the pictures, which it then judges. Both
    sets weigh the same. The penalty is chosen by leave-one-out among the fitted pictures.

    Args:
        generated: float [n, c, h, w] in [-1, 1], n >= 10.
        real: held-out pictures, float [m, c, h, w], m >= 10. Pictures that the model was trained on
            can give less than 0.5, if the model copies them.
        extractor: computes the features; None: `NativeFeatures()`.
        noise: standard deviation, in [-1, 1]; 0: every difference counts.
        max_images: pictures of each set that are used, at most.
        generator: draws the noise, the fifths and the used pictures; None: seed 0.

    Raises:
        ValueError: if a set has fewer than 10 pictures, or the shapes differ.

    Source: Lopez-Paz and Oquab 2017, section 3.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> real = torch.rand(60, 1, 16, 16, generator=g) * 2 - 1
        >>> found = told_apart(real[:30] * 0.8, real[30:])
        >>> found.accuracy > 0.9, len(found.worst(5))
        (True, 5)
    """
    extractor = extractor if extractor is not None else NativeFeatures()
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    index, made, true = _chosen(generated, real, max_images, generator)
    x = _described(made, true, extractor, noise, generator)
    scores, slopes = _judged(x, _folds(len(made), len(true), generator), len(made))
    right = (scores.sign() * _sides(len(made), len(true)) + 1) / 2
    shares = right[: len(made)].mean().item(), right[len(made) :].mean().item()
    accuracy = sum(shares) / 2
    low, high = _interval(shares, (len(made), len(true)))
    return ToldApart(
        accuracy=accuracy,
        low=low,
        high=high,
        evidence=(slopes * scores)[: len(made)],
        index=index,
        num_generated=len(made),
        num_real=len(true),
        noise=noise,
        extractor=extractor_name(extractor),
    )


def evidence_maps(
    generated: Tensor,
    real: Tensor,
    extractor: Extractor | None = None,
    noise: float = _NOISE,
    max_images: int = _MOST,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return where the evidence is that pictures are generated, one map a picture.

    The picture is cut into 3 x 3 windows of half its sides, which overlap. At each place the
    classifier of `told_apart` reads that window alone. A cell of the map is the mean log odds of
    the windows that cover it. A classifier of whole pictures whose sum is split by place points
    worse: it may use one place to correct for another.

    Args:
        generated: float [n, c, h, w] in [-1, 1], n >= 10, sides of at least 16.
        real: held-out pictures, float [m, c, h, w], m >= 10.
        extractor: computes the features of windows; None: `NativeFeatures()`.
        noise: as in `told_apart`.
        max_images: as in `told_apart`.
        generator: as in `told_apart`; the same one judges the same pictures.

    Returns:
        Log odds, float [n, 4, 4], rows from the top: above 0, the place looks generated.

    Raises:
        ValueError: if a set has fewer than 10 pictures, the shapes differ, or a side is below 16.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> real = torch.rand(60, 1, 16, 16, generator=g) * 2 - 1
        >>> made = real[:30].clone()
        >>> made[:, :, :8, :8] *= 0.5
        >>> int(evidence_maps(made, real[30:]).mean(0).argmax())
        0
    """
    extractor = extractor if extractor is not None else NativeFeatures()
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    _, made, true = _chosen(generated, real, max_images, generator)
    if min(made.shape[2:]) < 16:
        raise ValueError(f"Pictures have sides {list(made.shape[2:])}: a map needs 16 or more.")
    folds = _folds(len(made), len(true), generator)
    total = torch.zeros(len(made), _CELLS, _CELLS)
    count = torch.zeros(_CELLS, _CELLS)
    for (row, column), (rows, columns) in _windows(*made.shape[2:]):
        parts = made[:, :, rows, columns], true[:, :, rows, columns]
        x = _described(*parts, extractor, noise, generator)
        scores, slopes = _judged(x, folds, len(made), penalties=(0.3,))
        cells = slice(row, row + 2), slice(column, column + 2)
        total[:, *cells] += (slopes * scores)[: len(made), None, None]
        count[cells] += 1
    return total / count


def _chosen(
    generated: Tensor, real: Tensor, max_images: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Which generated pictures are judged, these, and the real ones."""
    check_alike(generated, "generated", real, "real")
    if min(len(generated), len(real), max_images) < _FEWEST:
        raise ValueError(
            f"There are {len(generated)} generated and {len(real)} real pictures, of which "
            f"{max_images} may be used: give at least {_FEWEST} of each."
        )
    first, second = (
        torch.randperm(len(images), generator=generator)[:max_images].sort().values
        for images in (generated, real)
    )
    return first, generated[first.to(generated.device)], real[second.to(real.device)]


def _described(
    made: Tensor, true: Tensor, extractor: Extractor, noise: float, generator: torch.Generator
) -> Tensor:
    """Scaled features of both sets, generated first; their scale does not know the sets."""
    features = torch.cat(
        [extract_rounded(images, extractor, noise, generator) for images in (made, true)]
    )
    return Scaling.of(features)(features)


def _folds(num_made: int, num_true: int, generator: torch.Generator) -> Tensor:
    """The fifth of each picture, int64 [n]; each fifth has as many of a set as the others."""
    parts = [torch.randperm(n, generator=generator) % _FOLDS for n in (num_made, num_true)]
    return torch.cat(parts)


def _sides(num_made: int, num_true: int) -> Tensor:
    return torch.cat([torch.ones(num_made), -torch.ones(num_true)])


def _judged(
    x: Tensor, folds: Tensor, num_made: int, penalties: tuple[float, ...] = PENALTIES
) -> tuple[Tensor, Tensor]:
    """Score of each picture by the classifier without its fold, and log odds per score."""
    side = _sides(num_made, len(x) - num_made)
    scores, slopes = torch.zeros(len(x)), torch.zeros(len(x))
    for fold in range(_FOLDS):
        out = folds == fold
        y = side[~out]
        share = torch.where(y > 0, (y > 0).sum(), (y < 0).sum())
        ridge = fit(x[~out], y[:, None], 1 / share, penalties)
        scores[out] = ridge(x[out])[:, 0]
        slopes[out] = _slope(ridge.left_out[:, 0], y)
    return scores, slopes


def _slope(scores: Tensor, side: Tensor) -> Tensor:
    """Log odds per unit of score, of two normal laws with one spread; 0 if nothing was found."""
    made, true = scores[side > 0], scores[side < 0]
    spread = (made.var() + true.var()) / 2
    return ((made.mean() - true.mean()) / spread.clamp_min(1e-12)).clamp_min(0)


def _interval(shares: tuple[float, float], counts: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the mean of two shares.

    Two right and two wrong pictures are added (Agresti). Pictures judged by one classifier err
    together: over many draws of 15 to 500 pictures a set, the variance was 1.3 to 2.3 times that of
    independent ones, about 1 + 6 / sqrt(n).
    """
    variance = 0.0
    for share, count in zip(shares, counts, strict=True):
        padded = (share * count + 2) / (count + 4)
        variance += padded * (1 - padded) / count
    variance *= 1 + 6 / math.sqrt(min(counts))
    half = 1.959964 * math.sqrt(variance) / 2
    middle = sum(shares) / 2
    return max(0.0, middle - half), min(1.0, middle + half)


def _windows(height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Place of each window on the map, and its rows and columns of the picture."""
    rows, columns = height - height // 2, width - width // 2
    for i in range(_WINDOWS):
        for j in range(_WINDOWS):
            top = round((height - rows) * i / (_WINDOWS - 1))
            left = round((width - columns) * j / (_WINDOWS - 1))
            yield (i, j), (slice(top, top + rows), slice(left, left + columns))
