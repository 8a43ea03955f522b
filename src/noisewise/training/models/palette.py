"""The palette of a model: which colours its pictures have, how many, and how they get them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from noisewise.diffusion import Denoiser
from noisewise.diffusion.palette_ways import AGAIN, SOFT, drawn_again, softened
from noisewise.pictures.palette_files import Colours, check_channels, palette_of, written_out
from noisewise.quality.premultiplied import premultiplied
from noisewise.quality.snap_colours import snapped_to
from noisewise.training.settings.recipes import PaletteWay

MOST_COLOURS = 1024
TOLERANCE = 0.02  # until it is measured on pictures of the model


@dataclass(frozen=True)
class Palette:
    """The colours of a model's pictures; without any, pictures stay as they are drawn.

    Attributes:
        colours: red, green and blue of each, 0 to 255.
        most: colours that one picture may have; 0: as many as there are.
        typical: colours of a real picture, at the median; 0: not measured.
        tolerance: how far a picture's colours may move to become fewer, in Oklab; 0: they stay.
        way: "end": the nearest colours, once a picture is finished. "again": then a little noise,
            two calls, and the nearest colours again. "inside": each call of the teacher leans
            towards the palette, and the end is as before. RGBA leans and is drawn again
            premultiplied. One call of a generator knows "end".
        soft: how wide the lean is, see `softened`.
        by_hand: whether a person gave the colours.
        reason: where they come from.

    Raises:
        ValueError: if a number is out of range.
    """

    colours: Colours = ()
    most: int = 0
    typical: int = 0
    tolerance: float = 0.0
    way: PaletteWay = "end"
    soft: float = SOFT
    by_hand: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse colours that no picture can have."""
        levels = [level for colour in self.colours for level in colour]
        if len(self.colours) > MOST_COLOURS or not all(
            type(level) is int and 0 <= level <= 255 for level in levels
        ):
            raise ValueError(
                f"the palette has {len(self.colours)} colours, {list(self.colours)[:2]}; it needs "
                f"at most {MOST_COLOURS} of three whole numbers from 0 to 255"
            )
        if any(len(colour) != 3 for colour in self.colours):
            raise ValueError("the palette has colours that are not red, green and blue")
        counts = (self.most, self.typical)
        if not (0 <= self.tolerance <= 1 and 0 < self.soft <= 10 and min(counts) >= 0):
            raise ValueError(
                f"the palette has tolerance {self.tolerance}, soft {self.soft}, most {self.most} "
                f"and typical {self.typical}; use 0 to 1, above 0 to 10, and 0 or more"
            )
        if self.way not in get_args(PaletteWay):
            raise ValueError(
                f"the palette's way {self.way!r} is unknown; use one of "
                f"{', '.join(get_args(PaletteWay))}"
            )

    def __bool__(self) -> bool:
        """Whether there are colours."""
        return bool(self.colours)

    @property
    def tensor(self) -> Tensor:
        """The colours, uint8 [k, 3]."""
        return torch.tensor(self.colours, dtype=torch.uint8).view(-1, 3)

    @property
    def text(self) -> str:
        """In a few words.

        Example:
            >>> Palette(((0, 0, 0), (9, 9, 9)), typical=2).text, Palette().text
            ('2 colours, about 2 a picture', 'none')
        """
        if not self:
            return "none"
        about = f", about {self.typical} a picture" if self.typical else ""
        return f"{len(self.colours)} colours{about}"

    @property
    def more_calls(self) -> int:
        """Calls of a teacher that the way adds to each picture."""
        return len(AGAIN) if self and self.way == "again" else 0

    def chosen(self, given: str, channels: int) -> Palette:
        """The palette that a person asks for in place of this one.

        Args:
            given: "auto" for this one, "none", a file, or colours such as "#000000 #ffffff".
            channels: of the pictures.

        Raises:
            ValueError: if the file is no palette, or has colours and the pictures are grey.

        Example:
            >>> Palette(((0, 0, 0), (9, 9, 9)), typical=2).chosen("#000000 #ffffff", 3).text
            '2 colours, about 2 a picture'
        """
        if given == "auto":
            return self
        if given == "none":
            return Palette(reason="set by hand")
        colours = palette_of(given)
        check_channels(colours, channels)
        return replace(self, colours=colours, by_hand=True, reason="set by hand")

    def applied(self, images: Tensor) -> Tensor:
        """Return finished pictures, float [n, c, h, w] in [-1, 1], on the palette."""
        if not self:
            return images
        return snapped_to(images, self.tensor, self.tolerance, self.most or None)

    def during(self, denoiser: Denoiser, sigma_data: float, channels: int) -> Denoiser:
        """Return what a sampler calls: the denoiser, or with the way "inside" one that leans."""
        if not self or self.way != "inside":
            return denoiser
        inks = self.tensor[:, : min(channels, 3)].float() / 127.5 - 1
        return softened(denoiser, inks, sigma_data, self.soft)

    def after(
        self,
        pictures: Tensor,
        denoiser: Denoiser,
        sigma_data: float,
        normal: Callable[[], Tensor],
        condition: Tensor | None = None,
        as_shown: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return what a sampler drew; with the way "again" snapped and drawn again.

        RGBA is premultiplied, before and after; `as_shown` makes it straight, with opacity of 0 or
        1 where the model has no other. None: the pictures are opaque.
        """
        if not self or self.way != "again":
            return pictures
        shown = pictures if as_shown is None else as_shown(pictures)
        snapped = premultiplied(self.applied(shown))
        return drawn_again(denoiser, snapped, sigma_data, normal, condition)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; all colours are one text."""
        return {
            "colours": written_out(self.colours),
            "most": self.most,
            "typical": self.typical,
            "tolerance": self.tolerance,
            "way": self.way,
            "soft": self.soft,
            "by_hand": self.by_hand,
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Palette:
        """Read what `to_dict` wrote.

        Raises:
            ValueError, TypeError: if a value is wrong.

        Example:
            >>> Palette.from_dict(Palette(((0, 0, 0), (255, 9, 16))).to_dict()).colours
            ((0, 0, 0), (255, 9, 16))
        """
        words = str(values.get("colours", ""))[: 8 * (MOST_COLOURS + 1)].split()
        return cls(
            tuple(_colour(word) for word in words),
            int(values.get("most", 0)),
            int(values.get("typical", 0)),
            float(values.get("tolerance", 0.0)),
            values.get("way", "end"),
            float(values.get("soft", SOFT)),
            bool(values.get("by_hand", False)),
            str(values.get("reason", "")),
        )


NO_PALETTE = Palette()


def _colour(word: str) -> tuple[int, int, int]:
    """Read one colour such as #ff8000."""
    levels = bytes.fromhex(word.removeprefix("#"))
    if len(levels) != 3:
        raise ValueError(f"the palette has the colour {word[:20]!r}; write colours such as #ff8000")
    return levels[0], levels[1], levels[2]
