"""Training coarse scales first: which part of a picture a step learns, and with which noise.

Papers: Gu et al. 2023 (Matryoshka diffusion) for growing in resolution; Hoogeboom et al. 2023
(simple diffusion) for noise that suits a scale. How the budget is divided was measured:
benchmarks/pictures/where_to_grow.py.

A pyramid without its finest levels is the same net for a smaller picture, the low-pass band, and
trains on many times as many of them in a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import EDMWeight, LogNormal, Weight
from noisewise.nets.bands import overall
from noisewise.nets.haar import low_pass
from noisewise.sizes import as_size, halved, written


@dataclass(frozen=True)
class Scale:
    """A part of the budget that trains on pictures of one size.

    Attributes:
        side: of the low-pass band, in pixels; WIDTHxHEIGHT if it is not square.
        levels: halvings from the whole picture; 0: the whole.
        until: share of the budget where it ends.
        sd: standard deviation of the band.
        noise: the draw of its noise levels.
    """

    side: int | str
    levels: int
    until: float
    sd: float
    noise: LogNormal

    def reduced(self, x0: Tensor) -> Tensor:
        """The low-pass band of whole pictures, [n, c, h, w]."""
        return low_pass(x0, self.levels)

    @property
    def weight(self) -> Weight:
        """EDM's weight for this band."""
        return EDMWeight(self.sd)

    @property
    def work(self) -> float:
        """What one picture costs, in whole pictures."""
        return 4.0**-self.levels


def scales(net: Mapping[str, Any], share: float, relative: LogNormal) -> tuple[Scale, ...]:
    """Divide a budget between the scales of a net, from coarse to the whole picture.

    The coarsest band gets two thirds of `share`, the next one two thirds of the rest, and so on;
    the last one gets what is left. Whole pictures get ``1 - share``.

    Args:
        net: configuration of a net; only a pyramid has scales.
        share: of the budget for all scales but the whole picture, from 0 to below 1.
        relative: draw of sigma / sd in each band.

    Example:
        >>> net = {"name": "pyramid", "size": 128, "detail_sd": [[0.1], [0.2]], "coarse_sd": [2.0]}
        >>> [(s.side, round(s.until, 2)) for s in scales(net, 0.6, LogNormal(-0.4, 1.4))]
        [(32, 0.4), (64, 0.6)]
    """
    if net.get("name") != "pyramid" or share <= 0:
        return ()
    details, sd = [overall(row) for row in net["detail_sd"]], overall(net["coarse_sd"])
    until, left, found, size = 0.0, share, [], as_size(net["size"])
    for levels in range(len(details), 0, -1):
        part = left if levels == 1 else left * 2 / 3
        until, left = until + part, left - part
        noise = replace(relative, mean=relative.mean + math.log(sd))
        found.append(Scale(written(halved(size, levels)), levels, until, sd, noise))
        sd = math.sqrt((3 * details[levels - 1] ** 2 + sd**2) / 4)
    return tuple(found)


def scale_at(found: tuple[Scale, ...], progress: float, coarsest: int) -> Scale | None:
    """The scale at a share of the budget; None: whole pictures, as the plan says.

    Args:
        found: result of `scales`.
        progress: share of the budget used; a longer budget makes it smaller.
        coarsest: levels that training has come to; it does not go back to coarser scales.
    """
    for scale in found:
        if progress < scale.until and scale.levels <= coarsest:
            return scale
    return None


def touched_by_all(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The same loss, which depends on every parameter: several processes must agree on that."""
    return loss + 0.0 * sum((p.flatten()[0] for p in parameters), torch.zeros_like(loss))
