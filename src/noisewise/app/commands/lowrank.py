"""`noisewise lowrank`: every matrix of a file, its rank at a tolerance, and what that saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from noisewise.app.command import Command
from noisewise.app.options import File, JsonOption
from noisewise.app.terminal.answer import show
from noisewise.plain_text import printable
from noisewise.training.settings.config import check_seed
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from noisewise.app.commands.matrix_files import Weight
    from noisewise.app.plots.spectra import Spectrum
    from noisewise.lowrank import LowRank

_WHOLE_SPECTRUM = 1024  # up to this side a plot shows all singular values


@dataclass(frozen=True, kw_only=True)
class LowrankOptions(JsonOption):
    """Find small factors of a matrix, or of every weight of a checkpoint, and their error."""

    file: Annotated[str, Shown("FILE", positional=True)]
    """A matrix in .npy or .npz (more than two dimensions: a batch), or weights in .safetensors."""
    tol: float | None = None
    """Largest relative error, in the Frobenius norm. The smallest rank that meets it is used."""
    rank: int | None = None
    """Rank to use. With --tol: the highest rank allowed."""
    method: Literal["svd", "id", "cur"] = "svd"
    """svd: singular vectors. id: real columns. cur: real columns and rows."""
    accurate: bool = False
    """Nearer to the best factors, in about twice the time. For --method svd."""
    failure_probability: float = 1e-6
    """Probability that a stated bound is too small. 0 computes every error exactly."""
    only: Annotated[str | None, Shown("PATTERN")] = None
    """Only weights whose names match, such as "*attn*"."""
    write: File = None
    """Write the factors to this file, a .safetensors."""
    plot: File = None
    """Draw the singular values to this file, .svg or .png."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done before a file is read."""
        check_seed(self.seed)
        if self.tol is None and self.rank is None:
            raise ValueError("say how small the factors must be: --tol 0.1 or --rank 50")
        if self.tol is not None and not 0 < self.tol < float("inf"):
            raise ValueError(f"--tol is {self.tol}; give a positive relative error, such as 0.1")
        if self.rank is not None and self.rank < 0:
            raise ValueError(f"--rank is {self.rank}; give 0 or more")
        if not 0 <= self.failure_probability <= 0.1:
            raise ValueError("--failure-probability must be between 0 and 0.1")
        if self.accurate and self.method != "svd":
            raise ValueError("--accurate is for --method svd; leave it out")
        if self.write is not None and not self.write.endswith(".safetensors"):
            raise ValueError(f"--write {self.write}: name a file that ends in .safetensors")
        if self.plot is not None and not self.plot.endswith((".svg", ".png")):
            raise ValueError(f"--plot {self.plot}: name a file that ends in .svg or .png")


@dataclass
class Row:
    """The result of one matrix."""

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


def _lowrank(options: LowrankOptions, _: Sequence[str]) -> int:
    """Factorise what the file holds and print a table."""
    import torch

    from noisewise.app.commands.matrix_files import Writer, weights
    from noisewise.app.plots.spectra import draw
    from noisewise.app.terminal.progress import Progress

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
    found = _single(first) if len(rows) == 1 else _table(rows)
    show(values, options.json, _lines(options, found, values))
    return 0


def _factorised(
    weight: Weight,
    matrix: Tensor,
    options: LowrankOptions,
    is_alone: bool,
    generator: Generator,
) -> LowRank:
    """One matrix by the method asked for; a complaint names it."""
    from noisewise import lowrank

    rank = options.rank
    if rank is not None and not is_alone:
        rank = min(rank, *matrix.shape[-2:])  # in a file of many matrices: at most this rank
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


def _row(weight: Weight, factors: LowRank, is_alone: bool) -> Row:
    import torch

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


def _spectrum(weight: Weight, matrix: Tensor, factors: LowRank) -> Spectrum:
    """All singular values where that is cheap, else those of the factors; a batch's first."""
    import torch

    from noisewise import lowrank
    from noisewise.app.plots.spectra import Spectrum

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


def _single(factors: LowRank) -> list[str]:
    """The sentence about the factors, and which columns and rows were chosen."""
    lines = str(factors).split("\n")
    for name, index in (("columns", factors.columns), ("rows", factors.rows)):
        if index is not None and index.dim() == 1:
            shown = ", ".join(str(i) for i in index[:12].tolist())
            lines.append(f"{name}: {shown}{', ...' if len(index) > 12 else ''}")
    if math.isfinite(factors.compression):
        lines.append(f"numbers kept: one in {factors.compression:.3g}")
    return lines


def _table(rows: list[Row]) -> list[str]:
    head = ("weight", "shape", "rank", "error", "smaller by", "")
    shown = [head]
    for row in rows:
        saves = "-" if row.compression is None else f"{row.compression:.2f}x"
        remark = "" if row.factored else "kept as it is"
        remark = remark if row.converged else "tolerance not reached"
        shown.append(
            (
                printable(row.name),
                "x".join(str(n) for n in row.shape),
                f"{row.rank}/{row.full_rank}",
                f"{row.relative_error:.2g}",
                saves,
                remark,
            )
        )
    widths = [max(len(line[i]) for line in shown) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]


def _lines(options: LowrankOptions, found: list[str], values: dict[str, Any]) -> list[str]:
    lines = [*found]
    if len(values["matrices"]) > 1:
        before, after = values["values_before"], values["values_after"]
        share = f", {before / after:.2f} times fewer" if after else ""
        lines.append(
            f"in all: {before:,} numbers; {after:,} with factors where they are smaller{share}"
        )
        kinds = {row["kind"] for row in values["matrices"]}
        if "probes" in kinds:
            chance = options.failure_probability
            lines.append(
                f"errors are bounds; each is wrong with a probability of at most {chance:g}"
            )
    for name in ("written", "plot"):
        if values[name]:
            lines.append(f"{name}: {values[name]}")
    return lines


COMMAND = Command(
    name="lowrank",
    usage="FILE --tol 0.1",
    summary="small factors of a matrix or of each weight, and their error",
    options=LowrankOptions,
    action=_lowrank,
    examples=(
        "noisewise lowrank matrix.npy --rank 20 --method id",
        'noisewise lowrank model.safetensors --tol 0.1 --only "*mlp*" --write small.safetensors',
    ),
)
