"""One matrix view of every layer that can be adapted, and of PEFT's factors in it.

An adapted layer computes with ``W + c B A``. Here W is always the matrix [m, n] that maps n inputs
to m outputs, in every type of layer:

| layer          | its weight     | W                       | A of PEFT      | B of PEFT |
|----------------|----------------|-------------------------|----------------|-----------|
| Linear         | [m, n]         | unchanged               | [r, n]         | [m, r]    |
| Conv1D (GPT-2) | [n, m]         | transposed              | [r, n]         | [m, r]    |
| Conv1d, 2d, 3d | [m, i, k, ...] | [m, i k ...], flattened | [r, i, k, ...] | [m, r, 1] |
| Embedding      | [tokens, m]    | transposed, n = tokens  | [r, tokens]    | [m, r]    |

For a convolution this is exact: A is a convolution with the same kernel size and stride, B is a
1 x 1 convolution, and applying both is the convolution with the kernel B A.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.held import has_start

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
KINDS = "Linear, Conv1D, Conv1d, Conv2d, Conv3d and Embedding"


def need_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        ValueError: if it is not; the message says which extra to install.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "noisewise.adapters needs PEFT, which is missing: run pip install noisewise[adapters]"
        ) from error


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer stores its weight as [inputs, outputs]: GPT-2's Conv1D, and embeddings.

    Example:
        >>> is_transposed(nn.Linear(2, 3)), is_transposed(nn.Embedding(2, 3))
        (False, True)
    """
    return isinstance(module, nn.Embedding) or type(module).__name__ == "Conv1D"


def is_supported(module: nn.Module) -> bool:
    """Whether a layer is of a type that can be adapted here."""
    kinds = (nn.Linear, nn.Embedding, *_CONVOLUTIONS)
    return isinstance(module, kinds) or type(module).__name__ == "Conv1D"


def as_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """View a tensor with the shape of a layer's weight as the matrix [m, n], without a copy.

    Example:
        >>> as_matrix(nn.Conv2d(3, 5, 2), torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 12])
    """
    return weight.mT if is_transposed(module) else weight.flatten(1)


def from_matrix(module: nn.Module, matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo `as_matrix`: return the matrix [m, n] in the layer's own shape.

    Example:
        >>> layer = nn.Embedding(7, 2)
        >>> matrix = as_matrix(layer, layer.weight)
        >>> bool((from_matrix(layer, matrix, layer.weight.shape) == layer.weight).all())
        True
    """
    return matrix.mT.reshape(shape) if is_transposed(module) else matrix.reshape(shape)


def complaint(name: str, module: nn.Module) -> str | None:
    """Return why a layer cannot be adapted, in one sentence; None if it can.

    PEFT's adapters for convolutions ignore dilation and padding modes (results are wrong without
    an error), and cannot merge groups. Layers in `nn.MultiheadAttention` are never called, so an
    adapter there would do nothing.

    Example:
        >>> print(complaint("down", nn.Conv2d(4, 4, 3, dilation=2)))
        down has dilation (2, 2), which PEFT's adapters ignore: remove it from target_modules
    """
    out = "remove it from target_modules"
    if not is_supported(module):
        return f"{name} is a {type(module).__name__}; only {KINDS} can be adapted: {out}"
    if isinstance(module, _CONVOLUTIONS):
        if any(d != 1 for d in module.dilation):
            return f"{name} has dilation {module.dilation}, which PEFT's adapters ignore: {out}"
        if module.padding_mode != "zeros":
            mode = module.padding_mode
            return f"{name} has {mode} padding, which PEFT's adapters replace with zeros: {out}"
        if module.groups > 1:
            return f"{name} has {module.groups} groups, which PEFT cannot merge: {out}"
    if type(module).__name__ == "NonDynamicallyQuantizableLinear":
        return f"{name} is part of an nn.MultiheadAttention, which never calls it: {out}"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return f"{name} renormalises its rows in each call (max_norm): {out}"
    if "weight" not in module._parameters:
        return f"the weight of {name} is computed by a parametrisation: remove it first, or {out}"
    return None


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer stores its weight as integers or in 8 bits, like 4 and 8 bit layers.

    Example:
        >>> is_quantised(nn.Linear(2, 2))
        False
    """
    weight = module._parameters.get("weight")
    return weight is not None and not is_sharded(weight) and _packed(weight)


