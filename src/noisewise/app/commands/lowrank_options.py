"""The flags of `noisewise lowrank`, which stands alone: it needs no pictures and no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

OptionalInt = Annotated[int | None, arg(metavar="INT")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT")]
File = Annotated[str | None, arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class LowrankOptions:
    """Small factors of a matrix, or of every weight of a checkpoint, and how wrong they are."""

    file: Positional[Annotated[str, arg(metavar="FILE")]]
    """MATRIX.npy or .npz (more than two dimensions: a batch), or CHECKPOINT.safetensors."""
    tol: OptionalFloat = None
    """Relative error wanted, in the Frobenius norm: the smallest rank that meets it."""
    rank: OptionalInt = None
    """Rank wanted; with --tol the highest allowed."""
    method: Literal["svd", "id", "cur"] = "svd"
    """Singular vectors, real columns (id), or real columns and rows (cur)."""
    accurate: bool = False
    """Nearer to the best (svd only), for about twice the time."""
    failure_probability: Annotated[float, arg(metavar="FLOAT")] = 1e-6
    """Chance that a stated bound is too small; 0 computes every error exactly."""
    only: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Weights whose names match, such as "*attn*"."""
    write: File = None
    """Write the factors here, a .safetensors file."""
    plot: File = None
    """Draw the singular values here, an .svg or .png file."""
    seed: Annotated[int, arg(metavar="INT")] = 0
    """Of all random numbers."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done before a file is read."""
        if self.tol is None and self.rank is None:
            raise ValueError("say how small: --tol 0.1 or --rank 50")
        if self.tol is not None and not 0 < self.tol < float("inf"):
            raise ValueError(f"--tol is {self.tol}; give a positive relative error, such as 0.1")
        if self.rank is not None and self.rank < 0:
            raise ValueError(f"--rank is {self.rank}; give 0 or more")
        if not 0 <= self.failure_probability <= 0.1:
            raise ValueError("--failure-probability must lie between 0 and 0.1")
        if self.accurate and self.method != "svd":
            raise ValueError("--accurate is for --method svd; leave it out")
        if self.write is not None and not self.write.endswith(".safetensors"):
            raise ValueError(f"--write {self.write}: factors are written as .safetensors")
        if self.plot is not None and not self.plot.endswith((".svg", ".png")):
            raise ValueError(f"--plot {self.plot}: a plot is an .svg or a .png")


def parse_lowrank(arguments: Sequence[str]) -> LowrankOptions:
    """Read the words after `noisewise lowrank`.

    Raises:
        ValueError: for values that cannot be used.
        SystemExit: from tyro, for --help (0) and for flags that cannot be read (2).
    """
    return tyro.cli(
        LowrankOptions,
        prog="noisewise lowrank",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
