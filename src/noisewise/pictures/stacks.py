"""The pages of a stack are near copies: neighbours stay on one side when the set is split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from noisewise.pictures.near_duplicates import near_duplicates
from noisewise.pictures.split import groups_of

MOST_SHARE = 5
"""No group that stays together is more than one in so many: no more than a fifth is held out."""
_PARTS = 20  # a larger stack is divided into parts of about one in so many of all pictures


def joined_pages(group: np.ndarray, stacks: Sequence[str]) -> np.ndarray:
    """Join the groups of each stack; a stack of more than a fifth becomes several, in order.

    Args:
        group: number of the group of each picture, from 0 and rising, int64 [n].
        stacks: the file of which each picture is a page, or "", [n].

    Returns:
        Number of the new group of each picture, from 0, int64 [n].

    Example:
        >>> joined_pages(np.arange(12), ["a.tif"] * 2 + [""] * 8 + ["b.tif"] * 2).tolist()
        [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
        >>> joined_pages(np.arange(8), ["a.tif"] * 8).tolist()
        [0, 0, 1, 1, 2, 2, 3, 3]
    """
    count = len(group)
    totals = Counter(stacks)
    before: Counter[str] = Counter()
    numbers: dict[tuple[str, int], int] = {}
    found = np.empty(count, np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        stack = stacks[start]
        part = before[stack] * _num_parts(totals[stack], count) // totals[stack]
        key = (stack, part) if stack else ("", start)
        found[start:end] = numbers.setdefault(key, len(numbers))
        before[stack] += end - start
    return found


def stack_groups(images: np.ndarray, marks: np.ndarray, stacks: Sequence[str]) -> np.ndarray:
    """Number of the group of each picture that stays on one side of a split, int64 [n].

    Pages of a stack are one group, or its parts are; equal and nearly equal pictures join theirs,
    unless that would be more than a fifth of all.

    Args:
        images: uint8 [n, height, width, channels].
        marks: one number a picture, equal for equal pictures.
        stacks: the file of which each picture is a page, or "", [n].
    """
    pages = joined_pages(np.arange(len(images)), stacks)
    first = np.unique(marks, return_index=True, return_inverse=True)
    equal = zip(first[1][first[2]].tolist(), range(len(images)), strict=True)
    pairs = [pair for pair in equal if pair[0] != pair[1]] + near_duplicates(images)
    return groups_of(pages, pairs, max(2, len(images) // MOST_SHARE)).group


def about_stacks(num_stacks: int, num_pages: int, stacks: Sequence[str]) -> str:
    """A note on the pages that are read, and on how they are split.

    Args:
        num_stacks: files with several pages.
        num_pages: of all of them.
        stacks: the file of which each used picture is a page, or "".

    Example:
        >>> about_stacks(1, 3, ["a.tif"] * 3 + [""] * 20)
        '3 pages of 1 file are read, each as a picture; those of one file stay together'
    """
    files = f"{num_pages:,} pages of {'1 file' if num_stacks == 1 else f'{num_stacks:,} files'}"
    counts = np.unique([stack for stack in stacks if stack], return_counts=True)[1]
    together = "those of one file stay together"
    if any(_num_parts(count, len(stacks)) > 1 for count in counts.tolist()):
        together = "neighbours stay together, and a file of more than a fifth of all is divided"
    return f"{files} are read, each as a picture; {together}"


def _num_parts(pages: int, total: int) -> int:
    """Into how many parts the pages of a stack are divided."""
    if pages <= total // MOST_SHARE:
        return 1
    return max(2, -(-pages // max(2, total // _PARTS)))
