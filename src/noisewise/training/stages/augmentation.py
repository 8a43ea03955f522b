"""Changed pictures for training: shifted, turned, mirrored or recoloured, and the net is told how.

Paper: Karras et al. 2022 (EDM), appendix F.2: augmentation that does not leak. A net that sees few
pictures often learns them by heart. So some are changed, each by chance, and what was done is told
to the net as a vector. Told nothing (the vector 0), it draws pictures as they are in the set: the
changed ones are another task, from which it learns only what both have in common.

The vector describes a change wholly: `draw` makes vectors, and `apply` changes pictures by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.sizes import AnySize, as_size, sides
from noisewise.training.settings.augment import CHANGES, Change

# The order of the three colours in each change of channels but the first, which is none.
_ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2))
_LENGTHS: dict[Change, int] = {"flips": 1, "turns": 3, "shifts": 2, "hue": 2, "channels": 5}


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made, and how often.

    Attributes:
        changes: names of `CHANGES`. flips: left to right. turns: by 90, 180 or 270 degrees, of
            pictures that are not square by 180. shifts: by whole pixels. hue: all colours turn
            around the axis of greys, which keeps the mean of the channels. channels: the three
            colours change places.
        share: of the pictures that get each change, from 0 to 1; changes are drawn independently.
        reach: of a shift, in sides of the picture.
        fill: what comes in at a border, one value in [-1, 1] for each channel; None: the border
            itself, repeated.

    Raises:
        ValueError: if a name is unknown or a number is out of range.

    Source: Karras et al. 2022, appendix F.2 and table 6.

    Example:
        >>> augmentation = Augmentation(("turns",), share=1.0)
        >>> x0 = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> augmentation.apply(x0, torch.tensor([[0.0, 1.0, 0.0]])).flatten().tolist()  # by 180
        [4.0, 3.0, 2.0, 1.0]
    """

    changes: tuple[Change, ...]
    share: float = 0.15
    reach: float = 0.125
    fill: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no picture can be given."""
        if unknown := [name for name in self.changes if name not in CHANGES]:
            raise ValueError(f"the change {unknown[0]!r} is unknown; use {', '.join(CHANGES)}")
        for name, value in (("share", self.share), ("reach", self.reach)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} of an augmentation is {value:g}; use 0 to 1")

    @property
    def length(self) -> int:
        """Length of the vector that tells what was done."""
        return sum(_LENGTHS[name] for name in self.changes)

    def most(self, size: AnySize) -> tuple[int, int]:
        """Farthest shift down and to the right, in pixels.

        Example:
            >>> Augmentation(("shifts",)).most((32, 48))
            (4, 6)
        """
        down, right = (max(1, round(self.reach * side)) for side in sides(as_size(size)))
        return down, right

    def draw(
        self,
        count: int,
        size: AnySize,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw what is done to each of `count` pictures; float32 [count, length], 0: nothing.

        Args:
            count: number of pictures.
            size: of the pictures.
            generator: source of randomness, on the device.
            device: None: the CPU.
        """
        parts = []
        for name in self.changes:
            numbers = torch.rand((3, count), generator=generator, device=device)
            vector = self._vector(name, size, numbers[1], numbers[2])
            parts.append(vector * (numbers[0] < self.share)[:, None])
        return torch.cat(parts, 1)

    def apply(self, x0: Tensor, told: Tensor) -> Tensor:
        """Change pictures as the vectors say; a picture with the vector 0 stays as it is.

        Args:
            x0: float [n, channels, h, w].
            told: result of `draw`, [n, length].

        Raises:
            ValueError: if grey pictures are to change their colour.
        """
        at = 0
        for name in self.changes:
            length = _LENGTHS[name]
            x0 = self._changed(name, x0, told[:, at : at + length].to(x0.device))
            at += length
        return x0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {**values, "changes": list(self.changes), "fill": self.fill and list(self.fill)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        fill = values["fill"]
        return cls(
            tuple(values["changes"]),
            float(values["share"]),
            float(values["reach"]),
            None if fill is None else tuple(float(value) for value in fill),
        )

    def _vector(self, name: Change, size: AnySize, first: Tensor, second: Tensor) -> Tensor:
        """What is told, from two numbers in [0, 1) for each picture."""
        if name == "flips":
            return torch.ones_like(first)[:, None]
        if name == "turns":
            high, wide = sides(as_size(size))
            turn = (first * 3).long() if high == wide else torch.ones_like(first).long()
            return F.one_hot(turn.clamp(max=2), 3).float()
        if name == "channels":
            return F.one_hot((first * 5).long().clamp(max=4), 5).float()
        if name == "hue":
            angle = 2 * math.pi * first
            return torch.stack([angle.cos() - 1, angle.sin()], 1)
        moved = [
            (number * (2 * most + 1)).long().clamp(max=2 * most) - most
            for number, most in zip((first, second), self.most(size), strict=True)
        ]
        return torch.stack([by / most for by, most in zip(moved, self.most(size), strict=True)], 1)

    def _changed(self, name: Change, x0: Tensor, told: Tensor) -> Tensor:
        if name == "shifts":
            return self._shifted(x0, told)
        return _CHANGED[name](x0, told)

    def _shifted(self, x0: Tensor, told: Tensor) -> Tensor:
        most = torch.tensor(self.most((int(x0.shape[2]), int(x0.shape[3]))), device=told.device)
        by = (told * most).round().long()
        inside = None
        for axis, moved in ((2, by[:, 0]), (3, by[:, 1])):
            side = x0.shape[axis]
            source = torch.arange(side, device=x0.device) - moved[:, None]  # [n, side]
            shape = (len(x0), 1, side, 1) if axis == 2 else (len(x0), 1, 1, side)
            index = source.clamp(0, side - 1).view(shape).expand(x0.shape)
            x0 = x0.gather(axis, index)
            here = ((source >= 0) & (source < side)).view(shape)
            inside = here if inside is None else inside & here
        if self.fill is None:
            return x0
        assert inside is not None
        fill = torch.tensor(self.fill, dtype=x0.dtype, device=x0.device).view(1, -1, 1, 1)
        return torch.where(inside, x0, fill)


def _flipped(x0: Tensor, told: Tensor) -> Tensor:
    return torch.where(told.view(-1, 1, 1, 1) > 0, x0.flip(3), x0)


def _turned(x0: Tensor, told: Tensor) -> Tensor:
    turned = x0
    for quarters in (1, 2, 3):
        chosen = told[:, quarters - 1].view(-1, 1, 1, 1) > 0
        if x0.shape[2] == x0.shape[3] or quarters == 2:
            turned = torch.where(chosen, x0.rot90(quarters, (2, 3)), turned)
    return turned


def _in_hue(x0: Tensor, told: Tensor) -> Tensor:
    """Colours turned around the axis of greys by the angle a, told as (cos a - 1, sin a).

    Rodrigues' formula: ``c + (cos a - 1) (c - mean) + sin a (g x c)``, g the unit vector of greys.
    """
    colours = _colours(x0)
    less, sine = told[:, 0].view(-1, 1, 1, 1), told[:, 1].view(-1, 1, 1, 1)
    grey = colours.mean(1, keepdim=True)
    across = (colours.roll(1, 1) - colours.roll(-1, 1)) / math.sqrt(3)
    turned = colours + less * (colours - grey) + sine * across
    done = (told != 0).any(1).view(-1, 1, 1, 1)
    return torch.cat([torch.where(done, turned, colours), x0[:, 3:]], 1)


def _in_order(x0: Tensor, told: Tensor) -> Tensor:
    colours = _colours(x0)
    which = (told * torch.arange(1, 6, device=told.device)).sum(1).long()
    orders = torch.tensor(_ORDERS, device=x0.device)[which]
    index = orders.view(-1, 3, 1, 1).expand(colours.shape)
    return torch.cat([colours.gather(1, index), x0[:, 3:]], 1)


def _colours(x0: Tensor) -> Tensor:
    if x0.shape[1] < 3:
        raise ValueError("grey pictures have no hue to change; leave out hue and channels")
    return x0[:, :3]


_CHANGED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flips": _flipped,
    "turns": _turned,
    "hue": _in_hue,
    "channels": _in_order,
}


def border_colour(x0: Tensor, least: float = 0.8) -> tuple[tuple[float, ...] | None, float]:
    """The value of most pixels on the borders of pictures, if they have one.

    Args:
        x0: float [n, channels, h, w].
        least: share of the border's pixels that must have it.

    Returns:
        The value of each channel, None if no value is that common; and the share of the commonest.

    Example:
        >>> x0 = torch.zeros(4, 1, 8, 8)
        >>> x0[:, :, 2:6, 2:6] = 1.0
        >>> border_colour(x0)
        ((0.0,), 1.0)
    """
    parts = [x0[:, :, 0], x0[:, :, -1], x0[:, :, 1:-1, 0], x0[:, :, 1:-1, -1]]
    border = torch.cat(parts, 2).transpose(1, 2).flatten(0, 1)
    values, counts = torch.unique(border, dim=0, return_counts=True)
    commonest = int(counts.argmax())
    share = float(counts[commonest] / counts.sum())
    found = tuple(values[commonest].tolist()) if share >= least else None
    return found, share
