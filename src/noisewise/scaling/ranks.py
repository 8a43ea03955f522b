"""Data-parallel ranks: the squared norm of each rank's gradient and of their mean, before clipping.

DistributedDataParallel averages gradients bucket by bucket in a communication hook. Our hook does
the same as the default one and also reads the norms of the averaged bucket. The tensor hooks of
`watch` read each rank's own gradient. One small all-reduce per measured step joins the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.scaling.passes import Norm, norm_of

__all__ = ["RankSums", "is_parallel"]


def is_parallel(model: nn.Module) -> bool:
    """Whether the model is wrapped in DistributedDataParallel."""
    return isinstance(model, nn.parallel.DistributedDataParallel)


class RankSums:
    """Norms of the averaged gradient, read in the communication hook.

    Args:
        model: a DistributedDataParallel without a communication hook.
        parameters: parameters that are measured.

    Raises:
        ValueError: if the model already has a communication hook.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[Tensor, int]) -> None:
        """Register the hook."""
        assert isinstance(model, nn.parallel.DistributedDataParallel)
        self.active = True
        self._measured = parameters
        self._group: Any = model.process_group
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

        future = allreduce_hook(self._group, bucket)
        if not self.active:
            return future
        parameters, shapes = bucket.parameters(), [g.numel() for g in bucket.gradients()]

        def read(done: torch.futures.Future[Tensor]) -> Tensor:
            value = done.value()
            averaged = value[0] if isinstance(value, (list, tuple)) else value
            pieces = averaged.detach().split(shapes)
            for parameter, piece in zip(parameters, pieces, strict=True):
                if parameter in self._measured:
                    self._sums[parameter] = norm_of(piece)
            return averaged

        return future.then(read)

    def sums(self) -> list[Norm]:
        """Norms of the averaged gradient; they are forgotten afterwards."""
        found = [Norm(parameter, norm) for parameter, norm in self._sums.items()]
        self._sums.clear()
        return found

    def reduce(
        self, squares: Tensor, num_micro: int, batch: float, known: bool
    ) -> tuple[Tensor, int, float, bool]:
        """Join this rank's step with those of the others.

        Args:
            squares: [groups] sum_i b_i |g_i|^2 of this rank.
            num_micro: micro-batches of this rank.
            batch: examples of this rank.
            known: whether the weights of its micro-batches are known.

        Returns:
            The same for all ranks together, and whether all weights are known. All ranks have equal
            weight in the average, so their batches must have equal size.
        """
        import torch.distributed as dist

        counts = torch.tensor([num_micro, not known, batch**2, batch], dtype=torch.float64)
        device = next(iter(self._measured)).device
        joined = torch.cat([squares, counts]).to(device)
        dist.all_reduce(joined, group=self._group)
        joined = joined.cpu()
        num, unknown, squared, batch = joined[-4:].tolist()
        alike = dist.get_world_size(self._group) * squared <= batch**2 * (1 + 1e-9)
        return joined[:-4], round(num), batch, alike and not unknown
