"""Find pictures that are nearly the same: saved again, resized, or slightly brighter.

A perceptual hash finds candidates, then the pixels decide. The hash compares neighbours in a 9 x 8
thumbnail (64 bits). If two hashes differ in at most 3 bits, at least one of their four groups of 16
bits is equal, so only pictures with an equal group are compared.
Source: Krawetz 2013, "Kind of Like That" (dHash), hackerfactor.com; the four groups are Manku et
al. 2007, "Detecting near-duplicates for web crawling", section 3.
"""

from __future__ import annotations

import numpy as np

from noisewise.pictures.alpha import premultiplied
from noisewise.pictures.cache import in_blocks

_SIDE = 16  # of the thumbnails that decide
_FEW_BITS = 3
_LARGEST_DIFFERENCE = 6.0  # root mean square, of thumbnail pixels from 0 to 255
_FLATTEST = 4.0  # standard deviation; flatter pictures have no features to compare
_NEIGHBOURS = 8  # each picture is compared with this many next ones in the order of the hash


def near_duplicates(images: np.ndarray) -> list[tuple[int, int]]:
    """Find pictures that are nearly equal to an earlier one; exact copies do not count.

    Two pictures are nearly equal if their hashes differ in at most 3 of 64 bits and their 16 x 16
    thumbnails, each minus its mean, differ by at most 6 of 255 (root mean square). Flat pictures
    are never nearly equal. In sets with thousands of similar pictures not every pair is compared,
    so the number found there is a lower bound.

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        (earlier, later) for each later picture that is nearly equal to an earlier one, in order.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 200, (4, 16, 16, 1), dtype=np.uint8)
        >>> images[3] = images[1] + 2
        >>> near_duplicates(images)
        [(1, 3)]
    """
    thumbnails = np.concatenate([_thumbnails(premultiplied(block)) for block in in_blocks(images)])
    hashes = hash64(thumbnails)
    flat = thumbnails.std(axis=(1, 2)) < _FLATTEST
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    earliest: dict[int, int] = {}
    for group in range(4):
        turned = np.roll(hashes.view(np.uint16).reshape(-1, 4), group, axis=1)
        order = np.lexsort((np.arange(len(turned)), *turned.T[:3], turned.T[3]))
        for step in range(1, _NEIGHBOURS + 1):
            a, b = order[:-step], order[step:]
            alike = turned[a, 3] == turned[b, 3]
            a, b = a[alike], b[alike]
            few = np.bitwise_count(hashes[a] ^ hashes[b]) <= _FEW_BITS
            a, b = a[few], b[few]
            apart = np.sqrt(np.square(centred[a] - centred[b]).mean(axis=(1, 2)))
            near = (apart <= _LARGEST_DIFFERENCE) & ~flat[a] & ~flat[b]
            for one, other in zip(a[near].tolist(), b[near].tolist(), strict=True):
                first, later = min(one, other), max(one, other)
                earliest[later] = min(earliest.get(later, first), first)
    return [
        (first, later)
        for later, first in sorted(earliest.items())
        if not np.array_equal(images[first], images[later])
    ]


def hash64(thumbnails: np.ndarray) -> np.ndarray:
    """Return the difference hash of each thumbnail: which cells are brighter than their left one.

    Args:
        thumbnails: float [n, 16, 16], grey.

    Returns:
        uint64 [n].

    Example:
        >>> rising = np.tile(np.arange(16.0), (1, 16, 1))
        >>> hex(hash64(rising)[0]), hex(hash64(-rising)[0])
        ('0xffffffffffffffff', '0x0')
    """
    rows = thumbnails.reshape(-1, 8, 2, _SIDE).mean(axis=2)
    edges = np.linspace(0, _SIDE, 10).round().astype(int)
    cells = np.add.reduceat(rows, edges[:-1], axis=2) / np.diff(edges)
    bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(cells), 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Grey pictures of 16 x 16: the mean of the pixels in each cell."""
    # The mean of the channels, exactly as `mean(axis=3)` gives it, which is 20 times as slow.
    total = images[..., 0].astype(np.uint16)
    for channel in range(1, images.shape[3]):
        total += images[..., channel]
    grey = np.divide(total, np.float32(images.shape[3]), dtype=np.float32)
    lengths = []
    for axis in (1, 2):
        if grey.shape[axis] < _SIDE:
            grey = grey.repeat(-(-_SIDE // grey.shape[axis]), axis=axis)
        edges = np.linspace(0, grey.shape[axis], _SIDE + 1).astype(int)
        lengths.append(np.diff(edges).astype(np.float32))
        grey = np.add.reduceat(grey, edges[:-1], axis=axis)
    return grey / (lengths[0][:, None] * lengths[1][None])