def _packed(tensor: Tensor) -> bool:
    """Whether a tensor, or a tensor inside it, has no ordinary float type.

    torchao's weights report float32 or bfloat16, but contain integers and their scales.
    """
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if tensor.dtype not in floats:
        return True
    flatten = getattr(tensor, "__tensor_flatten__", None)  # tensors that contain tensors
    return flatten is not None and any(_packed(getattr(tensor, name)) for name in flatten()[0])


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each process has a part (FSDP2)."""
    return hasattr(tensor, "device_mesh")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and torch.compile.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> unwrapped(nn.DataParallel(net)) is net
        True
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


def squared_norm(matrix: Tensor) -> float:
    """Return the sum of squares in float64, without a float64 copy of the whole.

    Example:
        >>> squared_norm(torch.ones(3, 2))
        6.0
    """
    rows = max(1, 2**18 // max(1, matrix.shape[1]))
    parts = (matrix[i : i + rows] for i in range(0, len(matrix), rows))
    return sum(float(part.double().square_().sum()) for part in parts)


def shared_with(model: nn.Module, module: nn.Module) -> list[str]:
    """Return the names of other parameters that share the weight of a layer (tied weights).

    Example:
        >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> b.weight = a.weight
        >>> shared_with(nn.Sequential(a, b), a)
        ['1.weight']
    """
    own = module._parameters.get("weight")
    return [
        f"{name}.{key}" if name else key
        for name, other in model.named_modules(remove_duplicate=False)
        for key, value in other._parameters.items()
        if value is own and value is not None and other is not module
    ]


def targets(model: nn.Module, config: LoraConfig) -> dict[str, nn.Module]:
    """Return the layers that a PEFT configuration adapts, by name, as PEFT itself finds them.

    Args:
        model: the model; of a PeftModel, the layers below its adapters.
        config: PEFT's LoraConfig; target_modules can be names, a pattern, "all-linear", or None
            if PEFT knows the architecture.

    Raises:
        ValueError: if there are none, or if one cannot be adapted (the message says why).

    Example:
        >>> from peft import LoraConfig
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> list(targets(net, LoraConfig(target_modules=["0", "2"])))
        ['0', '2']
    """
    need_peft()
    from peft.tuners.tuners_utils import check_target_module_exists

    base = cast(Any, model).base_model.model if is_peft_model(model) else model
    adapted = {name for name, module in base.named_modules() if hasattr(module, "lora_A")}
    if adapted and base is model:
        raise ValueError(
            "the model already has adapters: pass the PeftModel, or the model as it was before "
            "get_peft_model"
        )
    inside = tuple(f"{name}." for name in adapted)
    chosen = _resolved(base, config)
    found = {
        name: cast(Any, module).get_base_layer() if name in adapted else module
        for name, module in base.named_modules()
        if name and not name.startswith(inside) and bool(check_target_module_exists(chosen, name))
    }
    if not found:
        raise ValueError(f"target_modules {config.target_modules!r} matches no layer of this model")
    for name, module in found.items():
        trouble = complaint(name, module)
        if trouble:
            raise ValueError(trouble)
        if cast(Tensor, module.weight).is_meta:
            raise ValueError(
                f"the weight of {name} is not in memory (device meta): load the model without "
                "offloading, for example without device_map"
            )
    return found


def _resolved(model: nn.Module, config: LoraConfig) -> LoraConfig:
    """Return the configuration with its layers named, as PEFT does inside get_peft_model."""
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    if config.target_parameters:
        raise ValueError("target_parameters is not supported here: name layers in target_modules")
    chosen = copy.deepcopy(config)
    if chosen.target_modules is None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind not in KNOWN:
            raise ValueError("PEFT does not know this architecture: set target_modules")
        chosen.target_modules = set(KNOWN[kind])
    return _maybe_include_all_linear_layers(chosen, model)


def target_names(model: nn.Module, names: Iterable[str]) -> list[str] | str:
    """Return target_modules that match these layers and no others.

    PEFT also matches a name with the end of longer names. If that would match other layers, the
    result is a pattern.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1)))
        >>> target_names(net, ["1.0"]), target_names(net, ["0"])
        (['1.0'], '(?:0)')
    """
    chosen = sorted(names)
    endings = tuple(f".{name}" for name in chosen)
    others = (key for key, _ in model.named_modules() if key not in set(chosen))
    if not any(key.endswith(endings) for key in others):
        return chosen
    return f"(?:{'|'.join(re.escape(name) for name in chosen)})"


def rank_and_scaling(config: LoraConfig, name: str) -> tuple[int, float]:
    """Return rank r and scaling c of a layer: alpha / r, for rsLoRA alpha / sqrt(r); by patterns.

    Example:
        >>> from peft import LoraConfig
        >>> rank_and_scaling(LoraConfig(r=4, lora_alpha=8, use_rslora=True), "layer")
        (4, 4.0)
    """
    from peft.utils.other import get_pattern_key

    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), name), config.r)
    alpha = config.alpha_pattern.get(
        get_pattern_key(config.alpha_pattern.keys(), name), config.lora_alpha
    )
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)


def is_peft_model(model: nn.Module) -> bool:
    """Whether this is a model as get_peft_model returns it."""
    return hasattr(model, "peft_config") and hasattr(model, "base_model")


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch the adapters of a PeftModel off; nothing for other models."""
    if not is_peft_model(model):
        yield
        return
    with cast(Any, model).disable_adapter():
        yield


