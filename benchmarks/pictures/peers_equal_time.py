"""denoising-diffusion-pytorch and diffusers' UNet2DModel against noisewise in the same time.

All train on the 60,000 pictures of Fashion-MNIST for the same seconds with the same threads, and
are judged on the same number of pictures. Each peer runs in its own environment, with an EMA fitted
to the budget and its own DDIM sampler (see peers/), at the best of three learning rates. The judge
itself picks that rate with the first seed, which favours the peer. noisewise derives its learning
rate. The file of each adapter says what it keeps of the peer's README and what it reduces for two
cores.

    python -m benchmarks.pictures.peers_equal_time --data FOLDER --minutes 5,15
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import harness, judge, ours, summaries

NAME = "pictures/peers_equal_time"
PYTHON_VARIABLE = "NOISEWISE_PEERS_PYTHON"
ADAPTERS = harness.ROOT / "benchmarks" / "peers"
OURS = "noisewise"


@dataclass(frozen=True)
class Peer:
    """A project, its adapter and the learning rates to choose from."""

    name: str
    script: str
    module: str
    rates: tuple[float, ...]


PEERS = (
    Peer(
        "denoising-diffusion-pytorch", "ddp.py", "denoising_diffusion_pytorch", (8e-5, 3e-4, 1e-3)
    ),
    Peer("diffusers UNet2DModel", "diffusers_unet.py", "diffusers", (1e-4, 4e-4, 1.6e-3)),
)


@dataclass(frozen=True)
class Match:
    """The conditions of one comparison."""

    bench: judge.Bench
    offline: ours.Offline
    results: harness.Results
    data: Path
    folder: Path
    python: Path
    threads: int
    num_images: int
    steps: int
    batch: int

    def setting(
        self, who: str, layout: str, lr: float | None, minutes: float, seed: int
    ) -> dict[str, object]:
        """Setting of one cell."""
        return {
            "who": who, "layout": layout, "lr": lr, "minutes": minutes, "seed": seed,
            "judge": self.bench.fingerprint, "num_images": self.num_images,
        }  # fmt: skip


# ---------------------------------------------------------------------------------------- measuring


def judged(match: Match, pixels: np.ndarray) -> harness.Values:
    """Distances of uint8 pictures, the same for all projects."""
    images = ours.to_images(pixels)
    return {
        "distance": match.bench.distance(images),
        "severe": match.bench.severe(images),
        "offline": match.offline.distance(images),
        "entropy": match.bench.entropy(images),
    }


def run_ours(match: Match, minutes: float, seed: int) -> harness.Values:
    """Train with noisewise and draw with the sampler that it chose."""
    folder = match.folder / f"ours-{minutes:g}min-seed{seed}"
    values = ours.train(match.data, folder, 60 * minutes, seed, match.threads)
    teacher = ours.teacher_of(folder)
    drawn = ours.draw(teacher.sample, match.num_images, seed + 1000)
    own = {"calls": teacher.sampler.calls, "ms_per_image": drawn.ms_per_image}
    return values | own | judged(match, ours.to_pixels(drawn.images))


def call_peer(
    python: Path, peer: Peer, options: dict[str, object]
) -> tuple[harness.Values, np.ndarray]:
    """Train a peer in its own environment; return its report and its pictures, uint8 NHWC.

    Raises:
        harness.UsageError: if its program fails, with its last line.
    """
    command = [str(python), str(ADAPTERS / peer.script)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options["threads"])
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise harness.UsageError(
            f"{peer.name} failed with exit code {done.returncode}: {lines[-1]}"
        )
    with np.load(str(options["out"])) as stored:
        return json.loads(done.stdout.strip().splitlines()[-1]), stored["images"]


def run_peer(
    match: Match, peer: Peer, layout: str, lr: float, minutes: float, seed: int
) -> harness.Values:
    """Train a peer and judge the pictures that it wrote."""
    out = match.folder / f"{Path(peer.script).stem}-{layout}-{lr:g}-{minutes:g}min-seed{seed}.npz"
    options: dict[str, object] = {
        "data": match.data, "out": out, "seconds": 60 * minutes, "lr": lr, "layout": layout,
        "seed": seed, "batch": match.batch, "num-images": match.num_images, "steps": match.steps,
        "threads": match.threads,
    }  # fmt: skip
    report, images = call_peer(match.python, peer, options)
    return report | judged(match, images)


def best_rate(match: Match, peer: Peer, layout: str, minutes: float, seed: int) -> float:
    """The learning rate with the smallest distance for the first seed."""

    def distance(lr: float) -> float:
        cell = match.results.cell(
            match.setting(peer.name, layout, lr, minutes, seed),
            lambda: run_peer(match, peer, layout, lr, minutes, seed),
        )
        found = cell.number("distance")
        return float("inf") if found is None else found

    return min(peer.rates, key=distance)


def measure(
    match: Match, layouts: list[str], minutes: float, seeds: list[int], rates_from: float | None
) -> None:
    """All cells of one time; `rates_from`: take the peers' best rates from that many minutes."""
    for seed in seeds:
        match.results.cell(
            match.setting(OURS, "derived", None, minutes, seed),
            lambda s=seed: run_ours(match, minutes, s),
        )
    for peer in PEERS:
        for layout in layouts:
            lr = best_rate(match, peer, layout, rates_from or minutes, seeds[0])
            for seed in seeds if rates_from else seeds[1:]:
                match.results.cell(
                    match.setting(peer.name, layout, lr, minutes, seed),
                    lambda p=peer, y=layout, r=lr, s=seed: run_peer(match, p, y, r, minutes, s),
                )


