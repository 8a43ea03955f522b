"""Damages of pictures, each with a strength: what a judge of pictures has to see, and how well.

Pictures are float [n, c, h, w] in [-1, 1]. Every result has the same shape and only the 256 values
of 8-bit pictures, as files have: a judge must not see that a damage left the grid of values.
Randomness comes from a torch.Generator; the same seed makes the same damage.

Many damages spare flat areas (backgrounds), because a spoilt background is a damage of its own.
Lengths are in pixels of a picture of 28 pixels and grow with the picture: in proportion for warps,
with the square root for blur.

Papers: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions
and perturbations" (graded damages); Sajjadi et al. 2018 (missing and doubled classes).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Spoil = Callable[[Tensor, float, torch.Generator], Tensor]
_LEVEL = 1 / 127.5  # one step of an 8-bit value
_SIDE = 28  # lengths are in pixels of pictures of this side
_PATCHES = 4  # torn pictures have this many patches per side


@dataclass(frozen=True)
class Damage:
    """A family of damages.

    Attributes:
        name: short name.
        spoil: (pictures, strength, generator) -> damaged pictures.
        strengths: from hardly visible to obvious.
        about: what the strength means.
        shown: the strength in the picture of all damages.
        needs_colour: it needs three channels, or three and opacity.
        needs_opacity: it needs four channels.
    """

    name: str
    spoil: Spoil
    strengths: tuple[float, ...]
    about: str
    shown: float
    needs_colour: bool = False
    needs_opacity: bool = False

    def fits(self, channels: int) -> bool:
        """Whether pictures with this many channels can have it."""
        return channels >= (4 if self.needs_opacity else 3 if self.needs_colour else 1)

    def of(self, images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        """Damage pictures; damages of colour leave the opacity of pictures with four channels."""
        if self.needs_opacity or images.shape[1] != 4:
            return self.spoil(images, strength, generator)
        spoilt = self.spoil(images[:, :3].contiguous(), strength, generator)
        return torch.cat([spoilt, images[:, 3:]], 1)


# ---------------------------------------------------------------------------------- what they share


def eight_bits(images: Tensor) -> Tensor:
    """Clamp to [-1, 1] and round to the nearest of 256 values."""
    return images.clamp(-1, 1).add(1).div(_LEVEL).round().mul(_LEVEL).sub(1)


def flat_areas(images: Tensor) -> Tensor:
    """Pixels whose 3 x 3 neighbourhood has one value in every channel: 1, others 0; one channel."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    highest, lowest = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
    return (highest - lowest < _LEVEL).all(1, keepdim=True).to(images.dtype)


def _things(images: Tensor) -> Tensor:
    return 1 - flat_areas(images)


def _clouds(images: Tensor, channels: int, cells: int, generator: torch.Generator) -> Tensor:
    """Smooth noise: standard normal numbers on a grid of cells x cells, with bicubic between."""
    coarse = torch.randn(len(images), channels, cells, cells, generator=generator)
    return F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=False)


# ------------------------------------------------------------------------------------------ damages


