"""`noisewise lowrank`: every matrix of a file, its rank at a tolerance, and what that saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from noisewise.app.command import Command
from noisewise.app.commands.lowrank_rows import Row, row_of, sentence, table
from noisewise.app.options import File, JsonOption
from noisewise.app.terminal.answer import show
from noisewise.training.settings.config import check_seed
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from noisewise.app.commands.factor_files import Writer
    from noisewise.app.commands.matrix_files import MatrixFile, Weight
    from noisewise.app.plots.spectra import Spectrum
    from noisewise.app.terminal.progress import Progress
    from noisewise.lowrank import LowRank, Matrix

_WHOLE_SPECTRUM = 1024  # up to this side a plot shows all singular values


@dataclass(frozen=True, kw_only=True)
class LowrankOptions(JsonOption):
    """Find small factors of a matrix, or of every weight of a checkpoint, and their error."""

    file: Annotated[str, Shown("FILE", positional=True)]
    """A matrix (.npy, .npz, .csv; more than two dimensions: a batch), weights (.safetensors, or
    the index of a checkpoint in many), or a folder of them."""
    tol: Annotated[str | None, Shown("FLOAT")] = None
    """Largest relative error, in the Frobenius norm: 0.05 or 5%. The smallest rank that meets it
    is used."""
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
    memory: Annotated[float | None, Shown("GIB")] = None
    """Memory for numbers, beside the program: 0.5 or 16. A .npy matrix that needs more is read in
    blocks of rows. 1 by default."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done before a file is read."""
        check_seed(self.seed)
        if self.tol is None and self.rank is None:
            raise ValueError("say how small the factors must be: --tol 0.1 or --rank 50")
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise ValueError(f"--tol is {self.tol}; give a positive relative error, such as 0.1")
        if self.rank is not None and self.rank < 0:
            raise ValueError(f"--rank is {self.rank}; give 0 or more")
        if not 0 <= self.failure_probability <= 0.1:
            raise ValueError("--failure-probability must be between 0 and 0.1")
        if self.accurate and self.method != "svd":
            raise ValueError("--accurate is for --method svd; leave it out")
        if self.write is not None and not self.write.endswith(".safetensors"):
            raise ValueError(f"--write {self.write}: name a file that ends in .safetensors")
        if self.memory is not None and not 0 < self.memory < float("inf"):
            raise ValueError(f"--memory is {self.memory}; give a positive number of GiB, such as 2")
        if self.plot is not None and not self.plot.endswith((".svg", ".png")):
            raise ValueError(f"--plot {self.plot}: name a file that ends in .svg or .png")

    @property
    def tolerance(self) -> float | None:
        """`tol` as a number.

        Raises:
            ValueError: if it is none.
        """
        if self.tol is None:
            return None
        text = str(self.tol).strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ValueError(f"--tol takes a number, not {self.tol!r}; write 0.05 or 5%") from None


def _lowrank(options: LowrankOptions, _: Sequence[str]) -> int:
    """Factorise what the file holds and print a table."""
    import torch

    from noisewise.app.commands.factor_files import Writer, check_place
    from noisewise.app.commands.matrix_files import open_matrices
    from noisewise.app.plots.spectra import draw
    from noisewise.app.terminal.progress import Progress

    source = open_matrices(options.file, options.memory)
    writer = None
    if options.write:
        check_place(options.write, source.files)
        writer = Writer(options.write, source.is_alone, source.metadata)
    done = _Done()
    generator = torch.Generator().manual_seed(options.seed)
    with Progress() as progress:
        for weight in source.weights(options.only):
            _work_on(weight, source, options, done, writer, generator, progress)
    if done.first is None:
        name, reason = next(iter(done.left_out.items()))
        raise ValueError(f"{options.file} holds no matrix that can be factorised: {name} {reason}")
    if options.plot:
        draw(done.spectra, options.plot, _title(options))
    if writer is not None:
        writer.write()
    values = _values(options, done.rows, done.left_out)
    is_single = len(done.rows) == 1
    found = sentence(done.first, done.rows[0]) if is_single else table(done.rows)
    show(values, options.json, _lines(options, found, values))
    return 0