# ------------------------------------------------------------------------------------------- tables


def groups(match: Match) -> dict[tuple[float, str, str, float | None], list[harness.Cell]]:
    """Finished cells by minutes, project, layout and learning rate."""
    own = {"judge": match.bench.fingerprint, "num_images": match.num_images}
    found: dict[tuple[float, str, str, float | None], list[harness.Cell]] = {}
    for cell in match.results.cells(own):
        rate = cell.setting["lr"]
        lr = float(rate) if isinstance(rate, (int, float)) else None
        key = (cell.asked("minutes"), str(cell.setting["who"]), str(cell.setting["layout"]), lr)
        found.setdefault(key, []).append(cell)
    return found


def values_of(cells: list[harness.Cell], name: str) -> list[list[float]]:
    """One value per run."""
    return [[value] for cell in cells if (value := cell.number(name)) is not None]


def comparison(match: Match) -> str:
    """Table of all projects at all times, with the ratios to ours."""
    rows = []
    found = groups(match)
    for key in sorted(found, key=lambda k: (k[0], k[1] != OURS, k[1], k[2], k[3] or 0.0)):
        minutes, who, layout, lr = key
        cells = found[key]
        base = found.get((minutes, OURS, "derived", None), [])
        near, speed = values_of(cells, "distance"), values_of(cells, "images_per_second")
        same = who == OURS
        rows.append(
            [
                f"{minutes:g}", who, layout, "derived" if lr is None else f"{lr:g}",
                harness.millions(cells[0].number("parameters")), summaries.summarise(speed),
                None if same else summaries.ratio(values_of(base, "images_per_second"), speed),
                int(cells[0].number("calls") or 0),
                summaries.summarise(values_of(cells, "ms_per_image")), summaries.summarise(near),
                None if same else summaries.ratio(near, values_of(base, "distance")),
                summaries.summarise(values_of(cells, "severe")),
                summaries.summarise(values_of(cells, "offline")),
                summaries.summarise(values_of(cells, "cores_used")), len(cells),
            ]
        )  # fmt: skip
    columns = [
        "minutes", "project", "layout", "lr", "M parameters", "pictures a second, training",
        "ours is x as fast", "calls", "ms a picture", "Frechet distance", "x our distance",
        "severe judge", "offline distance", "cores used", "runs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def floor(match: Match) -> str:
    """Distance of the same number of real pictures, for scale."""
    drawn = match.bench.data.train_images[: match.num_images]
    return summaries.figure(match.bench.distance(drawn))


# -------------------------------------------------------------------------------------- the program


def peer_python(arguments: argparse.Namespace) -> Path:
    """The Python of the peers' environment, after a check that it can import them.

    Raises:
        harness.UsageError: if it is missing or lacks a peer.
    """
    default = harness.SCRATCH / "peers-venv" / "bin" / "python"
    python = Path(arguments.peer_python or os.environ.get(PYTHON_VARIABLE) or default)
    advice = "see 'The peers' environment' in benchmarks/README.md"
    python = python.absolute()  # not resolve(): the target of a link is outside its environment
    if not python.is_file():
        raise harness.UsageError(f"{python} is missing: give --peer-python, {advice}.")
    imports = ", ".join(peer.module for peer in PEERS)
    code = f"import without_torchvision as w; w.install(); import {imports}"
    done = subprocess.run(
        [str(python), "-c", code], cwd=ADAPTERS, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise harness.UsageError(f"{python} cannot import the peers ({last}); {advice}.")
    return python


def main() -> None:
    """Measure the missing cells and print the comparison."""
    parser = harness.parser("denoising-diffusion-pytorch and diffusers in the same time.")
    judge.add_options(parser)
    floats, integers = harness.numbers(float), harness.numbers(int)
    parser.add_argument("--minutes", type=floats, default=[5.0, 15.0], help="training times")
    parser.add_argument("--seeds", type=integers, default=[0], help="training seeds")
    parser.add_argument(
        "--rates-from",
        type=float,
        default=None,
        help="take the peers' best learning rates of these minutes instead of trying all rates",
    )
    parser.add_argument("--layouts", default="readme", help="nets of the peers: readme,small")
    parser.add_argument("--num-images", type=int, default=1000, help="pictures per distance")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps of the peers")
    parser.add_argument("--batch", type=int, default=32, help="peers' batch; ours is derived")
    parser.add_argument(
        "--peer-python", default=None, help=f"the peers' Python (or set {PYTHON_VARIABLE})"
    )
    arguments = parser.parse_args()
    layouts = harness.names(arguments.layouts, ("readme", "small"), "layout")
    threads = harness.use_threads(arguments.threads)
    python = Path() if arguments.table_only else peer_python(arguments)
    bench = judge.bench_from(arguments)
    conditions = harness.environment(threads) | bench.conditions()
    quick = arguments.quick
    folder = harness.work_folder(arguments, NAME)
    match = Match(
        bench=bench,
        offline=ours.Offline(bench.data.test_images[: 500 if quick else 10_000]),
        results=harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo),
        data=judge.training_file(bench.data, folder.parent / "data", classes=False),
        folder=folder,
        python=python,
        threads=threads,
        num_images=64 if quick else arguments.num_images,
        steps=5 if quick else arguments.steps,
        batch=arguments.batch,
    )
    if not arguments.table_only:
        for minutes in [0.1] if quick else arguments.minutes:
            seeds = [0] if quick else arguments.seeds
            measure(match, layouts, minutes, seeds, arguments.rates_from)
    harness.publish(
        match.results,
        "Peers at equal wall-clock (Fashion-MNIST, 28 px)",
        [
            f"n = {match.num_images} pictures against the 10,000 test pictures; the same number of "
            f"real pictures has {floor(match)}. Peers: batch {match.batch}, {match.steps} DDIM "
            "steps; each learning rate is shown, all but the best with the first seed only. Median "
            "[95 % bootstrap interval] over runs.",
            comparison(match),
        ],
    )


if __name__ == "__main__":
    harness.run_program(main)
