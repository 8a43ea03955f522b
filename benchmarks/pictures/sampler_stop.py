"""Where the sampler stops: the measured choice of noisewise against fixed last noise levels.

For a trained run of each set, the teacher draws with Heun steps that end at each of several last
noise levels (sigma_min) and denoise once there, and with the level that noisewise chose for that
net by its own measurement. The measures are the judge's floors, the distance in frozen features,
sliced Wasserstein at the finest level and, on Fashion-MNIST, a trained classifier. They also get
real pictures with a little noise: if only the judge reacts to faint speckle, only its column rises.
The program also tries other spacings (rho) of the chosen number of calls.

    python -m benchmarks.pictures.sampler_stop --data FOLDER --minutes 5
    python -m benchmarks.pictures.sampler_stop --data FOLDER --run emoji=runs/mine
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import noisewise
from benchmarks.shared import harness, judge, ours, picture_sets, summaries
from noisewise.quality import sliced_wasserstein

NAME = "pictures/sampler_stop"
STOPS = (0.002, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
LONG_STOPS = (0.002, 0.1, 0.3)  # also tried with many steps
SPREADS = (4.0, 7.0, 10.0)  # rho: a larger one puts more levels at low noise
SPECKLE = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)


@dataclass(frozen=True)
class Subject:
    """A trained run with its measures."""

    name: str
    folder: Path
    real: Tensor
    teacher: ours.Teacher
    offline: ours.Offline
    bench: judge.Bench | None
    num_images: int
    sample_seeds: tuple[int, ...]

    def measures(self, drawn: list[Tensor]) -> harness.Values:
        """The values of all measures for some draws; the judge reads the run's teacher."""
        generator = torch.Generator()
        finest = [
            float(sliced_wasserstein(x, self.real, generator=generator.manual_seed(0))[-1])
            for x in drawn
        ]
        values: harness.Values = {
            "offline": [self.offline.distance(x) for x in drawn],
            "floors": [self.offline.floors(x, self.teacher) for x in drawn],
            "finest": finest,
        }
        if self.bench is not None:
            values["distance"] = [self.bench.distance(x) for x in drawn]
            values["severe"] = [self.bench.severe(x) for x in drawn]
        return values


def open_subject(
    which: picture_sets.PictureSet, arguments: argparse.Namespace, bench: judge.Bench | None,
    folder: Path,
) -> Subject:  # fmt: skip
    """Run and measures; the reference is the test pictures, or all pictures of a small set."""
    quick = arguments.quick
    if bench is not None:
        real = bench.data.test_images
    else:
        run = noisewise.Run.open(folder)
        pictures = run.pictures()
        real = pictures.shown(list(range(len(pictures))))
    real = real[:500] if quick else real
    seeds = (0,) if quick else (0, 1, 2)
    return Subject(
        *(which.name, folder, real, ours.teacher_of(folder), ours.Offline(real), bench),
        *(arguments.num_images, seeds),
    )


def measure_stop(
    subject: Subject,
    teacher: ours.Teacher,
    num_steps: int,
    sigma_min: float,
    rho: float | None = None,
) -> harness.Values:
    """Measure one last noise level or one spacing."""
    teacher = ours.with_sampler(teacher, num_steps, sigma_min, rho)
    drawn = [teacher.sample(subject.num_images, seed) for seed in subject.sample_seeds]
    own = {"calls": teacher.sampler.calls, "num_steps": num_steps, "sigma_min": sigma_min}
    return own | subject.measures(drawn)


def measure_speckle(subject: Subject, amount: float) -> harness.Values:
    """Measure real pictures with white noise added."""
    drawn = []
    for seed in subject.sample_seeds:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(subject.real), generator=generator)
        x = subject.real[order[: subject.num_images]]
        drawn.append((x + amount * torch.randn(x.shape, generator=generator)).clamp(-1, 1))
    return subject.measures(drawn)


def settings(own: dict[str, object], num_images: int, quick: bool) -> list[dict[str, object]]:
    """All cells of a run: chosen stop, fixed stops at two lengths, real pictures with noise."""
    many = "5" if quick else "18"
    stops, long_stops = ((0.002, 0.3),) * 2 if quick else (STOPS, LONG_STOPS)
    pairs = [*(("as chosen", s) for s in stops), *((many, s) for s in long_stops)]
    amounts = (0.0, 0.1) if quick else SPECKLE
    found: list[dict[str, object]] = [
        {"stage": "chosen"},
        *({"stage": "fixed", "steps": n, "sigma_min": s} for n, s in pairs),
        *({"stage": "spread", "rho": rho} for rho in ((4.0,) if quick else SPREADS)),
        *({"stage": "speckle", "amount": amount} for amount in amounts),
    ]
    return [{**own, "num_images": num_images, **setting} for setting in found]


