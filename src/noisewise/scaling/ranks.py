"""Several processes: the squared norm of each rank's gradient and of their mean, before clipping.

DistributedDataParallel averages gradients bucket by bucket in a communication hook. Our hook does
the same as the default one and also reads the norms of the averaged bucket. `fully_shard` leaves
each rank a shard of the average, whose squared norms add up. The tensor hooks of `watch` read each
rank's own gradient. One small all-reduce per measured step joins the numbers; it also tells every
rank if one of them stopped watching, so that no rank waits for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.guard import Guard
from noisewise.scaling.passes import Norm, norm_of

__all__ = ["RankSums", "ShardSums", "Step"]


@dataclass(frozen=True)
class Step:
    """What was seen of one step, by one rank or by all together.

    Attributes:
        squares: [groups] sum_i b_i |g_i|^2.
        means: [groups] |G|^2 of the whole gradient, before clipping.
        clipped: [groups] |G|^2 as the optimiser saw it.
        num_micro: number of micro-batches.
        batch: examples, or labels.
        rows: examples if labels were counted, else nan.
        known: whether the weights of the micro-batches are known.
    """

    squares: Tensor
    means: Tensor
    clipped: Tensor
    num_micro: int
    batch: float
    rows: float
    known: bool


class RankSums:
    """Norms of the averaged gradient, read in the communication hook.

    Args:
        model: a DistributedDataParallel without a communication hook.
        parameters: parameters that are measured.
        guard: ends the watching if the hook fails.

    Raises:
        ValueError: if the model already has a communication hook.
    """

    def __init__(
        self,
        model: nn.parallel.DistributedDataParallel,
        parameters: Mapping[Tensor, int],
        guard: Guard,
    ) -> None:
        """Register the hook."""
        self.active = True
        self.measured = parameters
        self._guard = guard
        self.group: Any = model.process_group
        self._sums: dict[Tensor, Tensor] = {}
        try:
            model.register_comm_hook(None, self._hook)
        except RuntimeError as error:
            raise ValueError(
                "This DistributedDataParallel already has a communication hook, so watch() cannot "
                "read the averaged gradient: call watch() first, or measure with calibrate()."
            ) from error

    def _hook(self, state, bucket):  # noqa: ANN001, ANN202 (torch refuses annotations as text)
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        future = allreduce_hook(self.group, bucket)
        if not self.active or self._guard.reason is not None:
            return future
        parameters, shapes = bucket.parameters(), [g.numel() for g in bucket.gradients()]

        def read(averaged: Tensor) -> None:
            pieces = averaged.detach().split(shapes)
            for parameter, piece in zip(parameters, pieces, strict=True):
                if parameter in self.measured:
                    self._sums[parameter] = norm_of(piece)

        guarded = self._guard.around(read)

        def after(done: torch.futures.Future[Tensor]) -> Tensor:
            value = done.value()
            averaged = value[0] if isinstance(value, (list, tuple)) else value
            guarded(averaged)
            return averaged

        return future.then(after)

    def sums(self) -> list[Norm]:
        """Norms of the averaged gradient; they are forgotten afterwards."""
        found = [Norm(parameter, norm) for parameter, norm in self._sums.items()]
        self._sums.clear()
        return found

    def reduce(self, step: Step | None, groups: int) -> Step | None:
        """Join this rank's step with those of the others; None if any rank has none.

        Args:
            step: of this rank; None if it stopped watching.
            groups: number of parameter groups.

        Returns:
            The same for all ranks together. All ranks have equal weight in the average, so their
            batches must have equal size; if not, the weights are not known.
        """
        return _joined(step, groups, self.group, next(iter(self.measured)).device, shards=False)


class ShardSums:
    """Joins the ranks of `fully_shard`: each holds a shard of the averaged gradient.

    Args:
        parameters: the sharded parameters that are measured.
    """

    def __init__(self, parameters: Mapping[Tensor, int]) -> None:
        """Find the ranks."""
        self.active = True
        self.measured = parameters
        first: Any = next(iter(parameters))
        self.group = first.device_mesh.get_group()
        self._device = first.to_local().device

    def reduce(self, step: Step | None, groups: int) -> Step | None:
        """Join this rank's step with those of the others; see `RankSums.reduce`."""
        return _joined(step, groups, self.group, self._device, shards=True)


def _joined(
    step: Step | None,
    groups: int,
    group: Any,  # noqa: ANN401 (a process group)
    device: torch.device,
    shards: bool,
) -> Step | None:
    import torch.distributed as dist

    if step is None:
        parts, counts = torch.zeros(3 * groups, dtype=torch.float64), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    else:
        parts = torch.cat([step.squares, step.means, step.clipped])
        counts = [step.num_micro, not step.known, step.batch**2, step.batch, step.rows, 0.0]
    joined = torch.cat([parts, torch.tensor(counts, dtype=torch.float64)]).to(device)
    dist.all_reduce(joined, group=group)
    joined = joined.cpu()
    num, unknown, squared, batch, rows, stopped = joined[3 * groups :].tolist()
    if stopped or step is None:
        return None
    squares, means, clipped = joined[: 3 * groups].view(3, groups)
    if not shards:  # every rank has the whole average
        means, clipped = step.means, step.clipped
    alike = dist.get_world_size(group) * squared <= batch**2 * (1 + 1e-9)
    return Step(squares, means, clipped, round(num), batch, rows, alike and not unknown)
