"""An adapter out of two checkpoints: the low-rank part of what a fine-tuning changed."""

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
)
from noisewise.lowrank import svd

if TYPE_CHECKING:
    from peft import PeftModel

_SHARES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class LayerExtraction:
    """What of one layer's change an adapter of this rank holds.

    Attributes:
        rank: kept.
        energy: share of the squared norm of the change that is kept.
        residual: relative error, ``sqrt(1 - energy)``.
        norm: Frobenius norm of the change over that of the weight.
        ranks_for: rank needed for a share of 0.5, 0.9, 0.99, 0.999 of the squared norm.
    """

    rank: int
    energy: float
    residual: float
    norm: float
    ranks_for: dict[str, int]


@dataclass(frozen=True)
class Extraction:
    """An adapter and how much of the change it holds.

    Attributes:
        peft_model: the first model with the adapter; write it by `save`.
        layers: each adapted layer's report.
        energy: share of the squared norm of all changes together that is kept.
        left_out: names of tensors that changed and are not in the adapter (only with `ignore`).
    """

    peft_model: PeftModel
    layers: dict[str, LayerExtraction]
    energy: float
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, without the model."""
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
    """Return the adapter on model_a that comes nearest to model_b, with what each layer keeps.

    ``c B A`` is the best approximation of ``W_b - W_a`` of the rank; c = 1. Layers that share one
    weight (tied weights) get the same factors, transposed where one of them is an embedding.

    Args:
        model_a: the base; a copy of it is adapted, itself it stays.
        model_b: of the same architecture, fine-tuned.
        rank: of every layer (where it is smaller, of all of that layer).
        energy: share of the squared norm of each change, in (0, 1); the least rank that keeps it.
        target_modules: names of layers; None: all that changed and can be adapted. Of tied layers
            name all: an adapter acts in its own layer alone.
        ignore: leave out other tensors that changed (biases, norms), and list them; else they are
            an error, as the adapter would lack them.
        generator: of factorisations of large matrices.

    Raises:
        ValueError: if names or shapes differ (they are listed), nothing changed, or tensors outside
            the layers changed.

    Source: Eckart and Young 1936, by `noisewise.lowrank.svd`.

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
        raise ValueError("say how small: either rank or energy")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} keeps nothing; use 1 or more")
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f"energy {energy:g} is no share; use more than 0 and less than 1")
    changed = _changed(model_a, model_b)
    modules_a, modules_b = dict(model_a.named_modules()), dict(model_b.named_modules())
    chosen = _chosen(model_a, modules_a, changed, target_modules)
    covered = {f"{name}.weight" for name in chosen}
    left_out = tuple(name for name in changed if name not in covered)
    if left_out and not ignore:
        raise ValueError(
            f"{len(left_out)} tensors changed that no low-rank adapter holds: "
            f"{', '.join(left_out[:5])}{_of_tied(model_a, chosen, left_out)}; ignore=True leaves "
            "them out"
        )
    factors, report, kept, total = {}, {}, 0.0, 0.0
    found: dict[tuple[int, int], str] = {}  # weights of both models: the layer that had them first
    for name in chosen:
        weights = [cast(Tensor, modules[name].weight) for modules in (modules_a, modules_b)]
        twin = found.setdefault((id(weights[0]), id(weights[1])), name)
        if twin != name:
            factors[name] = _of_twin(modules_a[twin], modules_a[name], *factors[twin])
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


def _of_twin(first: nn.Module, second: nn.Module, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (A, B) of a tied layer, given those of the layer that its weight is shared with."""
    return (a, b) if is_transposed(first) == is_transposed(second) else (b.mT, a.mT)


def _of_tied(model: nn.Module, chosen: Sequence[str], left_out: Sequence[str]) -> str:
    """What to say where a layer is left out whose tied partner is not."""
    for name in chosen:
        both = set(shared_with(model, model.get_submodule(name))) & set(left_out)
        if both:
            other = min(both)
            return f" ({other} is tied to {name}, whose adapter acts in {name} alone: name both)"
    return ""


def _changed(model_a: nn.Module, model_b: nn.Module) -> list[str]:
    """Names of the tensors that differ; refuses models that are not of one architecture."""
    a, b = model_a.state_dict(), model_b.state_dict()
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise ValueError(f"the models differ in {len(odd)} names: {', '.join(odd[:5])}")
    odd = [name for name in a if a[name].shape != b[name].shape]
    if odd:
        raise ValueError(f"the models differ in shapes: {', '.join(odd[:5])}")
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
    """Layers that get factors: those asked for, or all changed ones that can have them."""
    if asked is not None:
        for name in asked:
            if name not in modules:
                raise ValueError(f"{name} is no layer of these models")
            trouble = complaint(name, modules[name])
            if trouble:
                raise ValueError(trouble)
            if is_quantised(modules[name]):
                raise ValueError(f"{name} is quantised: extract from float copies")
            if f"{name}.weight" not in changed:
                raise ValueError(f"{name} did not change: take it out of target_modules")
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
        raise ValueError("nothing changed that an adapter could hold")
    return chosen


def _of_layer(
    change: Tensor,
    old: Tensor,
    rank: int | None,
    energy: float | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, LayerExtraction]:
    if not bool(change.isfinite().all()):
        raise ValueError("a weight is not finite (NaN or inf): nothing can be extracted")
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
    """A copy of the model with plain adapters of factor 1."""
    from peft import LoraConfig

    from noisewise.adapters.saving import plain_ranks
    from noisewise.adapters.starts import wrapped

    ranks = {name: len(a) for name, (a, _) in factors.items()}
    config = LoraConfig(target_modules=target_names(model, ranks), **plain_ranks(ranks))
    with warnings.catch_warnings():
        # That tied layers need the same factors: they have them.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        peft_model = wrapped(copy.deepcopy(model), config)
    for name, layer in lora_layers(peft_model, "default").items():
        a, b = factors[name]
        set_factors(layer, "default", a, b)
    return peft_model
