"""Train a base: a small teacher whose weights other trainings start from.

Its pictures are those of `base_sets`, whose licences allow it; sources and licences are written
beside it. The result is a teacher folder with weights of 16 bits, at most 4 MB. To ship it, move
it to src/noisewise/training/bases/; for a test, leave the tested set and its twins out.

    python -m benchmarks.pictures.make_bases --data FOLDER --sizes 32,64 --minutes 60
    python -m benchmarks.pictures.make_bases --data FOLDER --sizes 32 --leave-out people
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import noisewise
from benchmarks.pictures import base_sets
from benchmarks.shared import harness, ours
from noisewise.training.bases import MOST_BYTES, SOURCES
from noisewise.training.files.atomic import save_tensors, write_json, write_sealed
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network
from noisewise.training.settings.config import TrainConfig
from noisewise.training.starts.base import load_base

NAME = "pictures/make_bases"
_QUICK_PICTURES = 96
_WIDTHS = {32: (32, 64, 128), 64: (8, 32, 64, 128)}  # the usual ones, 3.3 MiB at 16 bits
_QUICK_WIDTHS = {32: (16, 32), 64: (8, 16, 32)}


@dataclass(frozen=True)
class Wanted:
    """A base to make.

    Attributes:
        size: side of its pictures.
        left_out: name of the set that it must not see; "": none.
        seconds: of training; 0: a few pictures, to try the program.
        seed: of training.
        threads: of torch.
        quick: only try the program.
    """

    size: int
    left_out: str
    seconds: float
    seed: int
    threads: int
    quick: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        without = f"_without_{self.left_out}" if self.left_out else ""
        return f"icons_{self.size}{without}"


def folder_of(work: Path, minutes: float) -> Path:
    """Where the bases of this length of training are: a shorter one is not taken for a longer."""
    return work / "bases" / f"{minutes:g}min"


def make(wanted: Wanted, data: str | None, out: Path, work: Path) -> Path:
    """Train a base and write its folder; a finished one is kept.

    Raises:
        harness.UsageError: if the data are missing, or the base is too large to ship.
    """
    folder = out / wanted.name
    length = f"{wanted.seconds:g}s"
    if (folder / "config.json").is_file():
        harness.note(f"[kept] {folder}")
        return folder
    left_out = base_sets.TESTS[wanted.left_out] if wanted.left_out else None
    images, sources = base_sets.base_pictures(data, wanted.size, left_out)
    if wanted.quick:
        images = images[:: max(1, len(images) // _QUICK_PICTURES)]
    pictures = base_sets.save(work / "data", wanted.name, images)
    run = _trained(wanted, pictures, work / "runs" / f"{wanted.name}-{length}-seed{wanted.seed}")
    save_base(run.teacher(), folder, sources, len(images), wanted.left_out)
    return folder


def _trained(wanted: Wanted, pictures: Path, folder: Path) -> noisewise.Run:
    config = TrainConfig(
        budget=ours.budget(wanted.seconds),
        seed=wanted.seed,
        threads=wanted.threads,
        device="cpu",
        kinds=0,  # kinds of these pictures have no meaning for others
        widths=(_QUICK_WIDTHS if wanted.quick else _WIDTHS)[wanted.size],
    )
    return noisewise.train(pictures, out=folder, config=config, progress=False)


def save_base(
    teacher: Teacher,
    folder: Path,
    sources: list[base_sets.Source],
    count: int,
    left_out: str = "",
) -> None:
    """Write a teacher as a base: weights of 16 bits, sources and licences beside it.

    Raises:
        harness.UsageError: if it is too large, or a weight does not fit into 16 bits.
    """
    weights = network(teacher.denoiser).state_dict()
    halves = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    if not all(bool(value.isfinite().all()) for value in halves.values()):
        raise harness.UsageError("A weight is too large for 16 bits: train again.")
    size = sum(value.nbytes for value in halves.values())
    if size > MOST_BYTES:
        raise harness.UsageError(f"{size:,} bytes are more than {MOST_BYTES:,}: train less wide.")
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    digest = save_tensors(unfinished / "model.safetensors", halves)
    noted = [source.noted() for source in sources]
    write_json(
        unfinished / SOURCES, {"sources": noted, "num_pictures": count, "left_out": left_out}
    )
    (unfinished / "LICENSES.md").write_text(licenses(folder.name, sources, count), "utf-8")
    write_sealed(unfinished / "config.json", {**teacher.config.to_dict(), "weights": digest})
    load_base(unfinished)  # what cannot be loaded is not put in place
    unfinished.replace(folder)
    harness.note(f"[done] {folder}: {size:,} bytes, {count:,} pictures")


def licenses(name: str, sources: list[base_sets.Source], count: int) -> str:
    """The text beside a base."""
    lines = [
        f"# {name}",
        "",
        f"These weights were trained on {count:,} pictures of:",
        "",
        *(f"* {one.name}, {one.credit}, {one.license}: {one.url}" for one in sources),
        "",
        "Made by benchmarks/pictures/make_bases.py.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the bases that are missing."""
    parser = harness.parser("Train small teachers that other trainings start from.")
    whole = harness.numbers(int)
    parser.add_argument("--sizes", type=whole, default=list(base_sets.SIZES), help="32, 64")
    parser.add_argument("--leave-out", default="", help="a set that the base must not see")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, for each base")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--out", type=Path, default=None, help="folder of the bases")
    arguments = parser.parse_args()
    unknown = [size for size in arguments.sizes if size not in base_sets.SIZES]
    if unknown:
        raise harness.UsageError(f"A base of {unknown[0]} pixels is not made: use 32 or 64.")
    if arguments.leave_out:
        base_sets.tests(arguments.leave_out)
    threads = harness.use_threads(arguments.threads)
    work = harness.work_folder(arguments, NAME)
    seconds = 0.0 if arguments.quick else 60 * arguments.minutes
    out = arguments.out or folder_of(work, seconds / 60)
    for size in arguments.sizes:
        wanted = Wanted(
            size, arguments.leave_out, seconds, arguments.seed, threads, arguments.quick
        )
        print(make(wanted, arguments.data, out, work))


if __name__ == "__main__":
    harness.run_program(main)
