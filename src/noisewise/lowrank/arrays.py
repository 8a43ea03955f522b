"""NumPy at home: arrays are accepted where tensors are, and the answer is made of arrays.

The algorithms and the methods of their results see tensors only. `numpy_too` and `numpy_home`
convert what goes in and what comes out: tensors if a tensor was given, arrays if only arrays were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import signature
from itertools import chain, repeat
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = Any  # a tensor inside a function; for its caller a tensor or an array of numpy
P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_OPERATIONS = {
    "__add__",
    "__sub__",
    "__neg__",
    "__mul__",
    "__rmul__",
    "__truediv__",
    "__matmul__",
    "__rmatmul__",
    "__repr__",
    "__str__",
}


def tensor_of(given: object) -> Tensor:
    """Return an object with `__array__` (an array, a table such as those of pandas) as a tensor.

    Raises:
        ValueError: for masked values, text, objects, and numbers of more than 64 bits.

    Example:
        >>> tensor_of(np.array([1, 2], dtype=">i2"))
        tensor([1, 2], dtype=torch.int16)
    """
    if np.ma.is_masked(given):
        raise ValueError(
            "A masked array has no values where it is masked: fill them first, as in "
            "array.filled(0), or leave these rows out."
        )
    array = np.asarray(given)
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"A {type(given).__name__} of dtype {array.dtype} does not hold only numbers: convert "
            "it to float64 first."
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(
            f"An array of dtype {array.dtype} cannot be used: convert it to float64 first."
        ) from error


def array_of(tensor: Tensor) -> Any:  # noqa: ANN401 (an array, or a number of numpy)
    """Return a tensor as an array, and a tensor without dimensions as a number of numpy."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype.is_floating_point and plain.dtype.itemsize < 4 and plain.dtype != torch.float16:
        plain = plain.float()  # numpy has no bfloat16
    return plain.numpy()[()]


def is_numpy(given: object) -> bool:
    """Whether something comes from the world of numpy: arrays, tables, scipy's matrices.

    Example:
        >>> is_numpy(np.ones(2)), is_numpy(torch.ones(2)), is_numpy(2.0)
        (True, False, False)
    """
    if isinstance(given, np.ndarray):
        return given.ndim > 0  # without dimensions it is a number, such as a rank
    if given is None or isinstance(given, Tensor | np.generic | int | float | complex | str | type):
        return False
    if isinstance(given, Mapping):
        return any(is_numpy(value) for value in given.values())
    if is_dataclass(given):
        return _holds_arrays(given)
    if is_dask(given):
        return True
    if hasattr(given, "matmat"):
        return getattr(
            given, "is_numpy", not isinstance(getattr(given, "dtype", None), torch.dtype)
        )
    return hasattr(given, "__array__") or hasattr(given, "tocoo")


def _holds_arrays(value: object) -> bool:
    return any(isinstance(part, np.ndarray | np.generic) for part in vars(value).values())


def as_arrays(value: Any) -> Any:  # noqa: ANN401 (whatever a function returns)
    """The answer of a function with arrays in place of tensors, at every depth."""
    if isinstance(value, Tensor):
        return array_of(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: as_arrays(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, tuple | list):
        return type(value)(as_arrays(part) for part in value)
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    if hasattr(value, "is_numpy"):
        value.is_numpy = True  # a matrix: its factors will be arrays  # pyrefly: ignore
    return value


def as_tensors(value: Any) -> Any:  # noqa: ANN401
    """A value with tensors in place of arrays; matrices of scipy stay what they are."""
    if isinstance(value, np.ndarray):
        return tensor_of(value)
    if isinstance(value, np.generic):
        return torch.as_tensor(value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = vars(value).items()
        return replace(
            value,
            **{k: as_tensors(p) for k, p in parts if is_numpy(p) or isinstance(p, np.generic)},
        )
    if isinstance(value, dict):
        return {key: as_tensors(part) for key, part in value.items()}
    if hasattr(value, "__array__") and not isinstance(value, Tensor) and is_numpy(value):
        return tensor_of(value)
    return value


def is_dask(given: object) -> bool:
    """Whether something is a collection of dask; this imports nothing."""
    if isinstance(given, type) or not hasattr(given, "__dask_graph__"):
        return False
    return given.__dask_graph__() is not None  # None: an array of xarray without dask


def _argument(value: Any, is_matrix: bool) -> Any:  # noqa: ANN401
    """A number of numpy becomes Python's: `rank`, `tol` and factors are numbers.

    A matrix of dask stays what it is, as it may be larger than memory.
    """
    if isinstance(value, np.generic):
        return value.item()
    return value if is_matrix and is_dask(value) else as_tensors(value)


def numpy_too(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of tensors take and return arrays; a tensor among them gives tensors."""
    # What may be any kind of matrix is an `object`, or called matrix; all else are tensors.
    takes = signature(function).parameters
    matrices = {name for name, p in takes.items() if p.annotation == "object" or name == "matrix"}
    last = next(reversed(takes), "")  # *parts take all that follow

    @wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        given = (*args, *named.values())
        to_arrays = any(is_numpy(x) for x in given)
        if not to_arrays and not any(isinstance(x, np.generic) for x in given):
            return function(*args, **named)
        order = chain(takes, repeat(last))
        plain = [_argument(x, name in matrices) for name, x in zip(order, args, strict=False)]
        others = {name: _argument(x, name in matrices) for name, x in named.items()}
        result = function(*plain, **others)  # pyrefly: ignore
        if not to_arrays or any(isinstance(x, Tensor) and x.dim() for x in given):
            return result
        if isinstance(result, Tensor) and result.requires_grad:
            return result  # a gradient flows to the value; an array would lose it
        return as_arrays(result)

    return called


def numpy_home(cls: C) -> C:
    """Let the methods of a dataclass of tensors work when it holds arrays; see `numpy_too`."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_") and name not in _OPERATIONS:
            continue
        if isinstance(member, property) and member.fget is not None:
            setattr(cls, name, property(numpy_too(member.fget)))
        elif callable(member) and not isinstance(member, type):
            setattr(cls, name, numpy_too(member))
    return cls
