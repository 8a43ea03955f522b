"""Which pictures of a set are cut into crops, and which crops stay together when the set is split.

All crops of a picture are trained on, or all are held out, and so are those of its copies. A
picture that gives more than a fifth of all crops (a single scan, for example) is divided into parts
first. No crop crosses a border, so held-out pixels are never trained on there either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from noisewise.pictures.crops import Cut, Pieces, most_crops, most_parts
from noisewise.pictures.gather import MIN_PICTURES, count_text
from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.split import groups_of
from noisewise.pictures.stacks import MOST_SHARE, joined_pages
from noisewise.plain_text import printable
from noisewise.sizes import Size, num_pixels, spelled
from noisewise.sizes import sides as sides_of


class NothingToCutError(ValueError):
    """The pictures have exactly the size of the crops."""


def plan_cuts(
    path: Path, sides: Sequence[tuple[int, int]], size: Size, crops: int, keep_whole: bool
) -> list[Cut | None]:
    """Decide what each picture gives; None for those that are too small.

    A picture that is smaller than a crop gives its whole with `keep_whole`, and nothing without: a
    crop is never enlarged.

    Args:
        path: of the pictures, for messages.
        sides: (width, height) of each picture.
        size: of the crops.
        crops: most crops of each picture.
        keep_whole: whether whole pictures, reduced, are used too.

    Raises:
        ValueError: if no picture is large enough, or there are too few crops.
        NothingToCutError: if all pictures have the size of the crops.

    Example:
        >>> plan_cuts(Path("scans"), [(500, 400), (50, 80)] + 9 * [(640, 480)], 64, 8, False)[:2]
        [Cut(crops=8, parts=1, whole=False), None]
    """
    rooms = [most_crops(*side, size) for side in sides]
    _refuse(path, sides, rooms, size)
    cuts = [
        _cut(side, min(room, crops), size, keep_whole)
        for side, room in zip(sides, rooms, strict=True)
    ]
    total = sum(cut.total for cut in cuts)
    if total < MIN_PICTURES:
        raise ValueError(
            f"{printable(str(path))} gives only {count_text(total)} of {spelled(size)} pixels: "
            f"training needs at least {MIN_PICTURES}, and several hundred for good results: use "
            "more crops, or add large pictures."
        )
    cuts = [_divided(cut, side, size, total) for cut, side in zip(cuts, sides, strict=True)]
    return [cut if cut.total else None for cut in cuts]


@dataclass
class Origins:
    """Where the pieces come from, noted while the pictures are cut one after the other.

    Attributes:
        pieces: number of the group of each piece: of its picture, or of its part of the picture.
        firsts: for each picture, its first piece of each part.
        thumbnails: of each picture.
        stacks: for each piece, the file of which its picture is a page, or "".
        num_whole: whole pictures among the pieces.
        num_pixels: of all pictures that were cut.
    """

    pieces: list[int] = field(default_factory=list)
    firsts: list[list[int]] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)
    stacks: list[str] = field(default_factory=list)
    num_whole: int = 0
    num_pixels: int = 0

    def add(self, found: Pieces, stack: str = "") -> None:
        """Note one picture, and the file of which it is a page."""
        first, next_group = len(self.pieces), self.pieces[-1] + 1 if self.pieces else 0
        parts = sorted(set(found.parts))
        self.firsts.append([first + found.parts.index(part) for part in parts])
        # The whole picture comes last and is alone only where nothing is divided.
        self.pieces += [next_group + parts.index(part) for part in found.parts]
        self.thumbnails.append(found.thumbnail)
        self.stacks += [stack] * len(found.parts)
        self.num_whole += found.whole
        self.num_pixels += found.num_pixels

    def groups(self) -> np.ndarray:
        """Number of the group of each piece, int64 [n]: pieces of a group stay on one side.

        Pages of a stack, copies and near-twins of a picture are in its group, unless that group
        would be more than a fifth of all.

        Raises:
            ValueError: if there is one group alone, so that nothing could be trained on.
        """
        if self.pieces[-1] == 0:
            raise ValueError(
                "all crops are from one picture that is too small to be divided, into a part to "
                "train on and one to hold out: use a smaller size, or add pictures"
            )
        pairs = [
            pair
            for a, b in self._alike()
            if len(self.firsts[a]) == len(self.firsts[b])
            for pair in zip(self.firsts[a], self.firsts[b], strict=True)
        ]
        largest = max(2, len(self.pieces) // MOST_SHARE)
        pieces = joined_pages(np.asarray(self.pieces), self.stacks)
        return groups_of(pieces, pairs, largest).group

    def notes(self, size: Size, keep_whole: bool) -> list[str]:
        """What was cut and how it will be split, for people.

        Args:
            size: of the crops.
            keep_whole: whether whole pictures were asked for.
        """
        crops, pictures = len(self.pieces) - self.num_whole, len(self.firsts)
        whole = f" and {count_text(self.num_whole)} as a whole" if self.num_whole else ""
        notes = [
            f"{crops:,} crops of {spelled(size)} pixels at their own scale{whole}, from "
            f"{count_text(pictures)}"
        ]
        overlap = crops * num_pixels(size) / self.num_pixels
        if overlap > 1:
            notes.append(f"crops overlap: they have {overlap:.1f} times the pixels of the pictures")
        divided = sum(len(firsts) > 1 for firsts in self.firsts)
        if divided < pictures:
            notes.append("all crops of a picture are trained on, or all are held out")
        if divided:
            gives = "gives" if divided == 1 else "give"
            left_out = ", and the whole is not used" if keep_whole else ""
            notes.append(
                f"{count_text(divided)} {gives} more than a fifth of the crops: each is divided "
                "into parts that are trained on or held out, and no crop crosses a border"
                f"{left_out}"
            )
        return notes

    def _alike(self) -> list[tuple[int, int]]:
        """Pairs of pictures whose thumbnails are equal or nearly equal."""
        if len(self.thumbnails) < 2:
            return []
        thumbnails = np.stack(self.thumbnails)
        _, first = np.unique(thumbnails.reshape(len(thumbnails), -1), axis=0, return_inverse=True)
        earliest: dict[int, int] = {}
        equal = [(earliest.setdefault(same, at), at) for at, same in enumerate(first.tolist())]
        return [pair for pair in equal if pair[0] != pair[1]] + near_duplicates(thumbnails)


def choose_held_out(group: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """Choose about `wanted` crops at random in whole groups; bool [n].

    A group is taken if that comes nearer to `wanted`, and so few large groups are held out about as
    often as many small ones. Groups of more than a fifth are taken only where there is no other.

    Args:
        group: number of the group of each crop, from 0.
        wanted: how many to choose.
        generator: source of randomness.

    Example:
        >>> group = np.repeat(np.arange(10), 30)
        >>> int(choose_held_out(group, 64, np.random.default_rng(0)).sum())
        60
    """
    counts = np.bincount(group)
    order = generator.permutation(len(counts))
    fair = order[counts[order] <= max(wanted, -(-len(group) // MOST_SHARE))]
    chosen, total = [], 0
    for number in fair if fair.size else [int(np.argmin(counts))]:
        if not total or total + counts[number] / 2 <= wanted:
            chosen.append(number)
            total += counts[number]
    return np.isin(group, chosen)


def _refuse(path: Path, sides: Sequence[tuple[int, int]], rooms: list[int], size: Size) -> None:
    """Refuse pictures that are all too small for crops, or exactly as large as one."""
    shown = printable(str(path))
    if not any(rooms):
        width, height = max(sides, key=min)
        raise ValueError(
            f"{shown}: crops of {spelled(size)} pixels are larger than all {len(sides)} pictures "
            f"(the largest has {width} x {height}): use a smaller size, or no crops."
        )
    if max(rooms) == 1:
        small = rooms.count(0)
        others = f" ({small} others are smaller)" if small else ""
        raise NothingToCutError(
            f"{shown}: {rooms.count(1)} pictures have exactly the size of the crops, "
            f"{spelled(size)}{others}, so nothing can be cut: use a smaller size, or no crops."
        )


def _cut(side: tuple[int, int], crops: int, size: Size, keep_whole: bool) -> Cut:
    """What a picture gives, undivided; a picture of the crops' size is used once."""
    return Cut(0 if keep_whole and side == sides_of(size)[::-1] else crops, 1, keep_whole)


def _divided(cut: Cut, side: tuple[int, int], size: Size, total: int) -> Cut:
    """Divide a picture that gives too many of all; its whole would show what is held out."""
    parts = min(-(-MOST_SHARE * cut.total // total), most_parts(*side, size), cut.crops)
    return replace(cut, parts=parts, whole=False) if parts > 1 else cut
