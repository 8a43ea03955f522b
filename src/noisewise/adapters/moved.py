"""Moved weights, and how to restore the original ones.

Some starts move a frozen weight: they replace W by ``W - c B0 A0`` and store A0 and ``c B0`` in
the adapted layer. With its own adapter the layer computes the same as before. Without the adapter,
or with another one, it would compute with ``W - c B0 A0``. So this file restores W while the
adapter is not in use. The sum is computed in float32 and rounded once. The moved weight is kept and
put back unchanged, so repeated switching adds no error.
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
def move_weight(layer: LoraLayer, adapter: str, a: Tensor, cb: Tensor) -> None:
    """Subtract ``c B A`` from the frozen weight and store A [r, n] and c B [m, r], float32."""
    _store_starts(layer, {**_starts(layer), adapter: (a.clone(), cb.clone())})
    _shift(layer, adapter, -1.0)


def start_of(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor] | None:
    """Return A0 and c B0 of a start that moved the weight; None if it did not move."""
    return _starts(layer).get(adapter)


def moving_adapters(layer: LoraLayer) -> list[str]:
    """Return the names of the adapters whose start moved the weight of this layer."""
    return list(_starts(layer))


def moved_layers(model: nn.Module) -> Iterator[LoraLayer]:
    """Yield the layers of an adapted model whose weight a start moved."""
    for module in model.modules():
        if getattr(module, "_noisewise_start", None):
            yield cast("LoraLayer", module)


def all_moving_adapters(model: nn.Module) -> list[str]:
    """Return the names of the adapters whose start moved weights of this model.

    Example:
        >>> from peft import LoraConfig
        >>> from noisewise.adapters import pissa
        >>> net = nn.Sequential(nn.Linear(6, 6))
        >>> all_moving_adapters(pissa(net, LoraConfig(r=2, target_modules=["0"])))
        ['default']
    """
    return list(
        dict.fromkeys(name for layer in moved_layers(model) for name in moving_adapters(layer))
    )


def use_original_weight(layer: LoraLayer) -> None:
    """Put W into a layer that holds ``W - c B0 A0``, until `use_moved_weight`.

    An adapter merged by PEFT's merge_adapter is unmerged first, as PEFT does in the next call.
    """
    if holds_original_weight(layer):
        return
    if layer.merged:
        layer.unmerge()
    moved = _weight(layer).data
    for adapter in moving_adapters(layer):
        _shift(layer, adapter, 1.0)
    layer._noisewise_moved_weight = moved


def use_moved_weight(layer: LoraLayer) -> None:
    """Undo `use_original_weight`, bit for bit."""
    if holds_original_weight(layer):
        weight, moved = _weight(layer), cast(Any, layer)._noisewise_moved_weight
        weight.data = moved.to(weight.device, weight.dtype)
        layer._noisewise_moved_weight = None


def holds_original_weight(layer: LoraLayer) -> bool:
    """Whether the layer holds W instead of ``W - c B0 A0`` at present."""
    return getattr(layer, "_noisewise_moved_weight", None) is not None


def remove_start(layer: LoraLayer, adapter: str) -> None:
    """Restore W permanently and delete the stored start."""
    if start_of(layer, adapter) is not None:
        use_moved_weight(layer)
        _shift(layer, adapter, 1.0)
        _store_starts(
            layer, {name: start for name, start in _starts(layer).items() if name != adapter}
        )


@torch.no_grad()
def _shift(layer: LoraLayer, adapter: str, sign: float) -> None:
    """Add ``c B0 A0`` times sign to the frozen weight, in float32, rounded once."""
    weight = _weight(layer)
    a, cb = (value.to(weight.device, torch.float32) for value in _starts(layer)[adapter])
    product = from_matrix(base_of(layer), sign * (cb @ a), weight.shape)
    # A new tensor instead of copy_: a graph that waits for backward keeps the old one.
    weight.data = (weight.float() + product).to(weight.dtype)


def _weight(layer: LoraLayer) -> Tensor:
    return cast(Tensor, base_of(layer).weight)


def _starts(layer: LoraLayer) -> dict[str, tuple[Tensor, Tensor]]:
    found: Any = getattr(layer, "_noisewise_start", {})
    return found


def _store_starts(layer: LoraLayer, starts: dict[str, tuple[Tensor, Tensor]]) -> None:
    layer._noisewise_start = starts
