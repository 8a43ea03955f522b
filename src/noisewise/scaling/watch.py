"""Measuring the gradient's noise inside anybody's training loop: three lines, no extra gradient.

    monitor = watch(model, optimizer)      # 1
    for batch in loader: ...               # accumulate, or use ranks, and step as always
    print(monitor.report())                # 2
    advise(monitor.measurement(), batch=1024)  # 3

A tensor hook sees each micro-batch's own gradient on its way into `.grad` (before any all-reduce
and before clipping), and the sum is read when the last micro-batch has been added; both as squared
norms only, so no gradient is copied. One of `every` steps is measured, the others cost a test each.

Paper: McCandlish et al. 2018, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.advice import Advice, Hold
from noisewise.scaling.advise import advise
from noisewise.scaling.flat import Loss
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measure import calibrate, examples_in
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import GradientNoise
from noisewise.scaling.ranks import RankSums, is_parallel
from noisewise.scaling.updates import optimizer_facts, parameter_groups, unwrapped

__all__ = ["Monitor", "watch"]


def watch(
    model: nn.Module,
    optimizer: object,
    *,
    every: int = 10,
    window: int = 2000,
    size: float | None = None,
    by_layer: bool = False,
    dataset_size: int | None = None,
    grad_scale: Callable[[], float] | None = None,
) -> Monitor:
    """Watch a loop's gradients; call it once, before the loop.

    Args:
        model: the one that is trained, plain or in DistributedDataParallel (whose communication
            hook is used).
        optimizer: the one that steps; accelerate's and Lightning's wrappers are seen through.
        every: steps from one measurement to the next.
        window: measured steps remembered.
        size: examples in a micro-batch on this rank; None: first dimension of the first tensor
            given to the model, or what `micro_batch` says.
        by_layer: tell parameter tensors apart, else the optimiser's parameter groups.
        dataset_size: as in `unbiased_moments`.
        grad_scale: current scale of a gradient scaler, such as `scaler.get_scale`: gradients are
            divided by it. Leave it out without mixed precision in float16.

    Raises:
        ValueError: for `every` below 1, no trainable parameter, sharded parameters (FSDP), or a
            DistributedDataParallel that has another communication hook.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = watch(model, sgd, every=1)
        >>> for x in torch.randn(20, 4, 8, 3, generator=torch.Generator().manual_seed(0)):
        ...     for micro in x:
        ...         ((model(micro)[:, 0] - micro.sum(1)).square().mean() / 4).backward()
        ...     sgd.step()
        ...     sgd.zero_grad()
        >>> monitor.noise.num_steps, monitor.noise.batch, monitor.noise.num_micro
        (20, 32.0, 4.0)
        >>> monitor.remove()
    """
    return Monitor(
        model, unwrapped(optimizer), every, window, size, by_layer, dataset_size, grad_scale
    )


class Monitor:
    """What `watch` returns: the noise so far, a report, advice, and its state.

    Attributes:
        noise: the running measurement.
        num_skipped: measured steps that were left out, for a gradient that was not finite or one
            micro-batch only.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int,
        window: int,
        size: float | None,
        by_layer: bool,
        dataset_size: int | None,
        grad_scale: Callable[[], float] | None,
    ) -> None:
        """Put the hooks in."""
        if every < 1:
            raise ValueError(f"Every {every} steps is never: use 1 or more.")
        if size is not None and not size > 0:
            raise ValueError(f"A micro-batch of {size} examples is none: give a positive number.")
        self.model, self.optimizer, self.every = model, optimizer, every
        self._size, self._grad_scale = size, grad_scale
        self._parameters, names = parameter_groups(model, optimizer, by_layer)
        self.noise = GradientNoise(names, window, dataset_size)
        self.num_skipped = 0
        self._clipped = self._seen = self._steps = 0
        self._one_micro = False
        self._announced: float | None = None
        self._ranks = RankSums(model, self._parameters) if is_parallel(model) else None
        self._active = True
        self._clear()
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        ]
        self._tensor_handles: list[Any] = []
        self._arm()

    def _arm(self) -> None:
        """Hook the parameters, for a measured step only: an idle hook costs time as well."""
        for parameter in self._parameters:
            self._tensor_handles.append(parameter.register_hook(self._gradient_hook(parameter)))
            self._tensor_handles.append(
                parameter.register_post_accumulate_grad_hook(self._after_accumulation)
            )

    def _disarm(self) -> None:
        for handle in self._tensor_handles:
            handle.remove()
        self._tensor_handles.clear()

    def _clear(self) -> None:
        """Forget the step under way."""
        self._sizes: list[float] = []
        self._norms: list[dict[Tensor, Tensor]] = []  # |w_i g_i|^2 of each micro-batch's tensors
        self._passing: dict[Tensor, Tensor] = {}  # seen, not yet added to .grad
        self._sums: dict[Tensor, Tensor] = {}  # |G|^2 of each tensor, the last is the whole
        self._pending: float | None = None
        self._forward_seen = True

    # ---------------------------------------------------------------- what the loop does
    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self._active and torch.is_grad_enabled() and module.training:
            self._forward_seen = True
            self._pending = examples_in((args, kwargs))

    def micro_batch(self, size: float) -> None:
        """Say how many examples (or tokens) the next backward pass is of.

        For micro-batches that differ, scale each loss by its share of the whole, so that the sum
        of the gradients is the gradient of the mean.

        Raises:
            ValueError: if the size is not positive.
        """
        if not (size > 0 and math.isfinite(size)):
            raise ValueError(f"A micro-batch of {size} examples is none: give a positive number.")
        self._announced, self._forward_seen = float(size), True

    def _gradient_hook(self, parameter: Tensor) -> Callable[[Tensor], None]:
        def seen(gradient: Tensor) -> None:
            if not self._active:
                return
            if parameter.grad is None and any(parameter in norms for norms in self._norms):
                # Set to None although seen in this step: a gradient scaler left a step out.
                self._norms, self._sizes, self._sums = [], [], {}
            self._passing[parameter] = _square(gradient)

        return seen

    def _after_accumulation(self, parameter: Tensor) -> None:
        """It went into `.grad`: not so for torch.autograd.grad, whose gradients do not count."""
        if not self._active or parameter not in self._passing:
            return
        if self._forward_seen or not self._norms or parameter in self._norms[-1]:
            self._norms.append({})
            self._sizes.append(self._announced or self._size or self._pending or math.nan)
            self._forward_seen, self._announced = False, None
        self._norms[-1][parameter] = self._passing.pop(parameter)
        if self._ranks is None and parameter.grad is not None:
            self._sums[parameter] = _square(parameter.grad)

    def backward(self, losses: Tensor, parts: int = 2) -> None:
        """Do the backward pass of one batch; on a measured step in several parts.

        For loops without accumulation: the graph is walked once for each part of the examples, on
        one of `every` steps. The gradient is that of `losses.mean()`.

        Args:
            losses: one loss an example, [n], n >= parts, with a graph.
            parts: micro-batches to make of them.

        Raises:
            ValueError: if losses is no such vector.
        """
        if losses.ndim != 1 or len(losses) < parts or not losses.requires_grad:
            raise ValueError(
                f"Give the unreduced losses, one an example, with their graph (at least {parts}), "
                f"not shape {tuple(losses.shape)}."
            )
        if not self._active:
            losses.mean().backward()
            return
        pieces = losses.tensor_split(parts)
        for i, piece in enumerate(pieces):
            self.micro_batch(len(piece))
            (piece.sum() / len(losses)).backward(retain_graph=i + 1 < parts)

    def _after_step(self) -> None:
        """The optimiser has stepped: take the measured step in, and see whether the next is one.

        Not before it, for a closure (Lightning's way) does its backward pass within the step; the
        norms were taken at the weights before it all the same.
        """
        if self._active:
            self._record()
            self._clear()
        self._steps += 1
        measured = self._active
        self._active = self._steps % self.every == 0
        if measured and not self._active:
            self._disarm()
        elif self._active and not measured:
            self._arm()
        if self._ranks is not None:
            self._ranks.active = self._active

    def _record(self) -> None:
        scale = self._grad_scale() if self._grad_scale is not None else 1.0
        batch = sum(self._sizes)
        squares = self._by_group(
            [
                (p, square * (batch**2 / size))  # b_i |g_i|^2 with g_i = (B / b_i) (w_i g_i)
                for sizes, norms in zip(self._sizes, self._norms, strict=True)
                for p, square in norms.items()
                for size in (sizes,)
            ]
        )
        if self._ranks is None:
            means, num = self._by_group(list(self._sums.items())), len(self._sizes)
        else:
            squares, means, num, batch = self._ranks.reduce(
                squares, len(self._sizes), batch, self._by_group
            )
        # The step is one unit of the optimiser; the hooks saw it scaled.
        squares, means = squares / scale**2, means / scale**2
        self._one_micro = num < 2
        usable = bool(squares.isfinite().all() and means.isfinite().all())
        if num < 2 or not usable or not batch > 0 or not bool((means > 0).any()):
            self.num_skipped += 1
            return
        self.noise.add(squares, means, num, batch)
        self._note_clipping(float(means.sum()))

    def _note_clipping(self, mean_square: float) -> None:
        """Compare with what the optimiser saw."""
        final = [_square(p.grad) for p in self._parameters if p.grad is not None]
        self._seen += 1
        if final and float(torch.stack(final).sum()) < 0.998 * mean_square:
            self._clipped += 1

    def _by_group(self, items: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Sums over the parameters of each group, [groups], float64 on the CPU; one transfer."""
        total = torch.zeros(len(self.noise.groups), dtype=torch.float64)
        if items:
            values = torch.stack([value for _, value in items]).double().cpu()
            index = torch.tensor([self._parameters[p] for p, _ in items])
            total.index_add_(0, index, values)
        return total

    # ---------------------------------------------------------------- what the user asks
    def measurement(self) -> Measurement:
        """Return what was measured so far; it has no curvature, for that is `calibrate`'s.

        Raises:
            ValueError: before two steps were measured, saying why.
        """
        if len(self.noise) < 2:
            raise ValueError(self._why_nothing())
        noise = self.noise.read()
        shares = self._clipped / self._seen if self._seen else math.nan
        warnings = [] if noise.identifiable else [self._more_sentence()]
        norms = (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        if any(m.training for m in norms):
            warnings.append("Batch norm in training mode: the noise is that of micro-batches.")
        return Measurement(
            noise=noise,
            b_noise=Estimate.unknown(),
            optimizer=optimizer_facts(self.optimizer),
            batch=self.noise.batch,
            size=self.noise.batch / self.noise.num_micro,
            num_parameters=sum(p.numel() for p in self._parameters),
            clipped_share=shares,
            warnings=tuple(warnings),
        )

    def _why_nothing(self) -> str:
        if self._one_micro:
            return (
                "Each step has one micro-batch only, which shows no noise: accumulate two or more, "
                "use ranks, call monitor.backward(losses), or calibrate()."
            )
        if self.num_skipped:
            return (
                f"{self.num_skipped} steps were left out: their gradients were not finite, or the "
                "examples could not be counted (say size=)."
            )
        return f"{len(self.noise)} steps were measured: two or more are needed."

    def _more_sentence(self) -> str:
        noise = self.noise.read()
        more = max(1, noise.more_needed() * len(self.noise) * self.every)
        return (
            f"Not identifiable yet: the noise scale is above {noise.b_simple.low:.3g} examples and "
            f"has no upper bound; collect about {more:,} more steps."
        )

    def calibrate(self, loss: Loss, batches: Iterable[Any], probes: int = 16) -> Measurement:
        """Measure curvature and the laws as well, by a burst at these weights; see `calibrate`."""
        batch = self.noise.batch if len(self.noise) else None
        inner = self.model
        if isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        active, self._active = self._active, False
        try:
            return calibrate(inner, loss, batches, self.optimizer, batch=batch, probes=probes)
        finally:
            self._active = active

    def recommend(self, batch: float, hold: Hold = "examples") -> Advice:
        """Return the advice for another batch; see `advise`."""
        return advise(self.measurement(), batch=batch, hold=hold)

    def report(self) -> str:
        """Return the noise so far, as lines."""
        if len(self.noise) < 2:
            return self._why_nothing()
        found = self.noise.read()
        lines = [
            f"batch          {self.noise.batch:g} examples in {self.noise.num_micro:g} "
            f"micro-batches, {len(self.noise)} steps measured",
            f"|g|^2          {found.g2}",
            f"tr Sigma       {found.trace_sigma}",
            f"noise scale    {found.b_simple} examples",
        ]
        if not found.identifiable:
            lines.append(self._more_sentence())
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        counts = {"steps": self._steps, "clipped": self._clipped, "seen": self._seen}
        return {"noise": self.noise.state_dict(), "num_skipped": self.num_skipped, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: if it belongs to another model.
        """
        self.noise.load_state_dict(state["noise"])
        self.num_skipped, self._steps = int(state["num_skipped"]), int(state["steps"])
        self._clipped, self._seen = int(state["clipped"]), int(state["seen"])

    def remove(self) -> None:
        """Take all hooks out of the loop; what was measured stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._disarm()
        self._active = False


def _square(tensor: Tensor) -> Tensor:
    """|tensor|^2 in float32 or better: half precision would overflow."""
    exact = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(tensor.detach(), dtype=exact).square()
