"""Extract an adapter from two checkpoints: the low-rank part of what fine-tuning changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.checkpoints import FileTensors, ModelTensors, Weights, tensors_of
from noisewise.adapters.layers import (
    as_matrix,
    complaint,
    factor_parameters,
    is_quantised,
    is_supported,
    is_transposed,
    lora_layers,
    need_peft,
    shared_with,
    squared_norm,
    target_names,
    wrapped,
)
from noisewise.lowrank import svd

if TYPE_CHECKING:
    from peft import PeftModel
_SHARES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class LayerExtraction:
    """How much of the change of one layer the adapter keeps.

    Attributes:
        rank: rank of the adapter in this layer.
        energy: share of the squared norm of the change that is kept.
        residual: relative error, ``sqrt(1 - energy)``.
        norm: Frobenius norm of the change divided by that of the weight.
        ranks_for: the rank that keeps a share of 0.5, 0.9, 0.99 and 0.999 of the squared norm; only
            with `spectra`.
    """

    rank: int
    energy: float
    residual: float
    norm: float
    ranks_for: dict[str, int]


@dataclass(frozen=True)
class Extraction:
    """An adapter, and how much of the change it keeps.

    Attributes:
        peft_model: a copy of the first model with the adapter; write it with `save`.
        layers: the report of each adapted layer.
        energy: share of the squared norm of all changes together that is kept; what is left out
            counts as not kept.
        left_out: changed tensors that are not in the adapter (only with `ignore`), each with its
            share of the squared norm of all changes.
        carried: names of changed tensors that are in the adapter whole: biases and norms.
    """

    peft_model: PeftModel
    layers: dict[str, LayerExtraction]
    energy: float
    left_out: dict[str, float]
    carried: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types, without the model."""
        layers = {name: vars(layer) for name, layer in self.layers.items()}
        return {
            "energy": self.energy,
            "layers": layers,
            "left_out": self.left_out,
            "carried": list(self.carried),
        }


@torch.no_grad()
def extract(
    model_a: nn.Module,
    model_b: Weights,
    *,
    rank: int | None = None,
    energy: float | None = None,
    target_modules: Sequence[str] | None = None,
    ignore: bool = False,
    spectra: bool = False,
    weights_a: str | Path | None = None,
    generator: torch.Generator | None = None,
) -> Extraction:
    """Return the adapter on model_a that is closest to model_b, with a report for each layer.

    ``c B A`` is the best approximation of ``W_b - W_a`` of its rank; c = 1. Layers that share one
    weight (tied weights) get the same factors, transposed if one of the layers is an embedding.
    Changed biases and norms are carried whole: biases by PEFT's ``bias="all"``, norms and other
    layers of vectors by ``modules_to_save``. The cost is about 25 products of each change with a
    matrix of rank + 8 columns; `spectra` adds the singular values of each (30 times as long at
    2048 x 2048 and rank 16).

    Args:
        model_a: the base model; a copy of it is adapted, the model itself does not change. It may
            be on the meta device, if weights_a has its weights.
        model_b: the fine-tuned model with the same architecture, or the folder or file of its
            safetensors, of which one tensor at a time is read.
        rank: rank in every layer (the full rank in layers smaller than that).
        energy: share of the squared norm of each change to keep, in (0, 1); each layer gets the
            smallest rank that keeps it. Pass exactly one of rank and energy.
        target_modules: names of layers; None: all layers that changed and can be adapted. Name all
            layers that are tied together: an adapter works only in its own layer.
        ignore: leave out other changed tensors and list them in `left_out`. False: they are an
            error, because the adapter would miss them.
        spectra: fill in `ranks_for` of each layer.
        weights_a: folder or file of safetensors with the weights of model_a.
        generator: random generator for factorising large matrices.

    Raises:
        ValueError: if names or shapes differ (they are listed), if nothing changed, if tensors
            changed that are neither low rank nor carried, or if model_a has no weights.

    Source: Eckart and Young 1936, computed by `noisewise.lowrank.svd`.

    Example:
        >>> a = nn.Sequential(nn.Linear(6, 5))
        >>> b = copy.deepcopy(a)
        >>> with torch.no_grad():
        ...     _ = b[0].weight.add_(torch.ones(5, 1) @ torch.ones(1, 6))
        >>> found = extract(a, b, energy=0.99)
        >>> x = torch.eye(6)
        >>> found.layers["0"].rank, bool(torch.allclose(found.peft_model(x), b(x), atol=1e-5))
        (1, True)
    """
    need_peft()
    _check_request(model_a, rank, energy, weights_a)
    old = tensors_of(model_a if weights_a is None else weights_a, model_a)
    new = tensors_of(model_b, model_a)
    squares = _changes(model_a, old, new)
    modules = dict(model_a.named_modules())
    chosen = _chosen(model_a, modules, list(squares), target_modules)
    covered = {f"{name}.weight" for name in chosen}
    whole = _carried(model_a, modules, [name for name in squares if name not in covered], chosen)
    out = [name for name in squares if name not in covered and name not in whole]
    if out and not ignore:
        raise ValueError(
            f"a low-rank adapter cannot hold these changed tensors ({len(out)}): "
            f"{', '.join(out[:5])}{_hint_about_ties(model_a, chosen, out)}; pass ignore=True to "
            "leave them out"
        )
    factors, report = {}, {}
    found: dict[int, str] = {}  # a layer's weight: its name
    lost = sum(squares[name] for name in _untied(model_a, out))
    total = lost + sum(squares[name] for name in whole)
    for name in chosen:
        twin = found.setdefault(id(modules[name].weight), name)
        if twin != name:
            factors[name] = _factors_of_tied(modules[twin], modules[name], *factors[twin])
            report[name] = report[twin]
            continue
        b, a = (as_matrix(modules[name], values[f"{name}.weight"]).float() for values in (new, old))
        left, right, report[name] = _of_layer(b, a, rank, energy, spectra, generator)
        factors[name] = (right, left)
        total += squares[f"{name}.weight"]
        lost += squares[f"{name}.weight"] * (1 - report[name].energy)
    peft_model = _with_factors(model_a, factors, {name: new[name] for name in whole})
    shares = {name: squares[name] / total for name in out}
    return Extraction(peft_model, report, 1 - lost / total, shares, tuple(whole))


