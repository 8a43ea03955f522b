"""The picture sets that benchmarks train on, prepared from the data folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import harness, ours
from benchmarks.shared.sprite_drawings import sprites

CREDITS = {
    "fashion": "Fashion-MNIST (c) 2017 Zalando SE, MIT",
    "people": "Noto Emoji (c) Google, Apache-2.0",
    "emoji": "Noto Emoji (c) Google, Apache-2.0",
    "dungeon": "Dungeon Crawl Stone Soup tiles, CC0",
    "drawn": "sprites drawn by the benchmark",
}
DRAWN = 600  # sprites
FACES = ("People & Body", "Smileys & Emotion")


@dataclass(frozen=True)
class PictureSet:
    """A set: its file ("": a program draws it), the choice of its pictures, and a title."""

    name: str
    file: str
    title: str
    choose: Callable[[dict[str, np.ndarray]], np.ndarray]


def _all(stored: dict[str, np.ndarray]) -> np.ndarray:
    return np.arange(len(stored["images"]))


def _training(stored: dict[str, np.ndarray]) -> np.ndarray:
    return np.flatnonzero(stored["split"] == 0)


def _faces(stored: dict[str, np.ndarray]) -> np.ndarray:
    wanted = [k for k, name in enumerate(stored["categories"]) if str(name) in FACES]
    return np.flatnonzero(np.isin(stored["labels"], wanted))


SETS = {
    "fashion": PictureSet(
        "fashion", "fashion_mnist_zalando.npz", "Fashion-MNIST, 28 px", _training
    ),
    "people": PictureSet(
        "people", "noto_emoji_32.npz", "emoji of people and smileys, 32 px", _faces
    ),
    "emoji": PictureSet("emoji", "noto_emoji_32.npz", "all emoji, 32 px", _all),
    "dungeon": PictureSet("dungeon", "dungeon_tiles_32.npz", "dungeon tiles, 32 px", _all),
    "drawn": PictureSet("drawn", "", "drawn sprites with hard alpha, 32 px", _all),
}


def chosen(text: str) -> list[PictureSet]:
    """The sets named in a comma-separated list.

    Raises:
        harness.UsageError: for an unknown name.
    """
    return [SETS[name] for name in harness.names(text, SETS, "set")]


def prepare(which: PictureSet, data: str | None, folder: Path) -> Path:
    """Write the set's pictures, and its categories as labels, as an .npz to train on.

    Raises:
        harness.UsageError: if the data are missing.
    """
    target = folder / f"{which.name}.npz"
    if not which.file:
        return ours.prepare(target, sprites(DRAWN))
    source = harness.data_file(data, which.file)
    if target.is_file():
        return target
    with np.load(source) as loaded:
        stored = {name: loaded[name] for name in loaded.files}
    chosen = which.choose(stored)
    labels = None
    if "categories" in stored:  # renumber: a part of the set may have only some categories
        labels = np.unique(stored["labels"][chosen], return_inverse=True)[1].astype(np.int64)
    return ours.prepare(target, stored["images"][chosen], labels)