def noise(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Add white noise with this standard deviation."""
    return eight_bits(images + level * torch.randn(images.shape, generator=generator))


def speckle(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Give this share of the pixels a random colour."""
    n, _, height, width = images.shape
    hit = torch.rand(n, 1, height, width, generator=generator) < share
    colour = 2 * torch.rand(images.shape, generator=generator) - 1
    return eight_bits(torch.where(hit, colour, images))


def faint_grey(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Lay clouds on flat areas, darker than a bright corner and brighter than a dark one."""
    towards_middle = -images[:, :, :1, :1].sign()
    clouds = _clouds(images, 1, 6, generator).abs() * flat_areas(images)
    return eight_bits(images + level * towards_middle * clouds)


def stains(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Brighten and darken things in smooth stains; on grey pictures bright parts get more."""
    clouds = level * _clouds(images, 1, 5, generator) * _things(images)
    return eight_bits(images + clouds * (images + 1 if images.shape[1] == 1 else 0.5))


def colour_stains(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Lay smooth stains of any colour on things."""
    return eight_bits(images + level * _clouds(images, 3, 4, generator) * _things(images))


def hue(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Move the colour of all things towards red, the same way in every picture."""
    towards_red = torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1)
    return eight_bits(images + level * towards_red * _things(images))


def palette(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Move the colours of each picture's things in a direction of its own, with no grey in it."""
    drift = torch.randn(len(images), 3, 1, 1, generator=generator)
    drift -= drift.mean(1, keepdim=True)
    return eight_bits(images + level * drift * _things(images))


def _blurring(side: int, sigma: float) -> Tensor:
    """Gaussian weights [side, side]; what would lie outside is at the edge, cut at 3 sigma."""
    reach = max(1, int(3 * sigma + 0.5))
    weights = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2)).exp()
    weights /= weights.sum()
    rows = torch.zeros(side, side)
    for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
        places = (torch.arange(side) + step).clamp(0, side - 1)
        rows[torch.arange(side), places] += weight
    return rows


def _blurred(images: Tensor, sigma: float) -> Tensor:
    sigma *= max(1.0, (images.shape[2] / _SIDE) ** 0.5)
    height, width = images.shape[2:]
    return _blurring(height, sigma) @ images @ _blurring(width, sigma).T


def blur(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur."""
    return eight_bits(_blurred(images, sigma))


def jpeg(images: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Save as JPEG with this quality (100 is best) and read it again."""
    pixels = eight_bits(images).add(1).div(_LEVEL).round().to(torch.uint8)
    read = []
    for picture in pixels.permute(0, 2, 3, 1).numpy():
        stream = io.BytesIO()
        Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(
            stream, format="JPEG", quality=int(quality)
        )
        read.append(np.array(Image.open(stream)).reshape(picture.shape))
    back = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)
    return eight_bits(back.float() * _LEVEL - 1)


def blocks(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Mix with the same picture in blocks of 2 x 2 equal pixels; 1: blocks only."""
    height, width = images.shape[2:]
    coarse = F.avg_pool2d(images, 2, ceil_mode=True)
    tiled = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]
    return eight_bits(torch.lerp(images, tiled, share))


def warp(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Bend: move every pixel smoothly, by this many pixels of standard deviation."""
    height, width = images.shape[2:]
    shift = _clouds(images, 2, 5, generator) * pixels * height / _SIDE
    rows = (2 * torch.arange(height) + 1) / height - 1  # grid_sample's own coordinates
    columns = (2 * torch.arange(width) + 1) / width - 1
    x = columns + 2 * shift[:, 0] / width
    y = rows[:, None] + 2 * shift[:, 1] / height
    found = F.grid_sample(
        images, torch.stack([x, y], -1), mode="bicubic", padding_mode="border", align_corners=False
    )
    return eight_bits(found)


def torn(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Cut into 4 x 4 patches; each is taken with this probability, the taken ones change places."""
    side = images.shape[2] // _PATCHES
    whole = _PATCHES * side
    patches = F.unfold(images[..., :whole, :whole], side, stride=side)
    for picture in patches:
        taken = (torch.rand(_PATCHES**2, generator=generator) < share).nonzero().flatten()
        order = taken[torch.randperm(len(taken), generator=generator)]
        picture[:, taken] = picture[:, order]
    found = images.clone()
    found[..., :whole, :whole] = F.fold(patches, (whole, whole), side, stride=side)
    return eight_bits(found)


# ---------------------------------------------------------------------------------------- opacity


def opacity_stains(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Make opaque things transparent in smooth stains."""
    opacity = images[:, 3:]
    holes = level * _clouds(images, 1, 5, generator).abs() * (opacity + 1)
    return eight_bits(torch.cat([images[:, :3], opacity - holes], 1))


def opacity_blur(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Blur the opacity, so that edges fade."""
    return eight_bits(torch.cat([images[:, :3], _blurred(images[:, 3:], sigma)], 1))


def hidden_colour(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Add noise where a picture is fully transparent: nobody can see it."""
    hidden = level * torch.randn(images[:, :3].shape, generator=generator)
    hidden *= images[:, 3:] <= -1 + _LEVEL / 2
    return eight_bits(torch.cat([images[:, :3] + hidden, images[:, 3:]], 1))


# ------------------------------------------------------------------------------ damages of the set


def without_classes(images: Tensor, labels: Tensor, missing: list[int], count: int) -> Tensor:
    """The first `count` pictures of no missing class.

    Args:
        images: float [n, c, h, w], n large enough.
        labels: int64 [n].
        missing: classes to leave out.
        count: number of pictures.

    Raises:
        ValueError: if too few pictures are left.
    """
    kept = images[~torch.isin(labels, torch.tensor(missing))]
    if len(kept) < count:
        raise ValueError(f"{len(kept)} pictures are left without classes {missing}: {count} needed")
    return kept[:count]


def doubled_class(images: Tensor, labels: Tensor, doubled: int, count: int) -> Tensor:
    """`count` pictures in which one class is twice as frequent as among the first `count`.

    The added pictures of the class are new; they replace the last pictures of other classes.

    Raises:
        ValueError: if there are too few other pictures of the class.
    """
    more = images[count:][labels[count:] == doubled]
    added = int((labels[:count] == doubled).sum())
    if len(more) < added:
        raise ValueError(f"class {doubled} has {len(more)} more pictures: {added} are needed")
    others = (labels[:count] != doubled).nonzero().flatten()
    found = images[:count].clone()
    found[others[len(others) - added :]] = more[:added]
    return found


def copies(
    images: Tensor, originals: Tensor, share: float, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """Replace this share of the pictures by copies of originals, each used at most once."""
    count = round(share * len(images))
    chosen = torch.randperm(len(originals), generator=generator)[:count]
    return torch.cat([images[: len(images) - count], originals[chosen]])


def repeated(images: Tensor, share: float) -> Tensor:
    """Replace this share of the pictures by others of the same set: fewer different pictures."""
    different = max(1, round((1 - share) * len(images)))
    return images[torch.arange(len(images)) % different]


# ------------------------------------------------------------------------------------------- listed

DAMAGES = (
    Damage("noise", noise, (0.01, 0.03, 0.05, 0.1), "standard deviation, of a range of 2", 0.1),
    Damage("speckle", speckle, (0.001, 0.003, 0.01), "share of the pixels", 0.01),
    Damage("faint grey", faint_grey, (0.03, 0.06, 0.12), "height in flat areas", 0.12),
    Damage("stains", stains, (0.15, 0.25, 0.4), "height on things", 0.4),
    Damage("colour stains", colour_stains, (0.08, 0.15, 0.3), "height on things", 0.3, True),
    Damage("blur", blur, (0.3, 0.5, 0.8), "standard deviation in pixels at 28 px", 0.8),
    Damage("JPEG", jpeg, (90, 50, 25), "quality", 25),
    Damage("blocks", blocks, (0.25, 0.5, 1.0), "share of 2 x 2 blocks", 1.0),
    Damage("warp", warp, (0.5, 1.0, 1.5), "pixels at 28 px", 1.5),
    Damage("torn", torn, (0.12, 0.25, 0.5), "share of 16 patches", 0.25),
    Damage("hue", hue, (0.03, 0.06, 0.12), "towards red, of a range of 2", 0.12, True),
    Damage("palette", palette, (0.08, 0.15, 0.3), "drift of each picture", 0.3, True),
    Damage("opacity stains", opacity_stains, (0.1, 0.2, 0.4), "share of opacity", 0.4, True, True),
    Damage("opacity blur", opacity_blur, (0.5, 0.8, 1.2), "pixels at 28 px", 1.2, True, True),
    Damage("hidden colour", hidden_colour, (0.5,), "noise where transparent", 0.5, True, True),
)
SET_ASIDE = ("blocks", "colour stains")  # never looked at while a judge is being built


def damage_named(name: str) -> Damage:
    """The damage of this name."""
    return next(damage for damage in DAMAGES if damage.name == name)
