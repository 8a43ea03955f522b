"""What `noisewise lowrank` tells about each matrix: one row of its table, or sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noisewise.plain_text import printable

if TYPE_CHECKING:
    from noisewise.app.commands.matrix_files import MatrixFile, Weight
    from noisewise.lowrank import LowRank


@dataclass
class Row:
    """The result of one matrix.

    Attributes:
        compression: bytes of the matrix / bytes of the factors, both as they are written; None for
            rank 0.
        bytes_after: of what is written: the factors, or the matrix if they are larger.
        factored: whether factors are written.
        memory_bytes: memory that the numbers take at most if the matrix is read in blocks of rows;
            None if it is read whole.
    """

    name: str
    shape: list[int]
    rank: int
    full_rank: int
    relative_error: float
    kind: str
    failure_probability: float
    compression: float | None
    values_before: int
    values_after: int
    bytes_before: int
    bytes_after: int
    factored: bool
    converged: bool
    notes: list[str] = field(default_factory=list)
    memory_bytes: int | None = None


def row_of(weight: Weight, factors: LowRank, source: MatrixFile, memory: int | None) -> Row:
    """The row of a weight; factors are written if they are smaller, fit, and have free names."""
    from noisewise.app.commands.factor_files import parts_of

    assert weight.tensor is not None
    values = factors.num_values * math.prod(factors.shape[:-2])
    size = sum(tensor.nbytes for tensor in factors.state()[0].values())
    notes = list(factors.notes)
    factored = source.is_alone or size < weight.bytes
    if clash := sorted(parts_of(weight.name) & source.names):
        factored = False
        notes.append(f"its factors would take the name of {clash[0]}")
    error = factors.error
    return Row(
        name=weight.name,
        shape=list(weight.tensor.shape),
        rank=factors.rank,
        full_rank=min(factors.shape[-2:]),
        relative_error=error.relative_upper.max().item() if error.upper.numel() else 0.0,
        kind=error.kind,
        failure_probability=error.failure_probability,
        compression=weight.bytes / size if values else None,
        values_before=weight.tensor.numel(),
        values_after=values if factored else weight.tensor.numel(),
        bytes_before=weight.bytes,
        bytes_after=size if factored else weight.bytes,
        factored=factored,
        converged=factors.converged,
        notes=notes,
        memory_bytes=memory,
    )


def sentence(factors: LowRank, row: Row) -> list[str]:
    """What there is to say about a single matrix, and which columns and rows were chosen."""
    lines = str(factors).split("\n")
    for name, index in (("columns", factors.columns), ("rows", factors.rows)):
        if index is not None and index.dim() == 1:
            shown = ", ".join(str(i) for i in index[:12].tolist())
            lines.append(f"{name}: {shown}{', ...' if len(index) > 12 else ''}")
    if row.memory_bytes is not None:
        lines.append(
            f"read in blocks of rows, {row.memory_bytes / 2**30:.3g} GiB of memory at most"
        )
    if row.compression is None:
        return lines
    size = round(row.bytes_before / row.compression)
    compared = f"size: {size:,} bytes of factors for {row.bytes_before:,}"
    if row.compression > 1:
        lines.append(f"{compared}, one in {row.compression:.3g}")
    else:
        lines.append(f"{compared}: the factors are no smaller than the matrix")
    if not row.factored:
        lines.append(_remark(row))
    return lines


def table(rows: list[Row]) -> list[str]:
    """All rows, in columns."""
    shown = [("weight", "shape", "rank", "error", "smaller by", "")]
    for row in rows:
        is_smaller = row.factored and row.compression is not None
        shown.append(
            (
                printable(row.name),
                "x".join(str(n) for n in row.shape),
                f"{row.rank}/{row.full_rank}",
                f"{row.relative_error:.2g}",
                f"{row.compression:.2f}x" if is_smaller else "-",
                printable(_remark(row)),
            )
        )
    widths = [max(len(line[i]) for line in shown) for i in range(len(shown[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]


def _remark(row: Row) -> str:
    remarks = [] if row.converged else ["tolerance not reached"]
    clash = [note for note in row.notes if note.startswith("its factors")]
    remarks += [f"kept as it is: {clash[0]}"] if clash else []
    remarks += [] if row.factored or clash else ["kept as it is"]
    return "; ".join(remarks)
