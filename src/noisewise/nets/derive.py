"""Choose a net for a picture size, a number of channels and a budget, and build it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from noisewise.nets.bands import Bands, levels_for, usual_bands
from noisewise.nets.fitting import check_fits
from noisewise.nets.pyramid import Pyramid
from noisewise.nets.unet import UNet
from noisewise.nets.uvit import UViT
from noisewise.nets.vit import ViT
from noisewise.sizes import Size, halved, mean_side, sides, spelled, written

Architecture = Literal["auto", "unet", "pyramid", "uvit", "vit"]

_NETS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "pyramid": Pyramid,
    "uvit": UViT,
    "vit": ViT,
}
_WIDTHS = ((24, 48, 96), (32, 64, 128), (48, 96, 192), (64, 128, 256))
# Each of the _WIDTHS is used from this budget on: the number of pictures on which the second net
# can train in the budget, at its measured speed (forward and backward pass). The first two were
# best in single prototype runs of 45 and 270 s on two cores; the others are a guess.
_LEAST_IMAGES = (0.0, 100e3, 1.7e6, 8e6)
_USUAL_LEVEL = 1
_LARGEST_UNET = 32  # pixels, the mean side: above, a pyramid; at 64 it has an eighth of the floors
_SMALL = 64  # pixels: up to here a head that is too narrow, set by hand, can still learn something
# Channels of a pyramid above its trunk, and at full size. At 256 pixels and more nothing is
# computed at full size: the details of the finest level come from the features of half the size,
# which needs at least 12 channels there. On a CPU, multiples of 8 channels are the quick ones.
_FINE_WIDTHS = ((16, 8), (16, 8), (24, 16), (32, 16))
_ALL_AT_HALF = 256  # pixels
_TRANSFORMER = ((128, 6), (256, 8), (384, 12))


@dataclass(frozen=True)
class Derived:
    """The configuration of a net for `build`, the meaning of its output, and why it was chosen."""

    net: dict[str, Any]
    prediction: Literal["edm", "x0", "bands"]
    reason: str


def build(config: dict[str, Any]) -> nn.Module:
    """Build a net from its configuration, with fresh weights.

    Args:
        config: the `config` of a net: "name" and its arguments; lists are read as tuples.

    Raises:
        ValueError: if the name is unknown or the arguments do not fit.

    Example:
        >>> net = build({"name": "unet", "channels": 1, "size": 8, "widths": [8], "blocks": [1]})
        >>> build(net.config).config == net.config
        True
    """
    arguments = {k: _as_tuple(v) for k, v in config.items()}
    name = arguments.pop("name", None)
    if name not in _NETS:
        raise ValueError(f"net {name!r} is unknown: use one of {', '.join(_NETS)}")
    try:
        return _NETS[name](**arguments)
    except TypeError as error:
        raise ValueError(
            f"net {name!r} cannot be built: {error}; correct these arguments"
        ) from None


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(part) for part in value) if isinstance(value, list) else value


def prediction_of(config: dict[str, Any]) -> Literal["edm", "x0", "bands"]:
    """What a net of `derive` predicts.

    Example:
        >>> prediction_of({"name": "pyramid"}), prediction_of({"name": "unet"})
        ('bands', 'edm')
    """
    name = config.get("name")
    return "bands" if name == "pyramid" else "x0" if name == "vit" else "edm"


def derive(
    size: Size,
    channels: int,
    images: float | None = None,
    architecture: Architecture = "auto",
    widths: tuple[int, ...] = (),
    num_classes: int = 0,
    dropout: float = 0.0,
    bands: Bands | None = None,
    depth: int | None = None,
) -> Derived:
    """Choose a net for pictures of `size` pixels and a budget of `images` training pictures.

    Up to 32 pixels: a U-Net on 2 x 2 blocks, wider if the budget allows more pictures. Above: a
    pyramid of Haar bands down to at most 32 pixels. The transformers are only used if requested.
    Where the sides differ, their geometric mean counts: cost and noise go by the number of pixels.

    Args:
        size: of the pictures, see `noisewise.sizes`.
        channels: 1, 3 or 4.
        images: number of pictures on which the usual net (the one for None) can train in the budget
            on this machine; None: unknown.
        architecture: "auto", or the name of a net.
        widths: channels at each resolution, finest first; empty: chosen.
        num_classes: number of classes; 0: none.
        dropout: used at the lowest resolution.
        bands: of the pictures, for a pyramid; None: as photographs are.
        depth: transformer blocks at the lowest resolution; None: chosen, of a pyramid none.

    Raises:
        ValueError: if the net cannot use this size, cannot reach all of its pixels, or has no
            transformer blocks whose number could be set.

    Source: prototype runs, single seeds; benchmarks/pictures/high_resolution.py for the pyramid;
        Hoogeboom et al. 2023 for the U-ViT.

    Example:
        >>> derive(28, 1, images=200_000).net["widths"]
        [32, 64, 128]
        >>> derive(256, 3).net["name"]
        'pyramid'
    """
    common = {
        "channels": channels,
        "size": written(size),
        "dropout": dropout,
        "num_classes": num_classes,
    }
    level = _level(images)
    name = architecture
    if name == "auto":
        name = "unet" if mean_side(size) <= _LARGEST_UNET else "pyramid"
    if name == "pyramid":
        return _pyramid(size, common, level, widths, bands, depth or 0)
    if name == "unet":
        if depth is not None:
            raise ValueError("a U-Net has no transformer blocks; use depth with --net pyramid")
        return _unet(size, common, level, widths, images)
    if name == "uvit":
        return _uvit(size, common, level, widths, depth)
    width, usual = _TRANSFORMER[min(level, len(_TRANSFORMER) - 1)]
    depth = usual if depth is None else depth
    patch = _checked(size, lambda size: max(2, 2 ** round(math.log2(mean_side(size) / 8))))
    pixels, width = channels * patch**2, widths[0] if widths else width
    _check_reach(pixels, width, size, patch)
    net = {"name": "vit", "width": width, "depth": depth, "patch": patch}
    net |= {"bottleneck": 64 if pixels > width else 0, **common}
    rows, columns = (side // patch for side in sides(size))
    reason = f"set by hand; {rows * columns} patches, predicts x0 (JiT)"
    return Derived(net, "x0", reason)


def _unet(
    size: Size,
    common: dict[str, Any],
    level: int,
    widths: tuple[int, ...],
    images: float | None,
) -> Derived:
    patch = _checked(size, _unet_patch)
    reason = "set by hand"
    if not widths:
        widths = _WIDTHS[level]
        reason = "the usual width"
        if images is not None:
            reason = f"the width for training on about {_rounded(images):,} pictures"
    _check_reach(common["channels"] * patch**2, widths[0], size, patch)
    # Below 3 x 3 pixels, a 3 x 3 convolution makes no sense; a strip keeps one row at least.
    side, rows, fits = mean_side(size) / patch, min(sides(size)) // patch, 1
    while fits < len(widths) and math.ceil(side / 2**fits) >= 3 and rows >> fits:
        fits += 1
    widths = widths[:fits]
    net = {"name": "unet", "widths": list(widths), "blocks": [1] * len(widths), "patch": patch}
    net |= {"attention": True, **common}
    return Derived(net, "edm", reason)


def _unet_patch(size: Size) -> int:
    side = mean_side(size)
    if side <= _SMALL:
        return 1 if side < 16 else 2
    return 2 ** round(math.log2(side / 32))


def _pyramid(
    size: Size,
    common: dict[str, Any],
    level: int,
    widths: tuple[int, ...],
    bands: Bands | None,
    depth: int,
) -> Derived:
    levels = levels_for(size) if bands is None else bands.levels
    _checked(size, lambda size: 2 ** (levels_for(size) if bands is None else bands.levels))
    bands = bands or usual_bands(size, levels, common["channels"])
    reason = "set by hand" if widths else _from_to(size, levels)
    net = {
        "name": "pyramid",
        "detail_sd": [list(row) for row in bands.detail_sd],
        "coarse_sd": list(bands.coarse_sd),
        "power": [list(row) for row in bands.power],
        "colours": [list(row) for row in bands.colours],
        "mean": list(bands.mean),
        "widths": list(widths or _pyramid_widths(size, levels, level)),
    }
    net["blocks"] = [1] * len(net["widths"])
    return Derived({**net, "depth": depth, "gains": True, **common}, "bands", reason)


def _from_to(size: Size, levels: int) -> str:
    return f"bands from {written(size)} down to {written(halved(size, levels))} pixels"


def _pyramid_widths(size: Size, levels: int, level: int) -> list[int]:
    fine, finest = _FINE_WIDTHS[level]
    first = [] if not levels else [finest if mean_side(size) < _ALL_AT_HALF else 0]
    found = [*first, *[fine] * (levels - 1), *_WIDTHS[level]]
    # A long strip has few rows: it is halved only as often as 2 of them are left.
    return found[: max(levels + 1, min(sides(size)).bit_length() - 1)]


def _uvit(
    size: Size, common: dict[str, Any], level: int, widths: tuple[int, ...], depth: int | None
) -> Derived:
    width, usual = _TRANSFORMER[min(level, len(_TRANSFORMER) - 1)]
    depth = usual if depth is None else depth
    patch = _uvit_patch(size, len(widths))
    pixels = common["channels"] * patch**2
    channels = widths or (max(32, pixels) if mean_side(size) <= _SMALL else 32,)
    _checked(size, lambda size: _uvit_patch(size, len(widths)) * 2 ** len(channels))
    _check_reach(pixels, channels[0], size, patch)
    net = {"name": "uvit", "widths": list(channels), "width": width, "depth": depth, "patch": patch}
    left = halved(size, int(math.log2(patch)) + len(channels))
    reason = f"reduces {written(size)} pixels to {spelled(left)} tokens"
    return Derived({**net, **common}, "edm", reason)


def _uvit_patch(size: Size, halvings: int) -> int:
    """A patch that leaves about 16 x 16 tokens (8 x 8 for small pictures)."""
    side = mean_side(size)
    tokens = 16 if side > _SMALL else 8
    return max(1, 2 ** round(math.log2(side / tokens / 2 ** max(1, halvings))))


def _check_reach(pixels: int, width: int, size: Size, patch: int) -> None:
    """Refuse a head with fewer inputs than outputs at large sizes: it cannot draw everything."""
    # Small nets by hand, for small pictures, are fine.
    if mean_side(size) > _SMALL and width < pixels:
        raise ValueError(
            f"at {written(size)} pixels a patch of {patch} x {patch} has {pixels} values, and this "
            f"net has {width} channels to draw them from; use --net pyramid or widths of at least "
            f"{pixels}"
        )


def _level(images: float | None) -> int:
    """Index of the width for a budget of `images`."""
    if images is None:
        return _USUAL_LEVEL
    return sum(images >= least for least in _LEAST_IMAGES) - 1


def _rounded(images: float) -> int:
    """Round to two digits: the speed of a machine is not known more exactly."""
    step = 10 ** max(0, math.floor(math.log10(max(images, 1))) - 1)
    return round(images / step) * step


def _checked(size: Size, step_of: Callable[[Size], int]) -> int:
    """The step that divides both sides; refuse a size without, and name sizes that have one."""
    step = step_of(size)
    check_fits(size, step, step_of=step_of)
    return step
