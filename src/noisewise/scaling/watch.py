"""Measure the gradient's noise inside any training loop: three lines, no extra gradient.

    monitor = watch(model, optimizer)      # 1
    for batch in loader: ...               # accumulate, or use ranks, and step as usual
    print(monitor.report())                # 2
    advise(monitor.measurement(), batch=1024)  # 3

A tensor hook sees each micro-batch's own gradient before it goes into `.grad` (before any
all-reduce and before clipping). The sum is read after the last micro-batch. Only norms are kept, so
no gradient is copied. One of `every` steps is measured; the other steps cost almost nothing.

The hooks cannot see the weights of a step's micro-batches. So these must have equal size, or be
weighted by size: `micro_batch` says so, or transformers' count of labels. Other steps are left out
and counted.

Paper: McCandlish et al. 2018, appendix A.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

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
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["Monitor", "Skip", "watch"]

Skip = Literal["one_micro_batch", "not_finite", "unequal", "uncounted"]
_REASONS: dict[Skip, str] = {
    "one_micro_batch": "with only one micro-batch",
    "not_finite": "with a gradient that is zero or not finite",
    "unequal": "with micro-batches of unequal size and unknown weight (call micro_batch())",
    "uncounted": "with examples that cannot be counted (give size=)",
}
_OLDER: dict[str, Skip] = {  # what the states of older versions say
    "one micro-batch only": "one_micro_batch",
    "a gradient that was zero or not finite": "not_finite",
    "unequal micro-batches whose weights are not known (see micro_batch())": "unequal",
    "examples that could not be counted (say size=)": "uncounted",
}


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
    """Watch the gradients of a loop; call it once, before the loop.

    Args:
        model: the model in training, plain or in DistributedDataParallel (`watch` uses its
            communication hook).
        optimizer: the optimiser of the training; it may be in accelerate's or Lightning's wrapper.
        every: steps from one measurement to the next, 1 or more.
        window: number of measured steps to remember; the noise grows during training, so old
            steps no longer describe it.
        skip: number of measurements to leave out at the start, where |g|^2 falls a hundredfold and
            would outweigh all later ones.
        size: examples in each micro-batch on this rank; None: the first dimension of the first
            tensor given to the model, or what `micro_batch` says.
        by_layer: report each parameter tensor separately, not the optimiser's parameter groups.
        dataset_size: as in `unbiased_moments`.
        grad_scale: returns the present scale of a gradient scaler, for example `scaler.get_scale`;
            gradients are divided by it. Needed only for mixed precision in float16, and not with
            accelerate, whose optimiser has its scaler.

    Raises:
        ValueError: for `every` below 1, a negative `skip`, a `size` that is not positive, no
            trainable parameter, sharded parameters (FSDP), or a DistributedDataParallel with
            another communication hook.

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
    """The result of `watch`: the noise so far, a report, advice, and its state.

    Attributes:
        noise: the running measurement.
        skipped: number of measured steps that were left out, by reason.
        largest_lr: largest learning rate of the schedule so far; None before the first step.
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
        """Add the hooks."""
        if every < 1:
            raise ValueError(f"every is {every}: use 1 or more.")
        if skip < 0:
            raise ValueError(f"skip is {skip}: use 0 or more.")
        if size is not None and not size > 0:
            raise ValueError(f"size is {size}: give a number of examples above 0.")
        self.model, self.optimizer, self.every = model, optimizer, every
        self._grad_scale, self._first = grad_scale, skip * every
        self._parameters, names = parameter_groups(model, optimizer, by_layer)
        self.noise = GradientNoise(names, window, dataset_size)
        self.skipped: Counter[Skip] = Counter()
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
        """Whether the hooks are active; False after `remove`."""
        return bool(self._handles)

    def _turn(self) -> None:
        """Add or remove hooks, depending on whether the next step is measured."""
        due = self.watching and self._steps >= self._first and self._steps % self.every == 0
        if due and not self._passes.active:
            self._passes.arm(self.model)
        elif self._passes.active and not due:
            self._passes.disarm()
        if self._ranks is not None:
            self._ranks.active = due

    # ---------------------------------------------------------------- what the loop calls
    def micro_batch(self, size: float, weighted: bool = True) -> None:
        """Say how many examples (or tokens) the next backward pass has.

        If micro-batches differ in size, scale each loss by its share of the whole batch, so that
        the sum of the gradients is the gradient of the mean. Data-parallel ranks have equal weight
        in the average, so each rank must have a batch of the same size.

        Args:
            size: number of examples or tokens.
            weighted: whether the loss is scaled in this way; if False, a step with unequal
                micro-batches is left out.

        Raises:
            ValueError: if the size is not positive.
        """
        if not (size > 0 and math.isfinite(size)):
            raise ValueError(f"size is {size}: give a number of examples above 0.")
        self._passes.announce(size, weighted)

    def backward(self, losses: Tensor, parts: int = 2) -> None:
        """Do the backward pass of one batch; on a measured step, in several parts.

        For loops without accumulation: on one of `every` steps, the backward pass runs once for
        each part of the examples. The gradient is that of `losses.mean()`.

        Args:
            losses: one loss per example, [n], n >= parts, with a graph.
            parts: number of micro-batches to make.

        Raises:
            ValueError: if losses is not such a vector.
        """
        if losses.ndim != 1 or len(losses) < parts or not losses.requires_grad:
            raise ValueError(
                f"losses has shape {tuple(losses.shape)}: give unreduced losses with a graph, one "
                f"per example, for at least {parts} examples."
            )
        if not self._passes.active:
            losses.mean().backward()
            return
        pieces = losses.tensor_split(parts)
        for i, piece in enumerate(pieces):
            self.micro_batch(len(piece))
            (piece.sum() / len(losses)).backward(retain_graph=i + 1 < parts)

    def _after_step(self) -> None:
        """After the optimiser's step: record it if it was measured, and prepare the next one.

        Not before the step, because a closure (as in Lightning) does its backward pass within it.
        The norms still belong to the weights before the step.
        """
        measured = self._passes.active
        if measured:
            self._record()
            self._passes.clear()
        lr = self.optimizer.param_groups[0]["lr"]
        if measured or not isinstance(lr, Tensor):  # reading a tensor may wait for a device
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
        # The hooks saw gradients with the scale of the gradient scaler; it is removed below.
        reason = self._why_not(squares, means, num, batch, known)
        if reason is not None:
            self.skipped[reason] += 1
            return
        squares, means = squares / scale**2, means / scale**2
        self.noise.add(squares, means, num, batch)
        self._seen += 1  # the optimiser's gradient was clipped if it is shorter
        if final and float(clipped.sum()) < 0.998 * float(means.sum()):
            self._clipped += 1

    def _why_not(
        self, squares: Tensor, means: Tensor, num: int, batch: float, known: bool
    ) -> Skip | None:
        """The reason to leave a step out; None: it is recorded."""
        if num < 2:
            return "one_micro_batch"
        if not batch > 0:
            return "uncounted"
        if not math.isfinite(float(squares.sum() + means.sum())) or not float(means.max()) > 0:
            return "not_finite"
        return None if known else "unequal"

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

    # ---------------------------------------------------------------- what the user calls
    def measurement(self) -> Measurement:
        """Return the measurement so far; it has no curvature, which needs `calibrate`.

        Raises:
            ValueError: before two steps are measured; it says why.
        """
        if len(self.noise) < 2:
            raise ValueError(self._why_nothing())
        noise = self.noise.read()
        shares = self._clipped / self._seen if self._seen else math.nan
        warnings = self._warnings(noise.identifiable)
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
            warnings=tuple(text for _, text in warnings),
            warning_codes=tuple(code for code, _ in warnings),
        )

    def _warnings(self, known: bool) -> list[CodedWarning]:
        found: list[CodedWarning] = [] if known else [("noise_not_known", self._more_sentence())]
        if self.skipped:
            found.append(("steps_left_out", self._skipped_sentence()))
        if self._tokens:
            text = "Sizes count labels (tokens), not rows: give the new batch in labels too."
            found.append(("counted_in_labels", text))
        norms = (m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        if any(m.training for m in norms):
            text = (
                "Batch norm is in training mode: the noise is that of micro-batches of this size."
            )
            found.append(("batch_norm", text))
        return found

    def _why_nothing(self) -> str:
        if self.skipped and self.skipped.most_common(1)[0][0] == "one_micro_batch":
            return (
                "Each step has only one micro-batch, which shows no noise: accumulate two or more, "
                "use several ranks, or call monitor.backward(losses) or calibrate()."
            )
        if self.skipped:
            return self._skipped_sentence()
        return (
            f"{len(self.noise)} steps are measured so far, but two are needed: one of every "
            f"{self.every} steps is measured, and none of the first {self._first}."
        )

    def _skipped_sentence(self) -> str:
        reasons = "; ".join(f"{n} {_REASONS[code]}" for code, n in self.skipped.most_common())
        total = self.num_skipped + self.noise.num_steps
        return f"{self.num_skipped} of {total} measured steps were left out: {reasons}."

    def __repr__(self) -> str:
        left = f", {self.num_skipped} left out" if self.skipped else ""
        return f"Monitor({self.noise.num_steps} steps measured{left})"

    def _more_sentence(self) -> str:
        noise = self.noise.read()
        more = max(1, noise.more_needed() * len(self.noise) * self.every)
        return f"{noise.why_not_known()}; collect about {more:,} more steps."

    def calibrate(self, loss: Loss, batches: Iterable[Any], probes: int = 16) -> Measurement:
        """Also measure curvature and laws, by a burst at the present weights; see `calibrate`."""
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
        """Return the noise so far, as lines for people."""
        if len(self.noise) < 2:
            return self._why_nothing()
        found = self.noise.read()
        lines = [
            f"batch          {self.noise.batch:g} examples in {self.noise.num_micro:g} "
            f"micro-batches; {len(self.noise)} steps measured (95 % intervals in brackets)",
            f"|g|^2          {found.g2}: squared norm of the gradient without noise",
            f"tr Sigma       {found.trace_sigma}: noise of one example's gradient",
            f"noise scale    {found.b_simple}: tr Sigma / |g|^2 in examples; a batch far above it "
            "hardly saves steps",
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
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if it belongs to another model.
        """
        self.noise.load_state_dict(state["noise"])
        self._steps = int(state["steps"])
        self._clipped, self._seen = int(state["clipped"]), int(state["seen"])
        self.skipped = Counter()
        for reason, number in state.get("skipped", {}).items():  # the oldest states have none
            self.skipped[_OLDER.get(reason, reason)] += number
        self.largest_lr = state.get("largest_lr")
        self._tokens = bool(state.get("tokens", False))
        self._turn()

    def remove(self) -> None:
        """Remove all hooks from the loop; the measurement stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._turn()
