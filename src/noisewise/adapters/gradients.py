"""The full gradient of every layer that will be adapted, and how much of it is noise.

Paper: Wang, Yu and Li 2024, "LoRA-GA: low-rank adaptation with gradient approximation", section 3.4
(one layer's gradient at a time); McCandlish et al. 2018, appendix A, for the noise.

The model is not changed: it runs in eval mode (`steady_mode`), and modes, buffers and `.grad` are
the same afterwards. If two layers share a weight, the gradient is that of the adapted layer's use
alone, because an adapter works only in its own layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import (
    as_matrix,
    base_of,
    is_quantised,
    is_sharded,
    lora_layers,
    squared_norm,
    targets,
    unwrapped,
    without_adapters,
)
from noisewise.adapters.steady_mode import steady_mode
from noisewise.scaling import unbiased_moments

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class LayerNoise:
    """Signal and noise in the gradient of one layer, or of all layers together.

    Attributes:
        squared_norm: |G|^2 of the mean gradient, signal and noise together.
        g2: unbiased estimate of |g|^2 of the true gradient; it can be negative.
        trace_sigma: tr Sigma, the noise of one sample's gradient.
        num_samples: number of samples in the mean.
    """

    squared_norm: float
    g2: float
    trace_sigma: float
    num_samples: int

    @property
    def signal(self) -> float:
        """Share of |G|^2 that is signal, in [0, 1]; below 1/2 the gradient is mostly noise."""
        return min(1.0, max(0.0, self.g2 / self.squared_norm)) if self.squared_norm else 0.0

    @property
    def noise_scale(self) -> float:
        """Number of samples with as much signal as noise, tr Sigma / |g|^2; inf without signal."""
        return self.trace_sigma / self.g2 if self.g2 > 0 else float("inf")


class Gradients(Mapping[str, Tensor]):
    """Full gradients by layer: float32 matrices [m, n] (see `layers`), on the CPU by default.

    Attributes:
        num_samples: number of samples, over all processes.
        num_batches: number of batches, over all processes.
        noise: signal and noise of each layer; empty if there was one batch only.

    Example:
        >>> from peft import LoraConfig
        >>> net, config = nn.Sequential(nn.Linear(3, 2)), LoraConfig(target_modules=["0"])
        >>> x = torch.randn(4, 8, 3)
        >>> grads = gradients(net, config, x, lambda model, batch: model(batch).sum(1).mean())
        >>> bool(torch.allclose(grads["0"][0], x.mean((0, 1)))), grads.num_samples
        (True, 32)
    """

    def __init__(
        self,
        matrices: dict[str, Tensor],
        num_samples: int,
        num_batches: int,
        noise: dict[str, LayerNoise],
    ) -> None:
        """Hold the results of `gradients`."""
        self._matrices = matrices
        self.num_samples, self.num_batches, self.noise = num_samples, num_batches, noise

    def __getitem__(self, name: str) -> Tensor:
        return self._matrices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)

    def __repr__(self) -> str:
        return f"Gradients({len(self)} layers, {self.num_samples} samples)"

    @property
    def total(self) -> LayerNoise | None:
        """Signal and noise of all layers together; None if there was one batch only."""
        if not self.noise:
            return None
        parts = list(self.noise.values())
        return LayerNoise(
            sum(p.squared_norm for p in parts),
            sum(p.g2 for p in parts),
            sum(p.trace_sigma for p in parts),
            self.num_samples,
        )

    def noisy(self, least_signal: float = 0.5) -> list[str]:
        """Return the layers whose share of signal is below this: use more samples for them.

        Example:
            >>> LayerNoise(4.0, 1.0, 96.0, 32).signal
            0.25
        """
        return [name for name, noise in self.noise.items() if noise.signal < least_signal]


def gradients(
    model: nn.Module,
    config: LoraConfig,
    batches: Iterable[Any],
    loss: Loss,
    *,
    offload: str | torch.device | None = "cpu",
    size: Callable[[Any], int] | None = None,
    process_group: torch.distributed.ProcessGroup | None = None,
    train: bool = False,
) -> Gradients:
    """Return the full gradient of each layer that `config` adapts: the mean over all samples.

    ``G = sum_i b_i g_i / sum_i b_i``, with g_i the gradient of batch i and b_i its number of
    samples, computed in eval mode, but with gradient checkpointing if it is on. The gradient of a
    layer moves to `offload` as soon as it is complete, so the device holds one at a time. With
    torch.distributed, each process passes its own batches, and all processes get the same mean.
    Models in DataParallel, DistributedDataParallel, torch.compile and FSDP2 work. With float16
    weights the loss is scaled, because small gradients would be 0.

    Args:
        model: the model, with float weights (for a 4 or 8 bit model, a float copy). Adapters of a
            PeftModel are switched off.
        config: PEFT's LoraConfig; only its target modules matter.
        batches: anything that `loss` accepts; with two or more the noise is measured too.
        loss: ``loss(model, batch) -> scalar``, a mean over the samples of the batch.
        offload: device for the sums; None: the device of the weights.
        size: function that returns the number of samples in a batch; None: the length of the first
            dimension of the first tensor in the batch.
        process_group: processes to average over; None: all processes.
        train: True: train mode, for models that return a loss in train mode only; dropout and the
            statistics of batches stay off.

    Raises:
        ValueError: if a layer cannot be adapted, is quantised or offloaded, if its gradient is
            missing, zero or not finite, if there are no batches, or if the loss is not a scalar.

    Source: Wang et al. 2024 (LoRA-GA), section 3.4.

    Example:
        >>> from peft import LoraConfig
        >>> net = nn.Linear(2, 2)
        >>> wrapped = nn.Sequential(net)
        >>> batches = [torch.ones(1, 2), torch.ones(1, 2)]
        >>> config = LoraConfig(target_modules=["0"])
        >>> g = gradients(wrapped, config, batches, lambda m, b: m(b).sum())
        >>> g["0"].tolist(), g.noise["0"].trace_sigma
        ([[1.0, 1.0], [1.0, 1.0]], 0.0)
    """
    model = unwrapped(model)
    found = targets(model, config)
    with without_adapters(model):
        return collect(model, found, batches, loss, offload, size, process_group, train)


def gradients_inside(
    peft_model: PeftModel, batches: Iterable[Any], loss: Loss, adapter: str | None = None
) -> Gradients:
    """Return the full gradients of the adapted layers at the present weights ``W + c B A``.

    The gradient with respect to the frozen W equals the gradient with respect to the sum.

    Raises:
        ValueError: for the same reasons as `gradients`.
    """
    layers = {name: base_of(layer) for name, layer in lora_layers(peft_model, adapter).items()}
    return collect(peft_model, layers, batches, loss)


def collect(
    model: nn.Module,
    found: Mapping[str, nn.Module],
    batches: Iterable[Any],
    loss: Loss,
    offload: str | torch.device | None = "cpu",
    size: Callable[[Any], int] | None = None,
    process_group: torch.distributed.ProcessGroup | None = None,
    train: bool = False,
) -> Gradients:
    """Collect the gradients of these layers; see `gradients`, which selects them."""
    _check_weights(found)
    half = any(p.dtype == torch.float16 for p in model.parameters())
    sharded = any(is_sharded(cast(Tensor, module.weight)) for module in found.values())
    sums = _Sums(found, offload)
    leaves_of = _own_weights if sharded else _separate_weights
    with steady_mode(model, train), leaves_of(model, found) as leaves:
        hooks = [
            leaf.register_post_accumulate_grad_hook(sums.hook_for(name))
            for name, leaf in ({} if sharded else leaves).items()
        ]
        try:
            for batch in batches:
                samples = _samples(batch) if size is None else size(batch)
                if sharded:
                    samples = _whole_batch(samples, process_group)
                step = partial(_backward, model, batch, loss, sums, leaves if sharded else {})
                if half and sums.scale == 1:
                    _choose_scale(sums, step)
                sums.begin_batch(samples)
                step()
        finally:
            for hook in hooks:
                hook.remove()
            for leaf in leaves.values():
                leaf.grad = None
    return sums.result(None if sharded else process_group, sharded)


def _check_weights(found: Mapping[str, nn.Module]) -> None:
    for name, module in found.items():
        if is_quantised(module):
            raise ValueError(
                f"{name} is quantised and has no gradient: compute the gradients on a float copy "
                "of the model, and use them on the quantised one with lora_ga"
            )


def _backward(
    model: nn.Module, batch: object, loss: Loss, sums: _Sums, sharded: dict[str, nn.Parameter]
) -> None:
    value = _scalar(loss(model, batch))
    (value if sums.scale == 1 else value.float() * sums.scale).backward()
    sums.take_sharded(sharded)


def _choose_scale(sums: _Sums, step: Callable[[], None]) -> None:
    """Choose the largest power of 2 at which float16 gradients of a batch are finite, over 16.

    Without it the entries below 6e-8 are 0, and those below 6e-5 are rounded.
    """
    for exponent in range(15, 0, -1):
        sums.begin_trial(2.0**exponent)
        step()
        if sums.end_trial():
            sums.scale = 2.0 ** max(0, exponent - 4)
            return
    sums.scale = 1.0


def _whole_batch(samples: int, group: torch.distributed.ProcessGroup | None) -> int:
    """Return the samples of one batch over all processes; FSDP2 averages their gradients.

    Raises:
        ValueError: if the processes have batches of different size.
    """
    import torch.distributed as dist

    sizes: list[int] = [0] * _ranks(group)
    dist.all_gather_object(sizes, samples, group=group)
    if len(set(sizes)) > 1:
        raise ValueError(
            f"the processes have batches of {sizes} samples: sharded models need the same size "
            "in each process"
        )
    return sum(sizes)


class _Sums:
    """Running sums of b_i g_i and of b_i |g_i|^2, layer by layer as gradients are computed."""

    def __init__(self, found: Mapping[str, nn.Module], offload: str | torch.device | None) -> None:
        self._found, self._offload = found, offload
        self._sums: dict[str, Tensor] = {}
        self._squares: dict[str, float] = dict.fromkeys(found, 0.0)
        self._now, self._samples, self._batches = 0, 0, 0
        self.scale = 1.0  # of the loss
        self._trial: list[bool] | None = None  # whether the gradients of a trial are finite
        self._seen: set[str] = set()

    def begin_batch(self, samples: int) -> None:
        """Count a batch of this many samples."""
        if samples < 1:
            raise ValueError("a batch has no samples; each batch needs one or more")
        self._now, self._seen = samples, set()
        self._samples += samples
        self._batches += 1

    def begin_trial(self, scale: float) -> None:
        """From now on, only look whether the gradients are finite."""
        self.scale, self._trial, self._seen = scale, [], set()

    def end_trial(self) -> bool:
        """Whether they all were."""
        assert self._trial is not None
        finite, self._trial = all(self._trial), None
        return finite

    def hook_for(self, name: str) -> Callable[[Tensor], None]:
        """Return the function that torch calls with a weight when its gradient is complete."""

        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            if name in self._seen:
                raise ValueError(
                    f"{name} is used twice under re-entrant checkpointing: set use_reentrant=False"
                )
            self._seen.add(name)
            gradient, weight.grad = weight.grad, None
            self._add(name, gradient)

        return take

    def take_sharded(self, leaves: Mapping[str, nn.Parameter]) -> None:
        """Take the gradients of a batch from a sharded model, which are whole after backward."""
        for name, leaf in leaves.items():
            gradient: Any = leaf.grad
            leaf.grad = None
            if gradient is not None:
                self._add(name, gradient.full_tensor() if is_sharded(gradient) else gradient)

    def _add(self, name: str, gradient: Tensor) -> None:
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if self._trial is not None:
            self._trial.append(bool(gradient.isfinite().all()))
            return
        matrix = as_matrix(self._found[name], gradient)
        self._squares[name] += self._now * squared_norm(matrix) / self.scale**2
        device, times = self._offload or matrix.device, self._now / self.scale
        if name in self._sums:
            self._sums[name].add_(matrix.to(device), alpha=times)
        else:
            self._sums[name] = matrix.to(device, torch.float32, copy=True).contiguous().mul_(times)

    def result(
        self, group: torch.distributed.ProcessGroup | None, averaged: bool = False
    ) -> Gradients:
        """Return the means after checking them; `averaged`: over the processes already."""
        samples, batches, squares = self._samples, self._batches, self._squares
        if _ranks(group) > 1 and not averaged:
            samples, batches, squares = self._all_ranks(group)
        if not batches:
            raise ValueError("there are no batches; pass one or more")
        means, noise = {}, {}
        for name in self._found:
            if name not in self._sums:
                raise ValueError(
                    f"the loss does not depend on {name} (its gradient is None): remove it from "
                    "target_modules, or use a loss that depends on it"
                )
            mean = means[name] = self._sums.pop(name).div_(samples)
            square = squared_norm(mean)
            _check(name, square)
            if batches > 1:
                noise[name] = _noise(square, squares[name], batches, samples)
        return Gradients(means, samples, batches, noise)

    def _all_ranks(
        self, group: torch.distributed.ProcessGroup | None
    ) -> tuple[int, int, dict[str, float]]:
        """Add the sums of all processes; every process calls this with the same layers."""
        import torch.distributed as dist

        backend = dist.get_backend(group)
        device = "cuda" if "nccl" in str(backend) else "cpu"
        names = list(self._found)
        numbers = torch.tensor(
            [self._samples, self._batches, *(self._squares[name] for name in names)],
            dtype=torch.float64,
            device=device,
        )
        dist.all_reduce(numbers, group=group)
        for name, module in self._found.items():
            weight = as_matrix(module, cast(Tensor, module.weight))
            kept = self._sums.get(name)
            total = torch.zeros(weight.shape) if kept is None else kept
            shared = total.to(device)
            dist.all_reduce(shared, group=group)
            self._sums[name] = shared.to(total.device)
        samples, batches, *squares = numbers.tolist()
        return round(samples), round(batches), dict(zip(names, squares, strict=True))


def _ranks(group: torch.distributed.ProcessGroup | None) -> int:
    import torch.distributed as dist

    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _check(name: str, square: float) -> None:
    if square == 0:
        raise ValueError(
            f"the gradient of {name} is zero, so it gives no start: remove it from "
            "target_modules, or use other data or another loss"
        )
    if not square < float("inf"):  # NaN too
        raise ValueError(
            f"the gradient of {name} is not finite: check the loss, or compute in float32"
        )


def _noise(square: float, weighted_squares: float, batches: int, samples: int) -> LayerNoise:
    """Return unbiased |g|^2 and tr Sigma from sum_i b_i |g_i|^2 and |G|^2."""
    numbers = torch.tensor([weighted_squares, square], dtype=torch.float64)
    g2, trace = unbiased_moments(numbers[0], numbers[1], batches, samples)
    return LayerNoise(square, float(g2), float(trace), samples)


def _samples(batch: object) -> int:
    """Return the length of the first dimension of the first tensor; 1 if there is no tensor."""
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return len(leaf)
    return 1


def _scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise ValueError(
            "loss(model, batch) must return a scalar tensor that depends on the weights"
        )
    return value


@contextmanager
def _own_weights(
    model: nn.Module, found: Mapping[str, nn.Module]
) -> Iterator[dict[str, nn.Parameter]]:
    """Let the weights themselves have gradients: FSDP2 knows no others."""
    leaves = {name: cast(nn.Parameter, module.weight) for name, module in found.items()}
    before = [(leaf, leaf.grad) for leaf in leaves.values()]
    for leaf in leaves.values():
        leaf.grad = None
        leaf.requires_grad_(True)
    try:
        yield leaves
    finally:
        for leaf, gradient in before:
            leaf.grad = gradient


@contextmanager
def _separate_weights(
    model: nn.Module, found: Mapping[str, nn.Module]
) -> Iterator[dict[str, nn.Parameter]]:
    """Give each target its own parameter on the same storage; restore the old ones afterwards."""
    before = {name: module._parameters["weight"] for name, module in found.items()}
    leaves = {}
    try:
        for name, module in found.items():
            weight = before[name]
            assert weight is not None
            leaves[name] = nn.Parameter(weight.detach(), requires_grad=True)
            module._parameters["weight"] = leaves[name]
        yield leaves
    finally:
        for name, module in found.items():
            module._parameters["weight"] = before[name]
