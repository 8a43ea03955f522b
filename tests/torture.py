"""What `make torture` does: everything that a run and its input promise to survive, many times.

    python tests/torture.py --out runs/torture [--kills 50]

Each row of the table is done once; called again, it goes on with what is missing. A row that failed
is tried again. The promises are in docs/trust.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from killing import Workshop, leftovers, traces

HERE = Path(__file__).resolve().parent
BUDGETS = {"train": "960images", "distill": "480images"}
STAGES = {"train": "teacher", "distill": "generator"}
_A_RUN = 5  # kills before a run may end
# Rows that the test suite does: what, how many are tried in it (0: its tests), the tests.
SUITE = (
    (
        "pictures and archives mutated: used, or named with a reason",
        6280,
        ["train/test_data_mutants.py"],
    ),
    ("run files mutated: refused in a sentence, or equal", 400, ["train/test_mutated_files.py"]),
    ("caches killed, filled, flipped, shared", 0, ["train/test_cache.py"]),
    ("disks filled, folders closed, runs taken", 0, ["end_to_end/test_disks.py"]),
    ("checkpoints damaged, saves cut short", 0, ["train/test_keeping.py"]),
    ("ranks: equal to one, lost, changed in number", 0, ["train/test_ranks.py"]),
    ("runs of older versions", 0, ["train/test_frozen_runs.py"]),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    tried: int
    failed: int
    seconds: float
    note: str = ""


def main() -> int:
    """Do what is missing, print the table; 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/torture"))
    parser.add_argument("--kills", type=int, default=50, help="of each stage")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    done = read_rows(asked.out)
    for number in range(-(-asked.kills // _A_RUN)):
        for verb in ("train", "distill"):
            name = f"kills in {verb}, run {number}"
            if name not in done:
                keep(asked.out, done, name, kills(asked.out, verb, number))
    for what, tried, files in SUITE:
        if what not in done:
            keep(asked.out, done, what, suite(what, tried, files))
    print_table(list(done.values()))
    return 1 if any(row.failed for row in done.values()) else 0


def kills(out: Path, verb: str, number: int) -> Row:
    """Kill a run five times at random instants, let it end, compare it with a whole one."""
    began = time.monotonic()
    shop = Workshop.make(out / "shop")
    whole, run = shop.root / "whole", shop.root / "killed"
    took = whole_run(shop)[verb]
    shutil.rmtree(run, ignore_errors=True)
    if verb == "distill":
        shutil.copytree(shop.root / "teacher-only", run)
    generator = np.random.default_rng((number, verb == "distill"))
    died = inside = 0
    for instant in generator.uniform(0, took / _A_RUN, _A_RUN):
        died += shop.kill(verb, run, BUDGETS[verb], instant)
        inside += bool(list(run.rglob(".*.tmp")))
    shop.finish(verb, run, BUDGETS[verb])
    stage = STAGES[verb]
    expected, found = traces(whole, stage), traces(run, stage)
    wrong = [key for key in expected if expected[key] != found[key]] + leftovers(run)
    note = f"{died} died, {inside} inside a save" + (f"; differs: {wrong}" if wrong else "")
    return Row(f"kills in {verb}", _A_RUN, _A_RUN if wrong else 0, time.monotonic() - began, note)


def whole_run(shop: Workshop) -> dict[str, float]:
    """The run that is never killed, made once; seconds that each stage took."""
    noted = shop.root / "took.json"
    if not noted.exists():
        took = {}
        for name in ("whole", "teacher-only"):
            shutil.rmtree(shop.root / name, ignore_errors=True)
        for verb, budget in BUDGETS.items():
            shop.finish(verb, shop.root / "whole", budget)
            lines = (shop.root / "whole" / "log.jsonl").read_text().splitlines()
            took[verb] = json.loads(lines[-1])["seconds"]
            if verb == "train":
                shutil.copytree(shop.root / "whole", shop.root / "teacher-only")
        noted.write_text(json.dumps(took))
    return json.loads(noted.read_text())


def suite(what: str, tried: int, files: list[str]) -> Row:
    """Run tests, the slow ones too; failures are counted by pytest."""
    began = time.monotonic()
    paths = [str(HERE / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "--timeout", "1800"]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", done.stdout[-200:])}
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    note = f"{counts.get('passed', 0)} tests passed"
    if counts.get("skipped"):
        note += f", {counts['skipped']} could not be done here"
    if done.returncode and not failed:
        failed, note = 1, done.stdout[-300:] + done.stderr[-300:]
    tried = tried or counts.get("passed", 0) + failed
    return Row(what, tried, failed, time.monotonic() - began, note)


def keep(out: Path, done: dict[str, Row], name: str, row: Row) -> None:
    """Remember a row, and say it."""
    done[name] = row
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **asdict(row)}) + "\n")
    print(f"{name}: {row.tried} tried, {row.failed} failed ({row.note})", file=sys.stderr)


def read_rows(out: Path) -> dict[str, Row]:
    """Rows of earlier calls that did not fail."""
    path, rows = out / "rows.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        values = json.loads(line)
        name = values.pop("name")
        rows[name] = Row(**values)
    return {name: row for name, row in rows.items() if not row.failed}


def print_table(rows: list[Row]) -> None:
    """Print one line a kind of thing, kills added up."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.what, []).append(row)
    print(f"| {'what was tried':<52} | tried | failed | seconds | note |")
    print(f"|{'-' * 54}|------:|-------:|--------:|------|")
    for what, same in kinds.items():
        tried, failed = sum(row.tried for row in same), sum(row.failed for row in same)
        note = same[0].note if len(same) == 1 else _added([row.note for row in same])
        seconds = sum(row.seconds for row in same)
        print(f"| {what:<52} | {tried:5} | {failed:6} | {seconds:7.0f} | {note} |")


def _added(notes: list[str]) -> str:
    """Add up the numbers of notes like `5 died, 2 inside a save`."""
    found = [re.match(r"(\d+) died, (\d+) inside", note) for note in notes]
    died, inside = (sum(int(m[i]) for m in found if m) for i in (1, 2))
    return f"{died} died, {inside} inside a save"


if __name__ == "__main__":
    sys.exit(main())
