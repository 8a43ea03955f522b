"""How close the next step of an adapter is to the step of full fine-tuning, layer by layer.

Papers: Wang et al. 2024 (LoRA-GA), theorem 3.1; Eckart and Young 1936 for the bound: no step of
that rank comes closer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from noisewise.adapters.gradients import Gradients, Loss, collect, gradients_inside
from noisewise.adapters.layers import active_adapter, factors, kind_of, lora_layers
from noisewise.adapters.solutions import adam_step, bound, sgd_step

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class StepAlignment:
    """One type of step (SGD or Adam) compared with full fine-tuning, for one layer or for all.

    Attributes:
        cosine: between the two steps.
        residual: relative distance at the best length, ``sqrt(1 - cosine^2)``; at least `bound`.
        bound: the smallest residual of any step of this rank: 2r, or r while one factor is 0.
        length: length of the step divided by the length of full fine-tuning's step at the same
            learning rate.
    """

    cosine: float
    residual: float
    bound: float
    length: float


@dataclass(frozen=True)
class LayerAlignment:
    """The result for one layer, or for all layers together.

    Attributes:
        rank: r; for all layers together, the largest r.
        step_rank: 2r, or r while one factor is 0.
        sgd: the step of SGD, compared with G.
        adam: the first step of Adam (sign descent), compared with sign(G).
        signal: share of the squared gradient that is not noise; None if there was one batch only.
    """

    rank: int
    step_rank: int
    sgd: StepAlignment
    adam: StepAlignment
    signal: float | None


@dataclass(frozen=True)
class Alignment:
    """The result of `alignment`. `print` it for a table, or use `to_dict`.

    Attributes:
        layers: the result for each layer.
        total: the result for all layers as one vector.
        num_samples: number of samples that the gradient was computed from.
    """

    layers: dict[str, LayerAlignment]
    total: LayerAlignment
    num_samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table with cosine, residual and bound, for SGD and for Adam."""
        width = max(len(name) for name in (*self.layers, "all layers"))
        head = "step rank  SGD cos  residual  bound   Adam cos  residual  bound"
        lines = [f"{'layer':<{width}}  {head}"]
        for name, found in (*self.layers.items(), ("all layers", self.total)):
            s, a = found.sgd, found.adam
            lines.append(
                f"{name:<{width}}  {found.step_rank:9d}  {s.cosine:7.4f}  {s.residual:8.4f}  "
                f"{s.bound:.4f}  {a.cosine:8.4f}  {a.residual:8.4f}  {a.bound:.4f}"
            )
        return "\n".join(lines)


def alignment(
    model: nn.Module | None,
    peft_model: PeftModel,
    held_out: Iterable[Any],
    loss: Loss,
    *,
    adapter: str | None = None,
) -> Alignment:
    """Compare the next step of an adapter with the step of full fine-tuning, on held-out data.

    For SGD it compares ``c^2 (B B^T G + G A^T A)`` with G, for Adam
    ``c (B sign(B^T G) + sign(G A^T) A)`` with sign(G), to first order in the learning rate. With
    dropout in the adapter it is SGD's mean step: dropout keeps the mean of G A^T.

    Args:
        model: the model before it was adapted; its gradient is then the goal. None: the goal is
            the gradient at the present weights of the adapted model. Both are the same directly
            after a start that keeps the function.
        peft_model: a LoRA or rsLoRA model, with any start.
        held_out: batches that were not used for the start.
        loss: ``loss(model, batch) -> scalar``; it is called with either model.
        adapter: name of the adapter; None: the active one.

    Raises:
        ValueError: for DoRA and AdaLoRA (their steps have other formulas), and for the same reasons
            as `gradients`.

    Source: Wang et al. 2024, theorem 3.1; Su 2024, archives/10226, for Adam.

    Example:
        >>> import torch
        >>> from peft import LoraConfig, get_peft_model
        >>> config = LoraConfig(target_modules=["0"], r=2)
        >>> net = get_peft_model(nn.Sequential(nn.Linear(8, 8)), config)
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> found = alignment(None, net, torch.randn(2, 16, 8), loss).total
        >>> found.step_rank, found.sgd.residual >= found.sgd.bound
        (2, True)
    """
    name = active_adapter(peft_model, adapter)
    kind = kind_of(peft_model, name)
    if kind != "lora":
        raise ValueError(
            f"alignment supports LoRA and rsLoRA only; this adapter is {kind}, whose step has "
            "another formula"
        )
    layers = lora_layers(peft_model, name)
    if model is None:
        grads = gradients_inside(peft_model, held_out, loss, name)
    else:
        modules = dict(model.named_modules())
        missing = [key for key in layers if key not in modules or hasattr(modules[key], "lora_A")]
        if missing:
            raise ValueError(
                f"{missing[0]} is not a plain layer of the given model: pass a copy that was made "
                "before the adapter was added (PEFT changes models in place), or pass None"
            )
        grads = collect(model, {key: modules[key] for key in layers}, held_out, loss)
    parts = {}
    for key, layer in layers.items():
        a, b = (value.to(grads[key]) for value in factors(layer, name))
        parts[key] = _Part(grads[key], a, b, float(layer.scaling[name]))
    found = {key: _of_layer(part, _signal(grads, key)) for key, part in parts.items()}
    return Alignment(found, _of_all(list(parts.values()), found, grads), grads.num_samples)


