"""Sprites that go straight into a game: exact palette, hard alpha, few pictures, a warm start.

Five sets: 2,382 dungeon tiles, 550 emoji of people and faces, 150 monsters, RGBA emoji with soft
edges, and sprites with hard alpha that `sprite_drawings` draws. Each is trained and distilled
within the given minutes, from nothing and from a base that has not seen the set or its twins
(`make_bases`). Pictures of the teacher and of one call are measured: floors, told apart, pixels on
the set's palette, colours a picture, opacity of 0 or 1, copies of the set and of the base.
denoising-diffusion-pytorch trains on the same pictures for the same time, at the best of three
learning rates by its own held-out loss, and is measured alike. Its floors, and all others, are
those of one judge that knows no teacher.

Finished cells are kept; a stopped program goes on where it was.

    python -m benchmarks.pictures.sprites --data FOLDER --sets drawn,monsters --minutes 5
    python -m benchmarks.pictures.sprites --data FOLDER --rgba PACKAGE --minutes 5,30
    python -m benchmarks.pictures.sprites --data FOLDER --sets tiles --minutes 60 --who ours
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.pictures import base_sets, make_bases, warm_start
from benchmarks.pictures.colour_sets import Sides, percent, sampler_of, sides_of
from benchmarks.pictures.peers_equal_time import PEERS, call_peer, peer_python
from benchmarks.pictures.sprite_measures import Measures, save_grids
from benchmarks.pictures.sprite_sets import SETS, Subject, chosen, load
from benchmarks.shared import harness, ours, summaries

NAME = "pictures/sprites"
STARTS = ("nothing", "base")
STAGES = ("teacher", "one call")
PEER = PEERS[0]
PROJECTS = ("ours", "peer")
REAL = "real pictures"
_QUICK = 64  # pictures of a set, and pictures drawn


@dataclass
class Work:
    """What the cells of one set share; what is slow to make is made when it is needed.

    Attributes:
        subject: the set.
        results: finished cells.
        asked: the program's options.
        threads: of torch.
        folder: of runs, prepared pictures and grids.
    """

    subject: Subject
    results: harness.Results
    asked: argparse.Namespace
    threads: int
    folder: Path
    _base: list[Path] = field(default_factory=list)
    _measures: list[Measures] = field(default_factory=list)

    def base(self) -> Path:
        """The base of this set, trained without it; the one of `warm_start`, if it is there."""
        if not self._base:
            which, quick = self.subject.which, self.asked.quick
            seconds = 0.0 if quick else 60 * self.asked.base_minutes
            wanted = make_bases.Wanted(which.size, which.without, seconds, 0, self.threads, quick)
            place = harness.work_folder(self.asked, warm_start.NAME)
            bases = make_bases.folder_of(place, seconds / 60)
            self._base.append(make_bases.make(wanted, self.asked.data, bases, place))
        return self._base[0]

    def measures(self) -> Measures:
        """The references of this set; with a warm start also the pictures of the base."""
        if not self._measures:
            seen = self._base_images() if "base" in self.asked.starts else None
            self._measures.append(Measures(self.subject, seen))
        return self._measures[0]

    def _base_images(self) -> Tensor:
        which = self.subject.which
        left_out = base_sets.TESTS[which.without] if which.without else None
        images, _ = base_sets.base_pictures(self.asked.data, which.size, left_out)
        step = max(1, len(images) // _QUICK) if self.asked.quick else 1
        return ours.to_images(np.ascontiguousarray(images[::step]))

    @property
    def grids(self) -> Path:
        """Folder of the grids."""
        return self.asked.images or self.folder / "grids"


def run_ours(work: Work, minutes: float, start: str, seed: int) -> None:
    """Train, distil and measure one way of starting."""
    asked = work.asked
    own: dict[str, object] = {
        "set": work.subject.name, "minutes": minutes, "start": start, "seed": seed,
        "share": asked.share,
    }  # fmt: skip
    if start == "base":
        own["base_minutes"] = asked.base_minutes
    wanted = {who: {**own, "stage": who, "num_images": asked.num_images} for who in STAGES}
    if work.results.complete(wanted.values()):
        harness.note(f"[kept] {work.subject.name}, {minutes:g} minutes, {start}, seed {seed}")
        return
    name = f"{work.subject.name}_{minutes:g}min_{start}_seed{seed}"
    folder = work.folder / "runs" / name
    from_base = str(work.base()) if start == "base" else None
    chain = ours.Chain(
        work.subject.path, folder, 60 * minutes, asked.share, seed, work.threads,
        start_from=from_base,
    )  # fmt: skip
    ours.run_chain(work.results, own, chain)
    sides = sides_of(folder)
    for who, setting in wanted.items():
        work.results.cell(setting, lambda w=who: measured(work, folder, sides, w, start))


def measured(work: Work, folder: Path, sides: Sides, who: str, start: str) -> harness.Values:
    """Draw with a run's teacher or generator, measure, and write the grids."""
    sample, calls = sampler_of(folder, who)
    made = ours.draw(sample, work.asked.num_images, 1)
    name = f"{folder.name}_{who.replace(' ', '_')}"
    grid = save_grids(work.grids, name, made.images, sides, work.subject.real)
    found = work.measures().of(made.images, sides, warm=start == "base")
    return found | {"calls": calls, "ms_per_image": made.ms_per_image, "grid": grid}


