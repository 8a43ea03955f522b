"""Methods that keep a PeftModel with moved weights correct where PEFT's own would be wrong.

Where a start replaced W by ``W - c B0 A0``, the base weights are right only with their own adapter:

| method of PEFT                     | PEFT's own result            | result here                  |
|------------------------------------|------------------------------|------------------------------|
| save_pretrained                    | saves B A without the start  | calls `save`, adds the start |
| load_adapter of a checkpoint       | loads the saved difference   | loads start and factors      |
| disable_adapter (and its _layers)  | computes with W - c B0 A0    | computes with W              |
| unload, delete_adapter             | leaves W - c B0 A0           | restores W                   |
| add_adapter, load_adapter (others) | trains on W - c B0 A0        | refused                      |
| adapter_names with "__base__"      | computes with W - c B0 A0    | refused                      |

Not covered, because they do not go through these methods: get_peft_model_state_dict, state_dict,
set_peft_model_state_dict, convert_to_lora and save_as_lora, rescale_adapter_scale and set_scale,
enable_adapters(False) of a single layer.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from noisewise.adapters.files import WEIGHTS, non_factors, state, write_tensors
from noisewise.adapters.layers import lora_layers
from noisewise.adapters.moved import (
    all_moving_adapters,
    move_weight,
    moved_layers,
    remove_start,
    start_of,
    use_moved_weight,
    use_original_weight,
)
from noisewise.adapters.saving import save

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraModel

START = "noisewise_start.safetensors"  # next to the plain adapter; training resumes from it


def guard(peft_model: PeftModel) -> None:
    """Replace PEFT's methods by those of this module, on this model only."""
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


# ---------------------------------------------------------------- methods of the PeftModel


def _save_pretrained(
    self: PeftModel,
    save_directory: str | Path,
    *_: object,
    **given: Any,  # noqa: ANN401
) -> None:
    """What a trainer calls. Its other arguments are ignored."""
    if given.get("is_main_process", True):
        for name in given.get("selected_adapters") or list(self.peft_config):
            folder = Path(save_directory)
            folder = folder if name == "default" else folder / name
            save(self, folder, adapter=name)
            if name in all_moving_adapters(self):
                write_tensors(folder / START, _start_and_factors(self, name), {})


def _load_adapter(
    self: PeftModel,
    model_id: str | Path,
    adapter_name: str,
    is_trainable: bool = False,
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (torch's missing and unexpected keys)
    """What a trainer calls to resume: loads start and factors exactly, and so the weights."""
    if adapter_name not in all_moving_adapters(self):
        return type(self).load_adapter(self, model_id, adapter_name, is_trainable, **given)
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = Path(model_id)
    if not (folder / START).is_file():
        raise ValueError(
            f"{folder} has no {START}, and a plain adapter is wrong on weights that a start moved: "
            "load it onto the original base model"
        )
    saved = load_file(folder / START)
    starts = {key: value for key, value in saved.items() if key.startswith("start.")}
    factors = {key: value for key, value in saved.items() if key not in starts}
    tensors = non_factors(load_file(folder / WEIGHTS)) | factors
    own = _starts(self, adapter_name) | state(self, adapter_name)
    if _shapes(starts | tensors) != _shapes(own):
        raise ValueError(
            f"{folder} does not fit this model: its layers or ranks are different; use the same "
            "LoraConfig for the start"
        )
    for key, layer in lora_layers(self, adapter_name).items():
        a, cb = starts[f"start.{key}.A"], starts[f"start.{key}.B"]
        if not (a.equal(own[f"start.{key}.A"].cpu()) and cb.equal(own[f"start.{key}.B"].cpu())):
            remove_start(layer, adapter_name)
            move_weight(layer, adapter_name, a, cb)
    result = set_peft_model_state_dict(self, tensors, adapter_name=adapter_name)
    result.missing_keys.clear()  # only keys of the base model; the adapter's are complete
    if not is_trainable:
        self.eval()
    return result


def _starts(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """Return A0 and c B0 of each layer."""
    found = {}
    for key, layer in lora_layers(peft_model, adapter).items():
        start = start_of(layer, adapter)
        assert start is not None
        found[f"start.{key}.A"], found[f"start.{key}.B"] = start
    return found


def _start_and_factors(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """Return the start and the factors; the plain adapter holds only their difference."""
    own = state(peft_model, adapter)
    others = non_factors(own)
    return _starts(peft_model, adapter) | {k: v for k, v in own.items() if k not in others}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


# ---------------------------------------------------------------- methods of its base_model


def _disable_adapter_layers(self: LoraModel) -> None:
    """Like PEFT's method, but with W; disable_adapter calls it."""
    type(self).disable_adapter_layers(self)
    for layer in moved_layers(self):
        use_original_weight(layer)


def _enable_adapter_layers(self: LoraModel) -> None:
    """Like PEFT's method, after restoring W - c B0 A0."""
    _use_moved_weights(self)
    type(self).enable_adapter_layers(self)


def _unload(self: LoraModel) -> nn.Module:
    """Like PEFT's method, but with W; after a merge with the merged weight."""
    for layer in moved_layers(self):
        if not layer.merged:
            use_original_weight(layer)
    return type(self).unload(self)


def _delete_adapter(self: LoraModel, adapter_name: str) -> None:
    """Like PEFT's method; the start is removed too."""
    layers = list(moved_layers(self))
    type(self).delete_adapter(self, adapter_name)
    for layer in layers:
        remove_start(layer, adapter_name)


def _inject_adapter(
    self: LoraModel,
    model: nn.Module,
    adapter_name: str,
    *args: object,
    **given: object,
) -> None:
    """What add_adapter and load_adapter call for another adapter: refused."""
    _refuse_another_adapter(self)
    type(self).inject_adapter(self, model, adapter_name, *args, **given)


def _add_weighted_adapter(self: LoraModel, *args: object, **given: object) -> None:
    """A sum of adapters, one of which has a start: refused."""
    _refuse_another_adapter(self)
    type(self).add_weighted_adapter(self, *args, **given)


def _merge_adapter(self: LoraModel, *args: object, **given: object) -> None:
    """Like PEFT's method, with W - c B0 A0."""
    _use_moved_weights(self)
    type(self).merge_adapter(self, *args, **given)


def _merge_and_unload(self: LoraModel, *args: object, **given: object) -> nn.Module:
    """Like PEFT's method, with W - c B0 A0."""
    _use_moved_weights(self)
    return type(self).merge_and_unload(self, *args, **given)


def _forward_hooks(
    self: LoraModel,
    *args: object,
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (a context)
    """For batches in which each sample has its own adapter."""
    if "__base__" in (given.get("adapter_names") or ()) and all_moving_adapters(self):
        raise ValueError(
            '"__base__" would use weights that a start moved: use disable_adapter() instead'
        )
    return type(self)._enable_peft_forward_hooks(self, *args, **given)


def _use_moved_weights(tuner: nn.Module) -> None:
    for layer in moved_layers(tuner):
        use_moved_weight(layer)


def _refuse_another_adapter(tuner: nn.Module) -> None:
    names = all_moving_adapters(tuner)
    if names:
        raise ValueError(
            f"the start of adapter {names[0]!r} moved the base weights, so another adapter would "
            "be wrong here: add it to the original base model, or start with mutate_base=False"
        )
