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
and counted. A hook that fails ends the watching, and says why once; it never ends the training.

Papers: McCandlish et al. 2018, appendix A; Gray et al. 2024 (normalisation layers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from noisewise.scaling.advice import Advice, Hold
from noisewise.scaling.advise import advise
from noisewise.scaling.epsilon import epsilon_curve
from noisewise.scaling.flat import Loss
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measure import calibrate
from noisewise.scaling.measurement import Measurement, Unit
from noisewise.scaling.observer import Observer
from noisewise.scaling.optimizer_facts import optimizer_facts, unwrapped
from noisewise.scaling.passes import scale_of
from noisewise.scaling.skips import Skip, counter_of, sentence_of
from noisewise.scaling.warning_codes import CodedWarning
from noisewise.scaling.watch_warnings import found_warnings

__all__ = ["Monitor", "Skip", "watch"]


def watch(
    model: nn.Module,
    optimizer: object,
    *,
    every: int = 20,
    window: int = 200,
    skip: int = 4,
    batch: float | None = None,
    size: float | None = None,
    norms: bool | None = None,
    total_steps: int | None = None,
    by_layer: bool = False,
    dataset_size: int | None = None,
    grad_scale: Callable[[], float] | None = None,
) -> Monitor:
    """Watch the gradients of a loop; call it once, before the loop.

    Args:
        model: the model in training as the loop calls it: plain, compiled, in
            DistributedDataParallel (`watch` uses its communication hook), `fully_shard`, PEFT.
        optimizer: the optimiser of the training; it may be in accelerate's or Lightning's wrapper.
        every: steps from one measurement to the next, 1 or more.
        window: number of measured steps to remember; the noise grows during training, so old
            steps no longer describe it.
        skip: number of measurements to leave out at the start, where |g|^2 falls a hundredfold and
            would outweigh all later ones.
        batch: examples of a step, over all micro-batches and ranks; None: they are counted in what
            the model is given, and `Measurement.counted` says how.
        size: examples in each micro-batch on this rank, if you know these and not `batch`.
        norms: measure the normalisation layers only, with single examples as micro-batches; None:
            do so if the steps have only one micro-batch.
        total_steps: steps of the whole training, to say when it was measured.
        by_layer: report each parameter tensor separately, not the optimiser's parameter groups.
        dataset_size: as in `unbiased_moments`.
        grad_scale: returns the present scale of a gradient scaler, for example `scaler.get_scale`;
            gradients are divided by it. Needed only for mixed precision in float16, and not with
            accelerate, whose optimiser has its scaler.

    Raises:
        ValueError: for `every` below 1, a negative `skip`, a `batch` or `size` that is not
            positive, no trainable parameter, a wrapper that hides the gradients of its processes
            (FSDP's first version, DeepSpeed, DataParallel over several devices), several processes
            without a wrapper, `norms` without normalisation layers, a model compiled in place
            without `batch`, or a DistributedDataParallel with another communication hook.

    Example:
        >>> import torch
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
    monitor = Monitor(model, unwrapped(optimizer), every, window, skip, by_layer, dataset_size)
    monitor.begin(batch, size, norms, total_steps, scale)
    return monitor


class Monitor(Observer):
    """The result of `watch`: the noise so far, a report, advice, and its state.

    Attributes:
        noise: the running measurement.
        skipped: number of measured steps that were left out, by reason.
        largest_rates: largest learning rate of each parameter group so far; nan: not seen yet.
        total_steps: steps of the whole training; None: not known.
    """

    # ---------------------------------------------------------------- what the loop calls
    def micro_batch(self, size: float, weighted: bool = True) -> None:
        """Say how many examples (or tokens) the next backward pass has.

        If micro-batches differ in size, scale each loss by its share of the whole batch, so that
        the sum of the gradients is the gradient of the mean. Data-parallel ranks have equal weight
        in the average, so each rank must have a batch of the same size.

        Args:
            size: number of examples or tokens; 0 if none of its labels counts in the loss.
            weighted: whether the loss is scaled in this way; if False, a step with unequal
                micro-batches is left out.

        Raises:
            ValueError: if the size is negative or not finite.
        """
        if not (size >= 0 and math.isfinite(size)):
            raise ValueError(f"size is {size}: give a number of examples, 0 or above.")
        self._passes.announce(size, weighted)

    def backward(self, losses: Tensor, parts: int = 2) -> None:
        """Do the backward pass of one batch; on a measured step, in several parts.

        For loops without accumulation: on one of `every` steps, the backward pass runs once for
        each part of the examples. The gradient is that of `losses.mean()`. A batch of fewer
        examples than parts, such as the last one of an epoch, is not measured.

        Args:
            losses: one loss per example, [n], with a graph.
            parts: number of micro-batches to make, 2 or more.

        Raises:
            ValueError: if losses is not such a vector.
        """
        if losses.ndim != 1 or not losses.requires_grad:
            raise ValueError(
                f"losses has shape {tuple(losses.shape)}: give unreduced losses with a graph, one "
                "per example."
            )
        if parts < 2:
            raise ValueError(f"parts is {parts}: one part shows no noise, so give 2 or more.")
        if not self._passes.active or len(losses) < parts:
            losses.mean().backward()
            return
        pieces = losses.tensor_split(parts)
        for i, piece in enumerate(pieces):
            self.micro_batch(len(piece))
            (piece.sum() / len(losses)).backward(retain_graph=i + 1 < parts)

    # ---------------------------------------------------------------- what the user calls
    def measurement(self) -> Measurement:
        """Return the measurement so far; it has no curvature, which needs `calibrate`.

        Raises:
            ValueError: before two steps are measured; it says why.
        """
        if len(self.noise) < 2:
            raise ValueError(self.why_nothing())
        by_labels = self._passes.counts_labels and self._batch is None
        total = self.total_steps or math.nan
        warnings = self._warnings()
        return Measurement(
            noise=self.noise.read(),
            b_noise=Estimate.unknown(),
            optimizer=optimizer_facts(self.optimizer, self.largest_rates, self.rose),
            batch=self.noise.batch,
            size=self.noise.batch / self.noise.num_micro,
            num_parameters=sum(p.numel() for p in self._parameters),
            clipped_share=self._clipped / self._seen if self._seen else math.nan,
            warnings=tuple(text for _, text in warnings),
            warning_codes=tuple(code for code, _ in warnings),
            unit="labels" if by_labels else "examples",
            labels_per_example=self._labels / self._rows if self._rows > 0 else math.nan,
            counted="" if self._batch or self._size else self._passes.counted,
            begun=self.history.first / total,
            ended=min(1.0, (self.history.last + 1) / total),
            scales=tuple(self.history.scales()),
            source="norm layers" if self._norms else "all",
            epsilons=epsilon_curve(self.optimizer),
        )

    def _warnings(self) -> list[CodedWarning]:
        noise = self.noise.read()
        return found_warnings(
            self.model,
            more=None if noise.identifiable else self._more_sentence(),
            skipped=sentence_of(self.skipped, self.noise.num_steps) if self.skipped else None,
            labels_per_example=self._labels / self._rows if self._rows > 0 else math.nan,
            by_labels=self._passes.counts_labels and self._batch is None,
            division=self._division,
            num_micro=self.noise.num_micro,
            changed=self._changed,
            norms=bool(self._norms),
        )

    def why_nothing(self) -> str:
        """Return why less than two steps are measured, and what to do."""
        if self._guard.reason is not None:
            return f"The watching ended: {self._guard.reason}."
        if self.skipped and self.skipped.most_common(1)[0][0] == "one_micro_batch":
            return (
                "Each step has only one micro-batch, which shows no noise: accumulate two or more, "
                "use several ranks, or call monitor.backward(losses) or calibrate()."
            )
        if self.skipped:
            return sentence_of(self.skipped, self.noise.num_steps)
        return (
            f"{len(self.noise)} steps are measured so far, but two are needed: one of every "
            f"{self.every} steps is measured, and none of the first {self._first} (every=, skip=)."
        )

    def __repr__(self) -> str:
        left = f", {self.num_skipped} left out" if self.skipped else ""
        return f"Monitor({self.noise.num_steps} steps measured{left})"

    def _more_sentence(self) -> str:
        noise = self.noise.read()
        more = max(1, noise.more_needed() * len(self.noise) * self.every)
        return f"{noise.why_not_known()}; collect about {more:,} more steps."

    def calibrate(self, loss: Loss, batches: Iterable[Any], probes: int = 16) -> Measurement:
        """Also measure curvature and laws, by a burst at the present weights; see `calibrate`."""
        batch = self.noise.batch if len(self.noise) and not self._passes.counts_labels else None
        share = self._steps / self.total_steps if self.total_steps else None
        peak = optimizer_facts(self.optimizer, self.largest_rates, self.rose).lr
        active, self._passes.active = self._passes.active, False
        try:
            return calibrate(
                self.model, loss, batches, self.optimizer, batch=batch, probes=probes,
                lr=None if math.isnan(peak) else peak, after=share,
            )  # fmt: skip
        finally:
            self._passes.active = active

    def recommend(self, batch: float, hold: Hold = "examples", unit: Unit | None = None) -> Advice:
        """Return the advice for another batch; see `advise`."""
        return advise(self.measurement(), batch=batch, hold=hold, unit=unit)

    def report(self) -> str:
        """Return the noise so far, as lines for people."""
        if len(self.noise) < 2:
            return self.why_nothing()
        found = self.noise.read()
        counted = f" ({self._passes.counted})" if self._passes.counted and not self._batch else ""
        unit = "labels" if self._passes.counts_labels and self._batch is None else "examples"
        lines = [
            f"batch          {self.noise.batch:g} {unit}{counted} in {self.noise.num_micro:g} "
            f"micro-batches; {len(self.noise)} steps measured (95 % intervals in brackets)",
            f"|g|^2          {found.g2}: squared norm of the gradient without noise",
            f"tr Sigma       {found.trace_sigma}: noise of one example's gradient",
            f"noise scale    {found.b_simple}: tr Sigma / |g|^2 in {unit}; a batch far above it "
            "hardly saves steps",
        ]
        lines += [text for code, text in self._warnings() if code != "counted_in_labels"]
        if self._guard.reason is not None:
            lines.append(f"The watching ended: {self._guard.reason}.")
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        counts = {"steps": self._steps, "clipped": self._clipped, "seen": self._seen}
        rates = [None if math.isnan(rate) else rate for rate in self.largest_rates]
        kept = {"skipped": dict(self.skipped), "largest_lr": self.largest_lr, "rates": rates}
        kept["rose"] = list(self.rose)
        labels = {"tokens": self._passes.counts_labels, "labels": [self._labels, self._rows]}
        more = {"history": self.history.state_dict(), "norms": self._norms}
        return {"noise": self.noise.state_dict(), **counts, **kept, **labels, **more}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if it belongs to another model.
        """
        if state.get("norms") and not self._norms:
            self._use_norm_layers()
        self.noise.load_state_dict(state["noise"])
        self._steps = int(state["steps"])
        self._clipped, self._seen = int(state["clipped"]), int(state["seen"])
        self.skipped = counter_of(state.get("skipped", {}))  # the oldest states have none
        rates = state.get("rates", [state.get("largest_lr")])
        for i, rate in enumerate(rates[: len(self.largest_rates)]):
            self.largest_rates[i] = math.nan if rate is None else float(rate)
        for i, rose in enumerate(state.get("rose", ())[: len(self.rose)]):
            self.rose[i] = bool(rose)
        self._passes.counts_labels = bool(state.get("tokens", False))
        self._labels, self._rows = state.get("labels", (0.0, 0.0))
        if "history" in state:
            self.history.load_state_dict(state["history"])
        self._turn()

    def remove(self) -> None:
        """Remove all hooks from the loop; the measurement stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._turn()
