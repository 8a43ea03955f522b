"""The header of a safetensors file: names and shapes of its tensors, without reading them.

Format: 8 bytes, the length n of the header; n bytes of JSON, {name: {dtype, shape, data_offsets}};
the tensors, one after the other, to the end of the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from noisewise.plain_files import open_plain

_LENGTH = 8  # bytes
_MOST_HEADER = 100_000_000  # bytes, as in safetensors itself


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a file, by name.

    Raises:
        ValueError: if it is missing, damaged, or not a file.
        OSError: if the system cannot read it now.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"a": torch.ones(2, 3)}, f"{folder}/a.safetensors")
        ...     tensor_shapes(Path(folder, "a.safetensors"))
        {'a': (2, 3)}
    """
    try:
        with open_plain(path) as file:
            whole = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(_LENGTH), "little")
            if not 2 <= length <= min(whole - _LENGTH, _MOST_HEADER):
                raise _damaged(path)
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise _damaged(path) from None
    try:
        header.pop("__metadata__", None)
        ends = [int(item["data_offsets"][1]) for item in header.values()]
        if max(ends, default=0) != whole - _LENGTH - length:
            raise _damaged(path)
        return {name: _shape(item["shape"]) for name, item in header.items()}
    except (AttributeError, KeyError, TypeError, IndexError, OverflowError):
        raise _damaged(path) from None


def _shape(given: Any) -> tuple[int, ...]:  # noqa: ANN401 (any JSON value)
    if not isinstance(given, list):
        raise TypeError("shape")
    return tuple(int(side) for side in given)


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged (its header is wrong); run the command that made it again, or restore "
        "it from a copy"
    )