def measure(subject: Subject, setting: dict[str, object]) -> harness.Values:
    """Measure one cell."""
    if setting["stage"] == "speckle":
        amount = setting["amount"]
        assert isinstance(amount, float)
        return measure_speckle(subject, amount)
    teacher = subject.teacher
    chosen = teacher.sampler
    if setting["stage"] == "chosen":
        drawn = [teacher.sample(subject.num_images, seed) for seed in subject.sample_seeds]
        own = {"calls": teacher.network_calls(), "num_steps": chosen.num_steps}
        return (
            own | {"sigma_min": chosen.sigma_min, "reason": chosen.reason} | subject.measures(drawn)
        )
    if setting["stage"] == "spread":
        rho = setting["rho"]
        assert isinstance(rho, float)
        return measure_stop(subject, teacher, chosen.num_steps, chosen.sigma_min, rho)
    steps, stop = str(setting["steps"]), setting["sigma_min"]
    assert isinstance(stop, float)
    num_steps = chosen.num_steps if steps == "as chosen" else int(steps)
    return measure_stop(subject, teacher, num_steps, stop)


# ------------------------------------------------------------------------------------------- tables


def stops_table(results: harness.Results, match: harness.Setting) -> str:
    """Table of all last noise levels of one set, with ratios to the chosen one."""
    chosen = results.cells({**match, "stage": "chosen"})
    groups: dict[tuple[str, float], list[harness.Cell]] = {}
    for cell in results.cells({**match, "stage": "fixed"}):
        key = (str(cell.setting["steps"]), cell.asked("sigma_min"))
        groups.setdefault(key, []).append(cell)
    rows = [row_of("chosen", chosen, chosen)] if chosen else []
    rows += [row_of("fixed", groups[key], chosen) for key in sorted(groups, reverse=True)]
    columns = [
        "which", "sigma_min", "steps", "calls", "floors", "x the chosen one's",
        "Frechet distance", "offline distance", "finest Wasserstein", "runs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def spreads_table(results: harness.Results, match: harness.Setting) -> str:
    """Table of other spacings of the chosen calls and last level, with ratios to rho 7."""
    cells = results.cells({**match, "stage": "spread"})
    usual = [cell for cell in cells if cell.asked("rho") == 7]
    rows = []
    for rho in sorted({cell.asked("rho") for cell in cells}):
        of = [cell for cell in cells if cell.asked("rho") == rho]
        floors = [cell.numbers("floors") for cell in of]
        rows.append(
            [
                f"{rho:g}", shown(of, "calls"), summaries.summarise(floors),
                summaries.ratio(floors, [cell.numbers("floors") for cell in usual]),
                summaries.summarise([cell.numbers("distance") for cell in of]),
                summaries.summarise([cell.numbers("offline") for cell in of]),
                summaries.summarise([cell.numbers("finest") for cell in of]),
            ]
        )  # fmt: skip
    columns = [
        "rho", "calls", "floors", "x that of 7", "Frechet distance", "offline distance",
        "finest Wasserstein",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def row_of(which: str, cells: list[harness.Cell], chosen: list[harness.Cell]) -> list[object]:
    """One row of a set's table."""

    def runs(of: list[harness.Cell], value: str) -> list[list[float]]:
        return [cell.numbers(value) for cell in of]

    floors = runs(cells, "floors")
    return [
        which, shown(cells, "sigma_min"), shown(cells, "num_steps"), shown(cells, "calls"),
        summaries.summarise(floors),
        None if which == "chosen" else summaries.ratio(floors, runs(chosen, "floors")),
        summaries.summarise(runs(cells, "distance")), summaries.summarise(runs(cells, "offline")),
        summaries.summarise(runs(cells, "finest")), len(cells),
    ]  # fmt: skip


def shown(cells: list[harness.Cell], value: str) -> str:
    """One number, or the range over runs."""
    numbers = sorted({number for cell in cells if (number := cell.number(value)) is not None})
    return "-".join(f"{v:.3g}" for v in sorted({numbers[0], numbers[-1]})) if numbers else "-"


def reasons(results: harness.Results, match: harness.Setting) -> str:
    """Noisewise's reasons for its choice for one set."""
    cells = results.cells({**match, "stage": "chosen"})
    return "\n".join(f"Seed {cell.setting['seed']}: {cell.values.get('reason')}." for cell in cells)


def speckle_table(results: harness.Results, matches: list[harness.Setting]) -> str:
    """Table of the effect of a little white noise on real pictures, for each measure."""
    rows = []
    for match in matches:
        # The pictures do not depend on the run, so the cells of one seed are enough.
        for cell in results.cells({**match, "seed": 0, "stage": "speckle"}):
            rows.append(
                [
                    str(cell.setting["set"]), f"{cell.asked('amount'):g}",
                    summaries.summarise([cell.numbers("floors")]),
                    summaries.summarise([cell.numbers("distance")]),
                    summaries.summarise([cell.numbers("offline")]),
                    summaries.summarise([cell.numbers("finest")]),
                ]
            )  # fmt: skip
    columns = [
        "set", "noise on real pictures", "floors", "Frechet distance", "offline distance",
        "finest Wasserstein",
    ]  # fmt: skip
    return summaries.table(columns, rows)


# -------------------------------------------------------------------------------------- the program


def given_runs(texts: list[str]) -> dict[str, Path]:
    """Read SET=FOLDER pairs.

    Raises:
        harness.UsageError: if one is not a pair or has no teacher.
    """
    found = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if name not in picture_sets.SETS or not ours.has_model(Path(folder), "teacher"):
            raise harness.UsageError(
                f"--run {text}: give SET=FOLDER, where FOLDER is a run with a teacher and SET is "
                f"one of {', '.join(picture_sets.SETS)}."
            )
        found[name] = Path(folder)
    return found


def main() -> None:
    """Train and measure what is missing, then print the tables."""
    parser = harness.parser("The measured last noise level against fixed ones.")
    judge.add_options(parser)
    integers = harness.numbers(int)
    parser.add_argument("--sets", default="fashion,emoji,dungeon", help="which sets")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time per set")
    parser.add_argument("--seeds", type=integers, default=[0], help="training seeds")
    parser.add_argument("--num-images", type=int, default=2000, help="pictures per distance")
    parser.add_argument("--run", action="append", default=[], help="SET=FOLDER of a trained run")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.num_images, arguments.seeds = 0.2, 64, [0]
    threads = harness.use_threads(arguments.threads)
    sets, runs = picture_sets.chosen(arguments.sets), given_runs(arguments.run)
    bench = judge.bench_from(arguments) if any(w.name == "fashion" for w in sets) else None
    conditions = harness.environment(threads) | (bench.conditions() if bench else {})
    results = harness.Results(harness.results_file(arguments, NAME), conditions, arguments.redo)
    work = harness.work_folder(arguments, NAME)

    def match_of(name: str) -> dict[str, object]:
        given = runs.get(name)
        run = given.name if given else f"{arguments.minutes:g} minutes"
        judging = bench.fingerprint if bench and name == "fashion" else None
        return {"set": name, "run": run, "judge": judging}

    for which in [] if arguments.table_only else sets:
        for seed in arguments.seeds:
            given = runs.get(which.name)
            own = {**match_of(which.name), "seed": seed}
            judging = bench if which.name == "fashion" else None
            wanted = settings(own, arguments.num_images, arguments.quick)
            if results.complete(wanted):
                harness.note(f"[kept] {which.name}, seed {seed}")
                continue
            folder = given or work / f"{which.name}-{arguments.minutes:g}min-seed{seed}"
            if given is None:
                data = picture_sets.prepare(which, arguments.data, work.parent / "data")
                chain = ours.Chain(data, folder, 60 * arguments.minutes, 1.0, seed, threads)
                ours.run_chain(results, own, chain)
            subject = open_subject(which, arguments, judging, folder)
            for setting in wanted:
                results.cell(setting, lambda u=subject, t=setting: measure(u, t))
    parts = [
        f"n = {arguments.num_images} pictures; reference: the 10,000 test pictures for fashion, "
        "all pictures of the set for the others. Median [95 % bootstrap interval].",
    ]
    matches = [{**match_of(w.name), "num_images": arguments.num_images} for w in sets]
    for which, match in zip(sets, matches, strict=True):
        title = f"{which.title} ({match['run']}):"
        parts += [title, stops_table(results, match), reasons(results, match)]
        parts += ["Other spacings of its calls:", spreads_table(results, match)]
    parts += ["The measures on real pictures with noise:", speckle_table(results, list(matches))]
    harness.publish(results, "Where the sampler stops", parts)


if __name__ == "__main__":
    harness.run_program(main)