def _check_request(
    model_a: nn.Module, rank: int | None, energy: float | None, weights_a: str | Path | None
) -> None:
    if (rank is None) == (energy is None):
        raise ValueError("pass exactly one of rank and energy")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} is too small; use 1 or more")
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f"energy {energy:g} is not a share; use a number above 0 and below 1")
    if weights_a is None and any(p.is_meta for p in model_a.parameters()):
        raise ValueError("model_a has no weights (device meta): pass their files as weights_a")


def _factors_of_tied(
    first: nn.Module, second: nn.Module, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the factors (A, B) of a layer from those of the layer that shares its weight."""
    return (a, b) if is_transposed(first) == is_transposed(second) else (b.mT, a.mT)


def _hint_about_ties(model: nn.Module, chosen: Sequence[str], left_out: Sequence[str]) -> str:
    """Return the hint for the error if one of two tied layers is chosen and the other is not."""
    for name in chosen:
        both = set(shared_with(model, model.get_submodule(name))) & set(left_out)
        if both:
            other = min(both)
            return f" ({other} is tied to {name}, whose adapter does not reach it: name both)"
    return ""


def _changes(
    model: nn.Module, old: ModelTensors | FileTensors, new: ModelTensors | FileTensors
) -> dict[str, float]:
    """Return the squared norm of each change; tied weights have the same under each name.

    Raises:
        ValueError: if the tensors differ in names or shapes, or if none changed.
    """
    if old.shapes.keys() != new.shapes.keys():
        odd = sorted(old.shapes.keys() ^ new.shapes.keys())
        raise ValueError(f"{len(odd)} tensors are in only one of the models: {', '.join(odd[:5])}")
    odd = [name for name in old.shapes if old.shapes[name] != new.shapes[name]]
    if odd:
        raise ValueError(f"these tensors differ in shape: {', '.join(odd[:5])}")
    first: dict[int, str] = {}
    own = dict(model.named_parameters(remove_duplicate=False))
    changed: dict[str, float] = {}
    for name in old.shapes:
        twin = first.setdefault(id(own[name]), name) if name in own else name
        if twin != name:
            if twin in changed:
                changed[name] = changed[twin]
            continue
        a, b = old[name].cpu(), new[name].cpu()
        if not torch.equal(a, b.to(a.dtype)):
            change = (b.float() - a.float()).reshape(1, -1) if a.ndim < 2 else b.float() - a.float()
            changed[name] = squared_norm(change.flatten(1))
    if not changed:
        raise ValueError("the models are equal: there is nothing to extract")
    return changed


def _untied(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return one name of each tensor."""
    own = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    return [n for n in names if n not in own or first.setdefault(id(own[n]), n) == n]


def _carried(
    model: nn.Module,
    modules: dict[str, nn.Module],
    names: Sequence[str],
    chosen: Sequence[str],
) -> list[str]:
    """Return those tensors that PEFT can save whole: biases, and layers that have vectors only."""
    found = []
    for name in names:
        place, _, key = name.rpartition(".")
        module, parameters = modules[place], list(modules[place].parameters())
        small = all(p.ndim <= 1 for p in parameters) and not list(module.children())
        bias = key == "bias" and name in dict(model.named_parameters())
        if place and (bias or (small and place not in chosen)):
            found.append(name)
    return found


def _chosen(
    model: nn.Module,
    modules: dict[str, nn.Module],
    changed: Sequence[str],
    asked: Sequence[str] | None,
) -> list[str]:
    """Return the layers to adapt: those asked for, or all changed layers that can be adapted."""
    if asked is not None:
        for name in asked:
            if name not in modules:
                raise ValueError(
                    f"{name} is not a layer of these models; see model.named_modules()"
                )
            trouble = complaint(name, modules[name])
            if trouble:
                raise ValueError(trouble)
            if is_quantised(modules[name]):
                raise ValueError(f"{name} is quantised: use copies with float weights")
            if f"{name}.weight" not in changed:
                raise ValueError(f"{name} did not change: remove it from target_modules")
        return list(asked)
    chosen = [
        name
        for name, module in modules.items()
        if f"{name}.weight" in changed
        and is_supported(module)
        and complaint(name, module) is None
        and not is_quantised(module)
    ]
    if not chosen:
        raise ValueError("no layer that can be adapted changed: there is nothing to extract")
    return chosen


def _of_layer(
    new: Tensor,
    old: Tensor,
    rank: int | None,
    energy: float | None,
    spectra: bool,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, LayerExtraction]:
    change = new - old.to(new.device)
    if not bool(change.isfinite().all()):
        raise ValueError("a weight is not finite (NaN or inf), so its change cannot be extracted")
    if rank is not None:
        count = min(rank, *change.shape)
        found = svd(change, count, generator=generator, accurate=True)
    else:
        assert energy is not None
        found = svd(change, tol=(1 - energy) ** 0.5, generator=generator, accurate=True)
    u, s, vh = found.factors
    square = squared_norm(change)
    kept = min(1.0, float(s.double().square().sum()) / square)
    needed = {}
    if spectra:
        shares = torch.linalg.svdvals(change.double()).square().cumsum(0) / square
        needed = {f"{share:g}": int((shares < share).sum()) + 1 for share in _SHARES}
    root = s.sqrt()
    norm = square**0.5 / max(squared_norm(old) ** 0.5, 1e-300)
    report = LayerExtraction(len(s), kept, max(0.0, 1 - kept) ** 0.5, norm, needed)
    return u * root, root[:, None] * vh, report


def _with_factors(
    model: nn.Module, factors: dict[str, tuple[Tensor, Tensor]], whole: dict[str, Tensor]
) -> PeftModel:
    """Return a copy of the model with plain adapters of scaling 1, and with whole tensors."""
    from peft import LoraConfig

    from noisewise.adapters.saving import plain_ranks

    ranks = {name: len(a) for name, (a, _) in factors.items()}
    plain = dict(model.named_modules())
    biases = [k for k in whole if k.endswith(".bias") and (is_supported(plain[k[:-5]]))]
    saved = sorted({name.rpartition(".")[0] for name in whole if name not in biases})
    config = LoraConfig(
        target_modules=target_names(model, ranks),
        modules_to_save=saved or None,
        bias="all" if biases else "none",
        **plain_ranks(ranks),
    )
    with warnings.catch_warnings():
        # The warning says that tied layers need the same factors; here they have them.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        peft_model = wrapped(copy.deepcopy(model), config)
    for name, layer in lora_layers(peft_model, "default").items():
        for parameter, value in zip(
            factor_parameters(layer, "default"), factors[name], strict=True
        ):
            _fill(peft_model, parameter, value.reshape(parameter.shape))
    modules = dict(cast(nn.Module, peft_model.base_model.model).named_modules())
    for name, value in whole.items():
        place, _, key = name.rpartition(".")
        module: Any = modules[place]
        if place in saved:
            module = module.modules_to_save["default"]
        elif hasattr(module, "get_base_layer"):
            module = module.get_base_layer()
        _fill(peft_model, getattr(module, key), value)
    return peft_model


def _fill(model: nn.Module, tensor: Tensor, value: Tensor) -> None:
    """Write a tensor; one on the meta device is replaced."""
    if not tensor.is_meta:
        tensor.copy_(value)
        return
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            places: dict[str, Any] = dict(held)
            for key in [key for key, own in places.items() if own is tensor]:
                new = value.to(tensor.dtype).clone()
                is_parameter = isinstance(tensor, nn.Parameter)
                cast(Any, held)[key] = nn.Parameter(new) if is_parameter else new
