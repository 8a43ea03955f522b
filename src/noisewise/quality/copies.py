"""Copies: the nearest training picture, the copy test, and exact duplicates.

Papers: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize"
(a picture is a copy if it is at least three times nearer to one training picture than to the next);
Gu et al. 2023 (arXiv 2310.02664) and Bonnaire et al. 2025 (arXiv 2505.17638) count copies with the
same rule.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.quality.features import check_alike, check_images
from noisewise.quality.premultiplied import premultiplied
from noisewise.quality.wilson import wilson

GREY_LEVEL = 2 / 255  # one level of an 8-bit picture, in [-1, 1]
_SPARE = 6  # for this many candidates beyond k the distance is computed again, exactly
_QUERIES, _KEYS = 512, 8192  # rows and columns of one block of distances


@dataclass(frozen=True)
class Nearest:
    """The nearest training pictures of each picture, nearest first.

    Attributes:
        index: indices of the training pictures, int64 [n, k].
        distance: root mean square difference of the pixels, in the units of the pictures ([-1, 1]:
            from 0 to 2), float32 [n, k].
    """

    index: Tensor
    distance: Tensor


@dataclass(frozen=True)
class CopyTest:
    """How many pictures are copies of training pictures.

    Attributes:
        fraction: share of generated pictures that are copies.
        low: lower end of its 95 % interval (Wilson).
        high: upper end of it.
        held_out_fraction: share of held-out pictures that the same rule calls copies. They copy
            nothing, so this comes from similar pictures in the data. None without held-out ones.
        threshold: a picture is a copy if its nearest distance is below this share of the second
            nearest.
        num_duplicates: training pictures that exactly equal an earlier one (with flips: or mirror
            it); they are not used.
        index: nearest training picture of each generated picture, int64 [n].
        distance: root mean square difference from it, float32 [n].
        ratio: nearest distance over second nearest, float32 [n]; 0 for an exact copy.
        copied: which generated pictures are copies, bool [n].
        held_out_distance: `distance` of the held-out pictures, float32 [k]; empty without them.
        median_distance: median of `distance`.
        held_out_median_distance: the same for held-out pictures; None without them.
    """

    fraction: float
    low: float
    high: float
    held_out_fraction: float | None
    threshold: float
    num_duplicates: int
    index: Tensor
    distance: Tensor
    ratio: Tensor
    copied: Tensor
    held_out_distance: Tensor
    median_distance: float
    held_out_median_distance: float | None

    @property
    def median_ratio(self) -> float | None:
        """Median nearest distance over that of held-out pictures: well below 1 is suspicious."""
        if not self.held_out_median_distance:
            return None
        return self.median_distance / self.held_out_median_distance

    def closest(self, num_images: int = 16) -> Tensor:
        """Return the generated pictures that are most like copies, the most alike first.

        Args:
            num_images: how many at most.

        Returns:
            Indices of generated pictures, int64; `index` at these gives the training pictures.
        """
        order = self.ratio.argsort(stable=True)
        order = order[(~self.copied[order]).int().argsort(stable=True)]
        return order[:num_images]


def nearest(images: Tensor, training: Tensor, k: int = 2, flips: bool = False) -> Nearest:
    """Return the k nearest training pictures of each picture, by pixels.

    ``d(x, y) = sqrt(mean_pixels (x - y)^2)``; with flips, the smaller one of x and mirrored x. Of
    pictures with transparency, colour counts by its opacity.

    Args:
        images: float [n, c, h, w].
        training: float [m, c, h, w], m >= k.
        k: number of neighbours, at least 1.
        flips: also compare the pictures mirrored left to right.

    Returns:
        Indices and distances, nearest first.

    Raises:
        ValueError: if shapes differ, or there are fewer than k training pictures.

    Example:
        >>> training = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> nearest(training[3:4].flip(3), training, flips=True).index[0, 0]
        tensor(3)
    """
    check_alike(images, "images", training, "training")
    if not 1 <= k <= len(training):
        raise ValueError(f"k is {k}: give 1 to {len(training)}, the number of training pictures.")
    keys = _seen(training).flatten(1)
    with torch.no_grad():
        found = [_nearest_of(_seen(part), keys, k, flips) for part in images.split(_QUERIES)]
    index, distance = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Nearest(index, distance)


class CopyReference:
    """Training and held-out pictures, prepared once, so that many copy tests are cheap.

    Args:
        training: float [m, c, h, w] in [-1, 1], at least two different pictures.
        held_out: real pictures that were not trained on, float [k, c, h, w], or None.
        threshold: between 0 and 1.
        flips: a mirrored picture counts as a copy too.

    Raises:
        ValueError: as `copy_test`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> reference = CopyReference(torch.rand(20, 1, 8, 8, generator=g))
        >>> reference.test(torch.rand(6, 1, 8, 8, generator=g)).fraction
        0.0
    """

    def __init__(
        self,
        training: Tensor,
        held_out: Tensor | None = None,
        threshold: float = 1 / 3,
        flips: bool = False,
    ) -> None:
        """Leave out exact duplicates, and test the held-out pictures."""
        if not 0 < threshold < 1:
            raise ValueError(
                f"threshold is {threshold}: give a number between 0 and 1, such as 1/3."
            )
        check_images(training, "training")
        kept = torch.tensor([group[0] for group in _groups(training, mirrored=flips)])
        if len(kept) < 2:
            raise ValueError(
                "There are fewer than two different training pictures: give at least two."
            )
        self.threshold, self.flips = threshold, flips
        self.num_duplicates = len(training) - len(kept)
        self._kept = kept
        self._different = (
            training if len(kept) == len(training) else training[kept.to(training.device)]
        )
        self._of_held_out = None
        if held_out is not None and len(held_out):
            self._of_held_out = _compare(held_out, self._different, threshold, flips)

    def test(self, generated: Tensor) -> CopyTest:
        """Count the copies among generated pictures, float [n, c, h, w]; see `copy_test`."""
        index, distance, ratio, copied = _compare(
            generated, self._different, self.threshold, self.flips
        )
        low, high = wilson(int(copied.sum()), len(copied))
        unseen = self._of_held_out
        return CopyTest(
            fraction=float(copied.double().mean()),
            low=low,
            high=high,
            held_out_fraction=None if unseen is None else float(unseen[3].double().mean()),
            threshold=self.threshold,
            num_duplicates=self.num_duplicates,
            index=self._kept[index],
            distance=distance,
            ratio=ratio,
            copied=copied,
            held_out_distance=torch.empty(0) if unseen is None else unseen[1],
            median_distance=float(distance.median()),
            held_out_median_distance=None if unseen is None else float(unseen[1].median()),
        )


def copy_test(
    generated: Tensor,
    training: Tensor,
    held_out: Tensor | None = None,
    threshold: float = 1 / 3,
    flips: bool = False,
) -> CopyTest:
    """Count the generated pictures that copy a training picture.

    A picture is a copy if ``d_1 < threshold d_2``, where d_1 and d_2 are its distances to the
    nearest and second nearest training picture, or if it is the same 8-bit picture (d_1 below half
    a grey level). Exact duplicates among the training pictures are removed first, since two equal
    neighbours would hide a copy. Near duplicates still hide copies, and pairs of similar pictures
    make real pictures look copied: the share of held-out pictures that the rule calls copies says
    how often.

    Args:
        generated: float [n, c, h, w] in [-1, 1].
        training: float [m, c, h, w], at least two different pictures.
        held_out: real pictures that were not trained on, float [k, c, h, w], or None.
        threshold: between 0 and 1; 1/2 and 1/4 mostly lead to the same conclusion.
        flips: a mirrored picture counts as a copy too.

    Raises:
        ValueError: if shapes differ, the threshold is not between 0 and 1, or there are fewer than
            two different training pictures.

    Source: Yoon et al. 2023, section 3; Bonnaire et al. 2025, section 3.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> training = torch.rand(20, 1, 8, 8, generator=g)
        >>> new = torch.rand(6, 1, 8, 8, generator=g)
        >>> copy_test(torch.cat([new, training[:2]]), training).fraction
        0.25
    """
    return CopyReference(training, held_out, threshold, flips).test(generated)


def duplicates(images: Tensor) -> list[tuple[int, ...]]:
    """Return the groups of pictures that are equal bit by bit.

    Args:
        images: [n, ...] of any dtype.

    Returns:
        For each group of two or more, the indices in ascending order; groups in the order of their
        first picture.

    Example:
        >>> duplicates(torch.tensor([[1], [2], [1], [3], [2], [1]]))
        [(0, 2, 5), (1, 4)]
    """
    return [tuple(group) for group in _groups(images) if len(group) > 1]


def _groups(images: Tensor, mirrored: bool = False) -> list[list[int]]:
    """Indices of equal pictures; with mirrored, a picture also equals its mirror image."""
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(images.detach().cpu().contiguous().numpy()):
        content = row.tobytes()
        if mirrored:
            content = min(content, row[..., ::-1].tobytes())
        groups.setdefault(hashlib.blake2b(content, digest_size=16).digest(), []).append(i)
    return list(groups.values())


def _compare(
    images: Tensor, training: Tensor, threshold: float, flips: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index and distance of the nearest, ratio to the second nearest, and whether it is a copy."""
    found = nearest(images, training, k=2, flips=flips)
    first, second = found.distance.unbind(1)
    ratio = first / second.clamp_min(torch.finfo(torch.float32).tiny)
    copied = (first < threshold * second) | (first < GREY_LEVEL / 2)
    return found.index[:, 0], first, ratio, copied


