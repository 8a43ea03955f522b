"""The hooks of a watched training: what each step shows, on one process or several.

`Monitor` (in `watch`) adds what people ask of it. See there for what is measured and how.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.guard import Guard
from noisewise.scaling.history import History
from noisewise.scaling.loss_weight import Division
from noisewise.scaling.noise import GradientNoise
from noisewise.scaling.norm_layers import NormLayers, norm_parameters
from noisewise.scaling.optimizer_facts import parameter_groups
from noisewise.scaling.passes import Norm, Passes, norm_of
from noisewise.scaling.ranks import RankSums, ShardSums, Step
from noisewise.scaling.skips import Skip, reason_of
from noisewise.scaling.wrapped import hides_its_calls, is_compiled, wrapping_of

__all__ = ["Observer"]

_TRIES = 2  # steps with one micro-batch before the normalisation layers are used


class Observer:
    """Hooks of a training, and the noise that they have measured so far.

    Attributes:
        noise: the running measurement.
        skipped: number of measured steps that were left out, by reason.
        largest_rates: largest learning rate of each parameter group so far; nan: not seen yet.
        rose: whether each group's rate was seen to rise, as in a warm-up.
        total_steps: steps of the whole training; None: not known.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int,
        window: int,
        skip: int,
        by_layer: bool,
        dataset_size: int | None,
    ) -> None:
        """Look at the model; `begin` adds the hooks."""
        if every < 1:
            raise ValueError(f"every is {every}: use 1 or more.")
        if skip < 0:
            raise ValueError(f"skip is {skip}: use 0 or more.")
        self.model, self.optimizer, self.every = model, optimizer, every
        self._first, self._by_layer = skip * every, by_layer
        self._parameters, names = parameter_groups(model, optimizer, by_layer)
        self.noise = GradientNoise(names, window, dataset_size)
        self.history = History()
        self.skipped: Counter[Skip] = Counter()
        self.largest_rates: list[float] = [math.nan] * len(optimizer.param_groups)
        self.rose: list[bool] = [False] * len(optimizer.param_groups)
        self.total_steps: int | None = None
        self._division: Counter[Division] = Counter()
        self._clipped = self._seen = self._steps = 0
        self._rows = self._labels = 0.0
        self._changed = self._due = False
        self._guard = Guard(self._end)
        self._handles: list[Any] = []

    def begin(
        self,
        batch: float | None,
        size: float | None,
        norms: bool | None,
        total_steps: int | None,
        grad_scale: Callable[[], float] | None,
    ) -> None:
        """Add the hooks; see `watch` for the arguments.

        Raises:
            ValueError: as `watch` does.
        """
        for name, value in (("batch", batch), ("size", size), ("total_steps", total_steps)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                unit = "steps" if name == "total_steps" else "examples"
                raise ValueError(f"{name} is {value}: give a number of {unit} above 0.")
        if hides_its_calls(self.model) and batch is None and size is None:
            raise ValueError(
                "This model was compiled in place (model.compile()), which hides its inputs from "
                "hooks: give batch=, the examples of a step, or watch torch.compile(model)."
            )
        wrapping = wrapping_of(self.model, self._parameters)
        self._ranks: RankSums | ShardSums | None = None
        if wrapping.kind == "shards":
            self._ranks = ShardSums(self._parameters)
        elif wrapping.parallel is not None:
            self._ranks = RankSums(wrapping.parallel, self._parameters, self._guard)
        self._batch, self._size, self.total_steps = batch, size, total_steps
        self._norms, self._grad_scale = norms, grad_scale
        self._passes = self._new_passes()
        if norms:
            self._use_norm_layers()
        hook = self.optimizer.register_step_post_hook(lambda *_: self._stepped())
        self._handles = [hook]
        self._trained = self._trained_now()
        self._turn()

    def _new_passes(self) -> Passes:
        sharded = isinstance(self._ranks, ShardSums)
        alone = self._ranks is None
        return Passes(self._parameters, self._size, alone, sharded, self._guard.around)

    def _use_norm_layers(self) -> None:
        """Measure only the normalisation layers, example by example."""
        wanted = norm_parameters(self.model, self._parameters)
        if not wanted or self._ranks is not None or is_compiled(self.model):
            raise ValueError(
                "norms=True needs trained LayerNorm, RMSNorm or GroupNorm layers, no torch.compile "
                "and a single process: accumulate two or more micro-batches instead."
            )
        self._norms = True
        self._passes.disarm()
        self._parameters = dict.fromkeys(wanted, 0)
        self.noise = GradientNoise(["norm layers"], self.noise.window, self.noise.dataset_size)
        self._passes = self._new_passes()
        self._passes.layers = NormLayers(wanted)

    @property
    def num_skipped(self) -> int:
        """Measured steps that were left out, for any reason."""
        return self.skipped.total()

    @property
    def watching(self) -> bool:
        """Whether the hooks are active; False after `remove`, or after an error of a hook."""
        return bool(self._handles) and self._guard.reason is None

    @property
    def stopped(self) -> str | None:
        """Why the watching ended before `remove`; None if it did not."""
        return self._guard.reason

    @property
    def largest_lr(self) -> float | None:
        """Largest learning rate of the first parameter group so far; None before the first step."""
        return None if math.isnan(self.largest_rates[0]) else self.largest_rates[0]

    def _turn(self) -> None:
        """Add or remove hooks, depending on whether the next step is measured."""
        hooked = bool(self._handles)
        self._due = hooked and self._steps >= self._first and self._steps % self.every == 0
        due = self._due and self._guard.reason is None
        if due:
            self._look_again()
        if due and not self._passes.active:
            self._passes.arm(self.model)
        elif self._passes.active and not due:
            self._passes.disarm()
        if self._ranks is not None:
            self._ranks.active = due

    def _trained_now(self) -> list[int]:
        groups = self.optimizer.param_groups
        return [id(p) for group in groups for p in group["params"] if p.requires_grad]

    def _look_again(self) -> None:
        """Parameters were frozen or unfrozen: measure those that are trained now, from anew."""
        trained = self._trained_now()
        if trained == self._trained:
            return
        self._trained, self._changed = trained, True
        self._passes.disarm()
        self._parameters, names = parameter_groups(self.model, self.optimizer, self._by_layer)
        self.noise = GradientNoise(names, self.noise.window, self.noise.dataset_size)
        self.history = History()
        if self._ranks is not None:
            self._ranks.measured = self._parameters
        rates, groups = self.largest_rates, len(self.optimizer.param_groups)
        self.largest_rates = [*rates, *[math.nan] * (groups - len(rates))]
        self.rose += [False] * (groups - len(self.rose))
        self._passes = self._new_passes()
        if self._norms:
            self._use_norm_layers()

    def _stepped(self) -> None:
        """After the optimiser's step: record it if it was measured, and prepare the next one.

        Not before the step, because a closure (as in Lightning) does its backward pass within it.
        The norms still belong to the weights before the step. Ranks join also if one of them has
        failed; otherwise the others would wait for it.
        """
        measured, around = self._due, self._guard.around
        if measured:
            step = around(self._own_step)()
            if self._ranks is not None:
                step = self._join(step)
            if step is not None:
                around(self._record)(step)
            around(self._passes.clear)()
        around(self._note_rates)(measured)
        self._steps += 1
        if self._guard.reason is None:
            around(self._turn)()
        else:
            self._due = self._steps >= self._first and self._steps % self.every == 0

    def _join(self, step: Step | None) -> Step | None:
        assert self._ranks is not None
        failed = self._guard.reason is not None
        if failed and not self._handles:  # every rank knows
            return None
        try:
            joined = self._ranks.reduce(step, len(self.noise.groups))
        except Exception as error:  # a lost process or a broken link: training must go on
            self._guard.fail(f"{type(error).__name__}: {error}")
            return None
        if joined is None:
            self._guard.fail("another process stopped watching")
            self._unhook()
        return joined

    def _own_step(self) -> Step:
        """What this process saw of the step."""
        seen, scale = self._passes, 1.0 if self._grad_scale is None else self._grad_scale()
        rows = seen.rows
        if self._batch is not None:
            seen.assume(self._batch / self._num_ranks())
        division = None
        if self._ranks is None or not seen.counts_labels:
            division = seen.weights.division(seen.num_micro, scale)
        if division is not None:
            self._division[division] += 1
        final = [Norm(p, norm_of(p.grad)) for p in self._parameters if p.grad is not None]
        whole = self._ranks.sums() if isinstance(self._ranks, RankSums) else seen.sums()
        squares, means, clipped = self._by_group(seen.squares(), whole, final)
        # The hooks saw gradients with the scale of the gradient scaler; the final ones have none.
        squares, means = squares / scale**2, means / scale**2
        num = seen.num_micro
        if seen.layers is not None and num == 1 and seen.batch > 1:
            found = seen.layers.read(round(seen.batch))
            if not found:
                return Step(squares, means, clipped, 0, seen.batch, rows, False)
            num = round(seen.batch)
            squares = torch.stack(list(found.values())).sum().cpu().reshape(1)
            squares = squares * seen.batch**2 / scale**2
            means = self._by_group([n for n in whole if n.parameter in found])[0] / scale**2
        return Step(squares, means, clipped, num, seen.batch, rows, seen.weights_known)

    def _num_ranks(self) -> int:
        return 1 if self._ranks is None else torch.distributed.get_world_size(self._ranks.group)

    def _record(self, step: Step) -> None:
        reason = reason_of(step)
        if self._norms and reason == "one_micro_batch":
            reason = "no_single_examples"
        if reason is not None:
            self.skipped[reason] += 1
            if self._norms is None and self.skipped["one_micro_batch"] == _TRIES:
                self._try_norm_layers()
            return
        self.noise.add(step.squares, step.means, step.num_micro, step.batch)
        g2, trace = self.noise.newest()
        self.history.add(self._steps, g2, trace)
        if self._passes.counts_labels:
            self._labels, self._rows = self._labels + step.batch, self._rows + step.rows
        self._seen += 1  # the optimiser's gradient was clipped if it is shorter
        if self._norms is not True and float(step.clipped.sum()) > 0:
            self._clipped += float(step.clipped.sum()) < 0.998 * float(step.means.sum())

    def _try_norm_layers(self) -> None:
        """Steps have one micro-batch: use normalisation layers, if there are any."""
        if self._ranks is None and not len(self.noise) and not is_compiled(self.model):
            if norm_parameters(self.model, self._parameters):
                self._use_norm_layers()

    def _note_rates(self, measured: bool) -> None:
        for i, group in enumerate(self.optimizer.param_groups):
            lr = group.get("lr")
            if lr is None or (isinstance(lr, Tensor) and not measured):
                continue  # reading a tensor may wait for a device
            if i == len(self.largest_rates):
                self.largest_rates.append(math.nan)
            if i == len(self.rose):
                self.rose.append(False)
            before = self.largest_rates[i]
            self.rose[i] = self.rose[i] or float(lr) > 1.0001 * before
            self.largest_rates[i] = float(lr) if math.isnan(before) else max(before, float(lr))

    def _end(self) -> None:
        """After an error: remove the hooks, those of the optimiser before the next forward pass.

        This may run inside one of the optimiser's hooks, whose list must not change then. With
        several ranks, the optimiser's hook stays until all ranks know.
        """
        if hasattr(self, "_passes"):
            self._passes.disarm()
        if self._ranks is not None:
            self._ranks.active = False
        else:
            self._unhook()

    def _unhook(self) -> None:
        handles, self._handles = self._handles, []
        if not handles:
            return
        last: list[Any] = []

        def remove(*_: object) -> None:
            for handle in (*handles, *last):
                handle.remove()

        fresh = Guard(lambda: None)  # this one has failed
        last.append(self.model.register_forward_pre_hook(fresh.around(remove)))

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
