"""Starts on a model: they return a PeftModel whose first step follows full fine-tuning.

Papers: Wang, Yu and Li 2024 (LoRA-GA); Meng, Wang and Zhang 2024 (PiSSA); Zhang et al. 2025
(LoRA-One). `solutions` computes the factors; here PEFT makes its layers and gets the factors.

All checks run before the model changes. PEFT's configuration keeps ``init_lora_weights=True``, so
that any version of PEFT can load what is saved later.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.files import running_statistics
from noisewise.adapters.held import hold_start
from noisewise.adapters.layers import (
    active_adapter,
    as_matrix,
    is_quantised,
    lora_layers,
    rank_and_scaling,
    set_factors,
    targets,
    unwrapped,
    wrapped,
)
from noisewise.adapters.resuming import doubled, note_on_save
from noisewise.adapters.solutions import (
    Answer,
    Scale,
    Split,
    Start,
    lora_ga_start,
    lora_one_start,
    pissa_start,
)

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

Make = Callable[[str, nn.Module, int, float], Start]  # name, layer, rank, scaling


def lora_ga(
    model: nn.Module,
    config: LoraConfig,
    grads: Mapping[str, Tensor],
    *,
    mutate_base: bool = False,
    scale: Scale = "stable",
    gamma: float = 16.0,
    split: Split = "ArB2r",
    answer: Answer = "gradient",
    generator: torch.Generator | None = None,
    adapter: str = "default",
) -> PeftModel:
    """Adapt a model so that its first step has the best direction for its rank (LoRA-GA).

    By default ``A = s V_r^T``, ``B = 0``: the best direction of rank r. With mutate_base it is the
    paper's form: a step of rank 2r, from A0 and B0 that are not 0. The paper subtracts ``c B0 A0``
    from W; here W stays, and frozen ranks of the adapter subtract it (`held`), so PEFT sees an
    adapter of rank 2r. Both work with bfloat16, quantised and tied weights and with every way of
    saving. The function of the model does not change: exactly by default, with mutate_base to 1e-6
    of the output in float32 (1e-5 with the longer factors of "unit" and "adam").

    Args:
        model: it is changed in place, as by PEFT's get_peft_model. A PeftModel gets one more
            adapter, which is then the active one.
        config: PEFT's LoraConfig: rank, alpha, targets, patterns, use_rslora, use_dora.
        grads: full gradients by layer, matrices [m, n], as `gradients` returns them.
        mutate_base: True: the paper's form, whose start is subtracted again.
        scale: lengths of the factors: stable, gd, unit or adam, see `lora_ga_start`. The length of
            the first step depends on it, the direction does not.
        gamma: constant of "stable".
        split: how the 2r singular vectors are divided, with mutate_base.
        answer: which step is followed: SGD's ("gradient"), or Adam's ("sign" or "solve").
        generator: random generator for a random split and for factorising large matrices.
        adapter: name of the new adapter.

    Raises:
        ValueError: if a gradient is missing or zero. Ranks that are too large for a layer are
            lowered, with a warning.

    Source: Wang et al. 2024, section 3; the default is their theorem 3.1 with B0 = 0.

    Example:
        >>> from peft import LoraConfig
        >>> from noisewise.adapters import gradients
        >>> net, config = nn.Sequential(nn.Linear(8, 6)), LoraConfig(r=2, target_modules=["0"])
        >>> x, loss = torch.randn(3, 16, 8), lambda model, batch: model(batch).square().mean()
        >>> before = net(x[0]).detach()
        >>> adapted = lora_ga(net, config, gradients(net, config, x, loss))
        >>> bool(torch.allclose(adapted(x[0]), before))
        True
    """
    if getattr(config, "ensure_weight_tying", False):
        grads = _summed_where_tied(model, config, grads)

    def make(name: str, layer: nn.Module, rank: int, c: float) -> Start:
        try:
            return lora_ga_start(
                _gradient(grads, name),
                rank,
                c,
                mutate_base=mutate_base and min(grads[name].shape) > 1,
                scale=scale,
                gamma=gamma,
                split=split,
                answer=answer,
                generator=generator,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return _adapted(model, config, make, mutate_base, adapter, both=mutate_base)


def pissa(
    model: nn.Module,
    config: LoraConfig,
    *,
    generator: torch.Generator | None = None,
    adapter: str = "default",
) -> PeftModel:
    """Adapt a model by the main part of its weights: ``c B A`` is the best rank r of W (PiSSA).

    PEFT has this for Linear only; here it works for every type of layer. The paper replaces W by
    ``W - c B0 A0``; here W stays, and frozen ranks of the adapter subtract the start (`held`).

    Args:
        model: it is changed in place.
        config: PEFT's LoraConfig.
        generator: random generator for factorising large matrices.
        adapter: name of the new adapter.

    Raises:
        ValueError: for quantised weights.

    Source: Meng et al. 2024.

    Example:
        >>> from peft import LoraConfig
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> x = torch.randn(2, 3, 5, 5)
        >>> before = net(x).detach()
        >>> adapted = pissa(net, LoraConfig(r=2, target_modules=["0"]))
        >>> bool(torch.allclose(adapted(x), before, atol=1e-5))
        True
    """

    def make(name: str, layer: nn.Module, rank: int, c: float) -> Start:
        if is_quantised(layer):
            raise ValueError(
                f"{name} is quantised, so it has no float weight to factorise: use lora_ga"
            )
        weight = cast(Tensor, layer.weight).detach()
        try:
            return pissa_start(as_matrix(layer, weight), rank, c, generator)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return _adapted(model, config, make, True, adapter)


def lora_one(
    model: nn.Module,
    config: LoraConfig,
    grads: Mapping[str, Tensor],
    *,
    gamma: float = 128.0,
    generator: torch.Generator | None = None,
    adapter: str = "default",
) -> PeftModel:
    """Adapt a model and take a first step of rank r against the gradient (LoRA-One).

    The weights do not change, but the function does: ``c B A`` is the step.

    Args:
        model: it is changed in place.
        config: PEFT's LoraConfig.
        grads: full gradients by layer, as `gradients` returns them.
        gamma: a larger gamma makes a smaller step.
        generator: random generator for factorising large matrices.
        adapter: name of the new adapter.

    Raises:
        ValueError: for DoRA, or if a gradient is missing.

    Source: Zhang et al. 2025 (LoRA-One).

    Example:
        >>> from peft import LoraConfig
        >>> from noisewise.adapters import gradients
        >>> net, config = nn.Sequential(nn.Linear(8, 6)), LoraConfig(r=2, target_modules=["0"])
        >>> x, loss = torch.randn(3, 16, 8), lambda model, batch: model(batch).square().mean()
        >>> grads, before = gradients(net, config, x, loss), loss(net, x).item()
        >>> loss(lora_one(net, config, grads), x).item() < before
        True
    """
    if config.use_dora:
        raise ValueError("LoRA-One starts with a step that DoRA would undo: set use_dora=False")

    if getattr(config, "ensure_weight_tying", False):
        grads = _summed_where_tied(model, config, grads)

    def make(name: str, layer: nn.Module, rank: int, c: float) -> Start:
        try:
            return lora_one_start(_gradient(grads, name), rank, gamma, generator)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return _adapted(model, config, make, False, adapter)


def certificates(peft_model: PeftModel, adapter: str | None = None) -> dict[str, float]:
    """Return an upper bound of ``|X - X_k| / |X|`` for the start of each layer.

    X is the gradient (for PiSSA the weight) and X_k the part of it that the factors span. If the
    bound is close to 1, most of the gradient does not fit into this rank: use a higher rank there.
    The bound fails with probability at most 1e-6 (`noisewise.lowrank`). Layers without a start from
    here are left out.

    Example:
        >>> from peft import LoraConfig
        >>> net = nn.Sequential(nn.Linear(6, 6, bias=False))
        >>> adapted = pissa(net, LoraConfig(r=6, target_modules=["0"]))
        >>> certificates(adapted)["0"] < 1e-5
        True
    """
    name = active_adapter(peft_model, adapter)
    found = {
        key: getattr(layer, "_noisewise_error", {}).get(name)
        for key, layer in lora_layers(peft_model, name).items()
    }
    return {key: error for key, error in found.items() if error is not None}


def _tied_heads(config: LoraConfig, found: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the layers that share their factors with an embedding (ensure_weight_tying), by name.

    PEFT makes their A and B of the embedding's B^T and A^T.
    """
    if not getattr(config, "ensure_weight_tying", False):
        return {}
    words = {id(m.weight): name for name, m in found.items() if isinstance(m, nn.Embedding)}
    return {
        name: words[id(layer.weight)]
        for name, layer in found.items()
        if not isinstance(layer, nn.Embedding) and id(layer.weight) in words
    }


