"""The first and last layers of a net, carried to other channels, colours and patches.

Only these layers know pixels. A net that has learnt grey pictures can start on colour ones, and one
that has learnt colours on sprites with transparency, if its pixels are read and written by a rule:

* grey to colour: each colour is read as a third of grey, and each is drawn as grey was;
* colour to grey: grey is read as every colour, and drawn as the mean of all;
* transparency joins: it is read and drawn as nothing at first; if it leaves, it is dropped;
* a larger patch: one pixel of before is a square of pixels now; a smaller one: the other way round.

A pyramid reads axes of colour, which are measured from its pictures. Each axis takes the weights of
the nearest one of before, with its sign: an axis and its opposite are the same to the measurement,
and not to a net.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from noisewise.sizes import as_size, sides

KNOWN = (1, 3, 4)
"""Numbers of channels between which there is a rule: grey, colour, colour with transparency."""


@dataclass(frozen=True)
class Edge:
    """Where the channels are in a weight: dimension `dim` holds outer x channels x patch^2.

    Attributes:
        dim: 1 of what reads pixels, 0 of what draws them.
        outer: how many bands it reads or draws of each channel.
        patch: side of the patches.
        factors: whether it draws factors of colours, which an opposite axis does not change.
    """

    dim: Literal[0, 1]
    outer: int = 1
    patch: int = 1
    factors: bool = False


def edge_of(name: str, net: Mapping[str, Any]) -> Edge | None:
    """Which edge a parameter is; None if it knows no pixels.

    Args:
        name: of the parameter.
        net: configuration of the net.

    Example:
        >>> edge_of("stem.weight", {"name": "unet", "patch": 2})
        Edge(dim=1, outer=1, patch=2, factors=False)
        >>> edge_of("middle.conv1.weight", {"name": "unet", "patch": 2}) is None
        True
    """
    first, patch = name.split(".")[0], int(net.get("patch", 1))
    if net.get("name") == "pyramid":
        found = {"stem": 2, "detail_stem": 3, "head": 1, "detail_head": 3, "gain": 6}
        if first not in found or (first.endswith("stem") and name.endswith("bias")):
            return None
        dim = 1 if first.endswith("stem") else 0
        return Edge(dim, found[first], factors=first == "gain")
    if first == "head":
        return Edge(0, patch=patch)
    reads = "stem.0.weight" if net.get("bottleneck") else "stem.weight"
    return Edge(1, patch=patch) if name == reads else None


def check_channels(old: int, new: int, named: str) -> None:
    """Refuse channels without a rule.

    Args:
        old: channels of the weights.
        new: channels that are wanted.
        named: what the weights are of.

    Raises:
        ValueError: if the numbers differ, and one is not 1, 3 or 4.

    Example:
        >>> check_channels(2, 3, "runs/mine")
        Traceback (most recent call last):
        ...
        ValueError: runs/mine has 2 channels and these pictures have 3: only nets of 1 (grey), 3 \
