"""Matrices from .npy, .npz and .safetensors files, and their factors into .safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from noisewise.lowrank import LowRank
from noisewise.training.files.atomic import write_atomic

SHAPE = "noisewise.shape:"  # and the name: the shape of a weight that was folded into a matrix


@dataclass(frozen=True)
class Weight:
    """A tensor of a file.

    Attributes:
        name: in the file; "matrix" for a .npy.
        tensor: as it is stored.
        matrix: what is factorised: the tensor, or a convolution's kernel as a matrix of its
            outputs; None if it is not a matrix.
    """

    name: str
    tensor: Tensor
    matrix: Tensor | None


def weights(path: str, only: str | None = None) -> Iterator[Weight]:
    """Yield what a file holds, one tensor after the other.

    Args:
        path: .npy, .npz or .safetensors.
        only: pattern of the names that are factorised; the others are yielded without a matrix.

    Raises:
        ValueError: for another kind of file, one that cannot be read, or one without a matrix of
            that name.
    """
    file = Path(path)
    readers = {".npy": _of_npy, ".npz": _of_npz, ".safetensors": _of_safetensors}
    if file.suffix not in readers:
        raise ValueError(f"{path}: give a .npy, .npz or .safetensors file")
    if not file.is_file():
        raise ValueError(f"{path} does not exist")
    found = False
    try:
        for weight in readers[file.suffix](file):
            wanted = only is None or fnmatchcase(weight.name, only)
            found = found or (wanted and weight.matrix is not None)
            yield weight if wanted else Weight(weight.name, weight.tensor, None)
    except (OSError, EOFError, BadZipFile, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not found:
        named = "" if only is None else f" whose name matches {only!r}"
        raise ValueError(f"{path} holds no matrix{named}")


def _of_npy(file: Path) -> Iterator[Weight]:
    try:
        array = np.load(file)
    except ValueError as error:  # objects, or not an array
        raise ValueError(f"{file} cannot be read: {error}") from error
    yield _of_array("matrix", array)


def _of_npz(file: Path) -> Iterator[Weight]:
    try:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    for name, array in arrays.items():
        yield _of_array(name, array)


def _of_array(name: str, array: np.ndarray) -> Weight:
    """An array of more than two dimensions is a batch."""
    if array.dtype.kind not in "fciub":
        raise ValueError(f"{name} holds {array.dtype}, not numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.float64)  # torch computes with unsigned bytes only
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(
            f"{name} holds {array.dtype}; convert it to float64, which is the most precise here"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return Weight(name, tensor, tensor if tensor.dim() >= 2 else None)


def _of_safetensors(file: Path) -> Iterator[Weight]:
    """Kernels [out, in, ...] become matrices [out, in * ...]."""
    with safe_open(str(file), "pt") as stored:
        for name in sorted(stored.keys()):
            tensor = stored.get_tensor(name)
            numeric = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            matrix = tensor.flatten(1) if numeric and tensor.dim() >= 2 else None
            yield Weight(name, tensor, matrix)


class Writer:
    """Gathers factors and the tensors that are kept, and writes one file."""

    def __init__(self, path: str, alone: bool) -> None:
        """`alone`: one value without a name, as `lowrank.from_state` reads it by default."""
        self.path, self.alone = Path(path), alone
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, str] = {}

    def add(self, weight: Weight, factors: LowRank | None) -> None:
        """Keep a weight's factors, or the weight itself."""
        if factors is None:
            self.tensors[weight.name] = weight.tensor.contiguous()
            return
        name = "" if self.alone else weight.name
        tensors, metadata = factors.state(name)
        self.tensors |= tensors
        self.metadata |= metadata
        if weight.tensor.shape != factors.shape:
            self.metadata[SHAPE + name] = json.dumps(list(weight.tensor.shape))

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tensors, metadata = self.tensors, self.metadata
        write_atomic(self.path, lambda place: save_file(tensors, str(place), metadata))


def names_of(metadata: Mapping[str, str]) -> list[str]:
    """The names of the low-rank values in a file's metadata, "" for one without a name."""
    start = "noisewise.lowrank:"
    return [key.removeprefix(start) for key in metadata if key.startswith(start)]
