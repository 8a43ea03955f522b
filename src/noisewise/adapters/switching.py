"""Several adapters on one net: compute with one of them, or with none, call by call.

PEFT's own switches (`set_adapter`, `disable_adapter`) also change which parameters are trained.
Here the switch lasts for one call and leaves that alone, so that a loss can go through the net
several times: with one adapter, with another, and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import (
    as_matrix,
    base_of,
    factor_parameters,
    from_matrix,
    lora_layers,
    wrapped,
)

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer


class Switchable:
    """A net with several adapters of one form, all off; the net itself computes as before.

    Args:
        net: changed in place: its layers are wrapped, its own weights are not touched.
        config: form of each adapter.
        names: of the adapters.

    Attributes:
        layers: the adapted layers by their names in the net.

    Example:
        >>> from peft import LoraConfig
        >>> net, x = nn.Sequential(nn.Linear(2, 1)), torch.ones(1, 2)
        >>> before = net(x)
        >>> both = Switchable(net, LoraConfig(target_modules=["0"], r=1), ("one", "two"))
        >>> for factor in both.factors("one"):
        ...     nn.init.ones_(factor) is None
        False
        False
        >>> with both.using("one"):
        ...     changed = net(x)
        >>> (changed - before).round().item(), torch.equal(net(x), before)
        (16.0, True)
    """

    def __init__(self, net: nn.Module, config: LoraConfig, names: Sequence[str]) -> None:
        """Wrap the layers."""
        peft_model = wrapped(net, config, names[0])
        for name in names[1:]:
            wrapped(peft_model, config, name)
        self.layers: dict[str, LoraLayer] = lora_layers(peft_model, names[0])
        self._switch(None)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Compute with one adapter inside the block."""
        self._switch(name)
        try:
            yield
        finally:
            self._switch(None)

    def factors(self, name: str) -> list[nn.Parameter]:
        """A and B of every layer, in turn, in PEFT's shapes."""
        return [p for layer in self.layers.values() for p in factor_parameters(layer, name)]

    @torch.no_grad()
    def restart(self, name: str, generator: torch.Generator) -> None:
        """Start an adapter as LoRA does: A uniform within ``1 / sqrt(n)``, B zero.

        Args:
            name: of the adapter.
            generator: source of A, on the CPU.
        """
        for layer in self.layers.values():
            a, b = factor_parameters(layer, name)
            n = as_matrix(base_of(layer), base_of(layer).get_parameter("weight")).shape[1]
            drawn = torch.rand(a.shape, generator=generator).mul_(2).sub_(1)
            a.copy_(drawn.to(a.device) / n**0.5)
            b.zero_()

    @torch.no_grad()
    def change(self, name: str) -> dict[str, Tensor]:
        """What an adapter adds to the weight of each layer, ``c B A``, float32, in its shape."""
        found = {}
        for key, layer in self.layers.items():
            base, scaling = base_of(layer), float(layer.scaling[name])
            a, b = (p.detach().float().flatten(1) for p in factor_parameters(layer, name))
            shape = base.get_parameter("weight").shape
            found[key] = from_matrix(base, scaling * (b @ a), shape)
        return found

    def _switch(self, name: str | None) -> None:
        for layer in self.layers.values():
            switched = cast("_Switched", layer)
            switched._disable_adapters = name is None
            if name is not None:
                switched._active_adapter = [name]


class _Switched:
    """What PEFT's layers remember; their forward reads nothing else about the choice."""

    _disable_adapters: bool
    _active_adapter: list[str]
