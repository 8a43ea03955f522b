"""Describes this machine: processor, cores, memory, accelerator."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def describe_machine() -> tuple[tuple[str, str], ...]:
    """Processor, cores, memory and accelerator of this machine, as (name, value) pairs.

    Example:
        >>> [name for name, _ in describe_machine()][:2]
        ['processor', 'cores']
    """
    import torch

    rows = [("processor", _processor()), ("cores", f"{_cores()}")]
    memory = _memory()
    if memory is not None:
        rows.append(("memory", f"{memory / 2**30:.1f} GiB"))
    if torch.cuda.is_available():
        rows.append(("accelerator", torch.cuda.get_device_name()))
    rows.append(("torch threads", str(torch.get_num_threads())))
    return tuple(rows)


def operating_system() -> str:
    """Name, release and processor type of the system, without what somebody named it.

    The release of a kernel that somebody built can end in a name of theirs.

    Example:
        >>> operating_system().split()[0] == platform.system()
        True
    """
    release = re.match(r"\d+(\.\d+)*", platform.release())
    parts = (platform.system(), release[0] if release else "", platform.machine())
    return " ".join(part for part in parts if part)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of the device's memory; None if the system does not say.

    Example:
        >>> import torch
        >>> free = free_memory(torch.device("cpu"))
        >>> free is None or free > 0
        True
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass  # not Linux
    return None


def _processor() -> str:
    """The name of the processor if the system has it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: use the platform module
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _memory() -> int | None:
    """Bytes of memory; None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
