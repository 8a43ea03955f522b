"""Training one net in several processes, started by torchrun or `accelerate launch`.

    torchrun --nproc-per-node 2 -m noisewise train FOLDER --out RUN

Each process (a rank) computes its part of every batch; torch.distributed sums the gradients. Every
rank draws the random numbers of the whole batch and keeps its part. So the result does not depend
on the number of ranks, up to the order of additions, and a run started with two ranks can resume
with one. The first rank reads, writes and decides; the others follow.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_LOST = r"connection (closed|reset|refused)|peer|socket|timed out|gloo|nccl|broken pipe"
_TIMEOUT = timedelta(hours=12)  # for slow disks; a dead rank is noticed at once


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    Args:
        rank: number of this process, from 0.
        world: number of processes.
        device: device of tensors that are sent.
        own_clock: seconds that only increase, in this process.

    Example:
        >>> alone = Ranks()
        >>> alone.leads, alone.part(10), alone.any(False), alone.agree({"a": 1})
        (True, slice(0, 10, None), False, {'a': 1})
        >>> Ranks(1, 2).part(5), Ranks(0, 2).part(5)
        (slice(3, 5, None), slice(0, 3, None))
    """

    rank: int = 0
    world: int = 1
    device: torch.device | str = "cpu"
    own_clock: Callable[[], float] = time.monotonic

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Join the processes that a launcher started; without a launcher, stay alone.

        Raises:
            ValueError: if the environment of the launcher is incomplete.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
            raise ValueError(
                f"WORLD_SIZE is {world}, but RANK or MASTER_ADDR is not set; start noisewise with "
                "torchrun or accelerate launch, or unset WORLD_SIZE"
            )
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=_TIMEOUT)
            atexit.register(leave)  # for programs that use noisewise as a library
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads, writes and decides."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """This process's part of n items; the first processes take one more if needed."""
        each, more = divmod(n, self.world)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def scale(self, n: int) -> float:
        """Factor on this process's mean, so that the mean over processes is the batch's mean."""
        part = self.part(n)
        return (part.stop - part.start) * self.world / n

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module, so that its gradients are averaged over all processes."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=False
        )

    def mean(self, values: Tensor, n: int) -> Tensor:
        """Mean over a batch of n, from each process's mean over its part; the same on all."""
        if self.world == 1:
            return values
        total = values.float() * (self.scale(n) / self.world)
        dist.all_reduce(total)
        return total

    def added(self, tensors: list[Tensor]) -> list[Tensor]:
        """Sum of each tensor over all processes; one process alone gets its own tensors back."""
        if self.world == 1:
            return tensors
        joined = torch.cat([t.flatten() for t in tensors])  # one message instead of many
        dist.all_reduce(joined)
        pieces = joined.split([t.numel() for t in tensors])
        return [piece.view_as(t) for piece, t in zip(pieces, tensors, strict=True)]

    def largest(self, value: Tensor) -> Tensor:
        """Elementwise maximum over all processes."""
        if self.world > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process; a signal may reach them at different steps."""
        if self.world == 1:
            return flag
        return bool(self.largest(torch.tensor(float(flag), device=self.device)).item())

    def clock(self) -> float:
        """Seconds that only increase, from the first process, so that all have the same."""
        now = self.own_clock()
        if self.world == 1:
            return now
        sent = torch.tensor(now, dtype=torch.float64, device=self.device)
        dist.broadcast(sent, 0)
        return float(sent.item())

    def agree(self, value: Any) -> Any:  # noqa: ANN401 (any JSON value)
        """Send a JSON value of the first process to all; return it."""
        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.leads else b""
        size = torch.tensor(len(text), device=self.device)
        dist.broadcast(size, 0)
        sent = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.leads:
            sent.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(sent, 0)
        return json.loads(bytes(sent.cpu().tolist()))

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world > 1:
            self.agree(None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn torch's errors about closed connections into one clear error.

        Raises:
            LostRankError: if another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not re.search(_LOST, str(error), re.IGNORECASE):
                raise
            raise LostRankError(
                f"another of the {self.world} processes has ended, so this one ends too; run the "
                "same command again to resume from the last checkpoint, with any number of "
                "processes"
            ) from error


class LostRankError(RuntimeError):
    """Another process that trained with this one has ended."""


def leave() -> None:
    """Leave the group of processes, when this one ends."""
    if dist.is_initialized():
        dist.destroy_process_group()
