"""What `sprites` measures of drawn pictures, of noisewise and of peers alike; and its grids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.pictures.colour_sets import Sides, save_grid
from benchmarks.pictures.sprite_sets import Subject
from benchmarks.shared import harness
from noisewise.quality import copy_test, told_apart
from noisewise.quality.eight_bits import levels, rounded
from noisewise.quality.flats import even_area
from noisewise.quality.judge import Judge
from noisewise.quality.near_copies import NearCopyReference
from noisewise.quality.snap_colours import colours_a_picture, on_palette
from noisewise.quality.verdict import verdict
from noisewise.training.files.sample_sheet import sheet

_TOLD = 500  # pictures of each side
_BLIND, _COLUMNS, _SCALE = 64, 16, 3  # of each kind, on a sheet that hides which is which


def sprite_like(images: Tensor, palette: Tensor) -> harness.Values:
    """What a game engine needs: share on the palette, colours a picture, alpha of 0 or 1.

    Args:
        images: float [n, c, h, w] in [-1, 1]; RGBA is straight.
        palette: uint8 [k, 3]; empty: there is none.
    """
    opacity = levels(images[:, 3:]) if images.shape[1] == 4 else None
    hard = None if opacity is None else float(((opacity == 0) | (opacity == 255)).double().mean())
    return {
        "on_palette": on_palette(images, palette) if len(palette) else None,
        "colours": float(np.median(colours_a_picture(images))),
        "hard_alpha": hard,
        "clear": None if opacity is None else float((opacity == 0).double().mean()),
    }


class Measures:
    """A set's references, each prepared once.

    Args:
        subject: the set.
        base: the pictures that its base has seen, float [n, 3, h, w]; None: no copies of them are
            looked for.
    """

    def __init__(self, subject: Subject, base: Tensor | None = None) -> None:
        """Prepare the judge; the near-copy test when it is needed."""
        self.subject, self._base = subject, base
        self._judge = Judge(subject.real)
        self._near: list[tuple[Sides, NearCopyReference]] = []

    def of(self, drawn: Tensor, sides: Sides, warm: bool = False) -> harness.Values:
        """All numbers of drawn pictures.

        Args:
            drawn: float [n, c, h, w] in [-1, 1]; RGBA is straight.
            sides: what the model was trained on, and what was held out.
            warm: also look for copies of the base's pictures.
        """
        subject = self.subject
        floors = self._judge.measure(drawn)
        told = told_apart(drawn[:_TOLD], subject.real[:_TOLD])
        even = (even_area(drawn), even_area(subject.real))
        copies = copy_test(drawn, sides.training, sides.held_out, flips=sides.flips)
        near = self._near_copies(sides).test(rounded(drawn))
        found: harness.Values = {
            "floors": floors.at_standard,
            "verdict": verdict(floors, told, even).word,
            "told": told.accuracy,
            "copies": copies.fraction,
            "near_copies": near.fraction,
            "near_allowed": near.allowed,
        }
        if warm and self._base is not None:
            flat = on_white(drawn), self._base, on_white(sides.held_out)
            of_base = copy_test(*flat, flips=sides.flips)
            found["base_copies"] = of_base.fraction
            found["base_copies_real"] = of_base.held_out_fraction
        return found | sprite_like(drawn, subject.palette)

    def of_real(self) -> harness.Values:
        """The same of real pictures: one half of them against the other."""
        real = self.subject.real
        half = len(real) // 2
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
        one, other = real[order[:half]], real[order[half:]]
        return {
            "floors": Judge(one).measure(other).at_standard,
            "told": told_apart(one[:_TOLD], other[:_TOLD]).accuracy,
        } | sprite_like(real, self.subject.palette)

    def _near_copies(self, sides: Sides) -> NearCopyReference:
        """Prepared once for the teacher and the generator of a run."""
        if not self._near or self._near[0][0] is not sides:
            parts = rounded(sides.training), rounded(sides.held_out)
            self._near = [(sides, NearCopyReference(*parts, flips=sides.flips))]
        return self._near[0][1]


def on_white(images: Tensor) -> Tensor:
    """Straight RGBA laid on white, float [n, 3, h, w] in [-1, 1]; other pictures as they are.

    Example:
        >>> on_white(torch.tensor([-1.0, -1.0, -1.0, 0.0]).view(1, 4, 1, 1)).flatten().tolist()
        [0.0, 0.0, 0.0]
    """
    if images.shape[1] != 4:
        return images
    share = (images[:, 3:] + 1) / 2
    return images[:, :3] * share + 1 - share


def save_grids(folder: Path, name: str, drawn: Tensor, sides: Sides, real: Tensor) -> str:
    """Write the grid with nearest training pictures, one of the pictures alone, and a blind sheet.

    Returns:
        The name of the first one.
    """
    path = folder / f"{name}.png"
    scale = 1 if drawn.shape[-1] > 32 else 2
    save_grid(path, drawn, sides.training, sides.flips, scale)
    alone = Image.fromarray(sheet(drawn[:32]))
    size = (alone.width * _SCALE, alone.height * _SCALE)
    alone.resize(size, Image.Resampling.NEAREST).save(folder / f"{name}_alone.png")
    blind_sheet(folder / "blind", name, drawn, real)
    return path.name


def blind_sheet(folder: Path, name: str, drawn: Tensor, real: Tensor) -> None:
    """Write drawn and real pictures in random order, and in a second file which are drawn.

    Show the picture alone and ask which of its pictures a person has drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(sum(name.encode()))
    count = min(_BLIND, len(drawn), len(real))
    some = torch.from_numpy(np.sort(generator.permutation(len(real))[:count]))
    both = torch.cat([drawn[:count], real[some]])
    order = generator.permutation(len(both))
    image = Image.fromarray(sheet(both[torch.from_numpy(order)], _COLUMNS))
    size = (image.width * _SCALE, image.height * _SCALE)
    image.resize(size, Image.Resampling.NEAREST).save(folder / f"{name}.png")
    made = [
        [int(at) // _COLUMNS + 1, int(at) % _COLUMNS + 1] for at in np.flatnonzero(order < count)
    ]
    text = json.dumps({"drawn by the model, as [row, column]": made})
    harness.write_atomically(folder / f"{name}.json", text + "\n")
