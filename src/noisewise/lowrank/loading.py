"""Low-rank values read back from a file that `LowRank.state` described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from noisewise.lowrank.certificate import Error
from noisewise.lowrank.factors import KEY, MEASURED, LowRank


@dataclass(frozen=True, eq=False, repr=False)
class Kept(LowRank):
    """A value read back, which knows the columns and rows that it was written with."""

    index_columns: Tensor | None = None
    index_rows: Tensor | None = None

    @property
    def columns(self) -> Tensor | None:
        """Which columns of A the left factor holds."""
        return self.index_columns

    @property
    def rows(self) -> Tensor | None:
        """Which rows of A the right factor holds."""
        return self.index_rows


def from_state(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str = ""
) -> LowRank:
    """Return the value that `state` described.

    Args:
        tensors: as `safetensors.torch.load_file` gives them.
        metadata: as `safetensors.safe_open(...).metadata()` gives it.
        name: that `state` was called with.

    Raises:
        ValueError: where the two do not describe a low-rank value.
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
        return Kept(
            tensors[start + "left"],
            tensors[start + "right"],
            error,
            bool(described["converged"]),
            tuple(described["notes"]),
            tensors.get(start + "columns"),
            tensors.get(start + "rows"),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(
            f"These tensors are no low-rank value ({problem}): they must be what `state` returned."
        ) from problem
