"""Resume an adapter whose start subtracts itself, without its gradients.

Its state dict is complete: weights, trained and held halves. So any way of resuming is right that
loads it into a model with the same layers: `load_state_dict`, accelerate's `load_state`, a
Trainer's checkpoint, `set_peft_model_state_dict`. What a state dict does not say is that half of
the ranks are held. So `for_checkpoint` makes such layers, and save_pretrained writes a note beside
the adapter.
"""

from __future__ import annotations

import copy
import hashlib
import json
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from noisewise.adapters.files import WEIGHTS
from noisewise.adapters.held import has_start, hold_start
from noisewise.adapters.layers import all_factors, factor_parameters, lora_layers, wrapped

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

NOTE = "noisewise_start.json"  # beside an adapter of which one half is held
_OLD = "noisewise_start.safetensors"  # what versions wrote that moved the weights
_TEXT = "the second half of the ranks subtracts the start; load(trainable=True) keeps it frozen"


def doubled(config: LoraConfig) -> LoraConfig:
    """Return the configuration with twice the ranks and the same scalings.

    Example:
        >>> from peft import LoraConfig
        >>> found = doubled(LoraConfig(r=4, lora_alpha=8, rank_pattern={"x": 2}))
        >>> found.r, found.lora_alpha, found.rank_pattern
        (8, 16, {'x': 4})
    """
    found = copy.deepcopy(config)
    times: Any = 2**0.5 if config.use_rslora else 2
    found.r, found.lora_alpha = 2 * config.r, times * config.lora_alpha
    found.rank_pattern = {key: 2 * rank for key, rank in config.rank_pattern.items()}
    found.alpha_pattern = {key: times * alpha for key, alpha in config.alpha_pattern.items()}
    return found


@torch.no_grad()
def hold_second_half(peft_model: PeftModel, adapter: str) -> None:
    """Freeze the second half of the ranks of an adapter, as a start leaves them.

    Raises:
        ValueError: if a layer has an odd number of ranks.
    """
    for key, layer in lora_layers(peft_model, adapter).items():
        a, b = (value.clone() for value in all_factors(layer, adapter))
        ranks = len(a)
        if ranks % 2:
            raise ValueError(
                f"{key} has {ranks} ranks, so no half of them can hold a start: load it with "
                "trainable=False"
            )
        half = ranks // 2
        hold_start(layer, adapter, a[half:], -b[:, half:])
        for parameter, value in zip(
            factor_parameters(layer, adapter), (a[:half], b[:, :half]), strict=True
        ):
            parameter.copy_(value.reshape(parameter.shape))
    note_on_save(peft_model)


def for_checkpoint(model: nn.Module, config: LoraConfig, adapter: str = "default") -> PeftModel:
    """Return the layers of a start that subtracts itself, for a checkpoint, without gradients.

    Use it instead of `lora_ga(..., mutate_base=True)` or `pissa` when a script resumes, and load
    the checkpoint next: load_state_dict, `accelerator.load_state`, set_peft_model_state_dict, or
    `load_adapter(folder, "default", is_trainable=True)`. Until then all factors are 0.

    Args:
        model: the original base model; it is changed in place.
        config: the LoraConfig that the start got.
        adapter: name of the adapter.

    Raises:
        ValueError: if a layer cannot be adapted.

    Example:
        >>> from peft import LoraConfig
        >>> from noisewise.adapters import pissa
        >>> net, config = nn.Sequential(nn.Linear(6, 6)), LoraConfig(r=2, target_modules=["0"])
        >>> again = for_checkpoint(copy.deepcopy(net), config)
        >>> saved = pissa(net, config).state_dict()
        >>> again.load_state_dict(saved)
        <All keys matched successfully>
    """
    peft_model = wrapped(model, doubled(config), adapter)
    for layer in lora_layers(peft_model, adapter).values():
        a, b = all_factors(layer, adapter)
        half = len(a) // 2
        hold_start(layer, adapter, torch.zeros_like(a[:half]), torch.zeros_like(b[:, :half]))
    note_on_save(peft_model)
    return peft_model


def note_on_save(peft_model: PeftModel) -> None:
    """Let save_pretrained of this model write the note, and load_adapter know old checkpoints."""
    model: Any = peft_model
    model.save_pretrained = types.MethodType(_save_pretrained, peft_model)
    model.load_adapter = types.MethodType(_load_adapter, peft_model)


def _save_pretrained(
    self: PeftModel,
    save_directory: str | Path,
    *args: object,
    **given: Any,  # noqa: ANN401
) -> None:
    """Save as PEFT does, and write the note beside each adapter with a start."""
    type(self).save_pretrained(self, str(save_directory), *args, **given)
    if not given.get("is_main_process", True):
        return
    for name in given.get("selected_adapters") or list(self.peft_config):
        folder = Path(save_directory)
        folder = folder if name == "default" else folder / name
        if any(has_start(layer, name) for layer in lora_layers(self, name).values()):
            note = {"start": _TEXT, "sha256": _digest(folder)}
            (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        else:
            (folder / NOTE).unlink(missing_ok=True)


def _load_adapter(
    self: PeftModel,
    model_id: str | Path,
    *args: object,
    **given: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 (torch's missing and unexpected keys)
    """Load as PEFT does, but refuse checkpoints of versions that moved the weights."""
    refuse_old(Path(model_id))
    return type(self).load_adapter(self, str(model_id), *args, **given)


# A model that torch.save wrote finds its methods by these names: those are PEFT's own.
_save_pretrained.__name__, _load_adapter.__name__ = "save_pretrained", "load_adapter"


def refuse_old(folder: Path) -> None:
    """Refuse to continue from a checkpoint of a version that moved the weights.

    Raises:
        ValueError: in this case.
    """
    if (folder / _OLD).is_file():
        raise ValueError(
            f"{folder} was written by an older version, whose starts moved the weights: load it "
            "with trainable=False, or merge it and start again"
        )


def holds_start(folder: Path) -> bool:
    """Whether save_pretrained wrote this adapter with a held half; a note of other files is old."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("sha256") == _digest(folder)


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the weights; PEFT writes one of two names."""
    for name in (WEIGHTS, "adapter_model.bin"):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
