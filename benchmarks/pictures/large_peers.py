"""diffusers' UNet2DModel and denoising-diffusion-pytorch beside noisewise on large pictures.

All train on the same pictures for the same time, with the same threads. A peer gets the best of
three learning rates, by its own held-out loss after a shorter time. Ours are the cells of
`high_resolution`: nothing is set but the size. Pictures of all are measured alike.

    python -m benchmarks.pictures.large_peers --data FOLDER --minutes 30
    python -m benchmarks.pictures.large_peers --pictures FOLDER --size 256 --batch 4 --num-images 32
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pictures import high_resolution, large_measures, large_sets
from benchmarks.pictures.peers_equal_time import PEERS, Peer, call_peer, peer_python
from benchmarks.shared import harness, ours, summaries
from noisewise.quality.judge import Judge

NAME = "pictures/large_peers"
OURS, OURS_IN = "noisewise", high_resolution.NAME
LAYOUTS = {"ddp.py": "readme", "diffusers_unet.py": "large"}
ROWS = (
    ("parameters", "parameters"),
    ("images", "pictures seen"),
    ("images_per_second", "pictures a second in training"),
    ("calls", "calls a picture"),
    *high_resolution.PICTURE_ROWS,
)


@dataclass(frozen=True)
class Task:
    """What all programs of the peers are told."""

    which: large_sets.LargeSet
    folder: Path
    python: Path
    threads: int
    batch: int
    steps: int
    count: int

    def data(self) -> Path:
        """The training pictures, as a file that a peer reads."""
        path = self.folder / f"{self.which.name}_{self.which.size}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, images=ours.to_pixels(self.which.train))
        return path


def run(
    task: Task, peer: Peer, lr: float, minutes: float, seed: int, count: int
) -> tuple[harness.Values, np.ndarray]:
    """Train a peer; return its report and `count` pictures."""
    name = f"{Path(peer.script).stem}_{task.which.name}_{task.which.size}_{lr:g}_{minutes:g}m"
    options: dict[str, object] = {
        "data": task.data(), "out": task.folder / f"{name}_{seed}.npz", "seconds": 60 * minutes,
        "lr": lr, "layout": LAYOUTS[peer.script], "seed": seed, "batch": task.batch,
        "num-images": count, "steps": task.steps, "threads": task.threads,
    }  # fmt: skip
    return call_peer(task.python, peer, options)


def measured(task: Task, peer: Peer, lr: float, minutes: float, seed: int) -> harness.Values:
    """Train a peer, draw, and measure its pictures as ours are."""
    report, pixels = run(task, peer, lr, minutes, seed, task.count)
    drawn = ours.to_images(pixels)
    large_sets.save_grid(
        task.folder / f"{Path(peer.script).stem}_{task.which.size}.png", drawn[:32]
    )
    found = large_measures.pictures(drawn, task.which.real)
    found["floors"] = Judge(task.which.real).measure(drawn).at_standard
    return report | {"images": report["images_seen"]} | found


def best_rate(
    task: Task, peer: Peer, results: harness.Results, at: dict[str, object], minutes: float
) -> float:
    """The learning rate with the smallest held-out loss of the peer's own."""

    def loss(lr: float) -> float:
        cell = results.cell(
            {**at, "who": peer.name, "lr": lr, "minutes": minutes, "seed": 0, "part": "rate"},
            lambda: run(task, peer, lr, minutes, 0, 0)[0],
        )
        found = cell.number("held_out_loss")
        return float("inf") if found is None or found != found else found

    return min(peer.rates, key=loss)


def table(results: harness.Results, match: dict[str, object], minutes: list[float]) -> list[str]:
    """A column for each project; a second table with the rates that were tried."""
    cells = [
        cell
        for cell in results.cells(match)
        if "part" not in cell.setting and cell.setting["minutes"] in minutes
    ]
    cells.sort(key=lambda cell: (cell.asked("minutes"), cell.setting["who"] != OURS))
    names = [f"{cell.setting['who']}, {cell.asked('minutes'):g} min" for cell in cells]
    rows = [[title, *(summaries.figure(cell.number(key)) for cell in cells)] for key, title in ROWS]
    rates = [
        [cell.setting["who"], f"{cell.asked('lr'):g}", f"{cell.asked('minutes'):g}",
         summaries.figure(cell.number("held_out_loss")), summaries.figure(cell.number("images"))]
        for cell in results.cells({**match, "part": "rate"})
    ]  # fmt: skip
    titles = ["project", "lr", "minutes", "its own held-out loss", "pictures seen"]
    return [summaries.table(["", *names], rows), summaries.table(titles, rates)]


def run_ours(
    task: Task, results: harness.Results, at: dict[str, object], minutes: float, work: Path
) -> None:
    """Run our cell of one time, or take its training from `high_resolution`."""
    folder = high_resolution.cell_folder(work, task.which, minutes, 0)
    results.cell(
        {**at, "who": OURS, "minutes": minutes, "seed": 0},
        lambda: high_resolution.compute(
            task.which, folder, minutes, 0, task.threads, count=task.count
        ),
    )


def run_peers(
    task: Task,
    results: harness.Results,
    at: dict[str, object],
    minutes: float,
    rate_minutes: float,
    names: list[str],
) -> None:
    """Run the missing cells of these peers; rate_minutes: for the choice of a learning rate."""
    for peer in PEERS:
        if peer.name not in names:
            continue
        lr = best_rate(task, peer, results, at, min(minutes, rate_minutes))
        results.cell(
            {**at, "who": peer.name, "lr": lr, "minutes": minutes, "seed": 0},
            lambda p=peer, r=lr: measured(task, p, r, minutes, 0),
        )


def options() -> argparse.ArgumentParser:
    """Those of `high_resolution`, and the peers' own."""
    parser = high_resolution.options("Large pictures: peers in the same time.")
    parser.add_argument("--rate-minutes", type=float, default=5.0, help="to choose a rate")
    parser.add_argument("--batch", type=int, default=8, help="of the peers")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps of the peers")
    parser.add_argument("--num-images", type=int, default=64, help="pictures of each")
    everyone = [OURS, *(peer.name for peer in PEERS)]
    parser.add_argument("--who", choices=everyone, nargs="+", default=everyone)
    parser.add_argument("--peer-python", default=None, help="the peers' Python")
    return parser


def main() -> None:
    """Run the missing cells and print the tables."""
    arguments = options().parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    name = arguments.pictures.stem if arguments.pictures else arguments.set
    minutes = [0.1] if arguments.quick else arguments.minutes
    count = 8 if arguments.quick else arguments.num_images
    match: dict[str, object] = {"set": name, "threads": threads}
    if not arguments.table_only:
        which = large_sets.load(name, arguments.data, arguments.pictures, arguments.size)
        at: dict[str, object] = {**match, "size": which.size, "count": count}
        folder = harness.work_folder(arguments, NAME)
        python, steps = peer_python(arguments), 3 if arguments.quick else arguments.steps
        task = Task(which, folder, python, threads, arguments.batch, steps, count)
        for time in minutes:
            if OURS in arguments.who:
                run_ours(task, results, at, time, harness.work_folder(arguments, OURS_IN))
            run_peers(task, results, at, time, arguments.rate_minutes, arguments.who)
    about = (
        f"{name}. Peers: batch {arguments.batch}, DDIM with {arguments.steps} steps, the best of "
        "three learning rates by their own held-out loss. Sliced Wasserstein distances are over "
        "those between real pictures."
    )
    harness.publish(
        results, "Large pictures beside peers", [about, *table(results, match, minutes)]
    )


if __name__ == "__main__":
    harness.run_program(main)
