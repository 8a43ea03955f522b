"""The sets of `sprites`: tiles, emoji, few monsters, RGBA emoji with soft edges, drawn sprites."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.pictures import base_sets
from benchmarks.shared import harness, ours
from benchmarks.shared.picture_sets import DRAWN
from benchmarks.shared.sprite_drawings import sprites
from noisewise.pictures.pictures import Pictures, load_pictures
from noisewise.training.stages.choose_palette import colours_of, folder_palette

_TONES = re.compile("1f3f[b-f]")  # skin tones: near twins of the yellow ones
_MOST_REAL = 2000  # pictures that the judge reads


@dataclass(frozen=True)
class SpriteSet:
    """A set of the benchmark.

    Attributes:
        title: for people.
        size: side of the pictures, and of the base.
        without: the set of `base_sets.TESTS` that its base must not have seen; "": the base has
            seen nothing of the set anyway.
        credit: whose pictures they are.
    """

    title: str
    size: int
    without: str
    credit: str


_NOTO, _TILES = "Noto Emoji (c) Google, Apache-2.0", "Dungeon Crawl Stone Soup tiles, CC0"
_FLUENT = "Fluent Emoji (c) Microsoft, MIT"
SETS = {
    "tiles": SpriteSet("dungeon tiles, 32 px", 32, "tiles", _TILES),
    "people": SpriteSet("emoji of people and faces, 32 px", 32, "people", _NOTO),
    "monsters": SpriteSet("150 monsters, 32 px", 32, "monsters", _TILES),
    "fluent": SpriteSet("RGBA emoji, soft edges, 64 px", 64, "fluent", _FLUENT),
    "drawn": SpriteSet("drawn sprites, hard alpha, 32 px", 32, "", "drawn by the benchmark"),
}


@dataclass(frozen=True)
class Subject:
    """A set as it is trained on and judged.

    Attributes:
        name: in `SETS`.
        path: the file that noisewise reads.
        peer_path: the same pictures without the held-out ones, for a peer.
        training: of the split with seed 0, float [n, c, h, w] in [-1, 1]; RGBA is straight.
        held_out: of the same split.
        real: what drawn pictures are judged against; of monsters, those that are not in the set.
        palette: uint8 [k, 3]; empty if the set has none.
    """

    name: str
    path: Path
    peer_path: Path
    training: Tensor
    held_out: Tensor
    real: Tensor
    palette: Tensor

    @property
    def which(self) -> SpriteSet:
        """The set."""
        return SETS[self.name]


def load(name: str, data: str | None, rgba: Path | None, folder: Path, most: int = 0) -> Subject:
    """Prepare a set: write its pictures once, and divide them.

    Args:
        name: in `SETS`.
        data: folder with the .npz data sets.
        rgba: folder with the RGBA emoji, for "fluent".
        folder: for what is written.
        most: keep about so many pictures, to try the program; 0: all.

    Raises:
        harness.UsageError: if data are missing.
    """
    suffix = f"_{most}" if most else ""
    path = folder / f"{name}{suffix}.npz"
    if not path.is_file():
        images = _SOURCES[name](data, rgba)
        ours.prepare(path, images[:: max(1, len(images) // most)] if most else images)
    found = load_pictures(path).with_twins()
    inside, outside = found.split(0)
    training = found.shown(inside)
    peer_path = ours.prepare(path.with_name(f"{path.stem}_training.npz"), ours.to_pixels(training))
    real = _unseen_monsters(data) if name == "monsters" else _some(found)
    colours = colours_of(found.images)
    palette = folder_palette(found.images, colours) if colours.has_palette else ()
    return Subject(
        name,
        path,
        peer_path,
        training,
        found.shown(outside),
        real,
        torch.tensor(palette, dtype=torch.uint8).view(-1, 3),
    )


def chosen(text: str) -> list[str]:
    """The sets of a comma-separated list.

    Raises:
        harness.UsageError: for an unknown name, or none.
    """
    return harness.names(text, SETS, "set")


def _some(found: Pictures) -> Tensor:
    order = np.random.default_rng(0).permutation(len(found))[:_MOST_REAL]
    return found.shown(np.sort(order))


def _unseen_monsters(data: str | None) -> Tensor:
    """The monsters of the file that are not among those trained on."""
    which = base_sets.TESTS["monsters"]
    stored = base_sets.stored(data, which.source, which.size)
    family = stored["images"][which.unseen(stored)]
    trained = {picture.tobytes() for picture in base_sets.test_pictures(data, which)}
    return ours.to_images(np.stack([one for one in family if one.tobytes() not in trained]))


def _of_test(name: str) -> Callable[[str | None, Path | None], np.ndarray]:
    return lambda data, rgba: base_sets.test_pictures(data, base_sets.TESTS[name])


def _fluent(data: str | None, rgba: Path | None) -> np.ndarray:
    """The RGBA emoji at 64 px, read as noisewise reads a folder; without skin tones."""
    if rgba is None or not rgba.is_dir():
        given = "nothing was given" if rgba is None else f"{rgba} is no folder"
        raise harness.UsageError(
            f"The set fluent needs --rgba FOLDER, the unpacked npm package "
            f"@lobehub/fluent-emoji-3d, and {given}: give it, or leave fluent out of --sets."
        )
    found = load_pictures(rgba, SETS["fluent"].size, channels=4)
    kept = [at for at, name in enumerate(found.names) if not _TONES.search(Path(name).stem)]
    return np.ascontiguousarray(found.images[kept])


_SOURCES: dict[str, Callable[[str | None, Path | None], np.ndarray]] = {
    "tiles": _of_test("tiles"),
    "people": _of_test("people"),
    "monsters": _of_test("monsters"),
    "fluent": _fluent,
    "drawn": lambda data, rgba: sprites(DRAWN),
}
