"""Nested training state in one safetensors file (tensors, and the rest as JSON), and sealed JSON.

Each file is written whole or not at all (see `noisewise.whole_files`). No pickles are used. Each
file contains a digest of its content, so a file that was changed later is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from noisewise.plain_files import MOST_TENSORS, NotPlainError, open_plain, read_plain
from noisewise.plain_text import json_text
from noisewise.training.out_of_memory import is_out_of_memory
from noisewise.whole_files import replacing, write_text

_STATE, _DIGEST, _FORMAT = "state", "digest", "format"
_SEAL = "seal"
_TENSOR = "__tensor__"
_BLOCK = 2**20  # bytes read at once


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that `path` is always the old file or the complete new one.

    The new file has the permissions of any new file there (umask): safetensors alone would give
    one that only its owner can read.

    Args:
        path: the file.
        write: called with a temporary path in the same folder; writes the file there.

    Raises:
        OSError: if it cannot be written; the old file then remains.
    """
    with replacing(path) as temporary:
        try:
            write(temporary)
        except safetensors.SafetensorError as error:
            code = _system_code(error)
            if code is None:
                raise
            raise OSError(code, os.strerror(code), str(path)) from error


def file_digest(path: Path) -> str:
    """Digest of a file's content: 16 hexadecimal digits.

    Raises:
        ValueError: if it is not a file.
        OSError: if it cannot be read now.
    """
    with open_plain(path.resolve()) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_json(path: Path, values: Any) -> None:  # noqa: ANN401 (any JSON value)
    """Write a JSON file atomically."""
    write_text(path, json_text(values, indent=2) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 (any JSON value)
    """Read a JSON file.

    Raises:
        ValueError: if it is missing, damaged, or not a file.
        OSError: if the system cannot read it now; the file itself may be good.
    """
    try:
        return json.loads(read_plain(path).decode("utf-8"))
    except NotPlainError:
        raise
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {_first_line(error)}") from error


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object with a last entry "seal", the digest of all others."""
    write_json(path, {**values, _SEAL: _seal_of(values)})


def read_sealed(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read the result of `write_sealed`, without the seal.

    A file without a seal is accepted: it is from an older version, or was edited on purpose.

    Args:
        path: the file.
        known: allowed names; other names mean damage.

    Raises:
        ValueError: if it is missing, damaged or changed.
        OSError: if the system cannot read it now.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: it is not a JSON object; restore it from a copy")
    seal = values.pop(_SEAL, None)
    strange = sorted(set(values) - set(known))
    if strange:
        raise ValueError(
            f"{path} is damaged or from another version of noisewise: the name "
            f"{strange[0][:40]!r} is unknown; restore the file from a copy"
        )
    if seal is not None and seal != _seal_of(values):
        raise ValueError(
            f"{path} has changed since noisewise wrote it; restore it from a copy, or, if you "
            f'edited it on purpose, remove its line "{_SEAL}"'
        )
    return values


def save_state(path: Path, state: Any) -> None:  # noqa: ANN401 (nested state)
    """Save nested dicts, lists and tuples of tensors and JSON values as one safetensors file.

    Raises:
        TypeError: if a value is neither a tensor nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    plain = _split(state, "", tensors)
    tensors = _on_cpu(tensors)
    text = json.dumps({_DIGEST: digest_of(tensors, json.dumps(plain)), _STATE: plain})
    write_atomic(path, lambda temporary: save_file(tensors, temporary, {_STATE: text}))


def load_state(path: Path) -> Any:  # noqa: ANN401 (nested state)
    """Load the result of `save_state` on the CPU; tuples become lists.

    Raises:
        ValueError: if the file is missing or damaged.
        OSError, MemoryError: if it cannot be read now, as for `load_tensors`.
    """
    tensors, metadata = load_tensors(path)
    try:
        plain = json.loads(metadata[_STATE])
        if _STATE in plain or _DIGEST in plain:  # older versions wrote no digest
            given, plain = plain[_DIGEST], plain[_STATE]
            if given != digest_of(tensors, json.dumps(plain)):
                raise ValueError("its content has changed since it was written")
        return _join(plain, tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not a checkpoint: {_first_line(error)}") from error


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Save named tensors as a safetensors file, atomically; return `digest_of` them.

    The same tensors give the same bytes. (safetensors shuffles the metadata in its header, so there
    is only one entry.)
    """
    tensors = _on_cpu(tensors)
    write_atomic(path, lambda temporary: save_file(tensors, temporary, {_FORMAT: "pt"}))
    return digest_of(tensors)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load a safetensors file: its tensors, on the CPU, and its metadata.

    Raises:
        ValueError: if the file is missing or damaged.
        OSError: if the system cannot read it now (no permission, too many open files, a failing
            disk); the file itself may be good.
        MemoryError: if there is too little memory.
    """
    try:
        _read_through(path)
        if not _is_utf8(path):  # torch cannot open such a file
            return _from_bytes(read_plain(path, MOST_TENSORS))
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = dict(file.metadata() or {})
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except NotPlainError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except Exception as error:  # with a damaged header, torch and safetensors raise many types
        code = _system_code(error)
        if is_out_of_memory(error) or code == errno.ENOMEM:
            raise MemoryError(f"there is too little memory to read {path}; free some") from error
        if code is not None and code != errno.EINVAL:  # EINVAL: an empty file
            raise OSError(code, os.strerror(code), str(path)) from error
        raise _damaged(path, _first_line(error)) from error
    return tensors, metadata


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _from_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata from a file's content: a length, a JSON header, the tensors."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load(data), dict(header.get("__metadata__", {}))


def digest_of(tensors: dict[str, Tensor], text: str = "") -> str:
    """Digest of names, types, shapes and bytes of tensors, and of an additional text.

    Example:
        >>> len(digest_of({"a": torch.ones(2)}))
        32
    """
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            content = tensor.reshape(-1).view(torch.uint8).numpy()
            digest.update(content)  # pyrefly: ignore[bad-argument-type] (an array is a buffer)
    return digest.hexdigest()


def _read_through(path: Path) -> None:
    """Read a file once: here a failing disk raises OSError; in a memory map the process dies."""
    with open_plain(path) as file:
        while file.read(_BLOCK):
            pass


def _system_code(error: Exception) -> int | None:
    """The system's error number in a message of torch or safetensors: "(os error 28)", "(12)"."""
    text = str(error)
    codes = [int(number) for number in re.findall(r"\((?:os error )?(\d{1,3})\)", text)]
    return next((code for code in codes if os.strerror(code) in text), None)


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged ({why}); run the command that made it again, or restore it from a copy"
    )


def _seal_of(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy to the CPU: safetensors refuses channels-last tensors, and tensors that share memory."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Replace every tensor by its name, and collect the tensors."""
    if isinstance(value, Tensor):
        assert name not in tensors, name
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {
            key: _split(item, f"{name}.{key}" if name else key, tensors)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; use tensors and JSON values only")


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Replace every name by its tensor."""
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