def run_peer(work: Work, python: Path, minutes: float, seed: int) -> None:
    """Choose the peer's learning rate, train it for the same time, and measure its pictures."""
    asked, subject = work.asked, work.subject
    own: dict[str, object] = {"set": subject.name, "start": "nothing", "stage": PEER.name}
    short = 0.1 if asked.quick else min(minutes, asked.rate_minutes)

    def call(lr: float, length: float, count: int) -> tuple[harness.Values, np.ndarray]:
        out = work.folder / "peer" / f"{subject.name}_{lr:g}_{length:g}min_seed{seed}.npz"
        out.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, object] = {
            "data": subject.peer_path, "out": out, "seconds": 60 * length, "lr": lr,
            "layout": "readme", "seed": seed, "batch": asked.batch, "num-images": count,
            "steps": asked.steps, "threads": work.threads,
        }  # fmt: skip
        return call_peer(python, PEER, options)

    def held_out_loss(lr: float) -> float:
        setting = {**own, "part": "rate", "lr": lr, "minutes": short, "seed": seed}
        cell = work.results.cell(setting, lambda: call(lr, short, 0)[0])
        found = cell.number("held_out_loss")
        return float("inf") if found is None else found

    def measured_peer(lr: float) -> harness.Values:
        report, pixels = call(lr, minutes or short, asked.num_images)
        images = ours.to_images(pixels)
        name = f"{subject.name}_{minutes:g}min_peer_seed{seed}"
        sides = Sides(subject.training, subject.held_out, flips=False)
        grid = save_grids(work.grids, name, images, sides, subject.real)
        return report | work.measures().of(images, sides) | {"grid": grid}

    whole = {**own, "minutes": minutes, "seed": seed, "num_images": asked.num_images}
    found = work.results.find(whole)
    if found is not None:
        harness.note(f"[kept] {work.results.key(whole)}")
        return
    lr = min(PEER.rates[:1] if asked.quick else PEER.rates, key=held_out_loss)
    work.results.cell(whole, lambda: measured_peer(lr) | {"lr": lr})


# ------------------------------------------------------------------------------------------- tables
ROWS = (
    ("on_palette", percent), ("colours", summaries.figure), ("hard_alpha", percent),
    ("floors", summaries.figure), ("told", percent), ("copies", percent), ("near_copies", percent),
    ("near_allowed", percent), ("base_copies", percent), ("base_copies_real", percent),
    ("ms_per_image", summaries.figure),
)  # fmt: skip
TITLES = (
    "on the palette", "colours a picture", "opacity of 0 or 1", "floors", "told apart", "copies",
    "near copies", "near copies among real ones", "copies of the base", "the same of real ones",
    "ms a picture",
)  # fmt: skip


def table(results: harness.Results, name: str, num_images: int) -> str:
    """A row for each way of one set, by minutes; real pictures first."""
    cells = [
        cell
        for cell in results.cells({"set": name, "num_images": num_images})
        if cell.setting["stage"] != REAL
    ]
    order = [*STAGES, PEER.name]
    cells.sort(
        key=lambda c: (c.asked("minutes"), str(c.setting["stage"]) == PEER.name,
                       STARTS.index(str(c.setting["start"])),
                       order.index(str(c.setting["stage"])), c.asked("seed"))
    )  # fmt: skip
    rows: list[list[object]] = []
    for cell in results.cells({"set": name, "stage": REAL}):
        rows.append(["", "", REAL, "", "", *_numbers(cell), ""])
    for cell in cells:
        setting = cell.setting
        rows.append(
            [
                f"{cell.asked('minutes'):g}", setting["start"], setting["stage"],
                _seen(results, cell), cell.values.get("verdict"), *_numbers(cell),
                cell.values.get("grid"),
            ]
        )  # fmt: skip
    head = ("minutes", "start", "drawn by", "pictures seen", "verdict")
    return summaries.table([*head, *TITLES, "grid"], rows)


def _numbers(cell: harness.Cell) -> list[str | None]:
    return [written(cell.number(key)) for key, written in ROWS]


