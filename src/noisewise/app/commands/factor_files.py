"""Writes factors, and the tensors that are kept, into one .safetensors file; loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from noisewise.lowrank import LowRank, Matrix, certify
from noisewise.lowrank.dtypes import dtype_name
from noisewise.lowrank.factors import KEY, MEASURED
from noisewise.training.files.atomic import write_atomic

SHAPE = "noisewise.shape:"  # and the name: the shape of a weight that was folded into a matrix
_HALVES = (torch.float16, torch.bfloat16)


def names_of(metadata: Mapping[str, str]) -> list[str]:
    """The names of the low-rank values in a file's metadata, "" for one without a name."""
    return [key.removeprefix(KEY) for key in metadata if key.startswith(KEY)]


def parts_of(name: str) -> set[str]:
    """The names that the tensors of a low-rank value may have in a file."""
    start = f"{name}." if name else ""
    parts = ("left", "right", "columns", "rows", *(f"error.{key}" for key in MEASURED))
    return {start + part for part in parts}


def check_place(place: str, files: Iterable[Path]) -> None:
    """Check that nothing that is read would be written over, however it is spelled.

    Raises:
        ValueError: if the place is one of the files, also by a link or a hard link.
    """
    for file in files:
        if os.path.exists(place) and os.path.samefile(place, file):
            raise ValueError(
                f"--write {place} is the file that is read, {file}: name a new file, so that the "
                "original is not lost"
            )


def dtype_as_written(dtype: torch.dtype) -> torch.dtype | None:
    """The half precision that the factors of a weight get, or None for that of the computation.

    Eight bits hold two or three digits in base 2, too few for factors: they get 16.
    """
    if dtype in _HALVES:
        return dtype
    return torch.bfloat16 if dtype.is_floating_point and dtype.itemsize == 1 else None


def rounded(value: LowRank, dtype: torch.dtype, matrix: Tensor | Matrix) -> LowRank:
    """The factors in a half precision, with the exact error that they have then.

    Real columns of a weight in this precision stay what they are. If float16 cannot hold the
    factors, powers of two move their size from one to the other.
    """
    left, right = value.left.to(dtype), value.right.to(dtype)
    if not bool(left.isfinite().all() and right.isfinite().all()):
        sizes = value.left.abs().amax().double() / value.right.abs().amax().double()
        step = (sizes.log2() / 2).round().exp2().to(value.left.dtype)
        left, right = (value.left / step).to(dtype), (value.right * step).to(dtype)
    error = certify(matrix, left, right, failure_probability=0)
    note = f"factors are {dtype_name(dtype)}"
    return replace(value, left=left, right=right, error=error, notes=(*value.notes, note))


class Writer:
    """Gathers factors and the tensors that are kept, and writes one file."""

    def __init__(self, path: str, is_alone: bool, metadata: Mapping[str, str]) -> None:
        """`is_alone`: one value without a name, as `lowrank.from_state` reads it by default."""
        self.path, self.is_alone = Path(path), is_alone
        self.tensors: dict[str, Tensor] = {}
        self.metadata = dict(metadata)

    def keep(self, name: str, tensor: Tensor | None) -> None:
        """Keep a tensor as it is.

        Raises:
            ValueError: if the format cannot hold it.
        """
        if tensor is None or tensor.dtype == torch.complex128 or tensor.layout != torch.strided:
            what = "text or objects" if tensor is None else dtype_name(tensor.dtype)
            raise ValueError(
                f"{name} is kept as it is, but holds {what}, which .safetensors does not: leave "
                "--write out, or take it out of the file"
            )
        if tensor.is_meta:
            raise ValueError(
                f"{name} is kept as it is, but is larger than the memory allowed: leave --write "
                "out, or give a larger --memory"
            )
        self.tensors[name] = tensor.contiguous()

    def add(self, name: str, shape: torch.Size, factors: LowRank) -> None:
        """Add the factors of a weight with its own shape."""
        name = "" if self.is_alone else name
        tensors, metadata = factors.state(name)
        assert not tensors.keys() & self.tensors.keys()
        self.tensors |= tensors
        self.metadata |= metadata
        if shape != factors.shape:
            self.metadata[SHAPE + name] = json.dumps(list(shape))

    def write(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: for a dtype that the installed safetensors does not know.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tensors, metadata = self.tensors, self.metadata
        try:
            write_atomic(self.path, lambda place: save_file(tensors, str(place), metadata))
        except KeyError as error:
            raise ValueError(
                f"{self.path} cannot be written: this version of safetensors holds no {error}; "
                "install a newer one"
            ) from error
