"""Frozen weights that a start moved, and the clean ones behind them.

A start that takes ``c B0 A0`` off a weight W notes A0 and ``c B0`` on the adapted layer. With its
own adapter the layer computes as ever; without it, or with another one, it would compute with
``W - c B0 A0``. Here W is put back for as long as the adapter is not in use: the sum is taken in
float32 and rounded once, and the moved weight is kept meanwhile, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import base_of, from_matrix

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


@torch.no_grad()
def move(layer: LoraLayer, adapter: str, a: Tensor, cb: Tensor) -> None:
    """Take ``c B A`` off the frozen weight and note it; A [r, n] and c B [m, r], float32."""
    _note(layer, {**_starts(layer), adapter: (a.clone(), cb.clone())})
    _shift(layer, adapter, -1.0)


def start_of(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor] | None:
    """A0 and c B0 of a start that moved the weight; None where it was left alone."""
    return _starts(layer).get(adapter)


def moved_by(layer: LoraLayer) -> list[str]:
    """Names of the adapters whose start moved this layer's weight."""
    return list(_starts(layer))


def moved_layers(model: nn.Module) -> Iterator[LoraLayer]:
    """Layers of an adapted model whose weight a start moved."""
    for module in model.modules():
        if getattr(module, "_noisewise_start", None):
            yield cast("LoraLayer", module)


def movers(model: nn.Module) -> list[str]:
    """Names of the adapters whose start moved weights of this model.

    Example:
        >>> from peft import LoraConfig
        >>> from noisewise.adapters import pissa
        >>> net = nn.Sequential(nn.Linear(6, 6))
        >>> movers(pissa(net, LoraConfig(r=2, target_modules=["0"])))
        ['default']
    """
    return list(dict.fromkeys(name for layer in moved_layers(model) for name in moved_by(layer)))


def clean_again(layer: LoraLayer) -> None:
    """Put W into a layer that holds ``W - c B0 A0``, until `moved_again`.

    An adapter merged by PEFT's merge_adapter is taken out first, as PEFT does at the next call.
    """
    if is_clean(layer):
        return
    if layer.merged:
        layer.unmerge()
    kept = _weight(layer).data
    for adapter in moved_by(layer):
        _shift(layer, adapter, 1.0)
    layer._noisewise_kept = kept


def moved_again(layer: LoraLayer) -> None:
    """Undo `clean_again`, to the bit."""
    if is_clean(layer):
        weight, kept = _weight(layer), cast(Any, layer)._noisewise_kept
        weight.data = kept.to(weight.device, weight.dtype)
        layer._noisewise_kept = None


def is_clean(layer: LoraLayer) -> bool:
    """Whether W stands in the place of ``W - c B0 A0`` just now."""
    return getattr(layer, "_noisewise_kept", None) is not None


def forget_start(layer: LoraLayer, adapter: str) -> None:
    """Put W back for good, and take the note away."""
    if start_of(layer, adapter) is not None:
        moved_again(layer)
        _shift(layer, adapter, 1.0)
        _note(layer, {name: start for name, start in _starts(layer).items() if name != adapter})


@torch.no_grad()
def _shift(layer: LoraLayer, adapter: str, sign: float) -> None:
    """Add sign times ``c B0 A0`` to the frozen weight, in float32, rounded once."""
    weight = _weight(layer)
    a, cb = (value.to(weight.device, torch.float32) for value in _starts(layer)[adapter])
    product = from_matrix(base_of(layer), sign * (cb @ a), weight.shape)
    # A new tensor, and not copy_: a graph that waits for its backward keeps the old one.
    weight.data = (weight.float() + product).to(weight.dtype)


def _weight(layer: LoraLayer) -> Tensor:
    return cast(Tensor, base_of(layer).weight)


def _starts(layer: LoraLayer) -> dict[str, tuple[Tensor, Tensor]]:
    found: Any = getattr(layer, "_noisewise_start", {})
    return found


def _note(layer: LoraLayer, starts: dict[str, tuple[Tensor, Tensor]]) -> None:
    layer._noisewise_start = starts
