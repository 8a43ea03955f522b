"""`noisewise lowrank`: every matrix of a file, its rank at a tolerance, and what that saves."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from noisewise import lowrank
from noisewise.app.commands.matrix_files import Weight, Writer, weights
from noisewise.app.plots.spectra import Spectrum, draw
from noisewise.app.terminal.progress import Progress
from noisewise.app.terminal.stderr import readable

if TYPE_CHECKING:
    from torch import Tensor

    from noisewise.app.commands.lowrank_options import LowrankOptions

_WHOLE_SPECTRUM = 1024  # up to this side a plot shows all singular values


@dataclass
class Row:
    """What came of one matrix."""

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
    factored: bool
    converged: bool
    notes: list[str] = field(default_factory=list)


def carry_out_lowrank(options: LowrankOptions) -> int:
    """Factorise what the file holds and print a table.

    Args:
        options: the command's flags.

    Returns:
        The exit code.

    Raises:
        ValueError: one sentence about what the user can mend.
    """
    generator = torch.Generator().manual_seed(options.seed)
    is_alone = Path(options.file).suffix == ".npy"
    writer = Writer(options.write, is_alone) if options.write else None
    rows, spectra, first = [], [], None
    with Progress() as progress:
        for weight in weights(options.file, options.only):
            factors = None
            if weight.matrix is not None:
                factors = _factorised(weight, weight.matrix, options, is_alone, generator)
                row = _row(weight, factors, is_alone)
                rows.append(row)
                first = first or factors
                if options.plot:
                    spectra += [_spectrum(weight, weight.matrix, factors)]
                progress.note(f"{row.name}: rank {row.rank} of {row.full_rank}")
                factors = factors if row.factored else None
            if writer is not None:
                writer.add(weight, factors)
    if options.plot:
        draw(spectra, options.plot, _title(options))
    if writer is not None:
        writer.write()
    values = _values(options, rows)
    assert first is not None
    text = _single(first) if len(rows) == 1 else _table(rows)
    answer = json.dumps(values, ensure_ascii=False) if options.json else None
    print(readable(answer or _lines(options, text, values)))
    return 0


def _factorised(
    weight: Weight,
    matrix: Tensor,
    options: LowrankOptions,
    is_alone: bool,
    generator: torch.Generator,
) -> lowrank.LowRank:
    """One matrix by the method asked for; the name goes into a complaint."""
    rank = options.rank
    if rank is not None and not is_alone:
        rank = min(rank, *matrix.shape[-2:])  # of a file of many: at most this rank
    given = {
        "tol": options.tol,
        "generator": generator,
        "failure_probability": options.failure_probability,
    }
    try:
        match options.method:
            case "svd":
                return lowrank.svd(matrix, rank, accurate=options.accurate, **given)
            case "id":
                return lowrank.interpolative(matrix, rank, **given)
            case "cur":
                return lowrank.cur(matrix, rank, **given)
    except ValueError as error:
        name = options.file if is_alone else weight.name
        raise ValueError(f"{name}: {error}") from error


def _row(weight: Weight, factors: lowrank.LowRank, is_alone: bool) -> Row:
    batch = math.prod(factors.shape[:-2])
    before, after = weight.tensor.numel(), factors.num_values * batch
    # Half precisions have float32 factors, twice as large a number.
    half = weight.tensor.dtype in (torch.bfloat16, torch.float16)
    pays = is_alone or after * factors.left.itemsize < before * weight.tensor.itemsize
    error = factors.error
    bound = error.relative_upper.max().item() if error.upper.numel() else 0.0
    return Row(
        name=weight.name,
        shape=list(weight.tensor.shape),
        rank=factors.rank,
        full_rank=min(factors.shape[-2:]),
        relative_error=bound,
        kind=error.kind,
        failure_probability=error.failure_probability,
        compression=before / after if after else None,
        values_before=before,
        values_after=after if pays else before,
        factored=pays,
        converged=factors.converged,
        notes=[*factors.notes, *(["factors are float32"] if half and pays else [])],
    )


def _spectrum(weight: Weight, matrix: Tensor, factors: lowrank.LowRank) -> Spectrum:
    """All singular values where that is cheap, else those of the factors; a batch's first."""
    a = lowrank.as_matrix(matrix).entries
    assert a is not None
    a = a.flatten(0, -3)[0] if a.dim() > 2 and a.numel() else a
    if min(a.shape[-2:]) <= _WHOLE_SPECTRUM or a.numel() == 0:
        s = torch.linalg.svdvals(a)
    else:
        s = factors.compress(factors.rank).factors[1]
    s = s.reshape(-1, s.shape[-1])[0] if s.numel() else s.reshape(-1)
    s = s / s[0] if s.numel() and float(s[0]) > 0 else s
    return Spectrum(weight.name, [float(value) for value in s], factors.rank)


def _values(options: LowrankOptions, rows: list[Row]) -> dict[str, Any]:
    before, after = (
        sum(getattr(r, f"values_{when}") for r in rows) for when in ("before", "after")
    )
    return {
        "file": options.file,
        "method": options.method,
        "tol": options.tol,
        "rank": options.rank,
        "matrices": [asdict(row) for row in rows],
        "values_before": before,
        "values_after": after,
        "converged": all(row.converged for row in rows),
        "written": options.write,
        "plot": options.plot,
    }


def _title(options: LowrankOptions) -> str:
    wish = f"tol {options.tol:g}" if options.tol is not None else f"rank {options.rank}"
    return f"{Path(options.file).name}: dots are the ranks at {wish} ({options.method})"


def _single(factors: lowrank.LowRank) -> str:
    """The value's own sentence, and what was chosen."""
    lines = [str(factors)]
    for name, index in (("columns", factors.columns), ("rows", factors.rows)):
        if index is not None and index.dim() == 1:
            shown = ", ".join(str(i) for i in index[:12].tolist())
            lines.append(f"{name}: {shown}{', ...' if len(index) > 12 else ''}")
    if math.isfinite(factors.compression):
        lines.append(f"numbers kept: one in {factors.compression:.3g}")
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    head = ("weight", "shape", "rank", "error", "smaller by", "")
    shown = [head]
    for row in rows:
        saves = "-" if row.compression is None else f"{row.compression:.2f}x"
        remark = "" if row.factored else "stays as it is"
        remark = remark if row.converged else "tolerance not reached"
        shown.append(
            (
                row.name,
                "x".join(str(n) for n in row.shape),
                f"{row.rank}/{row.full_rank}",
                f"{row.relative_error:.2g}",
                saves,
                remark,
            )
        )
    widths = [max(len(line[i]) for line in shown) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    )


def _lines(options: LowrankOptions, text: str, values: dict[str, Any]) -> str:
    lines = [text]
    if len(values["matrices"]) > 1:
        before, after = values["values_before"], values["values_after"]
        share = f", {before / after:.2f} times fewer" if after else ""
        lines.append(f"in all: {before:,} numbers, {after:,} as factors where it pays{share}")
        kinds = {row["kind"] for row in values["matrices"]}
        if "probes" in kinds:
            chance = options.failure_probability
            lines.append(f"errors are bounds; each fails with a probability of at most {chance:g}")
    for name in ("written", "plot"):
        if values[name]:
            lines.append(f"{name}: {values[name]}")
    return "\n".join(lines)
