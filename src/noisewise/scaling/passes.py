"""What the hooks see of one step: the squared norms of each micro-batch, and its weight.

A tensor hook sees a micro-batch's own gradient before it goes into `.grad`; after it was added, the
sum so far is read. The hooks cannot see the weight of a micro-batch in the step's gradient. It is
taken as its share of the examples. This is right if all have equal size, if the loop says so
(`announce`), and if transformers' Trainer divides by the number of labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noisewise.scaling.sources import examples_in, labels_in

__all__ = ["MicroSize", "Norm", "Passes", "norm_of", "scale_of"]


@dataclass(frozen=True)
class MicroSize:
    """Size of a micro-batch.

    Attributes:
        count: examples or tokens; nan if they cannot be counted.
        weighted: whether its loss is known to be weighted by the count.
    """

    count: float
    weighted: bool = False


@dataclass(frozen=True)
class Norm:
    """Norm of a tensor's gradient, and the weight of its square; the norm is squared later."""

    parameter: Tensor
    norm: Tensor
    weight: float = 1.0


class Passes:
    """The backward passes of one step, while `active`.

    Args:
        parameters: parameters that are measured.
        size: examples in each micro-batch; None: as announced, or as seen in the forward pass.
        sums: whether to read the sum in `.grad`; with several ranks it is read elsewhere.
    """

    def __init__(self, parameters: Iterable[Tensor], size: float | None, sums: bool) -> None:
        """Nothing is seen yet."""
        self.active = False
        self.counts_labels = False  # whether any step counted labels
        self._parameters = list(parameters)
        self._size, self._reads_sums = size, sums
        self._handles: list[RemovableHandle] = []
        self._announced: MicroSize | None = None
        self.clear()

    def arm(self, model: nn.Module) -> None:
        """Add hooks to model and parameters, only for a measured step: idle hooks cost time too."""
        self._handles.append(model.register_forward_pre_hook(self.before_forward, with_kwargs=True))
        for parameter in self._parameters:
            self._handles.append(parameter.register_hook(self._gradient_hook(parameter)))
            self._handles.append(
                parameter.register_post_accumulate_grad_hook(self._after_accumulation)
            )
        self.active = True

    def disarm(self) -> None:
        """Remove these hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.active = False

    def clear(self) -> None:
        """Forget the present step."""
        self._sizes: list[MicroSize] = []
        self._norms: list[dict[Tensor, Tensor]] = []  # |w_i g_i| of each micro-batch's tensors
        self._passing: dict[Tensor, Tensor] = {}  # seen, but not yet added to .grad
        self._sums: dict[Tensor, Tensor] = {}  # |G| of each tensor so far
        self._pending: MicroSize | None = None
        self._forward_seen = True

    def announce(self, size: float, weighted: bool) -> None:
        """Set the size of the next backward pass; the loop says it."""
        self._announced, self._forward_seen = MicroSize(float(size), weighted), True

    def before_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Count the examples that go into the model; a forward pre-hook."""
        if not (self.active and torch.is_grad_enabled() and module.training):
            return
        self._forward_seen = True
        by_labels = kwargs.get("num_items_in_batch") is not None  # the Trainer divides by them
        found = labels_in(module, kwargs) if by_labels else examples_in((args, kwargs))
        self.counts_labels = self.counts_labels or by_labels
        self._pending = None if found is None else MicroSize(found, weighted=by_labels)

    def _gradient_hook(self, parameter: Tensor) -> Callable[[Tensor], None]:
        def seen(gradient: Tensor) -> None:
            if not self.active:
                return
            if parameter.grad is None and any(parameter in norms for norms in self._norms):
                # .grad is None although it was seen in this step: a gradient scaler skipped a step.
                self._norms, self._sizes, self._sums = [], [], {}
            self._passing[parameter] = norm_of(gradient)

        return seen

    def _after_accumulation(self, parameter: Tensor) -> None:
        """The gradient is in `.grad`; gradients of torch.autograd.grad are not and do not count."""
        if not self.active or parameter not in self._passing:
            return
        if self._forward_seen or not self._norms or parameter in self._norms[-1]:
            self._norms.append({})
            given = MicroSize(self._size) if self._size is not None else self._pending
            self._sizes.append(self._announced or given or MicroSize(math.nan))
            self._forward_seen, self._announced = False, None
        self._norms[-1][parameter] = self._passing.pop(parameter)
        if self._reads_sums and parameter.grad is not None:
            self._sums[parameter] = norm_of(parameter.grad)

    @property
    def num_micro(self) -> int:
        """Number of micro-batches; one without any label does not count."""
        return sum(size.count != 0 for size in self._sizes)

    @property
    def batch(self) -> float:
        """Examples in all; nan if they cannot be counted."""
        return sum(size.count for size in self._sizes)

    @property
    def weights_known(self) -> bool:
        """Whether all micro-batches have equal size, or are known to be weighted by size."""
        alike = len({size.count for size in self._sizes}) < 2
        return alike or all(size.weighted for size in self._sizes)

    def sums(self) -> list[Norm]:
        """Norm of each tensor's whole gradient."""
        return [Norm(parameter, norm) for parameter, norm in self._sums.items()]

    def squares(self) -> list[Norm]:
        """Each tensor's b_i |g_i|^2 of each micro-batch, g_i = (B / b_i) (w_i g_i)."""
        batch = self.batch
        return [
            Norm(parameter, norm, batch**2 / size.count)
            for size, norms in zip(self._sizes, self._norms, strict=True)
            for parameter, norm in norms.items()
            if size.count != 0
        ]


def norm_of(tensor: Tensor) -> Tensor:
    """Norm of a tensor in float32 or float64: half precision would overflow."""
    if tensor.dtype in (torch.float32, torch.float64):
        return torch.linalg.vector_norm(tensor.detach())
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float32)


def scale_of(optimizer: object) -> Callable[[], float] | None:
    """Return `get_scale` of the scaler that a wrapper such as accelerate's has; None: no scaler."""
    while optimizer is not None:
        scaler = getattr(optimizer, "scaler", None)
        if scaler is not None and hasattr(scaler, "get_scale"):
            return scaler.get_scale
        optimizer = getattr(optimizer, "optimizer", None) or getattr(optimizer, "_optimizer", None)
    return None