def _seen(images: Tensor) -> Tensor:
    """Pictures on the CPU, without the colour of what is transparent."""
    return premultiplied(images.detach().float().cpu())


def _nearest_of(images: Tensor, keys: Tensor, k: int, flips: bool) -> tuple[Tensor, Tensor]:
    """Nearest of one block: candidates by |x|^2 - 2 x.y + |y|^2, then their exact distances.

    The mean of the training pictures is subtracted first: with it, most digits would cancel.
    """
    views = [images.flatten(1)] + ([images.flip(3).flatten(1)] if flips else [])
    centre = keys.mean(0)
    wanted = min(k + _SPARE, len(keys))
    index = torch.empty(len(images), 0, dtype=torch.int64)
    square = torch.empty(len(images), 0)
    for start in range(0, len(keys), _KEYS):
        block = keys[start : start + _KEYS] - centre
        norms = block.square().sum(1)
        here = torch.stack([norms - 2 * (view - centre) @ block.T for view in views])
        if flips:  # after centring, a picture and its mirror image have different norms
            here += torch.stack([(view - centre).square().sum(1, keepdim=True) for view in views])
        here, order = here.amin(0).topk(min(wanted, len(block)), largest=False)
        square, index = torch.cat([square, here], 1), torch.cat([index, order + start], 1)
        square, order = square.topk(min(wanted, square.shape[1]), largest=False)
        index = index.gather(1, order)
    exact = torch.stack([_exact(view, keys, index) for view in views]).amin(0)
    distance, order = exact.sort(dim=1, stable=True)
    return index.gather(1, order)[:, :k], distance[:, :k]


def _exact(view: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Root mean square differences [n, candidates], from the differences themselves."""
    columns = [(view - keys[candidates]).square().mean(1).sqrt() for candidates in index.T]
    return torch.stack(columns, 1)