def _seen(results: harness.Results, cell: harness.Cell) -> str | None:
    """Pictures that a training has seen, each repetition counted."""
    if cell.setting["stage"] == PEER.name:
        return summaries.figure(cell.number("images_seen"))
    kept = ("set", "minutes", "start", "seed", "share", "base_minutes")
    own = {key: cell.setting[key] for key in kept if key in cell.setting}
    stage = "train" if cell.setting["stage"] == "teacher" else "distill"
    found = results.cells({**own, "stage": stage})
    return f"{found[0].number('images') or 0:,.0f}" if found else None


# -------------------------------------------------------------------------------------- the program
def options() -> argparse.ArgumentParser:
    """The options of the program."""
    parser = harness.parser("Sprites: palette, alpha, few pictures, warm starts, a peer.")
    floats, integers = harness.numbers(float), harness.numbers(int)
    parser.add_argument("--sets", default="drawn,monsters,people,tiles", help=", ".join(SETS))
    parser.add_argument("--rgba", type=Path, default=None, help="RGBA emoji of the set fluent")
    parser.add_argument("--minutes", type=floats, default=[5.0], help="total minutes of each cell")
    parser.add_argument("--share", type=float, default=0.6, help="the teacher's share of the time")
    parser.add_argument("--starts", default=",".join(STARTS), help="which starts")
    parser.add_argument("--base-minutes", type=float, default=60.0, help="training of each base")
    parser.add_argument("--who", default=",".join(PROJECTS), help="which of ours,peer")
    parser.add_argument("--seeds", type=integers, default=[0], help="training seeds")
    parser.add_argument("--num-images", type=int, default=1000, help="pictures per number")
    parser.add_argument("--rate-minutes", type=float, default=2.0, help="for the peer's rate")
    parser.add_argument("--batch", type=int, default=32, help="the peer's")
    parser.add_argument("--steps", type=int, default=50, help="the peer's DDIM steps")
    parser.add_argument("--peer-python", default=None, help="the peers' Python")
    parser.add_argument("--images", type=Path, default=None, help="folder of the grids")
    return parser


def checked(arguments: argparse.Namespace) -> argparse.Namespace:
    """Read the lists, refuse what cannot be run, and shorten what only tries the program."""
    arguments.sets = chosen(arguments.sets)
    arguments.starts = harness.names(arguments.starts, STARTS, "start")
    arguments.who = harness.names(arguments.who, PROJECTS, "project")
    if not 0 < arguments.share < 1:
        raise harness.UsageError(
            f"--share is {arguments.share}: give the teacher's share of the time, between 0 and 1."
        )
    if arguments.quick:
        arguments.minutes, arguments.seeds, arguments.steps = [0.0], [0], 3
        arguments.num_images, arguments.base_minutes = _QUICK, 0.0
    return arguments


def run_set(name: str, asked: argparse.Namespace, results: harness.Results, threads: int) -> None:
    """Run the missing cells of a set."""
    folder = harness.work_folder(asked, NAME)
    most = _QUICK if asked.quick else 0
    subject = load(name, asked.data, asked.rgba, folder / "data", most)
    work = Work(subject, results, asked, threads, folder)
    results.cell({"set": name, "stage": REAL}, lambda: work.measures().of_real())
    for minutes in asked.minutes:
        for seed in asked.seeds:
            for start in asked.starts if "ours" in asked.who else ():
                run_ours(work, minutes, start, seed)
            if "peer" in asked.who:
                run_peer(work, peer_python(asked), minutes, seed)


def main() -> None:
    """Train, distil and measure the missing cells; print a table for each set."""
    asked = checked(options().parse_args())
    threads = harness.use_threads(asked.threads)
    conditions = harness.environment(threads)
    results = harness.Results(harness.results_file(asked, NAME), conditions, asked.redo)
    if not asked.table_only:
        for name in asked.sets:
            run_set(name, asked, results, threads)
    parts = [
        f"{asked.num_images} pictures for each number. On the palette: share of pixels with a "
        "colour of the set's palette. Colours a picture: the median. Floors against real pictures "
        "of the set, of monsters against those that are not in it. Copies of the base: share of "
        "pictures that copy one of the base's, beside that of held-out pictures. The peer: "
        f"batch {asked.batch}, {asked.steps} DDIM steps, the best of three learning rates."
    ]
    for name in asked.sets:
        parts += [f"### {SETS[name].title}", table(results, name, asked.num_images)]
    parts.append("; ".join(dict.fromkeys(SETS[name].credit for name in asked.sets)) + ".")
    harness.publish(results, "Sprites", parts)


if __name__ == "__main__":
    harness.run_program(main)
