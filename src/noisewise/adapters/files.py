"""Files of an adapter, with the tensor names and shapes that PEFT and diffusers read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import base_of, factor_parameters
from noisewise.whole_files import replacing, write_bytes

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PIPELINE_WEIGHTS = "pytorch_lora_weights.safetensors"  # load_lora_weights looks for this name first
_PEFT = "base_model.model."
# What a pipeline needs to make the layers. Without these it guesses from the shapes.
_METADATA = (
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora", "use_dora",
    "lora_bias",
)  # fmt: skip
_PIPELINE_TENSORS = (
    ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_magnitude_vector",
)  # fmt: skip


def entries(
    key: str, layer: LoraLayer, adapter: str, left: Tensor, right: Tensor
) -> dict[str, Tensor]:
    """Return the factors with PEFT's names and shapes, for scaling 1, on the CPU.

    PEFT also multiplies the bias of lora_bias by c; here c is multiplied in before saving.
    """
    module, prefix = base_of(layer), f"{_PEFT}{key}"
    a, _ = factor_parameters(layer, adapter)
    left, right = left.to("cpu", a.dtype), right.to("cpu", a.dtype)
    if isinstance(module, nn.Embedding):
        return {f"{prefix}.lora_embedding_A": right, f"{prefix}.lora_embedding_B": left}
    weight = cast(Tensor, module.weight)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        right = right.reshape(-1, *weight.shape[1:])
        left = left.reshape(*left.shape, *([1] * (weight.ndim - 2)))
    found = {f"{prefix}.lora_A.weight": right, f"{prefix}.lora_B.weight": left}
    if layer.lora_bias.get(adapter):
        bias = layer.lora_B[adapter].bias.detach()
        found[f"{prefix}.lora_B.bias"] = float(layer.scaling[adapter]) * bias
    return found


def state(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """Return PEFT's own tensors of an adapter: factors, biases and modules trained in full."""
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        if peft_model.peft_config[adapter].lora_bias:  # PEFT takes the bias vectors for shards
            warnings.filterwarnings("ignore", message="Adapter .* have invalid shape")
        # Without embedding layers: they belong to the base model, and "auto" goes online to check
        # if the vocabulary has grown.
        found = get_peft_model_state_dict(
            peft_model, adapter_name=adapter, save_embedding_layers=False
        )
    # With bias="all" PEFT names the biases of modules_to_save twice, and takes all of the base
    # model, which may be on the meta device.
    return {
        key: value
        for key, value in found.items()
        if not is_second_name(key) and not (value.is_meta and "lora_" not in key)
    }


def is_second_name(key: str) -> bool:
    """Whether this is a name inside PEFT's wrapper of modules_to_save, beside the plain one."""
    return ".modules_to_save." in key or ".original_module." in key


def running_statistics(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose running statistics change in training and that PEFT does not save.

    PEFT saves those in modules_to_save.

    Example:
        >>> list(running_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
        ['1']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if module._buffers.get("running_mean") is not None
        and ".modules_to_save." not in f".{name}."
        and ".original_module." not in f".{name}."
    }


def with_statistics(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the running statistics of a base model (batch norms) to the tensors of an adapter.

    PEFT loads them, as it loads biases.
    """
    found = dict(tensors)
    for name, module in running_statistics(model).items():
        found |= {f"{_PEFT}{name}.{key}": value for key, value in module.named_buffers()}
    return found


def non_factors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that an adapter trains in addition to its factors."""
    return {key: value for key, value in tensors.items() if "lora_" not in key}


def write(folder: Path, config: Any, tensors: dict[str, Tensor]) -> None:  # noqa: ANN401
    """Write an adapter in the format that PEFT reads."""
    write_tensors(folder / WEIGHTS, tensors, {})
    config.inference_mode = True
    config.init_lora_weights = True
    with TemporaryDirectory(prefix=".new-", dir=folder) as part:  # PEFT writes into a folder
        config.save_pretrained(part)
        for file in sorted(Path(part).iterdir()):
            write_bytes(folder / file.name, file.read_bytes())


def write_for_pipeline(
    folder: Path,
    prefix: str,
    config: Any,  # noqa: ANN401
    tensors: dict[str, Tensor],
) -> None:
    """Write an adapter in the format that load_lora_weights of a diffusers pipeline reads.

    Each key begins with the name of the pipeline's model; ranks and patterns are in the header.

    Raises:
        ValueError: if there are tensors that a pipeline cannot load.
    """
    odd = [key for key in tensors if not key.endswith(_PIPELINE_TENSORS)]
    if odd:
        raise ValueError(
            f"a diffusers pipeline cannot load {odd[0].removeprefix(_PEFT)}: it loads only the "
            "factors of linear layers and convolutions; save without prefix"
        )
    renamed = {f"{prefix}.{key.removeprefix(_PEFT)}": value for key, value in tensors.items()}
    values = {field: getattr(config, field) for field in _METADATA}
    listed = {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}
    described = {f"{prefix}.{field}": value for field, value in listed.items()}
    header = {"lora_adapter_metadata": json.dumps(described, indent=2, sort_keys=True)}
    write_tensors(folder / PIPELINE_WEIGHTS, renamed, header)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors from any device, each copied into separate memory."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    with replacing(path) as new:
        save_file(plain, new, metadata={"format": "pt", **header})
