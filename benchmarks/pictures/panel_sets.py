"""The picture sets of the judge's panel, and how real pictures are divided.

A draw (a seed) divides a set into reference pictures and others. The others are damaged, or are the
real pictures that the judge must not tell from the reference. One part of the panel is set aside:
nobody looks at it while a judge is being built, so that its numbers are a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.pictures import damages
from benchmarks.shared import harness, ours

MAX_REFERENCE = 2000
_WHITE = 250  # a ground pixel has at least this value in every channel


@dataclass(frozen=True)
class PanelSet:
    """A picture set of the panel.

    Attributes:
        name: short name.
        file: file in the data folder.
        title: name in tables.
        num_images: pictures of a judged set.
        teachers: runs whose teacher may judge this set, the best first.
        labelled: has classes that can be left out and doubled: garments, of which there are many.
        opacity: get a fourth channel, opacity, from the white ground.
        set_aside: not part of a usual run.
    """

    name: str
    file: str
    title: str
    num_images: int = 500
    teachers: tuple[str, ...] = ()
    labelled: bool = False
    opacity: bool = False
    set_aside: bool = False


SETS = {
    found.name: found
    for found in (
        PanelSet(
            "garments", "fashion_mnist_zalando.npz", "garments, 28 px", teachers=("garments",),
            labelled=True,
        ),
        PanelSet(
            "tiles", "dungeon_tiles_32.npz", "tiles, 32 px", teachers=("tiles_60", "tiles_15")
        ),
        PanelSet("fluent", "fluent_emoji_3d_64.npz", "3D emoji, 64 px", teachers=("fluent",)),
        PanelSet("fluent_128", "fluent_emoji_3d_128.npz", "3D emoji, 128 px", num_images=150),
        PanelSet("opacity", "fluent_emoji_3d_64.npz", "3D emoji, 64 px, RGBA", opacity=True),
        PanelSet(
            "emoji", "noto_emoji_32.npz", "emoji, 32 px", teachers=("emoji",), set_aside=True
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """The real pictures of a set: float32 [n, c, h, w] in [-1, 1], and labels int64 [n] or None."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Division:
    """Real pictures, divided: the reference, and others that it does not hold."""

    reference: Tensor
    others: Tensor
    labels: Tensor | None  # of the others


def load(which: PanelSet, data: str | None) -> Pictures:
    """Read a set; of garments, the 10,000 test pictures, since no run trains on them.

    Raises:
        harness.UsageError: if the file is missing.
    """
    with np.load(harness.data_file(data, which.file)) as stored:
        images = stored["images"]
        labels = stored["labels"] if which.labelled else None
        if "split" in stored.files:
            chosen = stored["split"] == 1
            images, labels = images[chosen], None if labels is None else labels[chosen]
    pixels = ours.to_images(images)
    if which.opacity:
        pixels = with_opacity(pixels)
    return Pictures(pixels, None if labels is None else torch.from_numpy(labels.astype(np.int64)))


def divide(
    pictures: Pictures, num_images: int, seed: int, max_reference: int = MAX_REFERENCE
) -> Division:
    """Divide real pictures at random; at least num_images stay outside the reference."""
    order = torch.randperm(
        len(pictures.images), generator=torch.Generator().manual_seed(1000 + seed)
    )
    count = min(max_reference, len(order) - num_images)
    first, rest = order[:count], order[count:]
    if pictures.labels is None:
        rest = rest[:num_images]  # only classes need more pictures than are judged
    labels = None if pictures.labels is None else pictures.labels[rest]
    return Division(pictures.images[first], pictures.images[rest], labels)


def with_opacity(images: Tensor) -> Tensor:
    """Cut pictures out of their white ground: float [n, 3, h, w] -> [n, 4, h, w] in [-1, 1].

    The ground is what is white and connected to the edge; it becomes transparent and black. The
    pixels beside it are mixtures of a thing and the ground: they get the largest transparency that
    keeps the colour in range. On white, the result looks like the original.
    """
    value = images.add(1).div(2)
    white = (value >= _WHITE / 255).all(1, keepdim=True)
    ground = _connected_to_edge(white)
    beside = _grown(ground) & ~ground
    opacity = torch.where(beside, 1 - value.amin(1, keepdim=True), 1.0)
    opacity = torch.where(ground, 0.0, opacity).mul(255).round().div(255)
    colour = ((value - 1 + opacity) / opacity.clamp_min(1 / 255)).clamp(0, 1) * (opacity > 0)
    return damages.eight_bits(torch.cat([colour, opacity], 1) * 2 - 1)


def _grown(mask: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(mask.float(), 3, 1, 1).bool()


def _connected_to_edge(mask: Tensor) -> Tensor:
    """The parts of a mask [n, 1, h, w] that touch the edge of the picture."""
    found = mask.clone()
    found[..., 1:-1, 1:-1] = False
    while True:
        larger = _grown(found) & mask
        if torch.equal(larger, found):
            return found
        found = larger


# ------------------------------------------------------------------------------ damages of a set

UNDAMAGED = "undamaged"
MISSING, DOUBLED = "missing classes", "doubled class"
COPIES, REPEATED = "copies of the reference", "repeated"
# Damages of a set as a whole, from weak to strong.
SET_DAMAGES: dict[str, tuple[float, ...]] = {
    MISSING: (1, 2, 3),
    DOUBLED: (1,),
    COPIES: (0.1, 0.3),
    REPEATED: (0.3, 0.6, 0.9),
}
SET_ABOUT = {
    MISSING: "number of ten classes that are left out",
    DOUBLED: "number of classes that are twice as frequent",
    COPIES: "share of pictures that are copies of reference pictures",
    REPEATED: "share of pictures that are already in the set",
}


@dataclass(frozen=True)
class Spoilt:
    """One damage with one strength, as it is named in results."""

    damage: str
    strength: float


def families(which: PanelSet, channels: int, set_aside: bool) -> dict[str, tuple[float, ...]]:
    """The damages of a set with their strengths, from weak to strong.

    Args:
        which: the set.
        channels: of its pictures.
        set_aside: the damages that are set aside; all damages, if the whole set is set aside.
    """
    fitting = [d for d in damages.DAMAGES if d.fits(channels)]
    if which.opacity:
        fitting = [d for d in fitting if d.needs_opacity or d.name in ("noise", "blur", "stains")]
    found: dict[str, tuple[float, ...]] = {d.name: d.strengths for d in fitting}
    if which.labelled:
        found |= SET_DAMAGES
    if which.set_aside:
        return found
    return {name: s for name, s in found.items() if (name in damages.SET_ASIDE) == set_aside}


def spoilt(division: Division, num_images: int, what: Spoilt, seed: int) -> Tensor:
    """The pictures of one damage: the first num_images of the others, damaged."""
    generator = torch.Generator().manual_seed(seed)
    others, images = division.others, division.others[:num_images]
    if what.damage == UNDAMAGED:
        return damages.eight_bits(images)
    if what.damage in (MISSING, DOUBLED):
        assert division.labels is not None
        labels, count = division.labels, int(division.labels.max()) + 1
        classes = [(seed + k) % count for k in range(round(what.strength))]
        if what.damage == MISSING:
            return damages.without_classes(others, labels, classes, num_images)
        return damages.doubled_class(others, labels, classes[0], num_images)
    if what.damage == COPIES:
        return damages.copies(images, division.reference, what.strength, generator)
    if what.damage == REPEATED:
        return damages.repeated(images, what.strength)
    return damages.damage_named(what.damage).of(images, what.strength, generator)
