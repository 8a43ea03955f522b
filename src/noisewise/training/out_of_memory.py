"""Recognises that memory ran out, whatever raised it. It imports no torch: the command line asks.

torch raises its own error on a GPU, and a plain RuntimeError on a CPU; Python and NumPy raise
MemoryError; the system answers ENOMEM where it maps a file, and the loader where it loads one.
"""

from __future__ import annotations

import errno
import re

_TEXTS = (
    "can't allocate memory",  # torch on Linux
    "not enough memory",  # torch on Windows
    "out of memory",  # CUDA, MPS
    "Cannot allocate memory",  # the system, where torch maps a file
    "std::bad_alloc",  # C++
    "can't start new thread",  # no room for its stack
    "could not create a memory object",  # oneDNN
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# Under a limit, oneDNN and Python itself may fail and lose the reason. Python's parser is worse:
# it takes the lack of memory for a mistake in what it reads.
_LOST = (
    *("could not create a primitive", "could not execute a primitive"),
    *("without exception set", "without setting an exception"),
)
_UNFINISHED = re.compile(r"field '\w+' is required for \w+$")
_LOADING = ("failed to map segment", "cannot allocate memory")


class OutOfMemory(MemoryError):
    """Memory ran out; the message says what is kept and what to do, in one sentence."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("out of memory"))
        (True, False)
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
        True
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError | SystemError):
        lost = any(text in str(error) for text in _LOST) and _is_limited()
        return lost or any(text in str(error) for text in _TEXTS)
    if isinstance(error, SyntaxError):  # installed code is sound, and we run nobody else's
        return _is_limited()
    if isinstance(error, ValueError):
        return _UNFINISHED.match(str(error)) is not None and _is_limited()
    if isinstance(error, ImportError):  # a part of torch is loaded only when it is used
        return any(text in str(error).lower() for text in _LOADING)
    return isinstance(error, MemoryError)


def _is_limited() -> bool:
    """Whether the memory of this process has a limit, such as that of `ulimit -v`."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)
