"""Single examples' gradients from normalisation layers: noise without accumulation.

Paper: Gray, Tiwari, Bergsma and Hestness 2024, "Normalization layer per-example gradients are
sufficient to predict gradient noise scale in transformers" (arXiv 2411.00999).

A layer ``y = gamma * n + beta`` with normalised input n has, for example e, the gradients
``sum_t gy_et n_et`` and ``sum_t gy_et``: they follow from what the backward pass computes anyway,
so one backward pass shows the noise of every example. Only these layers' parameters are measured.
Their noise scale stands for that of the whole net; docs/scaling.md has how closely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["NormLayers", "norm_parameters"]

Around = Callable[[Callable[..., Any]], Callable[..., Any]]
_EXACT = 1e-2  # relative error of a recomputed output above which a layer is left out


class NormLayers:
    """Per-example gradients of a model's normalisation layers.

    Args:
        parameters: parameters that are measured; only layers that hold some of them count.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        >>> layers, x = NormLayers(model.parameters()), torch.randn(5, 3)
        >>> layers.arm(model)
        >>> model(x).square().mean().backward()
        >>> len(layers.read(5))
        2
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        """Nothing is seen yet."""
        self._measured = {id(p) for p in parameters}
        self._handles: list[RemovableHandle] = []
        self._parts: dict[Tensor, list[Tensor]] = {}  # [examples, features] of each call
        self._bad: set[Tensor] = set()

    def arm(self, model: nn.Module, around: Around = lambda hook: hook) -> None:
        """Add a hook to each normalisation layer.

        Args:
            model: the model in training.
            around: wraps every hook, see `Guard`.
        """
        for layer in _layers(model, self._measured):
            hook = around(lambda m, args, out: self._after(m, args, out, around))
            self._handles.append(layer.register_forward_hook(hook))

    def disarm(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def clear(self) -> None:
        """Forget the present step."""
        self._parts.clear()
        self._bad.clear()

    def _after(self, layer: nn.Module, args: tuple[Any, ...], out: Any, around: Around) -> None:  # noqa: ANN401
        if not (isinstance(out, Tensor) and out.requires_grad and torch.is_grad_enabled()):
            return
        given = args[0].detach()

        def seen(gradient: Tensor) -> None:
            self._add(layer, given, out.detach(), gradient.detach())

        out.register_hook(around(seen))

    def _add(self, layer: nn.Module, given: Tensor, out: Tensor, gradient: Tensor) -> None:
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        normal = _normalised(layer, given)
        if normal is None or not _agrees(layer, normal, out):
            self._bad |= {p for p in (weight, bias) if isinstance(p, Tensor)}
            return
        if isinstance(layer, nn.GroupNorm):  # [examples, channels, ...]
            products, sums = (gradient * normal).flatten(2), gradient.flatten(2)
            own = (products.float().sum(2), sums.float().sum(2))
        else:  # [examples, ..., features]
            kept = gradient.ndim - weight.ndim if weight is not None else 1
            shape = (len(gradient), -1, gradient[(0,) * kept].numel())
            own = ((gradient * normal).reshape(shape), gradient.reshape(shape))
            own = (own[0].float().sum(1), own[1].float().sum(1))
        for parameter, rows in zip((weight, bias), own, strict=True):
            if isinstance(parameter, Tensor) and id(parameter) in self._measured:
                self._parts.setdefault(parameter, []).append(rows)

    def read(self, examples: int) -> dict[Tensor, Tensor]:
        """Return, for each parameter, the sum over examples of the squared gradient, float64.

        An example's gradient is its part of the gradient of the whole loss. A layer that saw other
        rows than examples (tokens in place of sequences) is left out.

        Args:
            examples: examples of the step's only micro-batch.
        """
        found: dict[Tensor, Tensor] = {}
        for parameter, parts in self._parts.items():
            if parameter not in self._bad and {len(part) for part in parts} == {examples}:
                found[parameter] = torch.stack(parts).sum(0).double().square().sum()
        return found


def norm_parameters(model: nn.Module, parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the measured parameters of a model's normalisation layers.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
        >>> len(norm_parameters(model, model.parameters()))
        2
    """
    measured = {id(p) for p in parameters}
    return [
        p
        for layer in _layers(model, measured)
        for p in layer.parameters(recurse=False)
        if id(p) in measured
    ]


def _layers(model: nn.Module, measured: set[int]) -> list[nn.Module]:
    """LayerNorm, RMSNorm (torch's and others of that name) and GroupNorm with trained weights."""
    kinds = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
    return [
        m
        for m in model.modules()
        if (isinstance(m, kinds) or type(m).__name__.endswith("RMSNorm"))
        and any(id(p) in measured for p in m.parameters(recurse=False))
    ]


def _normalised(layer: nn.Module, given: Tensor) -> Tensor | None:
    """The layer's input after normalisation, before its weights."""
    if isinstance(layer, nn.LayerNorm):
        return nn.functional.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return nn.functional.group_norm(given, layer.num_groups, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return nn.functional.rms_norm(given, tuple(layer.normalized_shape), eps=layer.eps)
    epsilon = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    if not isinstance(epsilon, float):
        return None
    exact = given.float()
    return exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + epsilon)


def _agrees(layer: nn.Module, normal: Tensor, out: Tensor) -> bool:
    """Whether the weights applied to it give the layer's output; some use 1 + weight."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if isinstance(layer, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
        return True
    if not isinstance(weight, Tensor) or isinstance(bias, Tensor):
        return False
    scale = out.float().norm()
    errors = [(normal * w.detach().float() - out.float()).norm() for w in (weight, 1 + weight)]
    return bool(torch.stack(errors).min() <= _EXACT * scale)
