"""Save and load adapters, always as a plain LoRA on the original base model.

The learned difference is saved, with ``alpha = r``. This is scaling 1, which is right for PEFT, for
diffusers and for scripts that do not read the configuration. With a start that subtracts itself the
difference is ``c (B A - B0 A0)``, of rank 2r at most.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from noisewise.adapters.difference import difference, truncated
from noisewise.adapters.files import (
    CONFIG,
    entries,
    is_second_name,
    non_factors,
    state,
    with_statistics,
    write,
    write_for_pipeline,
)
from noisewise.adapters.held import has_start
from noisewise.adapters.layers import (
    active_adapter,
    kind_of,
    lora_layers,
    need_peft,
    target_names,
)
from noisewise.adapters.resuming import NOTE, hold_second_half, holds_start, refuse_old

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

_MUTATING = ("pissa", "olora", "corda", "lora_ga", "loftq")  # PEFT's own starts that move W


@dataclass(frozen=True)
class Saved:
    """The report of `save`.

    Attributes:
        path: the folder.
        ranks: rank of each layer.
        energy: share of the squared norm of each layer's difference that was kept.
    """

    path: Path
    ranks: dict[str, int]
    energy: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {"path": str(self.path), "ranks": self.ranks, "energy": self.energy}


def save(
    peft_model: PeftModel,
    path: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    adapter: str | None = None,
    prefix: str | None = None,
    base_model: str | None = None,
) -> Saved:
    """Write an adapter as a plain LoRA on the original base model, for PEFT and for diffusers.

    Without rank and energy the difference is exact. Its rank is r, with a start that subtracts
    itself up to 2r, and for AdaLoRA the ranks that remain. The saved `alpha` equals the rank. To
    continue training, use PEFT's save_pretrained. The running statistics of batch norms are saved
    too; PEFT's own functions save them only for layers in modules_to_save.

    Args:
        peft_model: a model with LoRA (also rsLoRA) or AdaLoRA, started here or by PEFT. DoRA, which
            is not a low-rank difference, is written in PEFT's own format.
        path: the folder; it is made if it is missing.
        rank: highest rank of a layer; the best approximation of this rank is written.
        energy: share of the squared norm of each difference to keep, in (0, 1]; each layer gets the
            smallest rank that keeps it. Pass rank or energy, not both.
        adapter: name of the adapter; None: the active one.
        prefix: name of the model in a diffusers pipeline, "unet" or "transformer": writes the one
            file that load_lora_weights of the pipeline reads, with the ranks in its header. None:
            writes PEFT's format.
        base_model: name of the base model in what is written, such as its name on the Hub; None: as
            PEFT has it, which is a path of this machine where it was loaded from one. PEFT's
            AutoPeftModel loads it from there. Give a name before you publish an adapter.

    Raises:
        ValueError: if the type of adapter is not a low-rank difference; if a start of PEFT moved
            the weights (this change is not known here); if it contains tensors that a pipeline
            cannot load; if a number is out of range.

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
        raise ValueError("pass rank or energy, not both")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} is too small; use 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy {energy:g} is not a share; use a number above 0, at most 1")
    if prefix is not None and not prefix.isidentifier():
        raise ValueError(f"prefix {prefix!r} is not a model of a pipeline; use unet or transformer")
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; pass the path of a folder")
    layers = lora_layers(peft_model, name)
    tensors = with_statistics(peft_model.base_model.model, state(peft_model, name))
    if kind == "dora":
        if rank is not None or energy is not None:
            raise ValueError(
                "DoRA cannot be compressed: save it without rank and energy, or merge it"
            )
        own = copy.deepcopy(config)
        own.auto_mapping = _auto_mapping(peft_model, config)
        own.base_model_name_or_path = base_model or config.base_model_name_or_path
        _write(folder, prefix, own, tensors)
        return Saved(folder, {key: layer.r[name] for key, layer in layers.items()}, {})
    found = {
        key: _compressed(layer, name, rank, energy, kind == "adalora")
        for key, layer in layers.items()
    }
    if kind == "adalora":
        tensors = non_factors(tensors)
    for key, (left, right, _) in found.items():
        tensors |= entries(key, layers[key], name, left, right)
    ranks = {key: left.shape[1] for key, (left, _, _) in found.items()}
    names = target_names(peft_model.base_model.model, ranks)
    plain = _plain_config(config, ranks, names)
    plain.auto_mapping = _auto_mapping(peft_model, config)
    plain.base_model_name_or_path = base_model or config.base_model_name_or_path
    _write(folder, prefix, plain, tensors)
    return Saved(folder, ranks, {key: kept for key, (_, _, kept) in found.items()})