@dataclass
class _Done:
    """What is known about the weights so far; `left_out` holds the reason for each name."""

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    spectra: list[Spectrum] = field(default_factory=list)
    first: LowRank | None = None


def _work_on(
    weight: Weight,
    source: MatrixFile,
    options: LowrankOptions,
    done: _Done,
    writer: Writer | None,
    generator: Generator,
    progress: Progress,
) -> None:
    """Factorise one weight, and hand its factors or itself to the writer."""
    from noisewise.app.commands.mapped_arrays import MappedArray

    note, memory = progress.note, None
    if isinstance(weight.matrix, MappedArray):
        factors, reason, memory = _of_blocks(weight, options, source, generator, progress)
    else:
        factors, reason = _factors(weight, weight.matrix, options, source.is_alone, generator)
    if reason:
        done.left_out[weight.name] = reason
        note(f"{weight.name} is left out: it {reason}")
    if factors is not None:
        row = row_of(weight, factors, source, memory)
        note(f"{row.name}: rank {row.rank} of {row.full_rank}")
        done.rows.append(row)
        done.first = done.first or factors
        if options.plot:
            done.spectra.append(_spectrum(weight, factors))
        factors = factors if row.factored else None
    if writer is None:
        return
    if factors is None:
        writer.keep(weight.name, weight.tensor)
    else:
        assert weight.tensor is not None
        writer.add(weight.name, weight.tensor.shape, factors)


def _of_blocks(
    weight: Weight,
    options: LowrankOptions,
    source: MatrixFile,
    generator: Generator,
    progress: Progress,
) -> tuple[LowRank | None, str, int]:
    """The factors of a matrix that is read in blocks of rows, and the memory for them."""
    from noisewise.app.commands.mapped_arrays import GIB, MappedArray, rank_within

    array = weight.matrix
    assert isinstance(array, MappedArray)
    tol = options.tolerance
    rank = options.rank if source.is_alone else min(options.rank or 0, *array.shape)
    rank = None if options.rank is None else rank
    rank, memory = rank_within(array, rank, tol, options.memory, options.accurate)
    progress.note(
        f"{weight.name}: {weight.bytes / GIB:.3g} GiB, read in blocks of rows with at most "
        f"{memory / GIB:.3g} GiB of memory beside the program"
    )

    def seen(number: int, rows: int, of: int) -> None:
        progress.part(f"reading, pass {number}", rows, of, "rows")

    try:
        matrix = array.read(seen)
    except ValueError as error:
        if source.is_alone:
            raise ValueError(f"{options.file}: {error}") from error
        return None, "holds NaN or Inf", memory
    asked = replace(options, rank=rank)
    found, reason = _factors(weight, matrix, asked, source.is_alone, generator)
    if found is not None and not found.converged and rank != options.rank:
        note = f"more than rank {rank} needs a larger --memory"
        found = replace(found, notes=(*found.notes, note))
    return found, reason, memory


def _factors(
    weight: Weight,
    matrix: Tensor | Matrix | None,
    options: LowrankOptions,
    is_alone: bool,
    generator: Generator,
) -> tuple[LowRank | None, str]:
    """The factors of a weight as they are written, or None and why it is left out."""
    import torch

    from noisewise.app.commands.factor_files import dtype_as_written, rounded

    if matrix is None:
        return None, weight.left_out
    if isinstance(matrix, torch.Tensor):
        if matrix.dtype.is_floating_point and matrix.itemsize == 1:
            matrix = matrix.to(torch.float32)
        stored = matrix if matrix.layout == torch.strided else matrix.values()
        if not is_alone and not bool(stored.isfinite().all()):
            return None, "holds NaN or Inf"
    found = _factorised(weight.name, matrix, options, options.tolerance, is_alone, generator)
    dtype = None if weight.tensor is None else dtype_as_written(weight.tensor.dtype)
    if dtype is None:
        return found, ""
    written = rounded(found, dtype, matrix)
    tol = options.tolerance
    if tol is None or _reaches(written, tol):
        return written, ""
    # Rounding and truncation add up as squares, so leave room for the rounding.
    lost = float((written.error.relative_estimate**2 - found.error.relative_estimate**2).max())
    if 0 < 1.2 * lost < tol**2:
        room = math.sqrt(tol**2 - 1.2 * lost)
        again = _factorised(weight.name, matrix, options, room, is_alone, generator)
        written = rounded(again, dtype, matrix)
    if _reaches(written, tol):
        return written, ""
    note = f"factors are {str(found.dtype).removeprefix('torch.')}, as rounding exceeds {tol:g}"
    return replace(found, notes=(*found.notes, note)), ""


