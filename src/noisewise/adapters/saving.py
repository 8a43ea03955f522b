"""Saving, loading and merging: always a plain LoRA on the clean base.

A start that moves the frozen weight makes the adapter's own factors meaningless elsewhere: saved
plainly and put on the clean base they are wrong by the whole start, and nothing says so. Here the
difference that was learned is what is saved,

    W - W_clean = c (B A - B0 A0) = [c B, -c B0] [A; A0],

of rank 2r at most, written with ``alpha = r``: a factor of 1, which PEFT, diffusers and the scripts
that read no configuration all take for granted.
"""

from __future__ import annotations

import copy
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.difference import difference, start_of, truncated
from noisewise.adapters.layers import (
    active_adapter,
    base_of,
    complaint,
    factor_parameters,
    kind_of,
    lora_layers,
    need_peft,
    shared_with,
    target_names,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

_MUTATING = ("pissa", "olora", "corda", "lora_ga", "loftq")  # PEFT's starts that move W


@dataclass(frozen=True)
class Saved:
    """What was written.

    Attributes:
        path: the folder.
        ranks: of each layer.
        energy: share of the squared norm of each layer's difference that was kept.
    """

    path: Path
    ranks: dict[str, int]
    energy: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"path": str(self.path), "ranks": self.ranks, "energy": self.energy}


def save(
    peft_model: PeftModel,
    path: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    adapter: str | None = None,
) -> Saved:
    """Write an adapter as a plain LoRA on the clean base: PEFT and diffusers load it unmodified.

    Without rank and energy the difference is exact: r for a start that left the weights alone, up
    to 2r for one that moved them, the ranks left over for AdaLoRA. `alpha` is made equal to the
    rank; to go on training an unmoved LoRA at its own alpha, use PEFT's save_pretrained.

    Args:
        peft_model: of ours or PEFT's, LoRA (rsLoRA too) or AdaLoRA. DoRA, which is no LoRA on the
            base, is written in PEFT's own format.
        path: a folder, made where needed.
        rank: highest rank of a layer; the best approximation of its difference is written.
        energy: share of each difference's squared norm to keep, in (0, 1]; the least such rank.
        adapter: its name; None: the active one.

    Raises:
        ValueError: if the adapter is of a kind that is no low-rank difference, or was started by a
            PEFT start that moves the weights (its change is not known here).

    Example:
        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> config = LoraConfig(target_modules=["0"], r=2)
        >>> net = get_peft_model(nn.Sequential(nn.Linear(4, 3)), config)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(net, folder).ranks
        {'0': 2}
    """
    name = active_adapter(peft_model, adapter)
    kind = kind_of(peft_model, name)
    config: Any = peft_model.peft_config[name]
    _check_savable(kind, config)
    if rank is not None and energy is not None:
        raise ValueError("give rank or energy, not both")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} keeps nothing; use 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy {energy:g} is no share; use more than 0, and 1 at most")
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name a folder")
    layers = lora_layers(peft_model, name)
    if kind == "dora":
        if rank is not None or energy is not None:
            raise ValueError("DoRA is no low-rank difference: it is saved as it is, or merged")
        config_, tensors = copy.deepcopy(config), _state(peft_model, name)
        _write(folder, config_, tensors)
        return Saved(folder, {key: layer.r[name] for key, layer in layers.items()}, {})
    found = {
        key: _compressed(layer, name, rank, energy, kind == "adalora")
        for key, layer in layers.items()
    }
    tensors = _state(peft_model, name) if kind == "lora" else _others(peft_model, name)
    for key, (left, right, _) in found.items():
        tensors |= _entries(key, layers[key], name, left, right)
    ranks = {key: left.shape[1] for key, (left, _, _) in found.items()}
    names = target_names(peft_model.base_model.model, ranks)
    _write(folder, _plain(config, ranks, names), tensors)
    return Saved(folder, ranks, {key: kept for key, (_, _, kept) in found.items()})


