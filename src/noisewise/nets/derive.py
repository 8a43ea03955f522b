"""From size, channels, budget and device to a net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from noisewise.nets.unet import UNet
from noisewise.nets.uvit import UViT
from noisewise.nets.vit import ViT

Architecture = Literal["unet", "uvit", "vit"]

_NETS: dict[str, type[nn.Module]] = {"unet": UNet, "uvit": UViT, "vit": ViT}
_LADDER = ((24, 48, 96), (32, 64, 128), (48, 96, 192), (64, 128, 256))
# Pictures that the net of the second rung could see in the budget, at the speed measured here (one
# forward and backward pass), from which each rung is taken. The first two were ahead in single
# prototype runs of 45 and 270 s of two cores; the others are a guess, not measured yet.
_RUNG_IMAGES = (0.0, 100e3, 1.7e6, 8e6)
_USUAL_RUNG = 1
_TRANSFORMER = ((128, 6), (256, 8), (384, 12))


@dataclass(frozen=True)
class Derived:
    """A net's configuration for `build`, what its output means, and why it was chosen."""

    net: dict[str, Any]
    prediction: Literal["edm", "x0"]
    reason: str


def build(config: dict[str, Any]) -> nn.Module:
    """Build a net from its configuration, with fresh weights.

    Args:
        config: the `config` of a net: "name" and its arguments; lists stand for tuples.

    Raises:
        ValueError: if the name is unknown or the arguments do not fit.

    Example:
        >>> net = build({"name": "unet", "channels": 1, "size": 8, "widths": [8], "blocks": [1]})
        >>> build(net.config).config == net.config
        True
    """
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    name = arguments.pop("name", None)
    if name not in _NETS:
        raise ValueError(f"net {name!r} is unknown; use one of {', '.join(_NETS)}")
    try:
        return _NETS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"the arguments of net {name!r} do not fit: {error}") from None


def derive(
    size: int,
    channels: int,
    images: float | None = None,
    architecture: Literal["auto", "unet", "uvit", "vit"] = "auto",
    widths: tuple[int, ...] = (),
    num_classes: int = 0,
    dropout: float = 0.0,
) -> Derived:
    """Choose a net for pictures of `size` pixels and a budget of so many `images`.

    Up to 64 pixels a U-Net on 2 x 2 blocks, wider where more pictures can be seen; above, a U-ViT
    that brings every size to about 16 x 16 tokens; the transformer when asked for.

    Args:
        size: side in pixels.
        channels: 1 or 3.
        images: pictures that the usual net (the one for None) can see in the budget on this
            machine; None: not known.
        architecture: "auto", or a choice.
        widths: channels a resolution, finest first, to set them by hand.
        num_classes: labels; 0: none.
        dropout: in the lowest resolution.

    Raises:
        ValueError: if no such net takes the size.

    Source: prototype runs, single seeds; Hoogeboom et al. 2023 for the U-ViT.

    Example:
        >>> derive(28, 1, images=200_000).net["widths"]
        [32, 64, 128]
        >>> derive(256, 3).net["name"]
        'uvit'
    """
    common = {
        "channels": channels,
        "size": size,
        "dropout": dropout,
        "num_classes": num_classes,
    }
    rung = _rung(images)
    name = architecture
    if name == "auto":
        name = "unet" if size <= 64 else "uvit"
    if name == "unet":
        return _unet(size, common, rung, widths, images)
    if name == "uvit":
        return _uvit(size, common, rung, widths)
    width, depth = _TRANSFORMER[min(rung, len(_TRANSFORMER) - 1)]
    patch = max(2, 2 ** round(math.log2(size / 8)))
    _divides(size, patch)
    pixels = channels * patch**2
    net = {"name": "vit", "width": widths[0] if widths else width, "depth": depth, "patch": patch}
    net |= {"bottleneck": 64 if pixels > width else 0, **common}
    return Derived(net, "x0", f"asked for; {(size // patch) ** 2} patches, predicting x0 (JiT)")


def _unet(
    size: int,
    common: dict[str, Any],
    rung: int,
    widths: tuple[int, ...],
    images: float | None,
) -> Derived:
    patch = 1 if size < 16 else 2 if size <= 64 else 2 ** round(math.log2(size / 32))
    _divides(size, patch)
    reason = "set by hand"
    if not widths:
        widths = _LADDER[rung]
        reason = "the usual width"
        if images is not None:
            reason = f"the width for some {_rounded(images):,} pictures"
    # A resolution below 3 x 3 pixels has nothing left to convolve.
    side, fits = size // patch, 1
    while fits < len(widths) and math.ceil(side / 2**fits) >= 3:
        fits += 1
    widths = widths[:fits]
    net = {"name": "unet", "widths": list(widths), "blocks": [1] * len(widths), "patch": patch}
    net |= {"attention": True, **common}
    return Derived(net, "edm", reason)


def _uvit(size: int, common: dict[str, Any], rung: int, widths: tuple[int, ...]) -> Derived:
    width, depth = _TRANSFORMER[min(rung, len(_TRANSFORMER) - 1)]
    levels = widths or (32,)
    # Patches so large that about 16 x 16 tokens (8 x 8 for small pictures) are left.
    tokens = 16 if size > 64 else 8
    patch = max(1, 2 ** round(math.log2(size / tokens / 2 ** len(levels))))
    _divides(size, patch * 2 ** len(levels))
    net = {"name": "uvit", "widths": list(levels), "width": width, "depth": depth, "patch": patch}
    side = size // patch // 2 ** len(levels)
    return Derived({**net, **common}, "edm", f"brings {size} pixels to {side} x {side} tokens")


def _rung(images: float | None) -> int:
    if images is None:
        return _USUAL_RUNG
    return sum(images >= least for least in _RUNG_IMAGES) - 1


def _rounded(images: float) -> int:
    """Two figures of it: the speed of a machine is not known better."""
    step = 10 ** max(0, math.floor(math.log10(max(images, 1))) - 1)
    return round(images / step) * step


def _divides(size: int, step: int) -> None:
    if size % step:
        low = max(step, size - size % step)
        raise ValueError(f"the net cannot take {size} pixels; use {low} or {low + step}")
