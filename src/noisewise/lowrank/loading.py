"""Loads low-rank values that `LowRank.state` has saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noisewise.lowrank.arrays import Array, numpy_home, numpy_too
from noisewise.lowrank.certificate import Error
from noisewise.lowrank.factors import KEY, MEASURED, LowRank


@numpy_home
@dataclass(frozen=True, eq=False, repr=False)
class Loaded(LowRank):
    """A loaded value, with the columns and rows that were saved."""

    index_columns: Tensor | None = None
    index_rows: Tensor | None = None

    @property
    def columns(self) -> Tensor | None:
        """Which columns of A are in the left factor."""
        return self.index_columns

    @property
    def rows(self) -> Tensor | None:
        """Which rows of A are in the right factor."""
        return self.index_rows


@numpy_too
def from_state(
    tensors: Mapping[str, Array], metadata: Mapping[str, str], name: str = ""
) -> LowRank:
    """Return the value that `LowRank.state` has saved.

    Args:
        tensors: the tensors from `safetensors.torch.load_file`, or the arrays from
            `safetensors.numpy.load_file`.
        metadata: the metadata from `safetensors.safe_open(...).metadata()`.
        name: the name that was given to `state`.

    Raises:
        ValueError: if the tensors and metadata do not describe a low-rank value.
    """
    try:
        described = json.loads(metadata[KEY + name])
        start = f"{name}." if name else ""
        measured = {key: tensors[f"{start}error.{key}"] for key in MEASURED}
        error = Error(
            norm=described["norm"],
            kind=described["kind"],
            failure_probability=float(described["failure_probability"]),
            **measured,
        )
        left, right = (
            torch.view_as_complex(part) if key in described.get("complex", ()) else part
            for key in ("left", "right")
            for part in (tensors[start + key],)
        )
        return Loaded(
            left,
            right,
            error,
            bool(described["converged"]),
            tuple(described["notes"]),
            tensors.get(start + "columns"),
            tensors.get(start + "rows"),
        )
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError) as problem:
        raise ValueError(
            f"These tensors are not a low-rank value (missing or wrong: {problem}): give the "
            "tensors and the metadata that `state` returned."
        ) from problem