def load(model: nn.Module, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on its clean base.

    Args:
        model: the base model, without adapters; it is changed in place.
        path: folder with adapter_config.json and adapter_model.safetensors.
        trainable: whether to go on training it.

    Raises:
        ValueError: if there is no adapter, or its layers are not those of this model.

    Example:
        >>> try:
        ...     load(nn.Linear(1, 1), "no/such/folder")
        ... except ValueError as error:
        ...     print(error)
        no/such/folder holds no adapter: adapter_config.json is not there
    """
    need_peft()
    from peft import PeftModel

    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds no adapter: adapter_config.json is not there")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        try:
            return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        except (UserWarning, RuntimeError, ValueError, StopIteration) as error:
            first = (str(error) or "it has no weights").splitlines()[0]
            raise ValueError(f"{folder} does not fit this model: {first}") from error


@torch.no_grad()
def merge(peft_model: PeftModel, adapter: str | None = None) -> nn.Module:
    """Add an adapter into its base and return the base model; the sum is taken in float32.

    PEFT rounds the difference to the weight's dtype first and the sum once more; here it is rounded
    once. The PeftModel is used up.

    Args:
        peft_model: LoRA of any kind that PEFT merges.
        adapter: its name; None: the active one.

    Raises:
        ValueError: for tied weights, whose other user would change as well, or layers that PEFT
            cannot merge.

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
    layers = lora_layers(peft_model, name)
    for key, layer in layers.items():
        others = shared_with(base, base_of(layer))
        if others:
            raise ValueError(
                f"{key} shares its weight with {others[0]}, which would change too: untie them"
            )
        trouble = complaint(key, base_of(layer))
        if trouble:
            raise ValueError(trouble)
    for layer in layers.values():
        module = base_of(layer)
        dtypes = {key: p.dtype for key, p in module.named_parameters(recurse=False)}
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.float()
        for parameter in factor_parameters(layer, name):
            parameter.data = parameter.data.float()
        layer.merge(safe_merge=True, adapter_names=[name])
        for key, parameter in module.named_parameters(recurse=False):
            parameter.data = parameter.data.to(dtypes[key])
    return cast(nn.Module, peft_model.base_model.unload())


def save_through_us(peft_model: PeftModel) -> None:
    """Send a model's own save_pretrained to `save`: plainly saved it would be silently wrong."""
    peft_model.save_pretrained = types.MethodType(_save_pretrained, peft_model)


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
            save(self, folder if name == "default" else folder / name, adapter=name)


def _compressed(
    layer: LoraLayer, adapter: str, rank: int | None, energy: float | None, adalora: bool
) -> tuple[Tensor, Tensor, float]:
    left, right = difference(layer, adapter, adalora)
    asked = rank is not None or energy is not None
    if not left.shape[1]:  # AdaLoRA took all of its ranks away
        left, right = left.new_zeros(left.shape[0], 1), right.new_zeros(1, right.shape[1])
    elif asked or start_of(layer, adapter) is not None:
        left, right, kept = truncated(left, right, rank, energy)
        return left.float(), right.float(), kept
    return left.float(), right.float(), 1.0


def _entries(
    key: str, layer: LoraLayer, adapter: str, left: Tensor, right: Tensor
) -> dict[str, Tensor]:
    """Factors under PEFT's names and in its shapes, on the CPU."""
    module, prefix = base_of(layer), f"base_model.model.{key}"
    a, _ = factor_parameters(layer, adapter)
    left, right = left.to("cpu", a.dtype), right.to("cpu", a.dtype)
    if isinstance(module, nn.Embedding):
        return {f"{prefix}.lora_embedding_A": right, f"{prefix}.lora_embedding_B": left}
    weight = cast(Tensor, module.weight)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        right = right.reshape(-1, *weight.shape[1:])
        left = left.reshape(*left.shape, *([1] * (weight.ndim - 2)))
    return {f"{prefix}.lora_A.weight": right, f"{prefix}.lora_B.weight": left}


def _state(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """PEFT's own tensors of an adapter: factors, biases and modules that are trained in full."""
    from peft import get_peft_model_state_dict

    # Without embedding layers: a base's own embedding is none of the adapter's, and asking "auto"
    # asks the network whether the vocabulary has grown.
    return get_peft_model_state_dict(peft_model, adapter_name=adapter, save_embedding_layers=False)


def _others(peft_model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """What an AdaLoRA adapter trains beside its factors."""
    return {key: value for key, value in _state(peft_model, adapter).items() if "lora_" not in key}


def _plain(config: Any, ranks: dict[str, int], names: list[str] | str) -> Any:  # noqa: ANN401
    """The configuration of a plain LoRA of these ranks and factor 1."""
    from peft import LoraConfig

    return LoraConfig(
        **plain_ranks(ranks),
        target_modules=names,
        lora_dropout=config.lora_dropout,
        bias=config.bias,
        fan_in_fan_out=config.fan_in_fan_out,
        modules_to_save=config.modules_to_save,
        lora_bias=bool(getattr(config, "lora_bias", False)),
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
    )


def plain_ranks(ranks: dict[str, int]) -> dict[str, Any]:
    """Rank and alpha of LoraConfig, with patterns where layers differ, for a factor of 1."""
    common = max(sorted(set(ranks.values())), key=list(ranks.values()).count)
    others = {f"^{_escaped(key)}": rank for key, rank in ranks.items() if rank != common}
    return {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
    }


def _escaped(name: str) -> str:
    """A layer's name as a pattern that means it alone: PEFT reads patterns as expressions."""
    return name.replace(".", r"\.")


def _write(folder: Path, config: Any, tensors: dict[str, Tensor]) -> None:  # noqa: ANN401
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.inference_mode = True
    config.init_lora_weights = True
    config.save_pretrained(str(folder))


def _check_savable(kind: str, config: Any) -> None:  # noqa: ANN401
    if kind not in ("lora", "adalora", "dora"):
        raise ValueError(
            f"an adapter of kind {kind} is no low-rank difference; use save_pretrained"
        )
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_MUTATING):
        raise ValueError(
            f"PEFT's start {start!r} moved the base weights, and what it moved is not known here: "
            "start by noisewise.adapters, or convert by save_pretrained with "
            "path_initial_model_for_weight_conversion"
        )
