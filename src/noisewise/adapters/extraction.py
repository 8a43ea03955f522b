"""Extract an adapter from two checkpoints: the low-rank part of what fine-tuning changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import (
    as_matrix,
    complaint,
    is_quantised,
    is_supported,
    is_transposed,
    lora_layers,
    need_peft,
    set_factors,
    shared_with,
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
        ranks_for: the rank that keeps a share of 0.5, 0.9, 0.99 and 0.999 of the squared norm.
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
        energy: share of the squared norm of all changes together that is kept.
        left_out: names of changed tensors that are not in the adapter (only with `ignore`).
    """

    peft_model: PeftModel
    layers: dict[str, LayerExtraction]
    energy: float
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types, without the model."""
        layers = {name: vars(layer) for name, layer in self.layers.items()}
        return {"energy": self.energy, "layers": layers, "left_out": list(self.left_out)}


@torch.no_grad()
def extract(
    model_a: nn.Module,
    model_b: nn.Module,
    *,
    rank: int | None = None,
    energy: float | None = None,
    target_modules: Sequence[str] | None = None,
    ignore: bool = False,
    generator: torch.Generator | None = None,
) -> Extraction:
    """Return the adapter on model_a that is closest to model_b, with a report for each layer.

    ``c B A`` is the best approximation of ``W_b - W_a`` of its rank; c = 1. Layers that share one
    weight (tied weights) get the same factors, transposed if one of the layers is an embedding.

    Args:
        model_a: the base model; a copy of it is adapted, the model itself does not change.
        model_b: the fine-tuned model, with the same architecture.
        rank: rank in every layer (the full rank in layers smaller than that).
        energy: share of the squared norm of each change to keep, in (0, 1); each layer gets the
            smallest rank that keeps it. Pass exactly one of rank and energy.
        target_modules: names of layers; None: all layers that changed and can be adapted. Name all
            layers that are tied together: an adapter works only in its own layer.
        ignore: leave out other changed tensors (biases, norms) and list them in `left_out`. False:
            they are an error, because the adapter would miss them.
        generator: random generator for factorising large matrices.

    Raises:
        ValueError: if names or shapes differ (they are listed), if nothing changed, or if tensors
            outside the layers changed.

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
    if (rank is None) == (energy is None):
        raise ValueError("pass exactly one of rank and energy")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} is too small; use 1 or more")
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f"energy {energy:g} is not a share; use a number above 0 and below 1")
    changed = _changed(model_a, model_b)
    modules_a, modules_b = dict(model_a.named_modules()), dict(model_b.named_modules())
    chosen = _chosen(model_a, modules_a, changed, target_modules)
    covered = {f"{name}.weight" for name in chosen}
    left_out = tuple(name for name in changed if name not in covered)
    if left_out and not ignore:
        raise ValueError(
            f"a low-rank adapter cannot hold these changed tensors ({len(left_out)}): "
            f"{', '.join(left_out[:5])}{_hint_about_ties(model_a, chosen, left_out)}; pass "
            "ignore=True to leave them out"
        )
    factors, report, kept, total = {}, {}, 0.0, 0.0
    found: dict[tuple[int, int], str] = {}  # a layer's two weights: its name
    for name in chosen:
        weights = [cast(Tensor, modules[name].weight) for modules in (modules_a, modules_b)]
        twin = found.setdefault((id(weights[0]), id(weights[1])), name)
        if twin != name:
            factors[name] = _factors_of_tied(modules_a[twin], modules_a[name], *factors[twin])
            report[name] = report[twin]
            continue
        old, new = (as_matrix(modules_a[name], weight).float() for weight in weights)
        change = new - old
        left, right, report[name] = _of_layer(change, old, rank, energy, generator)
        factors[name] = (right, left)
        square = float(change.double().square().sum())
        total += square
        kept += square * report[name].energy
    peft_model = _with_factors(model_a, factors)
    return Extraction(peft_model, report, kept / total, left_out)


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


def _changed(model_a: nn.Module, model_b: nn.Module) -> list[str]:
    """Return the names of the tensors that differ; refuse models of different architecture."""
    a, b = model_a.state_dict(), model_b.state_dict()
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise ValueError(f"{len(odd)} tensors are in only one of the models: {', '.join(odd[:5])}")
    odd = [name for name in a if a[name].shape != b[name].shape]
    if odd:
        raise ValueError(f"these tensors differ in shape: {', '.join(odd[:5])}")
    changed = [
        name for name in a if not torch.equal(a[name].cpu(), b[name].to(a[name].dtype).cpu())
    ]
    if not changed:
        raise ValueError("the models are equal: there is nothing to extract")
    return changed


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
    change: Tensor,
    old: Tensor,
    rank: int | None,
    energy: float | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, LayerExtraction]:
    if not bool(change.isfinite().all()):
        raise ValueError("a weight is not finite (NaN or inf), so its change cannot be extracted")
    if rank is not None:
        count = min(rank, *change.shape)
        found = svd(change, count, generator=generator, accurate=True)
    else:
        assert energy is not None
        found = svd(change, tol=(1 - energy) ** 0.5, generator=generator, accurate=True)
    u, s, vh = found.factors
    square = float(change.double().square().sum())
    kept = min(1.0, float(s.double().square().sum()) / square)
    shares = torch.linalg.svdvals(change.double()).square().cumsum(0) / square
    needed = {f"{share:g}": int((shares < share).sum()) + 1 for share in _SHARES}
    root = s.sqrt()
    norm = square**0.5 / max(float(old.double().norm()), 1e-300)
    report = LayerExtraction(len(s), kept, max(0.0, 1 - kept) ** 0.5, norm, needed)
    return u * root, root[:, None] * vh, report


def _with_factors(model: nn.Module, factors: dict[str, tuple[Tensor, Tensor]]) -> PeftModel:
    """Return a copy of the model with plain adapters of scaling 1."""
    from peft import LoraConfig

    from noisewise.adapters.saving import plain_ranks

    ranks = {name: len(a) for name, (a, _) in factors.items()}
    config = LoraConfig(target_modules=target_names(model, ranks), **plain_ranks(ranks))
    with warnings.catch_warnings():
        # The warning says that tied layers need the same factors; here they have them.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        peft_model = wrapped(copy.deepcopy(model), config)
    for name, layer in lora_layers(peft_model, "default").items():
        a, b = factors[name]
        set_factors(layer, "default", a, b)
    return peft_model
