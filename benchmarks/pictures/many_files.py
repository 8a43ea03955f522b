"""200,000 small files: does training stay within 2 GiB of memory, and how soon does it start?

    python -m benchmarks.pictures.many_files [--files 200000] [--side 32] [--out runs/many_files]

Writes the files once (PNG, seeded, all different), trains 64 batches in a separate process, and
prints its largest resident memory and the seconds to its first batch, without and with the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LIMIT_GIB = 2.0
_A_FOLDER = 1000
_MEASURE = """
import json, resource, sys
from noisewise.app.cli import main
code = main(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
open(sys.argv[1], "w").write(json.dumps(peak))
sys.exit(code)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure twice and print; returns 1 if the memory is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000, help="number of pictures")
    parser.add_argument("--side", type=int, default=32, help="pixels per side")
    parser.add_argument("--out", type=Path, default=Path("runs/many_files"), help="folder")
    asked = parser.parse_args(arguments)
    pictures = asked.out / f"pictures-{asked.files}-{asked.side}"
    write(pictures, asked.files, asked.side)
    fresh, cached = asked.out / "fresh", asked.out / "cached"
    for run in (fresh, cached):
        shutil.rmtree(run, ignore_errors=True)
    rows = [measured(pictures, fresh, asked.out)]
    cached.mkdir()
    (fresh / "cache").rename(cached / "cache")
    rows.append(measured(pictures, cached, asked.out))
    print(f"{asked.files:,} PNG files of {asked.side} x {asked.side} pixels, colour")
    print("| | largest resident memory | first batch after | in all |")
    print("|---|---:|---:|---:|")
    for name, row in zip(("no cache yet", "with the cache"), rows, strict=True):
        print(f"| {name} | {row['gib']:.2f} GiB | {row['first']:.1f} s | {row['seconds']:.1f} s |")
    over = max(row["gib"] for row in rows) > LIMIT_GIB
    print(f"limit {LIMIT_GIB:g} GiB: {'exceeded' if over else 'kept'}")
    return int(over)


def write(folder: Path, count: int, side: int) -> None:
    """Write the files, a thousand per folder, unless they are complete already."""
    done = folder / ".done"
    if done.exists():
        return
    for start in range(0, count, _A_FOLDER):
        place = folder / f"{start // _A_FOLDER:04}"
        place.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(start)
        coarse = generator.integers(0, 256, (_A_FOLDER, 4, 4, 3), dtype=np.uint8)
        for number in range(min(_A_FOLDER, count - start)):
            image = Image.fromarray(coarse[number]).resize((side, side))
            image.save(place / f"{number:03}.png", compress_level=1)
    done.touch()


def measured(pictures: Path, run: Path, out: Path) -> dict[str, Any]:
    """Train in a separate process; returns its peak memory and its times."""
    config, peak = out / "config.json", out / "peak.json"
    recipe = {"distance_images": 64, "sampler_images": 0}
    config.write_text(json.dumps({"threads": 1, "widths": [16, 32], "recipe": recipe}))
    words = ["train", str(pictures), "--out", str(run), "--budget", "4096images"]
    command = [sys.executable, "-c", _MEASURE, str(peak), *words, "--config", str(config)]
    began = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.monotonic() - began
    info = json.loads((run / "run.json").read_text())
    return {
        "gib": json.loads(peak.read_text()),
        "first": info["data"]["seconds_to_first_batch"],
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