def wrapped(model: nn.Module, config: LoraConfig, adapter: str = "default") -> PeftModel:
    """Call get_peft_model with a copy of the configuration, so that it can be used again.

    A PeftModel gets one more adapter, which is then the active one.

    Raises:
        ValueError: if it has an adapter of this name.
    """
    from peft import get_peft_model

    if is_peft_model(model):
        peft_model = cast("PeftModel", model)
        if adapter in peft_model.peft_config:
            raise ValueError(f"the model has an adapter {adapter!r}: pass another name as adapter")
        peft_model.add_adapter(adapter, copy.deepcopy(config))
        peft_model.set_adapter(adapter)
        return peft_model

    with warnings.catch_warnings():
        # PEFT sets fan_in_fan_out correctly for each layer, and uses an old name of transformers.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        return cast("PeftModel", get_peft_model(model, copy.deepcopy(config), adapter))


# ------------------------------------------------------------------------ layers of a PeftModel


def lora_layers(peft_model: PeftModel, adapter: str | None = None) -> dict[str, LoraLayer]:
    """Return the adapted layers of a PeftModel by their names in the base model.

    Args:
        peft_model: a model as get_peft_model returns it.
        adapter: name of the adapter; None: the active one.

    Raises:
        ValueError: if it is not a PeftModel, or has no such adapter.
    """
    name = active_adapter(peft_model, adapter)
    base = peft_model.base_model.model
    return {
        key: module
        for key, module in base.named_modules()
        if hasattr(module, "lora_A")
        and (name in module.lora_A or name in getattr(module, "lora_embedding_A", {}))
    }


def active_adapter(peft_model: PeftModel, adapter: str | None = None) -> str:
    """Return the name of the requested adapter, or of the active one, and check that it exists.

    Raises:
        ValueError: if it is not a PeftModel, has no such adapter, or if several are active.
    """
    known = getattr(peft_model, "peft_config", None)
    if not known or not hasattr(peft_model, "base_model"):
        raise ValueError(
            "this is not a PeftModel: make one with get_peft_model, or lora_ga, pissa or lora_one"
        )
    name = peft_model.active_adapter if adapter is None else adapter
    if not isinstance(name, str):
        raise ValueError(
            f"several adapters are active ({', '.join(name)}): pass adapter=NAME for one"
        )
    if name not in known:
        raise ValueError(f"there is no adapter {name!r}; the model has {', '.join(known)}")
    return name


def base_of(layer: LoraLayer) -> nn.Module:
    """Return the layer that an adapted layer wraps."""
    return layer.get_base_layer()


def factor_parameters(layer: LoraLayer, adapter: str) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the parameters (A, B) of an adapted layer, in PEFT's shapes, without held halves."""
    held = has_start(layer, adapter)
    if isinstance(base_of(layer), nn.Embedding):
        a, b = layer.lora_embedding_A, layer.lora_embedding_B
        return (a.trained(adapter), b.trained(adapter)) if held else (a[adapter], b[adapter])
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    return (a.trained, b.trained) if held else (getattr(a, "weight", a), getattr(b, "weight", b))


def factors(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor]:
    """Return A [r, n] and B [m, r] of an adapted layer as matrices: views of the parameters."""
    a, b = factor_parameters(layer, adapter)
    return a.detach().flatten(1), b.detach().flatten(1)


def all_factors(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor]:
    """Return the factors with held halves, as matrices: what the layer computes with."""
    if isinstance(base_of(layer), nn.Embedding):
        a, b = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    else:
        a, b = (getattr(x, "weight", x) for x in (layer.lora_A[adapter], layer.lora_B[adapter]))
    return a.detach().flatten(1), b.detach().flatten(1)


@torch.no_grad()
def set_factors(layer: LoraLayer, adapter: str, a: Tensor, b: Tensor) -> None:
    """Write A [r, n] and B [m, r] into an adapted layer."""
    for parameter, value in zip(factor_parameters(layer, adapter), (a, b), strict=True):
        parameter.copy_(value.reshape(parameter.shape))


def kind_of(peft_model: PeftModel, adapter: str | None = None) -> str:
    """Return the type of an adapter: "lora", "adalora", "dora", or PEFT's name of a variant."""
    config: Any = peft_model.peft_config[active_adapter(peft_model, adapter)]
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    if kind != "lora":
        return kind
    if config.use_dora:
        return "dora"
    others = ("kasa_config", "velora_config", "monteclora_config", "arrow_config", "use_bdlora")
    return next((o for o in (*others, "alora_invocation_tokens") if getattr(config, o, None)), kind)
