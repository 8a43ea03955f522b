"""Merge an adapter into its base model: the sum is computed in float32 and rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from noisewise.adapters.layers import (
    active_adapter,
    base_of,
    complaint,
    factor_parameters,
    is_quantised,
    lora_layers,
    shared_with,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.utils import TrainableTokensWrapper

_TOKENS = ".token_adapter.base_layer.weight"


@torch.no_grad()
def merge(peft_model: PeftModel, adapter: str | None = None) -> nn.Module:
    """Merge an adapter into its base model and return the base model.

    The sum is always computed in float32 and rounded once. PEFT 0.21 does the same for float32
    factors, which are its default; with safe_merge=True, in embeddings and for factors in half
    precision it rounds ``c B A`` first and the sum again. The rows of trainable_token_indices are
    merged too. The PeftModel must not be used afterwards.

    Args:
        peft_model: any type of LoRA that PEFT can merge.
        adapter: name of the adapter; None: the active one.

    Raises:
        ValueError: for tied weights (the other layer would change too), for quantised weights
            (they cannot hold the sum), and for layers that PEFT cannot merge. The model is then
            unchanged.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> adapted = get_peft_model(net, LoraConfig(target_modules=["0"], init_lora_weights=False))
        >>> x = torch.randn(2, 4)
        >>> before = adapted(x)
        >>> bool(torch.allclose(merge(adapted)(x), before, atol=1e-5))
        True
    """
    name = active_adapter(peft_model, adapter)
    base = cast(nn.Module, peft_model.base_model.model)
    layers, tokens = lora_layers(peft_model, name), _token_layers(base, name)
    for key, layer in layers.items():
        _check(key, layer, base)
    for key, wrapper in tokens.items():
        _check_tokens(key, wrapper, base)
    for layer in layers.values():
        _merge_layer(layer, name)
    for wrapper in tokens.values():
        wrapper.token_adapter.merge(safe_merge=True, adapter_names=[name])
    return cast(nn.Module, peft_model.base_model.unload())


def _check(key: str, layer: LoraLayer, base: nn.Module) -> None:
    module = base_of(layer)
    if is_quantised(module):
        raise ValueError(
            f"{key} is quantised and has too few bits for the sum: load the adapter onto a float "
            "copy of the model and merge there"
        )
    others = shared_with(base, module)
    if others:
        raise ValueError(
            f"{key} shares its weight with {others[0]}, which would change too: untie them first"
        )
    trouble = complaint(key, module)
    if trouble:
        raise ValueError(trouble)


def _merge_layer(layer: LoraLayer, adapter: str) -> None:
    module = base_of(layer)
    dtypes = {key: p.dtype for key, p in module.named_parameters(recurse=False)}
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.float()
    for parameter in factor_parameters(layer, adapter):
        parameter.data = parameter.data.float()
    layer.merge(safe_merge=True, adapter_names=[adapter])
    for key, parameter in module.named_parameters(recurse=False):
        parameter.data = parameter.data.to(dtypes[key])


def _token_layers(base: nn.Module, adapter: str) -> dict[str, TrainableTokensWrapper]:
    """Return the layers of which an adapter trains single rows (trainable_token_indices)."""
    from peft.utils import TrainableTokensWrapper

    return {
        key: module
        for key, module in base.named_modules()
        if isinstance(module, TrainableTokensWrapper)
        and adapter in module.token_adapter.trainable_tokens_delta
    }


def _check_tokens(key: str, wrapper: TrainableTokensWrapper, base: nn.Module) -> None:
    """Refuse a quantised weight, and a tied one unless PEFT trains the rows of all its layers."""
    module = wrapper.token_adapter.get_base_layer()
    if is_quantised(module):
        raise ValueError(
            f"{key} is quantised and cannot hold the trained rows: merge on a float copy"
        )
    others = [name for name in shared_with(base, module) if not name.endswith(_TOKENS)]
    if others:
        raise ValueError(
            f"{key} shares its weight with {others[0]}, whose rows would change too: untie them "
            "first"
        )
