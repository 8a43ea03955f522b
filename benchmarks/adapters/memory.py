"""Peak bytes of tensors on the CPU, as torch's own allocator counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes that live at once during a call, beyond those that were there before it."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        call()
    assert seen.profiler is not None
    found = seen.profiler.kineto_results.events()  # pyrefly: ignore (its type is torch's secret)
    events = [event for event in found if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a training keeps from step to step: weights, buffers, the optimiser's state."""
    states = (value for state in optimizer.state.values() for value in state.values())
    return _bytes([*model.parameters(), *model.buffers(), *states])


def _bytes(values: Iterable[object]) -> int:
    """Of the tensors among these, each memory once."""
    memories = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for value in values
        if isinstance(value, Tensor)
    }
    return sum(memories.values())
