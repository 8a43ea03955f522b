"""Carry the weights of a trained net into a new one: another size, other channels, other classes.

Weights are matched by name and shape, where levels of the two nets correspond: of a pyramid by
their distance from the coarsest band, of a U-Net by their resolution. What has no partner keeps the
values that the new net has. What is measured from pictures is never carried: spectral filters,
standard deviations and axes of colour are those of the new net.

Noise levels are counted from the spread of the pictures: a net sees ``c_in x``, in which a picture
of k times the contrast with k times the noise is the same, but it is told ln sigma. The sines and
cosines of ln sigma turn by the angle of ln k, which is exact:

    D_new(k x, k sigma) = k D_old(x, sigma)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.nets.bands import overall
from noisewise.nets.carry_edges import (
    carried_edge,
    channel_maps,
    check_channels,
    edge_of,
    interpolated_places,
)
from noisewise.nets.layers import noise_frequencies
from noisewise.sizes import as_size, mean_side, sides

_OURS = ("unet", "pyramid", "uvit", "vit")
_SHARED = ("embedding", "middle", "attend")  # of two different nets
_ANY = "any"  # stands in the place of the number of a level


@dataclass(frozen=True)
class Trained:
    """A trained net to start from.

    Attributes:
        net: its configuration; of nets from elsewhere, name and shape alone are looked at.
        weights: by the name of the parameter.
        sigma_data: standard deviation of its pictures.
        classes: names of its classes; "" for one without a meaning to others, such as a kind.
        shares: of each class in its pictures; empty: all alike.
        named: how sentences call it.
    """

    net: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    sigma_data: float
    classes: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    named: str = "the base"


@dataclass(frozen=True)
class Carried:
    """What came of it.

    Attributes:
        share: of the numbers of the new net that come from the trained one, 0 to 1.
        fresh: names of the parameters that kept the values of the new net.
    """

    share: float
    fresh: tuple[str, ...]


@torch.no_grad()
def carry_over(
    base: Trained, net: nn.Module, sigma_data: float, classes: Sequence[str] = ()
) -> Carried:
    """Give a new net the weights of a trained one, as far as they fit; in place.

    Args:
        base: the trained net.
        net: a new net, with fresh weights.
        sigma_data: standard deviation of the new pictures.
        classes: of the new net; a class of the same name keeps its vector, others get the mean.

    Raises:
        ValueError: if there is no rule for these numbers of channels, or nothing fits.

    Example:
        >>> from noisewise.nets.unet import UNet
        >>> old, new = UNet(1, 8, (8,), (1,)), UNet(3, 12, (8,), (1,))
        >>> base = Trained(old.config, old.state_dict(), 0.5)
        >>> carry_over(base, new, 0.5)
        Carried(share=1.0, fresh=())
    """
    config: Mapping[str, Any] = getattr(net, "config", None) or {}
    if _both_ours(base.net, config):
        check_channels(int(base.net["channels"]), int(config["channels"]), base.named)
    move = _Move(base, config, sigma_data, tuple(classes))
    fresh, copied, total = [], 0.0, 0
    for name, parameter in net.state_dict().items():
        total += parameter.numel()
        found = move.value(name, parameter)
        if found is None or found[0].shape != parameter.shape:
            fresh.append(name)
            continue
        parameter.copy_(found[0])
        copied += found[1] * parameter.numel()
    if not copied:
        raise ValueError(
            f"no weight of {base.named} fits this net; use another base, other --widths or --net, "
            "or start from nothing"
        )
    return Carried(copied / max(1, total), tuple(fresh))


def followed(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[int, ...], int | None]:
    """Widths and depth with which a derived net takes most of a trained one.

    Args:
        base: configuration of the trained net.
        new: configuration that was derived for the new pictures; the same architecture.

    Returns:
        The widths, and the number of transformer blocks; None: as derived.

    Example:
        >>> base = {"name": "unet", "size": 32, "patch": 2, "widths": [24, 48, 96]}
        >>> followed(base, {"name": "unet", "size": 64, "patch": 2, "widths": [32, 64, 128]})
        ((24, 24, 48, 96), None)
    """
    widths, name = tuple(base.get("widths", ())), new.get("name")
    if name == "vit":
        return (int(base["width"]),), int(base["depth"])
    if name == "uvit":
        return widths, int(base["depth"])
    if name == "unet":
        return (widths[0],) * _finer(base, new) + widths, None
    levels = len(new["detail_sd"])
    if levels == len(base["detail_sd"]):
        found = widths
    else:  # finer levels as derived: their widths go by the size
        found = (*new["widths"][:levels], *widths[len(base["detail_sd"]) :])
    most = max(levels + 1, min(sides(as_size(new["size"]))).bit_length() - 1)
    return tuple(found[:most]), int(base.get("depth", 0)) or None


class _Move:
    """Where each parameter of a new net comes from."""

    def __init__(
        self, base: Trained, new: Mapping[str, Any], sigma_data: float, classes: tuple[str, ...]
    ) -> None:
        self._base, self._new, self._classes = base, new, classes
        ours = _both_ours(base.net, new)
        self._same = ours and base.net["name"] == new["name"]
        self._ours = ours
        self._shift = 0.0
        if ours:
            before = _spread(base.net, base.sigma_data)
            self._shift = math.log(_spread(new, sigma_data) / before)
        self._maps = channel_maps(base.net, new) if self._same else None
        self._partners = {_place(name, base.net): name for name in base.weights}
        self._offset = _finer(base.net, new) if self._same else 0

    def value(self, name: str, parameter: Tensor) -> tuple[Tensor, float] | None:
        """A value for a parameter and the share of it that was carried; None: it stays fresh."""
        if name.endswith("embedding.labels.weight") and self._ours:
            return self._labels(parameter)
        weight = self._partner(name)
        if weight is None:
            return None
        weight = weight.to(parameter)
        if not self._ours:
            return weight, 1.0
        if name == "embedding.first.weight" and weight.shape == parameter.shape:
            return turned(weight, self._shift), 1.0
        if name == "embedding.second.bias" and weight.shape == parameter.shape:
            return self._without_classes(weight), 1.0
        if not self._same:
            return weight, 1.0
        if name == "place":
            each = _pixels_a_token(self._base.net), _pixels_a_token(self._new)
            places = interpolated_places(weight, self._base.net["size"], self._new["size"], each)
            return places, 1.0
        old, new = edge_of(name, self._base.net), edge_of(name, self._new)
        if old is None or new is None:
            return weight, 1.0
        assert self._maps is not None
        return carried_edge(weight, old, new, self._maps)

    def _partner(self, name: str) -> Tensor | None:
        """The weight in the same place of the old net."""
        if not self._ours:
            return self._base.weights.get(name)
        if not self._same:
            return self._base.weights.get(name) if name.split(".")[0] in _SHARED else None
        part, level, rest = _place(name, self._new)
        there = (part, level if isinstance(level, str) else level - self._offset, rest)
        found = self._partners.get(there)
        return None if found is None else self._base.weights[found]

    def _vectors(self) -> tuple[Tensor, Tensor] | None:
        """The vectors of the old classes, and their mean in the shares of the pictures."""
        vectors = self._base.weights.get("embedding.labels.weight")
        if vectors is None:
            return None
        shares = torch.tensor(self._base.shares or (1.0,) * len(vectors), dtype=torch.float32)
        return vectors.float(), (shares / shares.sum()) @ vectors.float()

    def _labels(self, parameter: Tensor) -> tuple[Tensor, float] | None:
        """Vectors of the new classes: of the same name, else the mean; 0 if there were none."""
        found = self._vectors()
        if found is None:  # the old net knew no classes: every class starts as that net
            return torch.zeros_like(parameter), 0.0
        vectors, mean = found
        if mean.shape[0] != parameter.shape[1]:
            return torch.zeros_like(parameter), 0.0
        known = {name: at for at, name in enumerate(self._base.classes) if name}
        names = self._classes or ("",) * len(parameter)
        rows = [vectors[known[name]] if name in known else mean for name in names]
        return torch.stack(rows).to(parameter), 1.0

    def _without_classes(self, bias: Tensor) -> Tensor:
        """With classes no more, the mean of their vectors stays in what is added to each."""
        found = self._vectors()
        if found is None or int(self._new.get("num_classes", 0)):
            return bias
        mean = found[1].to(bias)
        return bias + mean if mean.shape == bias.shape else bias


def turned(weight: Tensor, shift: float) -> Tensor:
    """Weights [width, 32] of the sines and cosines of ln sigma, for ln sigma + shift.

    Example:
        >>> from noisewise.nets.layers import NoiseEmbedding
        >>> one, other = NoiseEmbedding(8), NoiseEmbedding(8)
        >>> other.load_state_dict(one.state_dict())
        <All keys matched successfully>
        >>> other.first.weight.data = turned(one.first.weight.data, 0.7)
        >>> torch.allclose(other(torch.tensor([1.2])), one(torch.tensor([0.5])), atol=1e-5)
        True
    """
    if not shift:
        return weight.clone()
    angle = shift * noise_frequencies().to(weight)
    sines, cosines = weight.chunk(2, 1)
    return torch.cat(
        [
            sines * angle.cos() + cosines * angle.sin(),
            cosines * angle.cos() - sines * angle.sin(),
        ],
        1,
    )


def _both_ours(base: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return base.get("name") in _OURS and new.get("name") in _OURS


def _spread(net: Mapping[str, Any], sigma_data: float) -> float:
    """What noise is counted from: the deviation of the pictures, or of the coarsest band."""
    return overall(net["coarse_sd"]) if net["name"] == "pyramid" else sigma_data


def _finer(base: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Levels that the new net has above the finest one of the old."""
    if new["name"] == "pyramid":
        return len(new["detail_sd"]) - len(base["detail_sd"])
    if new["name"] != "unet":
        return 0
    # Below twice the size, levels keep their number. A coarser net keeps its finest levels, because
    # the vector of the noise has the width of the first one.
    return max(0, math.floor(math.log2(_resolution(new) / _resolution(base)) + 1e-9))


