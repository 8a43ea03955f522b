"""Measuring the gradient's noise inside anybody's training loop: three lines, no extra gradient.

    monitor = watch(model, optimizer)      # 1
    for batch in loader: ...               # accumulate, or use ranks, and step as always
    print(monitor.report())                # 2
    advise(monitor.measurement(), batch=1024)  # 3

A tensor hook sees each micro-batch's own gradient on its way into `.grad` (before any all-reduce
and before clipping), and the sum is read when the last micro-batch has been added; both as squared
norms only, so no gradient is copied. One of `every` steps is measured, the others cost a test each.

What a step's micro-batches weigh is not seen, so they must be of one size, or weigh by their sizes:
`micro_batch` says so, and transformers' own count of labels. Other steps are left out and counted.

Paper: McCandlish et al. 2018, appendix A.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.advice import Advice, Hold
from noisewise.scaling.advise import advise
from noisewise.scaling.flat import Loss
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measure import calibrate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import GradientNoise
from noisewise.scaling.passes import Norm, Passes, norm_of, scale_of
from noisewise.scaling.ranks import RankSums, is_parallel
from noisewise.scaling.updates import optimizer_facts, parameter_groups, unwrapped

__all__ = ["Monitor", "watch"]

_ONE_MICRO, _NOT_FINITE = "one micro-batch only", "a gradient that was zero or not finite"
_UNEQUAL = "unequal micro-batches whose weights are not known (see micro_batch())"
_UNCOUNTED = "examples that could not be counted (say size=)"


def watch(
    model: nn.Module,
    optimizer: object,
    *,
    every: int = 20,
    window: int = 200,
    skip: int = 4,
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
        window: measured steps remembered; the noise grows as training goes on, so that a long
            memory tells of a training that is over.
        skip: measurements left out at the start, where |g|^2 falls a hundredfold and would
            outweigh all later ones.
        size: examples in each micro-batch on this rank; None: first dimension of the first tensor
            given to the model, or what `micro_batch` says.
        by_layer: tell parameter tensors apart, else the optimiser's parameter groups.
        dataset_size: as in `unbiased_moments`.
        grad_scale: current scale of a gradient scaler, such as `scaler.get_scale`: gradients are
            divided by it. Leave it out without mixed precision in float16, and with accelerate,
            whose optimiser knows its scaler.

    Raises:
        ValueError: for `every` below 1, a negative `skip`, no trainable parameter, sharded
            parameters (FSDP), or a DistributedDataParallel that has another communication hook.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = watch(model, sgd, every=1, skip=0)
        >>> for x in torch.randn(20, 4, 8, 3, generator=torch.Generator().manual_seed(0)):
        ...     for micro in x:
        ...         ((model(micro)[:, 0] - micro.sum(1)).square().mean() / 4).backward()
        ...     sgd.step()
        ...     sgd.zero_grad()
        >>> monitor.noise.num_steps, monitor.noise.batch, monitor.noise.num_micro
        (20, 32.0, 4.0)
        >>> monitor.remove()
    """
    scale = grad_scale or scale_of(optimizer)
    inner = unwrapped(optimizer)
    return Monitor(model, inner, every, window, skip, size, by_layer, dataset_size, scale)


