"""The pictures of a base, with their licences, and which of them a test has to leave out.

A base is tested on sets that it has not seen. So for each set it is trained without that set, and
without its twins: Noto and Fluent draw the same emoji. Noto's pictures have short names, Fluent's
have code points; a Fluent picture counts as no twin only if its Unicode name is the short name of a
Noto picture outside of the set, and of the whole Fluent set every Noto picture is a twin. Pictures
that are nearly the same as one of the set are left out too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import harness
from benchmarks.shared.picture_sets import FACES
from noisewise.pictures.near_duplicates import near_duplicates

SIZES = (32, 64)
MONSTERS = 150


@dataclass(frozen=True)
class Source:
    """A data set that a base may be trained on.

    Attributes:
        name: for people.
        license: as an SPDX identifier.
        credit: whom to name.
        url: where it comes from.
        files: the file for each size of a base.
    """

    name: str
    license: str
    credit: str
    url: str
    files: dict[int, str]

    def noted(self) -> dict[str, str]:
        """What sources.json says of it."""
        return {
            "name": self.name, "license": self.license, "credit": self.credit, "url": self.url,
        }  # fmt: skip


SOURCES = {
    "noto": Source(
        "Noto Emoji", "Apache-2.0", "(c) Google", "https://github.com/googlefonts/noto-emoji",
        {32: "noto_emoji_32.npz", 64: "noto_emoji_64.npz"},
    ),
    "fluent": Source(
        "Fluent Emoji (3D)", "MIT", "(c) Microsoft; package by LobeHub",
        "https://github.com/microsoft/fluentui-emoji",
        {32: "fluent_emoji_3d_64.npz", 64: "fluent_emoji_3d_64.npz"},
    ),
    "tiles": Source(
        "Dungeon Crawl Stone Soup tiles", "CC0-1.0", "the tiles' authors",
        "https://github.com/crawl/tiles",
        {32: "dungeon_tiles_32.npz", 64: "dungeon_tiles_32.npz"},
    ),
}  # fmt: skip

Stored = dict[str, np.ndarray]


def _all(stored: Stored) -> np.ndarray:
    return np.ones(len(stored["images"]), bool)


def _of(*categories: str) -> Callable[[Stored], np.ndarray]:
    def chosen(stored: Stored) -> np.ndarray:
        wanted = [k for k, name in enumerate(stored["categories"]) if str(name) in categories]
        return np.isin(stored["labels"], wanted)

    return chosen


@dataclass(frozen=True)
class TestSet:
    """A set that a warm start is tested on.

    Attributes:
        title: for people.
        source: name in `SOURCES`.
        size: side of its pictures, and of the base.
        unseen: which pictures of the source no base of this test may have seen.
        most: number of pictures that are trained on, drawn at random; None: all of them.
    """

    __test__ = False  # for pytest

    title: str
    source: str
    size: int
    unseen: Callable[[Stored], np.ndarray]
    most: int | None = None


TESTS = {
    "people": TestSet("emoji of people and faces, 32 px", "noto", 32, _of(*FACES)),
    "tiles": TestSet("dungeon tiles, 32 px", "tiles", 32, _all),
    "monsters": TestSet(f"{MONSTERS} monsters, 32 px", "tiles", 32, _of("monster"), MONSTERS),
    "fluent": TestSet("Fluent emoji, 64 px", "fluent", 64, _all),
    "people64": TestSet("emoji of people and faces, 64 px", "noto", 64, _of(*FACES)),
}


def tests(text: str) -> dict[str, TestSet]:
    """The test sets named in a comma-separated list.

    Raises:
        harness.UsageError: for an unknown name.
    """
    return {name: TESTS[name] for name in harness.names(text, TESTS, "set")}


def stored(data: str | None, source: str, size: int) -> Stored:
    """The arrays of a source, its pictures at this size: halved by means, or doubled as they are.

    Raises:
        harness.UsageError: if the data are missing.
    """
    path = harness.data_file(data, SOURCES[source].files[size])
    with np.load(path) as loaded:
        found = {name: loaded[name] for name in loaded.files}
    found["images"] = resized(found["images"], size)
    return found


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 [n, h, w, c] of half or twice the side, or as they are."""
    side = images.shape[1]
    if side == size:
        return images
    if side == 2 * size:
        n, channels = len(images), images.shape[-1]
        cells = images.reshape(n, size, 2, size, 2, channels).astype(np.float32)
        return np.round(cells.mean((2, 4))).astype(np.uint8)
    return images.repeat(2, 1).repeat(2, 2)


def test_pictures(data: str | None, which: TestSet) -> np.ndarray:
    """The pictures of a test set, uint8 [n, size, size, 3]."""
    found = stored(data, which.source, which.size)
    chosen = np.flatnonzero(which.unseen(found))
    if which.most is not None:
        order = np.random.default_rng(0).permutation(len(chosen))[: which.most]
        chosen = np.sort(chosen[order])
    return found["images"][chosen]


test_pictures.__test__ = False  # pyrefly: ignore[missing-attribute]


def base_pictures(
    data: str | None, size: int, left_out: TestSet | None = None
) -> tuple[np.ndarray, list[Source]]:
    """The pictures of a base, uint8 [n, size, size, 3], and the sources that they come from.

    Args:
        data: folder with the data sets.
        size: side of the base.
        left_out: a set that the base must not have seen; None: nothing is left out.
    """
    parts, sources, unseen = [], [], None
    if left_out is not None:
        own = stored(data, left_out.source, size)
        unseen = own["images"][left_out.unseen(own)]
    for name, source in SOURCES.items():
        found = stored(data, name, size)
        kept = np.ones(len(found["images"]), bool)
        if left_out is not None:
            kept &= ~_twins(data, name, found, left_out)
        if kept.any():
            parts.append(found["images"][kept])
            sources.append(source)
    images = np.concatenate(parts)
    if unseen is not None:
        images = images[~_nearly_in(images, unseen)]
    return images, sources


def _twins(data: str | None, name: str, found: Stored, left_out: TestSet) -> np.ndarray:
    """Which pictures of a source are in a set, or show the same as one of its pictures."""
    if name == left_out.source:
        return left_out.unseen(found)
    emoji = {name, left_out.source} == {"noto", "fluent"}
    if not emoji:
        return np.zeros(len(found["images"]), bool)
    if name == "noto":
        return np.ones(len(found["images"]), bool)
    noto = stored(data, "noto", left_out.size)
    outside = set(noto["names"][~left_out.unseen(noto)].tolist())
    return np.array([short_name(str(code)) not in outside for code in found["names"]])


def short_name(code: str) -> str:
    """The Unicode name of one code point as a short name; "" of several.

    Example:
        >>> short_name("1f680"), short_name("0023-fe0f-20e3")
        ('rocket', '')
    """
    points = [int(part, 16) for part in code.split("-") if part != "fe0f"]
    if len(points) != 1:
        return ""
    return unicodedata.name(chr(points[0]), "").lower().replace(" ", "_").replace("-", "_")


def _nearly_in(images: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Which pictures are nearly or exactly the same as one of the unseen ones."""
    first = len(unseen)
    pairs = near_duplicates(np.concatenate([unseen, images]))
    near = np.zeros(len(images), bool)
    near[[later - first for earlier, later in pairs if earlier < first <= later]] = True
    known = {picture.tobytes() for picture in unseen}
    return near | np.array([picture.tobytes() in known for picture in images])


def save(folder: Path, name: str, images: np.ndarray) -> Path:
    """Write pictures as an .npz to train on."""
    path = folder / f"{name}-{len(images)}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, images=images)
        temporary.replace(path)
    return path
