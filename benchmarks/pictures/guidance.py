"""Guidance and DPM-Solver++(2M) against what a teacher draws without them, in floors.

For each run with classes or kinds, the teacher draws the same pictures (equal noise, equal labels)
in several ways, and the judge measures them: frozen features and the teacher's own, against the
held-out pictures. A difference is paired; its interval is the judge's.

    python -m benchmarks.pictures.guidance runs/mine --num-images 256
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import noisewise
from benchmarks.shared import summaries
from noisewise.quality import Floors
from noisewise.training.models.models import Teacher
from noisewise.training.run.kinds_file import with_kinds
from noisewise.training.run.run import Run
from noisewise.training.stages.real_judge import real_indices, real_judge

HEUN_CALLS, OTHER_CALLS = 9, (9, 7, 5)
WEIGHTS = (1.3, 1.7, 2.2)
MOST = 2000


@dataclass(frozen=True)
class Way:
    """One way to draw, and what the judge says of its pictures."""

    sampler: str
    guidance: float
    calls: int
    floors: Floors


def ways(run: Run, num_images: int) -> Iterator[Way]:
    """Draw in every way; the first is Heun's sampler without guidance."""
    teacher = run.teacher()
    pictures = with_kinds(run.path, run.pictures(), lambda found: found)
    chosen, _ = real_indices(*pictures.split(run.seed), teacher.size, MOST)
    judge = real_judge(pictures, chosen, teacher.denoiser, bool(teacher.classes))

    def drawn(sampler: str, calls: int, guidance: float) -> Way:
        found = teacher.sample(num_images, 0, None, calls, sampler, guidance)
        total = teacher.network_calls(calls, sampler, guidance)
        return Way(sampler, guidance, total, judge.measure(found))

    yield drawn("heun", HEUN_CALLS, 1.0)
    for calls in OTHER_CALLS:
        yield drawn("dpmpp_2m", calls, 1.0)
    for weight in WEIGHTS if can_be_guided(teacher) else ():
        yield drawn("heun", HEUN_CALLS, weight)
        yield drawn("dpmpp_2m", OTHER_CALLS[-1], weight)


def can_be_guided(teacher: Teacher) -> bool:
    """Whether a teacher has classes, and a net that takes shares of them."""
    return teacher.of_all_classes() is not None


def table(found: list[Way]) -> str:
    """A row a way; differences are to the first."""
    first = found[0].floors
    rows = []
    for way in found:
        scale, difference = way.floors.to_standard, way.floors.minus(first)
        apart = f"{scale * difference.low:+.3g} to {scale * difference.high:+.3g}"
        rows.append(
            [
                way.sampler,
                f"{way.guidance:g}",
                str(way.calls),
                f"{way.floors.at_standard:.3g}",
                apart if way is not found[0] else "",
            ]
        )
    return summaries.table(["sampler", "guidance", "calls", "floors", "difference"], rows)


def main() -> None:
    """Measure the runs that were named, and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--num-images", type=int, default=256)
    arguments = parser.parse_args()
    for folder in arguments.runs:
        run = noisewise.Run.open(folder)
        stage = run.stage("teacher")
        print(
            f"\n{folder.name}: {run.data.num_pictures:,} pictures, {stage.images:,} images seen\n"
        )
        print(table(list(ways(run, arguments.num_images))), flush=True)


if __name__ == "__main__":
    main()