(colour) and 4 (colour with transparency) start from one another; use another base, or none
    """
    if old != new and not {old, new} <= set(KNOWN):
        raise ValueError(
            f"{named} has {old} channels and these pictures have {new}: only nets of 1 (grey), "
            "3 (colour) and 4 (colour with transparency) start from one another; use another "
            "base, or none"
        )


def channel_maps(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """How channels are read and drawn: two matrices, [old, new] and [new, old].

    Args:
        old: configuration of the net of before.
        new: configuration of the net now; the same architecture.

    Example:
        >>> read, drawn = channel_maps({"channels": 1}, {"channels": 3})
        >>> read.tolist()[0][:2], drawn.flatten().tolist()
        ([0.3333333432674408, 0.3333333432674408], [1.0, 1.0, 1.0])
    """
    before, now = int(old["channels"]), int(new["channels"])
    if new.get("name") == "pyramid":
        found = _axes_matched(_axes(old, before), _axes(new, now))
        return found, found.mT
    if before == now or {before, now} == {3, 4}:
        kept = torch.eye(before, now)
        return kept, kept.mT
    colours = torch.ones(1, max(before, now))
    if colours.shape[1] == 4:
        colours[0, 3] = 0.0  # transparency
    if before == 1:
        return colours / 3, colours.mT
    return colours.mT, colours / 3


def carried_edge(
    weight: Tensor, old: Edge, new: Edge, maps: tuple[Tensor, Tensor]
) -> tuple[Tensor, float] | None:
    """A weight of the first or last layer for other channels and another patch.

    Args:
        weight: of before; a bias has one dimension.
        old: where its channels are.
        new: where the channels are now.
        maps: result of `channel_maps`.

    Returns:
        The weight, and the share of it that comes from before; None if the patches do not fit.
    """
    reads = old.dim == 1
    matrix = maps[0] if reads else maps[1].mT  # [old, new] in both cases
    matrix = matrix.abs() if old.factors else matrix
    if old == new and matrix.shape[0] == matrix.shape[1] and _is_identity(matrix):
        return weight.clone(), 1.0  # bit for bit
    parts = weight.movedim(old.dim, 0)
    rest = parts.shape[1:]
    parts = parts.reshape(old.outer, matrix.shape[0], old.patch, old.patch, *rest)
    mixed = torch.einsum("oc...,cd->od...", parts, matrix.to(weight))
    patched = _patched(mixed, old.patch, new.patch, reads)
    if patched is None:
        return None
    whole = patched.reshape(-1, *rest).movedim(0, old.dim)
    return whole.contiguous(), float((matrix != 0).any(0).float().mean())


def interpolated_places(
    places: Tensor, old: object, new: object, per_token: tuple[int, int]
) -> Tensor:
    """Position embeddings of another grid, float [rows * columns, width].

    Args:
        places: of the old grid.
        old: size of the old pictures.
        new: size of the new pictures.
        per_token: pixels of a side that a token stands for, before and now.

    Example:
        >>> places = torch.arange(4.0)[:, None]
        >>> interpolated_places(places, 4, 8, (2, 2)).shape
        torch.Size([16, 1])
    """
    grids = [
        tuple(side // each for side in sides(as_size(size)))
        for size, each in zip((old, new), per_token, strict=True)
    ]
    if grids[0] == grids[1]:
        return places.clone()
    image = places.reshape(1, *grids[0], -1).permute(0, 3, 1, 2)
    found = F.interpolate(image, size=grids[1], mode="bilinear", align_corners=False)
    return found.permute(0, 2, 3, 1).reshape(-1, places.shape[1])


def _axes(net: Mapping[str, Any], channels: int) -> Tensor:
    """Axes of colour as rows over red, green, blue, transparency; grey is all colours alike."""
    rows = net.get("colours") or torch.eye(channels).tolist()
    axes = torch.tensor(rows)
    if channels == 1:
        return axes * torch.tensor([[1.0, 1.0, 1.0, 0.0]]) / 3**0.5
    return F.pad(axes, (0, 4 - channels)) if channels < 4 else axes


def _axes_matched(old: Tensor, new: Tensor) -> Tensor:
    """Which old axis each new one takes, and with which sign, [old, new] of 1, -1 and 0."""
    if len(old) > max(KNOWN) or (old.shape == new.shape and torch.equal(old, new)):
        return torch.eye(len(old))
    alike = old @ new.mT
    few, many = sorted(alike.shape)
    table = alike if alike.shape[0] == few else alike.mT
    best = max(
        permutations(range(many), few),
        key=lambda order: sum(abs(float(table[at, to])) for at, to in enumerate(order)),
    )
    found = torch.zeros_like(table)
    for at, to in enumerate(best):
        found[at, to] = 1.0 if table[at, to] >= 0 else -1.0
    return found if alike.shape[0] == few else found.mT


def _is_identity(matrix: Tensor) -> bool:
    return torch.equal(matrix, torch.eye(len(matrix)))


def _patched(parts: Tensor, old: int, new: int, reads: bool) -> Tensor | None:
    """Weights [outer, channels, p, p, ...] of patches of another side; None if none divides."""
    if old == new:
        return parts
    if new % old == 0:
        times = new // old
        wide = parts.repeat_interleave(times, 2).repeat_interleave(times, 3)
        return wide / times**2 if reads else wide
    if old % new == 0:
        times = old // new
        blocks = parts.unflatten(3, (new, times)).unflatten(2, (new, times))
        return blocks.sum((3, 5)) if reads else blocks.mean((3, 5))
    return None
