"""Peak memory of tensors on the CPU, as counted by torch's allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the largest number of bytes in use at once during a call, above those before it."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        call()
    assert seen.profiler is not None
    found = seen.profiler.kineto_results.events()  # pyrefly: ignore (torch does not give its type)
    events = [event for event in found if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes that a training keeps between steps: weights, buffers, optimiser state."""
    states = (value for state in optimizer.state.values() for value in state.values())
    return _bytes([*model.parameters(), *model.buffers(), *states])


def _bytes(values: Iterable[object]) -> int:
    """Return the bytes of the tensors among the values; shared memory counts once."""
    memories = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for value in values
        if isinstance(value, Tensor)
    }
    return sum(memories.values())
