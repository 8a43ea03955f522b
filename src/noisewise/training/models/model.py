"""What Teacher and Generator share: a description, labels, noise, and how people see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from noisewise.pictures.alpha import colours
from noisewise.sizes import Size, sides, spelled
from noisewise.training.files.sample_sheet import COLUMNS, enlarged, sheet
from noisewise.training.in_html import page
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.seeded_noise import START, picture_labels, picture_noise

OnDrawn = Callable[[int], None]
Label = int | str
Labels = Label | Sequence[Label] | np.ndarray | Tensor
"""One class for all pictures, or a list with one for each; a shorter list starts again."""

_MOST_COLUMNS = 16  # of a grid with a column for each label


class Model(nn.Module):
    """What Teacher and Generator share: a denoiser, its description, labels and noise.

    Attributes:
        denoiser: ``D(x, sigma, condition) -> x0``.
        config: what the model folder says.
    """

    def __init__(self, denoiser: nn.Module, config: ModelConfig) -> None:
        """Wrap a trained denoiser."""
        super().__init__()
        self.denoiser = denoiser
        self.config = config

    @property
    def size(self) -> Size:
        """Side of the pictures in pixels, or (height, width)."""
        return self.config.size

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return self.config.channels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if the model has none."""
        return self.config.classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def _in_one_line(self, calls: str) -> str:
        count = sum(p.numel() for p in self.denoiser.parameters())
        named = f"{len(self.classes)} classes, " if self.classes else ""
        return (
            f"{type(self).__name__}({spelled(self.size)}, {colours(self.channels)}, {named}"
            f"{calls}, {count:,} parameters on {self.device})"
        )

    def set_palette(self, given: str) -> None:
        """Draw on another palette from now on; `config.palette` is the one in use.

        Args:
            given: "none", a file (.gpl, .pal, .hex or .png), or colours such as "#000000 #ffffff".

        Raises:
            ValueError: if the file is no palette, or has colours and the pictures are grey.
        """
        palette = self.config.palette.chosen(given, self.channels)
        self.config = replace(self.config, palette=palette)

    def noise(
        self,
        seed: int,
        start: int,
        count: int,
        stream: int = START,
        larger: tuple[int, int] | None = None,
    ) -> Tensor:
        """Standard normal noise of pictures start, start + 1, ... of a seed, [count, c, h, w]."""
        shape = (self.channels, *(larger or sides(self.size)))
        return picture_noise(seed, start, count, shape, stream).to(self.device)

    def labels(
        self, seed: int, start: int, count: int, label: Labels | None = None
    ) -> Tensor | None:
        """Labels of pictures start, start + 1, ..., int64 [count]; None without classes.

        Args:
            seed: labels that nobody names are drawn with it, as often as in the data.
            start: number of the first picture.
            count: number of pictures.
            label: one class for all, or a list: picture i has the label i of the list, which
                starts again at its end.

        Raises:
            ValueError: if a label is unknown, the list is empty, or the model has no classes.
        """
        if not self.classes:
            if label is not None:
                raise ValueError("this model was trained without classes; leave the label out")
            return None
        if label is None:
            drawn = picture_labels(seed, start, count, self.config.label_histogram)
            return drawn.to(self.device)
        named = listed(label)
        if named is None:
            number = self._label(label.item() if isinstance(label, Tensor) else label)
            return torch.full((count,), number, device=self.device)
        numbers = torch.tensor([self._label(one) for one in named], device=self.device)
        return numbers[torch.arange(start, start + count, device=self.device) % len(numbers)]

    def grid(
        self,
        num_images: int | None = None,
        seed: int = 0,
        label: Labels | None = None,
        columns: int | None = None,
        scale: int | None = None,
        calls: int | None = None,
    ) -> Image.Image:
        """Draw pictures and lay them out in rows, as one picture that a notebook shows.

        Args:
            num_images: number of pictures; None: 64, or two for each label of a list.
            seed: as in `sample`.
            label: as in `sample`.
            columns: pictures in a row; None: 8, or one column for each label of a list.
            scale: side of the square that each pixel becomes; None: pictures below 64 pixels are
                enlarged to about that.
            calls: as in `sample`.

        Raises:
            ValueError: as `sample` does, and if columns or scale are below 1.
        """
        named = None if label is None else listed(label)
        count = num_images or (64 if named is None else 2 * len(named))
        if columns is None:
            fits = named is not None and len(named) <= _MOST_COLUMNS
            columns = len(named) if named is not None and fits else COLUMNS
        if columns < 1 or (scale is not None and scale < 1):
            raise ValueError(f"{columns} columns at scale {scale} do not work; use 1 or more")
        pictures = self.sample(count, seed, label, calls).cpu()
        return enlarged(sheet(pictures, min(columns, count)), self.size, scale)

    def sample(
        self,
        num_images: int | None = None,
        seed: int = 0,
        label: Labels | None = None,
        calls: int | None = None,
    ) -> Tensor:
        """Draw pictures; Teacher and Generator say how."""
        raise NotImplementedError  # `grid` needs the name; a Model is always one of the two

    def _repr_html_(self) -> str:
        """What a notebook shows: one line."""
        return page(repr(self))

    def _label(self, label: object) -> int:
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        number = int(str(label)) if str(label).isdecimal() else -1
        if not 0 <= number < len(self.classes):
            some = ", ".join(self.classes[:10])
            some += f'; by its name: label="{label}"' if str(label) in self.classes else ""
            raise ValueError(f"unknown class {label!r}; there are {len(self.classes)}: {some}")
        return number

    def _at_once(self, pixels: int) -> int:
        """How many pictures of so many pixels are denoised in one batch."""
        return max(1, min(250, 2**18 // pixels))

    def _chunks(
        self,
        num_images: int,
        seed: int,
        on_drawn: OnDrawn | None = None,
        larger: tuple[int, int] | None = None,
    ) -> Iterator[tuple[int, int]]:
        if num_images < 1:
            raise ValueError(f"{num_images} pictures: ask for at least 1")
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; use 0 or more")
        chunk = self._at_once(math.prod(larger or sides(self.size)))
        for start in range(0, num_images, chunk):
            count = min(chunk, num_images - start)
            yield start, count
            if on_drawn is not None:
                on_drawn(start + count)


def listed(label: Labels) -> list[object] | None:
    """The labels of a list, an array or a tensor; None if it is a single label.

    Raises:
        ValueError: if there are none, or they are not in one row.

    Example:
        >>> listed(np.arange(3)), listed(["cat"]), listed("cat"), listed(torch.tensor(2))
        ([0, 1, 2], ['cat'], None, None)
    """
    if isinstance(label, str | int | np.integer) or getattr(label, "ndim", 1) == 0:
        return None
    if getattr(label, "ndim", 1) > 1:
        raise ValueError("labels must be in one row, one for each picture")
    named = label.tolist() if isinstance(label, np.ndarray | Tensor) else list(label)
    if not named:
        raise ValueError("the list of labels is empty; name a class for each picture")
    return named


def how_many(num_images: int | None, label: Labels | None) -> int:
    """The number of pictures: as asked, else one for each label of a list, else one.

    Example:
        >>> how_many(None, ["cat", "dog"]), how_many(None, None), how_many(5, [0, 1])
        (2, 1, 5)
    """
    if num_images is not None:
        return num_images
    named = None if label is None else listed(label)
    return 1 if named is None else len(named)