@dataclass(frozen=True)
class _Part:
    """Gradient G, factors A and B, and scaling c of one layer."""

    g: Tensor
    a: Tensor
    b: Tensor
    c: float

    @property
    def step_rank(self) -> int:
        """Highest rank that a step can have."""
        sides = int(bool(self.a.any())) + int(bool(self.b.any()))
        return sides * self.a.shape[0]

    def steps(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the pairs (goal, step) of SGD and of Adam."""
        g, a, b, c = self.g, self.a, self.b, self.c
        return (g, sgd_step(g, a, b, c)), (g.sign(), adam_step(g, a, b, c))


def _of_layer(part: _Part, signal: float | None) -> LayerAlignment:
    found = []
    for goal, step in part.steps():
        x, y = goal.double(), step.double()
        least = bound(goal, part.step_rank)
        found.append(_aligned(float((x * y).sum()), float(x.norm()), float(y.norm()), least))
    return LayerAlignment(part.a.shape[0], part.step_rank, found[0], found[1], signal)


def _of_all(
    parts: list[_Part], layers: dict[str, LayerAlignment], grads: Gradients
) -> LayerAlignment:
    """Compare all layers as one vector, with one length for all of them."""
    found = []
    for kind in (0, 1):
        inner = goals = steps = left = 0.0
        for part, layer in zip(parts, layers.values(), strict=True):
            goal, step = part.steps()[kind]
            inner += float((goal.double() * step.double()).sum())
            squares = float(goal.double().square().sum())
            goals += squares
            steps += float(step.double().square().sum())
            left += squares * (layer.sgd, layer.adam)[kind].bound ** 2
        least = math.sqrt(left / goals) if goals else 0.0
        found.append(_aligned(inner, math.sqrt(goals), math.sqrt(steps), least))
    rank = max(part.a.shape[0] for part in parts)
    total = grads.total
    step_rank = max(part.step_rank for part in parts)
    return LayerAlignment(rank, step_rank, found[0], found[1], total.signal if total else None)


def _aligned(inner: float, goal: float, step: float, least: float) -> StepAlignment:
    value = inner / (goal * step) if goal * step > 0 else 0.0
    value = max(-1.0, min(1.0, value))
    return StepAlignment(
        value, math.sqrt(max(0.0, 1 - value**2)), least, step / goal if goal else 0.0
    )


def _signal(grads: Gradients, key: str) -> float | None:
    return grads.noise[key].signal if key in grads.noise else None


def step_of(g: Tensor, a: Tensor, b: Tensor, c: float) -> StepAlignment:
    """Return the alignment of one SGD step, from matrices alone.

    Example:
        >>> import torch
        >>> g = torch.diag(torch.tensor([3.0, 4.0]))
        >>> found = step_of(g, torch.tensor([[0.0, 1.0]]), torch.zeros(2, 1), 1.0)
        >>> round(found.cosine, 6), round(found.bound, 6)
        (0.8, 0.6)
    """
    return _of_layer(_Part(g, a, b, c), None).sgd
