"""Pictures for training: one uint8 array, its labels, and the list of skipped files.

pictures = load_pictures("folder", cache_dir="runs/x/cache")
train, held_out = pictures.split(seed=0)
batch = pictures.tensor(train[:64])        # float32 [64, channels, height, width] in [-1, 1]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from noisewise.pictures import flips
from noisewise.pictures.alpha import CHANNELS, Alpha, alpha_of, premultiplied
from noisewise.pictures.cache import in_blocks, release_pages
from noisewise.pictures.cutting import choose_held_out
from noisewise.pictures.gather import Gathered, Progress, digests
from noisewise.pictures.hues import suggest_hue
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.read import gather
from noisewise.pictures.request import Crop
from noisewise.pictures.resemblance import Resemblance
from noisewise.pictures.sources import Skipped
from noisewise.pictures.split import Groups, choose_groups, groups_of
from noisewise.pictures.turns import suggest_turns
from noisewise.sizes import AnySize, Size, size_of

if TYPE_CHECKING:
    import torch

__all__ = ["Pictures", "Progress", "Skipped", "load_pictures"]

_COUNTED = 2**22  # values that are counted at once
_SHOWN = 256  # pictures that get visible colours at once
_LARGE = 2**28  # bytes; the pages of a larger memory map are released after each read


@dataclass(frozen=True, eq=False)
class Pictures:
    """A set of pictures of one size.

    Attributes:
        images: uint8 [n, height, width, channels], a read-only memory map if a cache is used. With
            4 channels, colour is straight, as in a PNG, and that of transparent pixels is black.
        labels: int64 [n], or None if there are no classes.
        classes: one name per label; empty if there are no classes.
        names: one per picture: its path below the source; empty for arrays without names.
        skipped: files that are not used, with reasons, sorted by name.
        fingerprint: hexadecimal digest of pixels, labels and class names, the same on any machine.
        source: the path that was read.
        notes: what was decided or changed while reading, for people.
        kinds: if the labels are kinds that noisewise found, the reason for their number; "" if the
            labels came with the pictures.
        marks: uint64, one per picture, equal for equal pictures; None: computed when needed.
        twins: pairs of nearly equal pictures (see `near_duplicates`); None: found when needed. A
            run stores its own, so that its split stays; runs of older versions have ().
        groups: of crops, the number of the picture that each was cut from, or of its part of that
            picture, int64 [n]; a group is never divided by `split`. None: nothing was cut.
        pages: of pages of stacks, the group of each picture that stays on one side of `split`: a
            stack, or neighbours in a large one, with their copies, int64 [n]. None: no stacks.
        side: median side of the files before they were resized; 0: unknown, or crops at their own
            scale. For other shapes: the short side of the part that has the shape.
        total: number of pictures at the source, if only some were read; 0: all were.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    fingerprint: str
    source: str
    notes: tuple[str, ...]
    kinds: str = ""
    marks: np.ndarray | None = field(default=None, repr=False)
    twins: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    side: int = 0
    total: int = 0
    pages: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)

    @property
    def size(self) -> Size:
        """Side of every picture in pixels, or (height, width)."""
        return size_of(*map(int, self.images.shape[1:3]))

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour, 4 for colour with transparency."""
        return int(self.images.shape[3])

    @cached_property
    def alpha(self) -> Alpha:
        """Whether there is transparency, and if so whether opacity is only 0 and 1 ("binary")."""
        return alpha_of(self.images)

    @property
    def num_training(self) -> int:
        """About how many pictures `split` leaves for training; of all at the source."""
        count = self.total or len(self)
        return count - _num_held_out(count)

    @property
    def label_histogram(self) -> tuple[int, ...]:
        """Number of pictures of each class; empty if there are no labels."""
        if self.labels is None:
            return ()
        return tuple(np.bincount(self.labels, minlength=len(self.classes)).tolist())

    @property
    def skip_reasons(self) -> Counter[str]:
        """Number of skipped files for each reason."""
        return Counter(item.reason for item in self.skipped)

    def split(self, seed: int, fraction: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Split into training and held-out pictures, both in random order.

        Exact copies of a picture stay together, so no held-out picture is also trained on. Near-
        twins stay together too, in groups of at most half the held-out pictures. Of crops, those of
        one picture stay together, equal ones of different pictures need not: grounds are equal. The
        pages of a stack stay together, or neighbours do where it is more than a fifth of all.

        Args:
            seed: the same seed gives the same split.
            fraction: share of held-out pictures, above 0 and at most 0.5; None takes 5%, at least
                64 and at most 2000 pictures, but never more than a fifth.

        Returns:
            Indices of training pictures and of held-out pictures, int64.

        Raises:
            ValueError: if the fraction is out of range.

        Example:
            >>> from noisewise.demo import demo_path
            >>> train, held_out = load_pictures(demo_path()).split(seed=0)
            >>> len(train), len(held_out)
            (5700, 300)
        """
        wanted = self._num_held_out(fraction)
        generator = np.random.default_rng(seed)
        together = self.pages if self.groups is None else self.groups
        if together is None:
            is_held_out = choose_groups(self._groups(wanted).group, wanted, generator)
        else:
            is_held_out = choose_held_out(together, wanted, generator)
        order = generator.permutation(len(self))
        return order[~is_held_out[order]], order[is_held_out[order]]

    def about_twins(self) -> str:
        """What `split` does with near-twins, in a sentence; "" without any, for crops and pages."""
        if self.groups is not None or self.pages is not None:
            return ""
        return self._groups(self._num_held_out(None)).about()

    def with_twins(self, twins: Iterable[tuple[int, int]] | None = None) -> Self:
        """The same pictures with these pairs of near-twins; None: with those that are found now."""
        pairs = near_duplicates(self.images) if twins is None else twins
        return replace(self, twins=tuple((int(a), int(b)) for a, b in pairs))

    def tensor(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return pictures as input of a model: float32 [n, channels, height, width] in [-1, 1].

        With transparency, colour is multiplied by opacity (see `noisewise.quality.premultiplied`).
        """
        from noisewise.quality.premultiplied import premultiplied as as_seen_by_models

        return as_seen_by_models(self._tensor(indices))

    def shown(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return pictures as files hold them, and as judges take them, in the form of `tensor`.

        Colour is straight, and that of transparent pixels is taken from the nearest visible ones.
        """
        import torch

        from noisewise.quality.premultiplied import straight

        found = self.tensor(indices)
        if self.channels == CHANNELS and len(found):
            found = torch.cat([straight(part) for part in found.split(_SHOWN)])
        return found

    def _tensor(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """The pixels of the files on the scale [-1, 1]."""
        import torch  # here, so that `noisewise inspect` starts quickly

        chosen = self.images[np.asarray(indices, dtype=np.int64)]
        if self.images.nbytes > _LARGE:
            release_pages(self.images)
        pixels = torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 3, 1, 2)))
        return pixels.to(torch.float32).div_(127.5).sub_(1.0)

    def sigma_data(self) -> float:
        """Return the standard deviation of all pixels on the scale [-1, 1].

        Source: Karras et al. 2022 (EDM), section 5; it is measured here, the paper uses 0.5.
        """
        counts = np.zeros(256, np.int64)
        for block in in_blocks(self.images, max(1, _COUNTED // self.images[0].size)):
            counts += np.bincount(premultiplied(block).reshape(-1), minlength=256)
        values = np.arange(256)
        total, squares = np.float64(counts @ values), np.float64(counts @ values**2)
        mean = total / self.images.size
        return float(np.sqrt(max(squares / self.images.size - mean**2, 0.0)) / 127.5)

    def suggest_flip(self, seed: int = 0) -> tuple[bool, str]:
        """Measure whether mirrored pictures look like the set; return the decision and a reason."""
        return flips.suggest_flip(self.images, seed, self._one_of_each())

    def suggest_changes(self, seed: int = 0) -> dict[str, tuple[bool, str]]:
        """Measure whether turned and recoloured pictures look like the set, with reasons."""
        alike = Resemblance(self.images, seed, self._one_of_each())
        return {"turns": suggest_turns(alike), "hue": suggest_hue(alike)}

    def _num_held_out(self, fraction: float | None) -> int:
        """How many pictures to hold out."""
        if fraction is None:
            return _num_held_out(len(self))
        if not 0 < fraction <= 0.5:
            raise ValueError(f"fraction is {fraction}: give a number above 0 and at most 0.5.")
        return max(1, round(fraction * len(self)))

    def _groups(self, wanted: int) -> Groups:
        """Pictures that stay on one side."""
        return groups_of(self._marks(), self._twins(), max(2, wanted // 2))

    def _one_of_each(self) -> np.ndarray:
        """Indices of the pictures without copies and near-twins of an earlier one."""
        first = np.unique(self._marks(), return_index=True)[1]
        return np.setdiff1d(first, [later for _, later in self._twins()])

    def _marks(self) -> np.ndarray:
        return digests(self.images) if self.marks is None else self.marks

    def _twins(self) -> Iterable[tuple[int, int]]:
        return near_duplicates(self.images) if self.twins is None else self.twins


def _num_held_out(count: int) -> int:
    return min(max(round(0.05 * count), 64), 2000, count // 5)


def load_pictures(
    path: str | Path,
    size: AnySize | None = None,
    channels: int | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    crop: Crop = "auto",
    background: str = "auto",
    crops: int = 0,
    keep_whole: bool = False,
    enlarging: bool = True,
    sampled: bool = False,
) -> Pictures:
    """Read pictures from a folder (subfolders may be classes), a .zip, .npz or .npy file.

    Every picture is rotated upright, placed on a background or kept transparent, cropped or padded
    to the shape and resized once with antialiasing. Labels come from `metadata.csv`,
    `metadata.jsonl` or `dataset.json` if there is one, else from the subfolders. Files that cannot
    be used are skipped, each with a reason, and what noisewise wrote is left out. Each page of a
    TIFF is a picture, named by its number ("stack.tif#3"); of animations the first frame is used.

    Args:
        path: the folder or file.
        size: side in pixels, (height, width), or a text such as "48x32", which is WIDTHxHEIGHT;
            multiples of 4, at least 8. None chooses a square from the pictures' own sizes (see
            `notes`).
        channels: 1, 3 or 4; None takes 4 if a tenth of the pictures have transparency and no
            background is given, 1 if the pictures are grey, else 3.
        cache_dir: folder for the uint8 cache, used again as long as name, length and time of change
            of every file stay the same; None keeps the pictures in memory. It is safe to delete.
        progress: called with (files done, files in all): first for the headers of all files, then
            again for their pixels.
        crop: for pictures of another shape: "centre", "random" (a random place, fixed by the
            file name) or "pad" (the whole picture, with background added). "auto" is "pad" for
            sprites: pixel art with transparency, which keeps its own pixels; else "centre".
        background: colour under transparency and around padded pictures, a name or #rrggbb; "auto"
            keeps transparency where pictures have it, and else is white.
        crops: cut up to so many pieces of `size` at their own scale out of each picture, and
            leave out smaller pictures; 0: use whole pictures.
        keep_whole: with crops, use the whole pictures too, those that are smaller among them.
        enlarging: whether the size may be 4 or more times the median side of the files.
        sampled: read only some pictures where they are many and large (see `sample.sampled`); with
            crops all are read.

    Raises:
        ValueError: if the path cannot be used, too few pictures are usable, or the size is not
            possible; one sentence that says what was found and what to do.

    Example:
        >>> from noisewise.demo import demo_path
        >>> pictures = load_pictures(demo_path())
        >>> len(pictures), pictures.size, pictures.channels, pictures.classes[:2]
        (6000, 28, 1, ('t-shirt', 'trouser'))
    """
    found = gather(
        path,
        size,
        channels,
        cache_dir,
        progress,
        crop,
        background,
        crops,
        keep_whole,
        enlarging,
        sampled,
    )
    return as_pictures(found, path)


def as_pictures(found: Gathered, path: str | Path) -> Pictures:
    """Keep only the results that training needs."""
    return Pictures(
        found.images,
        found.labels,
        found.classes,
        found.names,
        found.skipped,
        found.fingerprint,
        str(path),
        found.notes,
        marks=found.marks,
        groups=found.groups,
        side=found.side,
        total=found.total,
        pages=found.pages,
    )