def _summed_where_tied(
    model: nn.Module, config: LoraConfig, grads: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Return gradients in which an embedding's includes that of the head with the same factors."""
    summed = dict(grads)
    for head, words in _tied_heads(config, targets(unwrapped(model), config)).items():
        summed[words] = summed[words] + _gradient(grads, head).mT
        summed[head] = summed[words].mT
    return summed


def _gradient(grads: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in grads:
        raise ValueError("its gradient is missing; compute the gradients with the same config")
    return grads[name]


def _adapted(
    model: nn.Module, config: LoraConfig, make: Make, holds: bool, adapter: str, both: bool = False
) -> PeftModel:
    """Let PEFT make its layers, then write the factors into them.

    holds: the start is subtracted; both: it needs 2r singular vectors of a layer.
    """
    model = unwrapped(model)
    found = targets(model, config)
    _check_config(config)
    config, tied = _with_fitting_ranks(config, found, both), _tied_heads(config, found)
    if tied and holds:
        raise ValueError(
            f"{next(iter(tied))} shares its factors (ensure_weight_tying), which cannot subtract a "
            "start: use lora_ga with mutate_base=False"
        )
    starts = {}
    for name, layer in found.items():
        starts[name] = make(name, layer, *rank_and_scaling(config, name))
    _check_shapes(found, starts)
    peft_model = wrapped(model, doubled(config) if holds else config, adapter)
    for name, layer in lora_layers(peft_model, adapter).items():
        start = starts[name]
        if name in tied:
            continue  # written with the embedding
        if holds:
            hold_start(layer, adapter, start.a, start.b)
        else:
            set_factors(layer, adapter, start.a, start.b)
        layer._noisewise_error = getattr(layer, "_noisewise_error", {}) | {adapter: start.error}
    if holds:
        note_on_save(peft_model)
    _warn_of_statistics(peft_model)
    return peft_model


def _with_fitting_ranks(
    config: LoraConfig, found: Mapping[str, nn.Module], both: bool
) -> LoraConfig:
    """Lower ranks that are too large for a layer, with the same scaling, and say so."""
    ranks, alphas = {}, {}
    for name, layer in found.items():
        if is_quantised(layer):  # its shape is packed
            continue
        rank, c = rank_and_scaling(config, name)
        shape = as_matrix(layer, cast(Tensor, layer.weight)).shape
        least = max(1, min(shape) // 2 if both else min(shape))
        if rank > least:
            key = "^" + name.replace(".", r"\.")
            ranks[key] = least
            alphas[key] = c * (math.sqrt(least) if config.use_rslora else least)
    if not ranks:
        return config
    warnings.warn(
        f"{len(ranks)} layers have a lower rank, the highest that {'2 r' if both else 'r'} <= "
        f"min(m, n) allows, at the same scaling: rank_pattern={ranks}",
        stacklevel=4,
    )
    fitting = copy.deepcopy(config)
    # PEFT takes the first pattern that matches.
    fitting.rank_pattern = ranks | config.rank_pattern | ranks
    fitting.alpha_pattern = alphas | config.alpha_pattern | alphas
    return fitting


def _warn_of_statistics(peft_model: PeftModel) -> None:
    found = list(running_statistics(peft_model.base_model.model))
    if found:
        warnings.warn(
            f"{found[0]} has running statistics, which change in training and which PEFT's own "
            "functions do not save: save with noisewise.adapters.save, or name such layers in "
            "modules_to_save",
            stacklevel=4,
        )


def _check_config(config: LoraConfig) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise ValueError(f"starts are for LoRA only; use get_peft_model for {kind}")
    if config.init_lora_weights is not True:
        raise ValueError(
            f"init_lora_weights={config.init_lora_weights!r} is a start of PEFT: set it to True, "
            "or use get_peft_model"
        )
    if config.layer_replication:
        raise ValueError("layer_replication changes layer names: replicate the layers first")


def _check_shapes(found: Mapping[str, nn.Module], starts: Mapping[str, Start]) -> None:
    for name, layer in found.items():
        if is_quantised(
            layer
        ):  # its shape is packed; PEFT's layers know the true one, and copy_ checks it
            continue
        weight = as_matrix(layer, cast(Tensor, layer.weight))
        start = starts[name]
        if (start.b.shape[0], start.a.shape[1]) != tuple(weight.shape):
            raise ValueError(
                f"{name} has shape {tuple(weight.shape)}, but its gradient has "
                f"{(start.b.shape[0], start.a.shape[1])}: compute the gradients on this model"
            )