class Monitor:
    """What `watch` returns: the noise so far, a report, advice, and its state.

    Attributes:
        noise: the running measurement.
        skipped: measured steps that were left out, by reason.
        largest_lr: learning rate at the top of its schedule so far; None before the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int,
        window: int,
        skip: int,
        size: float | None,
        by_layer: bool,
        dataset_size: int | None,
        grad_scale: Callable[[], float] | None,
    ) -> None:
        """Put the hooks in."""
        if every < 1:
            raise ValueError(f"Every {every} steps is never: use 1 or more.")
        if skip < 0:
            raise ValueError(f"{skip} measurements cannot be left out: use 0 or more.")
        if size is not None and not size > 0:
            raise ValueError(f"A micro-batch of {size} examples is none: give a positive number.")
        self.model, self.optimizer, self.every = model, optimizer, every
        self._grad_scale, self._first = grad_scale, skip * every
        self._parameters, names = parameter_groups(model, optimizer, by_layer)
        self.noise = GradientNoise(names, window, dataset_size)
        self.skipped: Counter[str] = Counter()
        self.largest_lr: float | None = None
        self._clipped = self._seen = self._steps = 0
        self._ranks = RankSums(model, self._parameters) if is_parallel(model) else None
        self._passes = Passes(self._parameters, size, sums=self._ranks is None)
        self._tokens = False
        self._handles = [optimizer.register_step_post_hook(lambda *_: self._after_step())]
        self._turn()

    @property
    def num_skipped(self) -> int:
        """Measured steps that were left out, for any reason."""
        return sum(self.skipped.values())

    @property
    def watching(self) -> bool:
        """Whether the hooks are in the loop: not so after `remove`."""
        return bool(self._handles)

    def _turn(self) -> None:
        """See whether the step that comes next is measured."""
        due = self.watching and self._steps >= self._first and self._steps % self.every == 0
        if due and not self._passes.active:
            self._passes.arm(self.model)
        elif self._passes.active and not due:
            self._passes.disarm()
        if self._ranks is not None:
            self._ranks.active = due

    # ---------------------------------------------------------------- what the loop does
    def micro_batch(self, size: float, weighted: bool = True) -> None:
        """Say how many examples (or tokens) the next backward pass is of.

        For micro-batches that differ, scale each loss by its share of the whole, so that the sum
        of the gradients is the gradient of the mean. Data-parallel ranks are averaged alike, so
        the whole must be as large on each.

        Args:
            size: examples or tokens.
            weighted: whether the loss is scaled so; False: as it comes, and a step of unequal
                micro-batches is left out.

        Raises:
            ValueError: if the size is not positive.
        """
        if not (size > 0 and math.isfinite(size)):
            raise ValueError(f"A micro-batch of {size} examples is none: give a positive number.")
        self._passes.announce(size, weighted)

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
        if not self._passes.active:
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
        measured = self._passes.active
        if measured:
            self._record()
            self._passes.clear()
        lr = self.optimizer.param_groups[0]["lr"]
        if measured or not isinstance(lr, Tensor):  # a tensor's value may have to be fetched
            self.largest_lr = max(self.largest_lr or 0.0, float(lr))
        self._steps += 1
        self._turn()

    def _record(self) -> None:
        seen, scale = self._passes, 1.0 if self._grad_scale is None else self._grad_scale()
        num, batch, known = seen.num_micro, seen.batch, seen.weights_known
        self._tokens = self._tokens or seen.counts_labels
        whole = seen.sums() if self._ranks is None else self._ranks.sums()
        final = [Norm(p, norm_of(p.grad)) for p in self._parameters if p.grad is not None]
        squares, means, clipped = self._by_group(seen.squares(), whole, final)
        if self._ranks is not None:
            squares, num, batch, known = self._ranks.reduce(squares, num, batch, known)
        # The step is one unit of the optimiser; the hooks saw it scaled.
        reason = self._why_not(squares, means, num, batch, known)
        if reason is not None:
            self.skipped[reason] += 1
            return
        squares, means = squares / scale**2, means / scale**2
        self.noise.add(squares, means, num, batch)
        self._seen += 1  # what the optimiser saw is clipped, if it is shorter
        if final and float(clipped.sum()) < 0.998 * float(means.sum()):
            self._clipped += 1

    def _why_not(
        self, squares: Tensor, means: Tensor, num: int, batch: float, known: bool
    ) -> str | None:
        """The reason to leave a step out; None: there is none."""
        if num < 2:
            return _ONE_MICRO
        if not batch > 0:
            return _UNCOUNTED
        if not math.isfinite(float(squares.sum() + means.sum())) or not float(means.max()) > 0:
            return _NOT_FINITE
        return None if known else _UNEQUAL

    def _by_group(self, *lists: list[Norm]) -> list[Tensor]:
        """Sums of squares over each group's parameters, float64 on the CPU; one transfer."""
        items, num = [item for norms in lists for item in norms], len(self.noise.groups)
        totals = torch.zeros(len(lists) * num, dtype=torch.float64)
        if items:
            places = [
                i * num + self._parameters[n.parameter] for i, ns in enumerate(lists) for n in ns
            ]
            values = torch.stack([item.norm for item in items]).double().cpu().square()
            weights = torch.tensor([item.weight for item in items], dtype=torch.float64)
            totals.index_add_(0, torch.tensor(places), values * weights)
        return list(totals.view(len(lists), num))

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
        if self.skipped:
            warnings.append(self._skipped_sentence())
        if self._tokens:
            warnings.append("Sizes are labels (tokens), not rows: give the new batch in them, too.")
        norms = (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        if any(m.training for m in norms):
            warnings.append("Batch norm in training mode: the noise is that of micro-batches.")
        facts = optimizer_facts(self.optimizer)
        if self.largest_lr:  # a schedule may have ended at 0
            facts = replace(facts, lr=self.largest_lr)
        return Measurement(
            noise=noise,
            b_noise=Estimate.unknown(),
            optimizer=facts,
            batch=self.noise.batch,
            size=self.noise.batch / self.noise.num_micro,
            num_parameters=sum(p.numel() for p in self._parameters),
            clipped_share=shares,
            warnings=tuple(warnings),
        )

    def _why_nothing(self) -> str:
        if self.skipped and self.skipped.most_common(1)[0][0] == _ONE_MICRO:
            return (
                "Each step has one micro-batch only, which shows no noise: accumulate two or more, "
                "use ranks, call monitor.backward(losses), or calibrate()."
            )
        if self.skipped:
            return self._skipped_sentence()
        return (
            f"{len(self.noise)} steps were measured: two or more are needed, one of every "
            f"{self.every} is taken, and none of the first {self._first}."
        )

    def _skipped_sentence(self) -> str:
        reasons = "; ".join(f"{reason}, {n}" for reason, n in self.skipped.most_common())
        total = self.num_skipped + self.noise.num_steps
        return f"{self.num_skipped} of {total} measured steps were left out: {reasons}."

    def __repr__(self) -> str:
        left = f", {self.num_skipped} left out" if self.skipped else ""
        return f"Monitor({self.noise.num_steps} steps measured{left})"

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
        active, self._passes.active = self._passes.active, False
        try:
            return calibrate(inner, loss, batches, self.optimizer, batch=batch, probes=probes)
        finally:
            self._passes.active = active

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
        if self.skipped:
            lines.append(self._skipped_sentence())
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        counts = {"steps": self._steps, "clipped": self._clipped, "seen": self._seen}
        kept = {"skipped": dict(self.skipped), "largest_lr": self.largest_lr}
        return {"noise": self.noise.state_dict(), **counts, **kept, "tokens": self._tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: if it belongs to another model.
        """
        self.noise.load_state_dict(state["noise"])
        self._steps = int(state["steps"])
        self._clipped, self._seen = int(state["clipped"]), int(state["seen"])
        self.skipped = Counter(state.get("skipped", {}))  # older states have no reasons
        self.largest_lr = state.get("largest_lr")
        self._tokens = bool(state.get("tokens", False))
        self._turn()

    def remove(self) -> None:
        """Take all hooks out of the loop; what was measured stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._turn()