def load(model: nn.Module, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Load a saved adapter onto the original base model.

    Args:
        model: the base model, without adapters; it is changed in place.
        path: folder with adapter_config.json and adapter_model.safetensors.
        trainable: True to continue training the adapter. If save_pretrained wrote it after a start
            that subtracts itself, half of its ranks train and the other half stays as it is.

    Raises:
        ValueError: if the folder has no adapter; if trainable and it was written by an older
            version, whose starts moved the weights; if the adapter does not fit this model: each
            adapted layer needs its tensors in the file, and each tensor needs its layer.

    Example:
        >>> try:
        ...     load(nn.Linear(1, 1), "no/such/folder")
        ... except ValueError as error:
        ...     print(error)
        no/such/folder has no adapter: adapter_config.json is missing
    """
    need_peft()
    from peft import PeftModel

    folder = Path(path)
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} has no adapter: {CONFIG} is missing")
    if trainable:
        refuse_old(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # Tied layers that were extracted have the same factors, which is what the warning is about.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        try:
            loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        except KeyError as error:
            raise ValueError(f"{folder} does not fit this model: {error} is missing") from error
        except (UserWarning, RuntimeError, ValueError, StopIteration) as error:
            first = (str(error) or "it has no weights").splitlines()[0]
            raise ValueError(f"{folder} does not fit this model: {first}") from error
    unused = _unused_tensors(loaded, folder)
    if unused:
        raise ValueError(
            f"{folder} does not fit this model: the model has no layer for {len(unused)} of its "
            f"tensors: {', '.join(unused[:3])}"
        )
    if trainable and holds_start(folder):
        hold_second_half(loaded, "default")
    return loaded


def _unused_tensors(loaded: PeftModel, folder: Path) -> list[str]:
    """Return the tensors of the file that PEFT ignored; it gives no warning."""
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    tensors = load_peft_weights(str(folder), device="cpu")
    unused = set_peft_model_state_dict(loaded, tensors).unexpected_keys
    return [key for key in unused if not is_second_name(key)]


def _compressed(
    layer: LoraLayer, adapter: str, rank: int | None, energy: float | None, adalora: bool
) -> tuple[Tensor, Tensor, float]:
    left, right = difference(layer, adapter, adalora)
    asked = rank is not None or energy is not None
    if not left.shape[1]:  # AdaLoRA removed all ranks of this layer
        left, right = left.new_zeros(left.shape[0], 1), right.new_zeros(1, right.shape[1])
    elif asked or has_start(layer, adapter):
        left, right, kept = truncated(left, right, rank, energy)
        return left.float(), right.float(), kept
    return left.float(), right.float(), 1.0


def _plain_config(
    config: Any,  # noqa: ANN401
    ranks: dict[str, int],
    names: list[str] | str,
) -> Any:  # noqa: ANN401
    """Return the configuration of a plain LoRA with these ranks and scaling 1."""
    from peft import LoraConfig

    return LoraConfig(
        **plain_ranks(ranks),
        target_modules=names,
        lora_dropout=config.lora_dropout,
        bias=config.bias,
        fan_in_fan_out=config.fan_in_fan_out,
        modules_to_save=config.modules_to_save,
        lora_bias=bool(getattr(config, "lora_bias", False)),
        trainable_token_indices=getattr(config, "trainable_token_indices", None),
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
    )


def _auto_mapping(peft_model: PeftModel, config: Any) -> dict[str, str] | None:  # noqa: ANN401
    """Return what PEFT's AutoPeftModel needs to find the base model's class, as PEFT saves it."""
    if config.task_type is not None:
        return None
    kind = type(peft_model.base_model.model)
    return {"base_model_class": kind.__name__, "parent_library": kind.__module__}


def plain_ranks(ranks: dict[str, int]) -> dict[str, Any]:
    """Return rank and alpha for LoraConfig for scaling 1, with patterns if layers differ."""
    common = max(sorted(set(ranks.values())), key=list(ranks.values()).count)
    others = {f"^{_escaped(key)}": rank for key, rank in ranks.items() if rank != common}
    return {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
    }


def _escaped(name: str) -> str:
    """Return a layer's name as a pattern: PEFT reads patterns as regular expressions."""
    return name.replace(".", r"\.")


def _write(
    folder: Path,
    prefix: str | None,
    config: Any,  # noqa: ANN401
    tensors: dict[str, Tensor],
) -> None:
    if prefix is None:
        write(folder, config, tensors)
        (folder / NOTE).unlink(missing_ok=True)
    else:
        write_for_pipeline(folder, prefix, config, tensors)


def _check_savable(kind: str, config: Any) -> None:  # noqa: ANN401
    if kind not in ("lora", "adalora", "dora"):
        raise ValueError(
            f"an adapter of type {kind} is not a low-rank difference; use save_pretrained"
        )
    for field in ("target_parameters", "layer_replication"):
        if getattr(config, field, None):
            raise ValueError(f"{field} is not supported here; use save_pretrained")
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_MUTATING):
        raise ValueError(
            f"PEFT's start {start!r} moved the base weights by an amount that is not known here: "
            "use a start of noisewise.adapters, or save_pretrained with "
            "path_initial_model_for_weight_conversion"
        )
