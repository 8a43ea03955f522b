"""The training pictures, prepared so that the pairs most like a copy are found and compared fast.

The candidates come from thumbnails; only they are compared place by place. Memory grows with the
number of training pictures, never with the number of pairs times pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.quality.picture_pairs import (
    described,
    moved,
    moved_patterns,
    reduced,
    residuals,
    thumbnails,
    unlikeness,
)
from noisewise.quality.place_features import PlaceBasis, PlaceFeatures

SAME = 4 / 255  # two grey levels: nearer pictures (root mean square) are one picture
_CANDIDATES = 8  # of each kind of thumbnail
_QUERIES = 32
_SEARCHED = 256  # pictures for which candidates are looked for at once
_BATCH = 256  # pictures for each call of the features
_TINY = 1e-3  # share of the usual distance that is added to both distances of a ratio
_MOVES = ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))  # pixels, when looking for candidates


@dataclass(frozen=True)
class Views:
    """Pictures as they are compared, with their mirror images after them if flips count.

    Attributes:
        pictures: reduced pictures, float32 [views * n, c, h, w].
        features: of their places, float32 [views * n, places, d], or None.
        count: n.
    """

    pictures: Tensor
    features: Tensor | None
    count: int


@dataclass(frozen=True)
class Compared:
    """Pictures compared with their candidates.

    Attributes:
        ratio: distance to the nearest training picture over that to the second, in every
            statistic, float32 [n, s].
        index: the nearest in every statistic, int64 [n, s].
        gap: root mean square difference of the reduced pixels to the nearest, float32 [n].
        same: the training picture at that difference, int64 [n].
    """

    ratio: Tensor
    index: Tensor
    gap: Tensor
    same: Tensor

    def __getitem__(self, rows: slice) -> Compared:
        """The results for some of the pictures."""
        return Compared(self.ratio[rows], self.index[rows], self.gap[rows], self.same[rows])


class PreparedPictures:
    """Training pictures, each kept once, with what comparing them needs.

    Args:
        training: float [m, c, h, w] in [-1, 1].
        features: of places, beside the pixels, or None.
        flips: a mirrored picture counts as a copy too.

    Attributes:
        kept: indices of the pictures that are not the same as an earlier one, int64.
        repeated: share of the training pictures that are the same as another one.
    """

    def __init__(self, training: Tensor, features: PlaceFeatures | None, flips: bool) -> None:
        """Reduce the pictures and fold those that are the same."""
        self._features, self._flips = features, flips
        everything = reduced(training)
        self.kept, self.repeated = _different(everything, flips)
        self._pictures = everything[self.kept]
        self._thumbs = thumbnails(self._pictures)
        self._described = described(self._pictures)
        self._basis: PlaceBasis | None = None
        self._places: Tensor | None = None
        if features is not None:
            self._places = self._described_by(features, training, self.kept)
        self._typical: Tensor | None = None

    def __len__(self) -> int:
        """How many different training pictures there are."""
        return len(self.kept)

    def views(self, images: Tensor) -> Views:
        """Prepare pictures, float [n, c, h, w] in [-1, 1], for `compare`."""
        both = torch.cat([images, images.flip(3)]) if self._flips else images
        places = None
        if self._features is not None:
            places = self._described_by(self._features, both, torch.arange(len(both)))
        return Views(reduced(both), places, len(images))

    def leave_one_out(self, chosen: Tensor) -> Compared:
        """Compare some training pictures (positions in `kept`) with all the others."""
        views = [self._pictures[chosen]]
        places = None if self._places is None else self._places[chosen]
        return self.compare(Views(views[0], places, len(chosen)), chosen)

    def compare(self, images: Views, without: Tensor | None = None) -> Compared:
        """Compare pictures with the training pictures, each without one of them if asked."""
        if self._typical is None:  # of the training pictures, for the ratios of all pictures
            self._typical = torch.zeros(2 if self._places is None else 4)
            some = torch.linspace(0, len(self) - 1, min(200, len(self))).round().long()
            mine = None if self._places is None else self._places[some]
            distance, _, _ = self._distances(Views(self._pictures[some], mine, len(some)), some)
            self._typical = distance.amin(1).median(0).values.nan_to_num(0.0, 0.0, 0.0)
        distance, candidates, gaps = self._distances(images, without)
        nearest, order = distance.sort(dim=1, stable=True)
        nearest = nearest[:, :2] + _TINY * self._typical + torch.finfo(torch.float32).tiny
        gap, position = gaps.min(1)
        return Compared(
            ratio=nearest[:, 0] / nearest[:, 1],
            index=candidates.gather(1, order[:, 0]),
            gap=gap,
            same=candidates.gather(1, position[:, None])[:, 0],
        )

    def _described_by(self, features: PlaceFeatures, images: Tensor, chosen: Tensor) -> Tensor:
        found = []
        for part in chosen.split(_BATCH):
            here = features(images[part.to(images.device)]).detach().float().cpu()
            if here.ndim != 3 or len(here) != len(part):
                raise ValueError(
                    f"The features have shape {list(here.shape)} for {len(part)} pictures: they "
                    "must be [pictures, places, numbers]."
                )
            if self._basis is None:
                self._basis = PlaceBasis(here)
            found.append(self._basis(here))
        return torch.cat(found)

    def _distances(self, images: Views, without: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Distances [n, k, s], candidates [n, k] and pixel differences [n, k]; repeats: inf."""
        candidates, mirrored = self._candidates(images, without)
        found = []
        for rows in torch.arange(images.count).split(_QUERIES):
            found.append(self._pairs(images, rows, candidates[rows], mirrored[rows]))
        distance, gap = (torch.cat(parts) for parts in zip(*found, strict=True))
        again = _repeated(candidates)
        if without is not None:
            again |= candidates == without[:, None]
            gap = gap.masked_fill(again, torch.inf)
        return distance.masked_fill(again[..., None], torch.inf), candidates, gap

    def _candidates(self, images: Views, without: Tensor | None) -> tuple[Tensor, Tensor]:
        """Candidates of every picture, int64 [n, k], and which of them are nearer mirrored."""
        index, mirrored = [], []
        for rows in torch.arange(images.count).split(_SEARCHED):
            starts = range(0, len(images.pictures), images.count)
            views = [self._thumb_distances(images.pictures[rows + start]) for start in starts]
            for kind in range(len(self._thumbs)):
                found, view = torch.stack([distances[kind] for distances in views]).min(0)
                if without is not None:
                    found[torch.arange(len(rows)), without[rows]] = torch.inf
                here = found.topk(min(_CANDIDATES, len(self)), largest=False).indices
                index.append(here)
                mirrored.append(view.gather(1, here).bool())
        kinds = len(self._thumbs)
        return _side_by_side(index, kinds), _side_by_side(mirrored, kinds)

    def _thumb_distances(self, pictures: Tensor) -> list[Tensor]:
        """Distances [n, m] of each kind of thumbnail, after the best of a few moves."""
        nearest: list[Tensor] = []
        for dy, dx in _MOVES:
            seen = thumbnails(moved(pictures, dy, dx))
            here = [torch.cdist(a, b) for a, b in zip(seen, self._thumbs, strict=True)]
            pairs = zip(nearest, here, strict=True)
            nearest = [torch.minimum(a, b) for a, b in pairs] if nearest else here
        return nearest

    def _pairs(
        self, images: Views, rows: Tensor, candidates: Tensor, mirrored: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distances [n, k, s] and pixel differences [n, k] of one block of pictures."""
        found = []
        keys = self._pictures[candidates]
        for start in range(0, len(images.pictures), images.count):
            picture = images.pictures[rows + start]
            contrast = described(picture).contrast
            residual = residuals(moved_patterns(picture), self._described.patterns[candidates])
            parts = [unlikeness(residual, contrast, self._described.contrast[candidates])]
            if images.features is not None:
                assert self._places is not None
                away = images.features[rows + start][:, None] - self._places[candidates]
                away = away.square().sum(3)
                parts.append(torch.stack([away.mean(2), away.amax(2)], 2).sqrt())
            gap = (picture[:, None] - keys).square().flatten(2).mean(2).sqrt()
            found.append(torch.cat([*parts, gap[..., None]], 2))
        best = found[0]
        if len(found) == 2:
            best = torch.where(mirrored[..., None], found[1], found[0])
        return best[..., :-1], best[..., -1]


def _side_by_side(parts: list[Tensor], kinds: int) -> Tensor:
    """Blocks of rows, `kinds` after each other for the same rows, as one table."""
    return torch.cat([torch.cat(parts[i : i + kinds], 1) for i in range(0, len(parts), kinds)])


def _repeated(candidates: Tensor) -> Tensor:
    """Which candidates stand further left already, bool [n, k]."""
    columns = [
        (candidates[:, :j] == candidates[:, j : j + 1]).any(1) for j in range(candidates.shape[1])
    ]
    return torch.stack(columns, 1)


def _different(pictures: Tensor, flips: bool) -> tuple[Tensor, float]:
    """Positions of the pictures that no earlier one is the same as, and the share with a twin."""
    cells = thumbnails(pictures)[0]
    seen = torch.zeros(len(pictures), dtype=torch.bool)
    twin = torch.zeros(len(pictures), dtype=torch.bool)
    for view in [pictures, pictures.flip(3)] if flips else [pictures]:
        for rows in torch.arange(len(pictures)).split(_SEARCHED):
            away = torch.cdist(thumbnails(view[rows])[0], cells)
            away = away.masked_fill(torch.arange(len(pictures)) >= rows[:, None], torch.inf)
            value, index = away.topk(min(4, len(pictures)), largest=False)
            for j in range(index.shape[1]):
                gap = (view[rows] - pictures[index[:, j]]).square().flatten(1).mean(1).sqrt()
                here = (gap < SAME) & value[:, j].isfinite()
                seen[rows] |= here
                twin[index[here, j]] = True
    return (~seen).nonzero()[:, 0], float((seen | twin).double().mean())
