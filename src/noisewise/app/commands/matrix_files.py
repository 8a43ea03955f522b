"""Reads matrices and weights: arrays, tables, sparse matrices, and safetensors in one file or many.

What a pickle holds (.pt, .bin, ...) is not read: opening one can run any program.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import safetensors
import torch
from safetensors import safe_open
from torch import Tensor

from noisewise.app.commands.factor_files import names_of, parts_of
from noisewise.app.commands.mapped_arrays import MappedArray, mapped
from noisewise.lowrank.arrays import tensor_of
from noisewise.lowrank.dtypes import dtype_name

_ARRAYS = (".npy", ".npz", ".csv", ".tsv")
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
_INDEX = ".safetensors.index.json"
_KNOWN = ".npy, .npz, .csv, .tsv or .safetensors"


@dataclass(frozen=True)
class Weight:
    """One matrix, or another tensor of a file.

    Attributes:
        name: in the file; "matrix" if the file holds just one.
        tensor: as it is stored, on the device "meta" if it is larger than memory; None if no
            tensor can hold it.
        matrix: what is factorised: the tensor, or a convolution's kernel as a matrix of its
            outputs; in a file larger than memory, where it is read from; None if it is not a
            matrix, or not wanted.
        left_out: why a wanted matrix is not factorised; "" if it is, or is no matrix at all.
    """

    name: str
    tensor: Tensor | None
    matrix: Tensor | MappedArray | None
    left_out: str = ""

    @property
    def bytes(self) -> int:
        """What it takes as it is stored."""
        if self.tensor is None:
            return 0
        if self.tensor.layout == torch.strided:
            return self.tensor.nbytes
        return self.tensor.values().nbytes + self.tensor.indices().nbytes


@dataclass(frozen=True)
class MatrixFile:
    """What a path holds.

    Attributes:
        path: as it was given.
        files: every file that is read.
        names: of all tensors; empty if it holds just one matrix.
        metadata: of safetensors files.
        memory: GiB that may be used; larger matrices are read in blocks.
    """

    path: str
    files: tuple[Path, ...]
    names: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)
    memory: float | None = None

    @property
    def is_alone(self) -> bool:
        """Whether it holds one matrix without a name."""
        return not self.names

    def weights(self, only: str | None = None) -> Iterator[Weight]:
        """Yield one tensor after the other.

        Args:
            only: pattern of the names that are factorised; the others have no `matrix`.

        Raises:
            ValueError: if a file cannot be read, or no name matches.
        """
        found = False
        with _readable(self.path):
            for weight in self._all():
                if only is not None and not fnmatchcase(weight.name, only):
                    yield Weight(weight.name, weight.tensor, None)
                    continue
                found = found or weight.matrix is not None or bool(weight.left_out)
                yield weight
        if not found:
            named = "" if only is None else f" whose name matches {only!r}"
            raise ValueError(f"{self.path} holds no matrix{named}")

    def _all(self) -> Iterator[Weight]:
        if self.files[0].suffix.lower() == ".safetensors":
            values = names_of(self.metadata)
            factors = {part for name in values for part in parts_of(name)}
            for name, tensor in _tensors(self.files):
                yield _of_checkpoint(name, tensor, name in factors)
            return
        for file in self.files:
            prefix = file.stem if len(self.files) > 1 else ""
            for name, given in _arrays_in(file, self.memory):
                both = f"{prefix}.{name}" if prefix and name else prefix or name
                yield _of_array(both, given, self.is_alone)


def open_matrices(path: str, memory: float | None = None) -> MatrixFile:
    """Look at what a path holds: a file, a checkpoint in many files, or a folder of files.

    Args:
        path: of it.
        memory: GiB that may be used.

    Raises:
        ValueError: if it does not exist, cannot be read, or is of another kind.
    """
    place = Path(path)
    if not place.exists():
        raise ValueError(f"{path} does not exist")
    with _readable(path):
        if place.is_dir():
            files = _in_folder(place)
        elif place.name.lower().endswith(_INDEX):
            files = _of_index(place)
        else:
            files = (place,)
            _check_kind(place)
        if files[0].suffix.lower() == ".safetensors":
            return _checkpoint(path, files)
        names = [
            f"{file.stem}.{name}" if len(files) > 1 and name else name or file.stem
            for file in files
            for name in _array_names(file)
        ]
        is_alone = len(files) == 1 and _array_names(files[0]) == [""]
        known = frozenset() if is_alone else frozenset(names)
        return MatrixFile(path, files, known, memory=memory)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns the errors of readers into one sentence about a path."""
    try:
        yield
    except (OSError, EOFError, BadZipFile, UnicodeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _check_kind(file: Path) -> None:
    suffix = file.suffix.lower()
    if suffix in _PICKLES:
        raise ValueError(
            f"{file} is a pickle, and opening a pickle can run any program in it: if you trust it, "
            "save its tensors with safetensors.torch.save_file, and give that file"
        )
    if suffix not in (*_ARRAYS, ".safetensors"):
        raise ValueError(f"{file}: give a {_KNOWN} file, or a folder of them")
    if not file.is_file():
        raise ValueError(f"{file} is not a file")


def _in_folder(folder: Path) -> tuple[Path, ...]:
    """The checkpoint of a folder: by its index, else all of its safetensors, else its arrays."""
    inside = sorted(file for file in folder.iterdir() if file.is_file())
    indices = [file for file in inside if file.name.lower().endswith(_INDEX)]
    if len(indices) == 1:
        return _of_index(indices[0])
    for suffixes in ((".safetensors",), _ARRAYS):
        found = tuple(file for file in inside if file.suffix.lower() in suffixes)
        if found:
            return found
    for file in inside:
        if file.suffix.lower() in _PICKLES:
            _check_kind(file)
    raise ValueError(f"{folder} holds no {_KNOWN} file")


def _of_index(index: Path) -> tuple[Path, ...]:
    """The files that an index of a checkpoint names, all in its own folder."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of a checkpoint: {error}") from error
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} names {name!r}, which is no .safetensors file beside it")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index} names {name}, which is missing")
    if not names:
        raise ValueError(f"{index} names no file")
    return tuple(index.parent / name for name in names)


def _checkpoint(path: str, files: tuple[Path, ...]) -> MatrixFile:
    names: set[str] = set()
    metadata: dict[str, str] = {}
    for file in files:
        with safe_open(str(file), "pt") as stored:
            metadata |= stored.metadata() or {}
            inside = set(stored.keys())
        if twice := sorted(names & inside):
            raise ValueError(f"{path} holds {twice[0]} in two files: give one of them")
        names |= inside
    return MatrixFile(path, files, frozenset(names or {""}), metadata)


def _tensors(files: tuple[Path, ...]) -> Iterator[tuple[str, Tensor]]:
    """All tensors by name, one in memory at a time."""
    where = {}
    for file in files:
        with safe_open(str(file), "pt") as stored:
            where |= dict.fromkeys(stored.keys(), file)
    for name in sorted(where):
        with safe_open(str(where[name]), "pt") as stored:
            yield name, stored.get_tensor(name)


def _of_checkpoint(name: str, tensor: Tensor, is_factor: bool) -> Weight:
    """Kernels [out, in, ...] become matrices [out, in * ...]."""
    if tensor.dim() < 2:
        return Weight(name, tensor, None)
    if is_factor:
        return Weight(name, tensor, None, "is a factor already")
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return Weight(name, tensor, None, f"holds {dtype_name(tensor.dtype)}, no weights")
    return Weight(name, tensor, tensor.flatten(1))


# -------------------------------------------------------------------------- arrays and tables
def _array_names(file: Path) -> list[str]:
    """The names in a file of arrays; [""] if it holds one matrix."""
    if file.suffix.lower() != ".npz":
        return [""]
    try:
        with np.load(file) as stored:
            return [""] if _is_sparse(stored.files) else list(stored.files)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {_in_words(error)}") from error


def _in_words(error: ValueError) -> str:
    """What NumPy says, or in plain words that the file ends too early or holds a pickle."""
    if "mmap length" in str(error):
        return "it ends before its last entry"
    if "allow_pickle" not in str(error):
        return str(error)
    return "it holds Python objects, which only a pickle can; save an array of numbers"


def _arrays_in(
    file: Path, memory: float | None
) -> Iterator[tuple[str, np.ndarray | Tensor | MappedArray]]:
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield "", _of_table(file)
        return
    try:
        if suffix == ".npy":
            yield "", mapped(file, memory) or np.load(file)
            return
        with np.load(file) as stored:
            if _is_sparse(stored.files):
                yield "", _of_sparse({name: stored[name] for name in stored.files})
                return
            for name in stored.files:
                yield name, stored[name]
    except ValueError as error:  # objects, or not an array
        raise ValueError(f"{file} cannot be read: {_in_words(error)}") from error


def _of_array(name: str, given: np.ndarray | Tensor | MappedArray, is_alone: bool) -> Weight:
    """An array of more than two dimensions is a batch."""
    name = name or "matrix"
    if isinstance(given, MappedArray):
        return Weight(name, given.like, given)
    if isinstance(given, Tensor):
        return Weight(name, given, given)
    try:
        tensor = tensor_of(given)
    except ValueError as error:
        if is_alone:
            raise ValueError(f"{name}: {error}") from error
        return Weight(name, None, None, f"holds {given.dtype}")
    return Weight(name, tensor.contiguous(), tensor if tensor.dim() >= 2 else None)


def _is_sparse(names: list[str]) -> bool:
    return {"format", "shape", "data"} <= set(names)


def _of_sparse(arrays: dict[str, np.ndarray]) -> Tensor:
    """What scipy.sparse.save_npz has written."""
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    size = tuple(int(length) for length in arrays["shape"])
    data = tensor_of(arrays["data"])
    try:
        if kind == "coo":
            row, column = (tensor_of(arrays[key]).long() for key in ("row", "col"))
        elif kind in ("csr", "csc"):
            starts, column = (tensor_of(arrays[key]).long() for key in ("indptr", "indices"))
            row = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
            row, column = (row, column) if kind == "csr" else (column, row)
        else:
            raise ValueError(f"it has the sparse format {kind}: save it as csr, by matrix.tocsr()")
        index = torch.stack([row, column])
        return torch.sparse_coo_tensor(index, data, size, check_invariants=True).coalesce()
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"it is damaged: {str(error).splitlines()[0]}") from error


def _of_table(file: Path) -> np.ndarray:
    """Numbers in lines; a first line of names is left out."""
    text = file.read_text(encoding="utf-8-sig")
    first = text.split("\n", 1)[0]
    mark = next((mark for mark in "\t;" if mark in first), ",")
    rows: list[list[float]] = []
    for number, line in enumerate(csv.reader(text.splitlines(), delimiter=mark), 1):
        if not any(cell.strip() for cell in line):
            continue
        try:
            row = [_number(cell, mark) for cell in line]
        except ValueError as error:
            if number == 1:
                continue
            raise ValueError(f"{file}, line {number}: {error}") from error
        if rows and len(row) != len(rows[0]):
            raise ValueError(
                f"{file}, line {number} has {len(row)} values, and the lines before {len(rows[0])}"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} holds no numbers")
    return np.array(rows)


def _number(cell: str, mark: str) -> float:
    text = cell.strip()
    try:
        return float(text.replace(",", ".") if mark != "," else text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