def _resolution(net: Mapping[str, Any]) -> float:
    return mean_side(as_size(net["size"])) / int(net.get("patch", 1))


def _pixels_a_token(net: Mapping[str, Any]) -> int:
    halvings = len(net["widths"]) if net["name"] == "uvit" else 0
    return int(net["patch"]) * 2**halvings


def _place(name: str, net: Mapping[str, Any]) -> tuple[str, int | str, str]:
    """Part, level and rest of a parameter's name; levels are counted from the finest."""
    part, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if not number.isdigit() or part not in _levelled(net):
        return part, _ANY, rest
    at = int(number)
    if net["name"] == "pyramid":
        thin = len(net["detail_sd"]) and not net["widths"][0]
        own = part in ("detail_stem", "detail_head", "gain")  # of level `at` whatever the finest is
        return part, at if own or not thin else at + 1, inside
    if part == "shrink":
        return part, at, inside
    levels = len(net["widths"])
    if part == "grow":
        return part, levels - 1 - at, inside
    counts = list(net["blocks"])
    order = list(range(levels)) if part == "down" else list(reversed(range(levels)))
    for level in order:
        if at < counts[level]:
            return part, level, f"{at}.{inside}"
        at -= counts[level]
    return part, _ANY, rest


def _levelled(net: Mapping[str, Any]) -> tuple[str, ...]:
    """Parts of a net whose number tells a level."""
    if net.get("name") == "unet":
        return ("down", "up", "shrink", "grow")
    if net.get("name") == "pyramid":
        edges = ("stem", "norm", "head", "detail_stem", "detail_head", "gain")
        return ("down", "up", "shrink", "grow", *edges)
    return ()
