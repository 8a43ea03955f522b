"""A PeftModel on moved weights that cannot go silently wrong in PEFT's own calls.

Where a start put ``W - c B0 A0`` in the place of W, that is the model of its own adapter alone:

| call of PEFT                       | what it would do            | what it does here          |
|------------------------------------|-----------------------------|----------------------------|
| save_pretrained                    | factors without their start | `save`, and the start      |
| load_adapter of a checkpoint       | a rank-2r sum as factors    | start and factors, exactly |
| disable_adapter (and its _layers)  | compute with W - c B0 A0    | compute with W             |
| unload, delete_adapter             | leave W - c B0 A0           | put W back                 |
| add_adapter, load_adapter (others) | train on W - c B0 A0        | refused                    |
| adapter_names with "__base__"      | compute with W - c B0 A0    | refused                    |
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from noisewise.adapters.files import WEIGHTS, beside_factors, state, write_tensors
from noisewise.adapters.layers import lora_layers
from noisewise.adapters.moved import (
    clean_again,
    forget_start,
    move,
    moved_again,
    moved_layers,
    movers,
    start_of,
)
from noisewise.adapters.saving import save

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraModel

START = "noisewise_start.safetensors"  # beside the plain adapter: what training goes on from


def guard(peft_model: PeftModel) -> None:
    """Put the calls of this module in the place of PEFT's, on this model alone."""
    for name, call in {"save_pretrained": _save_pretrained, "load_adapter": _load_adapter}.items():
        setattr(peft_model, name, types.MethodType(call, peft_model))
    tuner: LoraModel = peft_model.base_model
    for name, call in {
        "disable_adapter_layers": _disable_adapter_layers,
        "enable_adapter_layers": _enable_adapter_layers,
        "unload": _unload,
        "delete_adapter": _delete_adapter,
        "inject_adapter": _inject_adapter,
        "add_weighted_adapter": _add_weighted_adapter,
        "merge_adapter": _merge_adapter,
        "merge_and_unload": _merge_and_unload,
        "_enable_peft_forward_hooks": _forward_hooks,
    }.items():
        setattr(tuner, name, types.MethodType(call, tuner))


# ---------------------------------------------------------------------------- of the PeftModel


def _save_pretrained(
    self: PeftModel,
    save_directory: str | Path,
    *_: object,
    **given: Any,  # noqa: ANN401
) -> None:
    """What a trainer calls; its other arguments say how to write, not what."""
    if given.get("is_main_process", True):
        for name in given.get("selected_adapters") or list(self.peft_config):
            folder = Path(save_directory)
            folder = folder if name == "default" else folder / name
            save(self, folder, adapter=name)
            if name in movers(self):
                write_tensors(folder / START, _resumable(self, name), {})


def _load_adapter(
    self: PeftModel,
    model_id: str | Path,
    adapter_name: str,
    is_trainable: bool = False,
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (torch's missing and unexpected keys)
    """What a trainer calls to go on: start and factors as they were saved, so the weights too."""
    if adapter_name not in movers(self):
        return type(self).load_adapter(self, model_id, adapter_name, is_trainable, **given)
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = Path(model_id)
    if not (folder / START).is_file():
        raise ValueError(
            f"{folder} holds no {START}, and a plain adapter means nothing on weights that a start "
            "moved: load it onto the clean base"
        )
    saved = load_file(folder / START)
    starts = {key: value for key, value in saved.items() if key.startswith("start.")}
    factors = {key: value for key, value in saved.items() if key not in starts}
    tensors = beside_factors(load_file(folder / WEIGHTS)) | factors
    own = _starts(self, adapter_name) | state(self, adapter_name)
    if _shapes(starts | tensors) != _shapes(own):
        raise ValueError(
            f"{folder} does not fit this model: its layers or ranks are others; start with the "
            "same configuration"
        )
    for key, layer in lora_layers(self, adapter_name).items():
        a, cb = starts[f"start.{key}.A"], starts[f"start.{key}.B"]
        if not (a.equal(own[f"start.{key}.A"].cpu()) and cb.equal(own[f"start.{key}.B"].cpu())):
            forget_start(layer, adapter_name)
            move(layer, adapter_name, a, cb)
    result = set_peft_model_state_dict(self, tensors, adapter_name=adapter_name)
    result.missing_keys.clear()  # the base's: all of the adapter's are there
    if not is_trainable:
        self.eval()
    return result


def _starts(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """A0 and c B0 by layer."""
    found = {}
    for key, layer in lora_layers(peft_model, adapter).items():
        start = start_of(layer, adapter)
        assert start is not None
        found[f"start.{key}.A"], found[f"start.{key}.B"] = start
    return found


def _resumable(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The start and the factors themselves: what the plain adapter beside them cannot hold."""
    own = state(peft_model, adapter)
    others = beside_factors(own)
    return _starts(peft_model, adapter) | {k: v for k, v in own.items() if k not in others}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


# ---------------------------------------------------------------------------- of its base_model


def _disable_adapter_layers(self: LoraModel) -> None:
    """As PEFT's, on W; disable_adapter calls it."""
    type(self).disable_adapter_layers(self)
    for layer in moved_layers(self):
        clean_again(layer)


def _enable_adapter_layers(self: LoraModel) -> None:
    """As PEFT's, on W - c B0 A0 again."""
    _all_moved(self)
    type(self).enable_adapter_layers(self)


def _unload(self: LoraModel) -> nn.Module:
    """As PEFT's: W, or where the adapter was merged the sum."""
    for layer in moved_layers(self):
        if not layer.merged:
            clean_again(layer)
    return type(self).unload(self)


def _delete_adapter(self: LoraModel, adapter_name: str) -> None:
    """As PEFT's; its start goes along."""
    layers = list(moved_layers(self))
    type(self).delete_adapter(self, adapter_name)
    for layer in layers:
        forget_start(layer, adapter_name)


def _inject_adapter(
    self: LoraModel,
    model: nn.Module,
    adapter_name: str,
    *args: object,
    **given: object,
) -> None:
    """What add_adapter and load_adapter call for another adapter."""
    _refuse_another(self)
    type(self).inject_adapter(self, model, adapter_name, *args, **given)


def _add_weighted_adapter(self: LoraModel, *args: object, **given: object) -> None:
    """A sum of adapters, one of which has a start."""
    _refuse_another(self)
    type(self).add_weighted_adapter(self, *args, **given)


def _merge_adapter(self: LoraModel, *args: object, **given: object) -> None:
    """As PEFT's, on W - c B0 A0."""
    _all_moved(self)
    type(self).merge_adapter(self, *args, **given)


def _merge_and_unload(self: LoraModel, *args: object, **given: object) -> nn.Module:
    """As PEFT's, on W - c B0 A0."""
    _all_moved(self)
    return type(self).merge_and_unload(self, *args, **given)


def _forward_hooks(
    self: LoraModel,
    *args: object,
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (a context)
    """Batches in which each sample names its adapter."""
    if "__base__" in (given.get("adapter_names") or ()) and movers(self):
        raise ValueError(
            '"__base__" would be computed with weights that a start moved: use disable_adapter()'
        )
    return type(self)._enable_peft_forward_hooks(self, *args, **given)


def _all_moved(tuner: nn.Module) -> None:
    for layer in moved_layers(tuner):
        moved_again(layer)


def _refuse_another(tuner: nn.Module) -> None:
    names = movers(tuner)
    if names:
        raise ValueError(
            f"the start of adapter {names[0]!r} moved the weights, on which another adapter would "
            "be wrong: put that one on the clean base, or start with mutate_base=False"
        )
