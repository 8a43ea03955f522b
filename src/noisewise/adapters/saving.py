"""Saving and loading: always a plain LoRA on the clean base.

A start that moves the frozen weight makes the adapter's own factors meaningless elsewhere: saved
plainly and put on the clean base they are wrong by the whole start, and nothing says so. Here the
difference that was learned is what is saved,

    W - W_clean = c (B A - B0 A0) = [c B, -c B0] [A; A0],

of rank 2r at most, written with ``alpha = r``: a factor of 1, which PEFT, diffusers and the scripts
that read no configuration all take for granted.
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
    beside_factors,
    entries,
    state,
    write,
    write_for_pipeline,
)
from noisewise.adapters.layers import (
    active_adapter,
    kind_of,
    lora_layers,
    need_peft,
    target_names,
)
from noisewise.adapters.moved import start_of

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
    prefix: str | None = None,
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
        prefix: the model's name in a diffusers pipeline, "unet" or "transformer": the file is then
            the one that the pipeline's load_lora_weights reads, with ranks in its header, and none
            of PEFT's. None: PEFT's form.

    Raises:
        ValueError: if the adapter is of a kind that is no low-rank difference, was started by a
            PEFT start that moves the weights (its change is not known here) or stands on weights
            that another one's start moved, or holds what a pipeline has no place for.

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
    if prefix is not None and not prefix.isidentifier():
        raise ValueError(f"prefix {prefix!r} is no model of a pipeline; use unet or transformer")
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name a folder")
    layers = lora_layers(peft_model, name)
    if kind == "dora":
        if rank is not None or energy is not None:
            raise ValueError("DoRA is no low-rank difference: it is saved as it is, or merged")
        _write(folder, prefix, copy.deepcopy(config), state(peft_model, name))
        return Saved(folder, {key: layer.r[name] for key, layer in layers.items()}, {})
    found = {
        key: _compressed(layer, name, rank, energy, kind == "adalora")
        for key, layer in layers.items()
    }
    tensors = state(peft_model, name)
    if kind == "adalora":
        tensors = beside_factors(tensors)
    for key, (left, right, _) in found.items():
        tensors |= entries(key, layers[key], name, left, right)
    ranks = {key: left.shape[1] for key, (left, _, _) in found.items()}
    names = target_names(peft_model.base_model.model, ranks)
    _write(folder, prefix, _plain(config, ranks, names), tensors)
    return Saved(folder, ranks, {key: kept for key, (_, _, kept) in found.items()})


def load(model: nn.Module, path: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on its clean base.

    Args:
        model: the base model, without adapters; it is changed in place.
        path: folder with adapter_config.json and adapter_model.safetensors.
        trainable: whether to go on training it.

    Raises:
        ValueError: if there is no adapter, or its layers are not those of this model: each layer
            that it adapts must have its tensors in the file, and each tensor its place.

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
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} holds no adapter: {CONFIG} is not there")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        try:
            loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        except KeyError as error:
            raise ValueError(f"{folder} does not fit this model: {error} is not there") from error
        except (UserWarning, RuntimeError, ValueError, StopIteration) as error:
            first = (str(error) or "it has no weights").splitlines()[0]
            raise ValueError(f"{folder} does not fit this model: {first}") from error
    homeless = _without_place(loaded, folder)
    if homeless:
        raise ValueError(
            f"{folder} does not fit this model, which has no place for {len(homeless)} of its "
            f"tensors: {', '.join(homeless[:3])}"
        )
    return loaded


def _without_place(loaded: PeftModel, folder: Path) -> list[str]:
    """Tensors of the file that PEFT left out, which it does without a word."""
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    tensors = load_peft_weights(str(folder), device="cpu")
    return list(set_peft_model_state_dict(loaded, tensors).unexpected_keys)


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
        trainable_token_indices=getattr(config, "trainable_token_indices", None),
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


def _write(
    folder: Path,
    prefix: str | None,
    config: Any,  # noqa: ANN401
    tensors: dict[str, Tensor],
) -> None:
    if prefix is None:
        write(folder, config, tensors)
    else:
        write_for_pipeline(folder, prefix, config, tensors)


def _check_savable(kind: str, config: Any) -> None:  # noqa: ANN401
    if kind not in ("lora", "adalora", "dora"):
        raise ValueError(
            f"an adapter of kind {kind} is no low-rank difference; use save_pretrained"
        )
    for field in ("target_parameters", "layer_replication"):
        if getattr(config, field, None):
            raise ValueError(f"{field} is not handled here; use save_pretrained")
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_MUTATING):
        raise ValueError(
            f"PEFT's start {start!r} moved the base weights, and what it moved is not known here: "
            "start by noisewise.adapters, or convert by save_pretrained with "
            "path_initial_model_for_weight_conversion"
        )
