"""Copies with small changes, made from real pictures, to measure how well a test finds them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.quality.features import check_images

_SIDE = 32  # pixels; changes of place are meant for this side and grow with larger pictures
_FLAT = 1.5 / 127.5  # a place whose neighbours differ by less than 1.5 grey levels is ground
_HUE = math.radians(25)
_CAST = 0.2
_BRIGHTER = 1.35  # exponent, for grey pictures


def planted_copies(
    images: Tensor, flips: bool = False, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return copies of pictures with small changes, by kind of change.

    "shifted" by 1 or 2 pixels; "hue" turned by 25 degrees and "recoloured" by a cast (grey:
    another brightness); "stained" in one place; "ground" of another shade; "warped" by about a
    pixel; "noisy"; "several" of these at once, weaker; with flips also "mirrored" and shifted.
    Pixels are those of a side of 32 and grow with the picture. Every result is rounded to 8 bits.

    Args:
        images: float [n, c, h, w] in [-1, 1], c 1 (grey), 3 (RGB) or 4 (RGBA), sides >= 8.
        flips: also give mirror images.
        generator: of the changes; None: a fixed seed.

    Returns:
        For every kind of change, float32 [n, c, h, w].

    Raises:
        ValueError: if `images` are not pictures.

    Example:
        >>> copies = planted_copies(torch.zeros(2, 3, 16, 16))
        >>> sorted(copies)[:4], copies["noisy"].shape
        (['ground', 'hue', 'noisy', 'recoloured'], torch.Size([2, 3, 16, 16]))
    """
    check_images(images, "images")
    g = generator or torch.Generator().manual_seed(0)
    x = images.detach().float().cpu()
    several = _shifted(_cast(_stained(_warped(x, 0.5, g), 0.35, g), _CAST / 2, g), 1, g)
    made = {
        "shifted": _shifted(x, 2, g),
        "hue": _turned(x, g),
        "recoloured": _cast(x, _CAST, g),
        "stained": _stained(x, 0.7, g),
        "ground": _other_ground(x, g),
        "warped": _warped(x, 1.0, g),
        "noisy": _noisy(x, 0.06, g),
        "several": _noisy(several, 0.03, g),
    }
    if flips:
        made["mirrored"] = _shifted(x.flip(3), 1, g)
    return {kind: _rounded(copies) for kind, copies in made.items()}


def _rounded(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _pixels(x: Tensor) -> float:
    """What one pixel of a side of 32 is here; never less than a pixel."""
    return max(1.0, min(x.shape[2:]) / _SIDE)


def _colours(x: Tensor) -> int:
    return min(x.shape[1], 3)


def _painted(x: Tensor, change: Tensor) -> Tensor:
    """Add a change to the colours, and none to the opacity."""
    colours = _colours(x)
    return torch.cat([x[:, :colours] + change, x[:, colours:]], 1)


def _drawing(x: Tensor) -> Tensor:
    """1 where a picture has content, 0 on its flat ground; float [n, 1, h, w]."""
    spread = F.max_pool2d(x, 3, 1, 1) + F.max_pool2d(-x, 3, 1, 1)
    return (spread.amax(1, keepdim=True) > _FLAT).float()


def _uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    return (low + (high - low) * torch.rand(n, generator=g)).view(n, 1, 1, 1)


def _sign(n: int, g: torch.Generator) -> Tensor:
    return (2 * torch.randint(2, (n,), generator=g) - 1).view(n, 1, 1, 1).float()


def _shifted(x: Tensor, most: int, g: torch.Generator) -> Tensor:
    """Move by 1 to `most` pixels along one axis or both; edges are repeated."""
    steps = torch.randint(-most, most + 1, (len(x), 2), generator=g)
    still = (steps == 0).all(1)
    steps[still, 0] = 1
    reach = round(most * _pixels(x))
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    height, width = x.shape[2:]
    moves = (steps * _pixels(x)).round().long() + reach
    return torch.stack(
        [
            p[:, i : i + height, j : j + width]
            for p, (i, j) in zip(padded, moves.tolist(), strict=True)
        ]
    )


def _turned(x: Tensor, g: torch.Generator) -> Tensor:
    """Turn the colours about the axis of the greys; grey pictures become brighter or darker."""
    if _colours(x) == 1:
        return _gamma(x, g)
    angle = _HUE * _sign(len(x), g)
    grey = x[:, :3].mean(1, keepdim=True)
    rest = x[:, :3] - grey
    across = (rest.roll(1, 1) - rest.roll(-1, 1)) / math.sqrt(3)
    return _painted(x, (angle.cos() - 1) * rest + angle.sin() * across)


def _gamma(x: Tensor, g: torch.Generator) -> Tensor:
    power = _BRIGHTER ** _sign(len(x), g)
    brightness = (x[:, :1].clamp(-1, 1) + 1) / 2
    return _painted(x, 2 * brightness**power - 1 - x[:, :1])


def _cast(x: Tensor, level: float, g: torch.Generator) -> Tensor:
    """Add another colour to what is drawn in each picture; grey: another brightness."""
    cast = torch.randn(len(x), _colours(x), 1, 1, generator=g)
    cast = cast / cast.square().mean((1, 2, 3), keepdim=True).sqrt()
    return _painted(x, level * cast * _drawing(x))


def _stained(x: Tensor, level: float, g: torch.Generator) -> Tensor:
    """One soft spot, a quarter of the side wide, of another colour."""
    n, (height, width) = len(x), x.shape[2:]
    row = torch.linspace(0, 1, height).view(1, 1, -1, 1) - _uniform(n, 0.25, 0.75, g)
    column = torch.linspace(0, 1, width).view(1, 1, 1, -1) - _uniform(n, 0.25, 0.75, g)
    spot = torch.exp(-(row * row + column * column) / (2 * 0.12**2))
    tint = torch.randn(n, _colours(x), 1, 1, generator=g)
    tint = tint / tint.square().mean((1, 2, 3), keepdim=True).sqrt()
    return _painted(x, level * tint * spot)


def _other_ground(x: Tensor, g: torch.Generator) -> Tensor:
    """Another shade where the picture is flat, away from its own."""
    away = torch.where(x[:, : _colours(x)].mean((1, 2, 3), keepdim=True) > 0, -1.0, 1.0)
    return _painted(x, away * _uniform(len(x), 0.1, 0.3, g) * (1 - _drawing(x)))


def _warped(x: Tensor, pixels: float, g: torch.Generator) -> Tensor:
    """Move places smoothly by about so many pixels."""
    n, channels, height, width = x.shape
    field = F.interpolate(torch.randn(n, 2, 4, 4, generator=g), (height, width), mode="bicubic")
    scale = torch.tensor([2 / width, 2 / height]).view(1, 2, 1, 1) * pixels * _pixels(x)
    still = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, channels, height, width], False)
    places = still + (field * scale).permute(0, 2, 3, 1)
    return F.grid_sample(x, places, "bicubic", "border", align_corners=False)


def _noisy(x: Tensor, level: float, g: torch.Generator) -> Tensor:
    return x + level * torch.randn(x.shape, generator=g)