def _reaches(factors: LowRank, tol: float) -> bool:
    return bool((factors.error.relative_upper <= tol).all())


def _factorised(
    name: str,
    matrix: Tensor | Matrix,
    options: LowrankOptions,
    tol: float | None,
    is_alone: bool,
    generator: Generator,
) -> LowRank:
    """One matrix by the method asked for; a complaint names it."""
    from noisewise import lowrank

    rank = options.rank
    if rank is not None and not is_alone:
        rank = min(rank, *matrix.shape[-2:])  # in a file of many matrices: at most this rank
    probability = options.failure_probability
    try:
        match options.method:
            case "svd":
                return lowrank.svd(
                    matrix,
                    rank,
                    tol=tol,
                    generator=generator,
                    failure_probability=probability,
                    accurate=options.accurate,
                )
            case "id":
                return lowrank.interpolative(
                    matrix, rank, tol=tol, generator=generator, failure_probability=probability
                )
            case "cur":
                return lowrank.cur(
                    matrix, rank, tol=tol, generator=generator, failure_probability=probability
                )
    except ValueError as error:
        named = options.file if is_alone else name
        raise ValueError(f"{named}: {error}") from error


def _spectrum(weight: Weight, factors: LowRank) -> Spectrum:
    """All singular values where that is cheap, else those of the factors; a batch's first."""
    import torch

    from noisewise import lowrank
    from noisewise.app.plots.spectra import Spectrum

    matrix = weight.matrix
    a = lowrank.as_matrix(matrix).entries if isinstance(matrix, torch.Tensor) else None
    if a is not None:
        a = a.flatten(0, -3)[0] if a.dim() > 2 and a.numel() else a
    if a is not None and (min(a.shape[-2:]) <= _WHOLE_SPECTRUM or a.numel() == 0):
        s = torch.linalg.svdvals(a)
    else:
        factors = replace(factors, left=factors.left.float(), right=factors.right.float())
        s = factors.compress(factors.rank).factors[1]
    s = s.reshape(-1, s.shape[-1])[0] if s.numel() else s.reshape(-1)
    s = s / s[0] if s.numel() and float(s[0]) > 0 else s
    return Spectrum(weight.name, [float(value) for value in s], factors.rank)


def _values(options: LowrankOptions, rows: list[Row], left_out: dict[str, str]) -> dict[str, Any]:
    sums = {
        f"{what}_{when}": sum(getattr(row, f"{what}_{when}") for row in rows)
        for what in ("values", "bytes")
        for when in ("before", "after")
    }
    return {
        "file": options.file,
        "method": options.method,
        "tol": options.tolerance,
        "rank": options.rank,
        "matrices": [asdict(row) for row in rows],
        "left_out": left_out,
        **sums,
        "converged": all(row.converged for row in rows),
        "written": options.write,
        "plot": options.plot,
    }


def _title(options: LowrankOptions) -> str:
    wish = f"tol {options.tolerance:g}" if options.tol is not None else f"rank {options.rank}"
    return f"{Path(options.file).name}: dots are the ranks at {wish} ({options.method})"


def _lines(options: LowrankOptions, found: list[str], values: dict[str, Any]) -> list[str]:
    lines = [*found]
    if len(values["matrices"]) > 1:
        before, after = values["bytes_before"], values["bytes_after"]
        share = f", {before / after:.2f} times fewer" if before > after > 0 else ""
        lines.append(
            f"in all: {before:,} bytes; {after:,} with factors where they are smaller{share}"
        )
        kinds = {row["kind"] for row in values["matrices"]}
        if "probes" in kinds:
            chance = options.failure_probability
            lines.append(
                f"errors are bounds; each is wrong with a probability of at most {chance:g}"
            )
    kept = " (kept as they are in the written file)" if options.write else ""
    if values["left_out"]:
        lines.append(f"left out{kept}:")
        lines += [f"  {name} {reason}" for name, reason in values["left_out"].items()]
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
