"""What the hooks see of one step: the squared norms of each micro-batch, and its weight.

A tensor hook sees a micro-batch's own gradient before it goes into `.grad`; after it was added, the
sum so far is read. The hooks cannot see the weight of a micro-batch in the step's gradient. It is
taken as its share of the examples. This is right if all have equal size, if the loop says so
(`announce`), and if transformers' Trainer divides by the number of labels.

With `fully_shard`, the trained parameters are shards, which autograd does not see. Each layer holds
the whole parameters while it runs; the hooks are added to these, and count for their shard.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noisewise.scaling.counting import count_examples, labels_in, time_major_layers
from noisewise.scaling.loss_weight import LossWeights
from noisewise.scaling.norm_layers import NormLayers
from noisewise.scaling.wrapped import inner_of, is_compiled

__all__ = ["MicroSize", "Norm", "Passes", "norm_of", "scale_of"]

Around = Callable[[Callable[..., Any]], Callable[..., Any]]


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
        sharded: whether the parameters are shards of `fully_shard`.
        around: wraps every hook, see `Guard`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        size: float | None,
        sums: bool,
        sharded: bool = False,
        around: Around = lambda hook: hook,
    ) -> None:
        """Nothing is seen yet."""
        self.active = False
        self.counts_labels = False  # whether any step counted labels
        self.counted = ""  # what the examples were counted from
        self.layers: NormLayers | None = None  # single examples' gradients, if they are wanted
        self.weights = LossWeights()
        self._parameters = list(parameters)
        self._size, self._reads_sums, self._sharded = size, sums, sharded
        self._around = around
        # The same function each time: if the loop compiles the model, it compiles it twice only.
        self._forward_hook = around(self.after_forward)
        self._handles: list[RemovableHandle] = []
        self._hooked: set[Tensor] = set()
        self._announced: MicroSize | None = None
        self._model: nn.Module | None = None
        self.clear()

    def arm(self, model: nn.Module) -> None:
        """Add hooks to model and parameters, only for a measured step: idle hooks cost time too."""
        self._model = model
        keep, around = self._handles.append, self._around
        keep(model.register_forward_hook(self._forward_hook, with_kwargs=True))
        if not is_compiled(model):
            for layer in time_major_layers(model):
                keep(layer.register_forward_pre_hook(around(self._before_layer)))
        if self.layers is not None:
            self.layers.arm(model, around)
        if self._sharded:
            self._arm_shards(model)
        else:
            for parameter in self._parameters:
                self._watch(parameter, parameter)
        self.active = True

    def _watch(self, leaf: Tensor, parameter: Tensor) -> None:
        """Hooks of one tensor of autograd; its gradients count for `parameter`."""
        keep, around = self._handles.append, self._around
        seen = functools.partial(self._gradient, leaf, parameter)
        keep(leaf.register_hook(around(lambda gradient: seen(gradient))))
        after = functools.partial(self._accumulated, parameter)
        keep(leaf.register_post_accumulate_grad_hook(around(lambda leaf: after(leaf))))
        self._hooked.add(leaf)

    def _arm_shards(self, model: nn.Module) -> None:
        wanted = {id(p) for p in self._parameters}
        around = self._around
        for module in model.modules():
            own = [(n, p) for n, p in module.named_parameters(recurse=False) if id(p) in wanted]
            if own:
                hook = around(functools.partial(self._unsharded, own))
                self._handles.append(module.register_forward_pre_hook(hook))
        for parameter in self._parameters:
            hook = around(self._reduced)
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def _unsharded(self, own: Sequence[tuple[str, Tensor]], module: nn.Module, _: object) -> None:
        """Before a layer runs: it holds whole parameters now."""
        for name, shard in own:
            leaf = getattr(module, name)
            if leaf is not shard and leaf not in self._hooked:
                self._watch(leaf, shard)

    def _reduced(self, shard: Tensor) -> None:
        """A shard's gradient is averaged over the ranks and added to `.grad`."""
        if self.active and shard.grad is not None:
            self._sums[shard] = norm_of(shard.grad)

    def disarm(self) -> None:
        """Remove these hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._hooked.clear()
        if self.layers is not None:
            self.layers.disarm()
        self.active = False

    def clear(self) -> None:
        """Forget the present step."""
        self._sizes: list[MicroSize] = []
        self._norms: list[dict[Tensor, Tensor]] = []  # |w_i g_i| of each micro-batch's tensors
        self._passing: dict[Tensor, Tensor] = {}  # seen, but not yet added to .grad
        self._sums: dict[Tensor, Tensor] = {}  # |G| of each tensor so far
        self._rows: list[float] = []  # rows of each micro-batch whose labels were counted
        self._pending: MicroSize | None = None
        self._layer: tuple[int, int] | None = None
        self._forward_seen = True
        self.weights.clear()
        if self.layers is not None:
            self.layers.clear()

    def announce(self, size: float, weighted: bool) -> None:
        """Set the size of the next backward pass; the loop says it."""
        self._announced, self._forward_seen = MicroSize(float(size), weighted), True
        self.counted = self.counted or "as the loop says"

    def _before_layer(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A time-major layer shows which dimension counts examples."""
        given = args[0] if args else None
        if self._layer is None and isinstance(given, Tensor) and given.ndim == 3:
            self._layer = (given.shape[0], given.shape[1])

    def after_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        """Count the examples that went into the model; a forward hook."""
        layer, self._layer = self._layer, None
        if not (self.active and torch.is_grad_enabled() and module.training):
            return
        if getattr(module, "_is_replica", False):
            raise ValueError(
                "the model runs in copies (DataParallel), which hide their gradients: use one "
                "device, or DistributedDataParallel"
            )
        self._forward_seen = True
        by_labels = kwargs.get("num_items_in_batch") is not None  # the Trainer divides by them
        self.weights.watch(output, self._around, divided=by_labels)
        found = count_examples(args, kwargs, output, layer)
        if by_labels:
            labels = labels_in(inner_of(module), kwargs)
            self.counts_labels = True
            self._rows.append(math.nan if found is None else found.count)
            self._pending = None if labels is None else MicroSize(labels, weighted=True)
            self.counted = "its labels that count in the loss"
        else:
            self._pending = None if found is None else MicroSize(found.count)
            self.counted = found.source if found is not None else self.counted

    def _gradient(self, leaf: Tensor, parameter: Tensor, gradient: Tensor) -> None:
        if not self.active:
            return
        dropped = leaf is parameter and parameter.grad is None
        if dropped and any(parameter in norms for norms in self._norms):
            # .grad is None although it was seen in this step: a gradient scaler skipped a step.
            self._norms, self._sizes, self._sums, self._rows = [], [], {}, []
        self._passing[parameter] = norm_of(gradient)

    def _accumulated(self, parameter: Tensor, leaf: Tensor) -> None:
        """The gradient is in `.grad`; gradients of torch.autograd.grad are not and do not count."""
        if not self.active or parameter not in self._passing:
            return
        if self._forward_seen or not self._norms or parameter in self._norms[-1]:
            self._norms.append({})
            given = MicroSize(self._size) if self._size is not None else self._pending
            self._sizes.append(self._announced or given or MicroSize(math.nan))
            self._forward_seen, self._announced = False, None
        self._norms[-1][parameter] = self._passing.pop(parameter)
        if self._reads_sums and leaf.grad is not None:
            self._sums[parameter] = norm_of(leaf.grad)

    @property
    def num_micro(self) -> int:
        """Number of micro-batches; one without any label does not count."""
        return sum(size.count != 0 for size in self._sizes)

    @property
    def batch(self) -> float:
        """Examples in all; nan if they cannot be counted."""
        return sum(size.count for size in self._sizes)

    @property
    def rows(self) -> float:
        """Examples of a step whose labels were counted; nan if they are not known."""
        return sum(self._rows) if self._rows else math.nan

    @property
    def weights_known(self) -> bool:
        """Whether all micro-batches have equal size, or are known to be weighted by size."""
        alike = len({size.count for size in self._sizes}) < 2
        return alike or all(size.weighted for size in self._sizes)

    def assume(self, batch: float) -> None:
        """Take the step's examples as known; sizes that were not counted are equal shares."""
        if not self._sizes:
            return
        seen = self.batch
        each = [s.count * batch / seen if seen > 0 else batch / len(self._sizes)
                for s in self._sizes]  # fmt: skip
        self._sizes = [MicroSize(n, s.weighted) for n, s in zip(each, self._sizes, strict=True)]

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
    """Norm of a tensor in float32 or float64: half precision would overflow.

    Of a sparse gradient its values, of a shard this process's part.

    Example:
        >>> table = nn.Embedding(5, 1, sparse=True)
        >>> (table(torch.tensor([1, 1])) * torch.tensor([[3.0], [1.0]])).sum().backward()
        >>> float(norm_of(table.weight.grad))
        4.0
    """
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()  # two entries of one row add up
    if tensor.dtype in (torch.float32, torch.float64):
        return torch.linalg.vector_norm(tensor)
    return torch.linalg.vector_norm(tensor, dtype=torch.float32)


def scale_of(optimizer: object) -> Callable[[], float] | None:
    """Return `get_scale` of the scaler that a wrapper such as accelerate's has; None: no scaler."""
    while optimizer is not None:
        scaler = getattr(optimizer, "scaler", None)
        if scaler is not None and hasattr(scaler, "get_scale"):
            return scaler.get_scale
        optimizer = getattr(optimizer, "optimizer", None) or getattr(optimizer, "_optimizer", None)
    return None
