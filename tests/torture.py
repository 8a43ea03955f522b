"""What `make torture` does: everything that a run and its input promise to survive, many times.

    python tests/torture.py --out runs/torture [--kills 50] [--only WORD ...]

Each row of the table is done once; called again, it goes on with what is missing. A row that failed
is tried again, and after a change of the code all are. With --only, the rows whose names have one
of the words are done. The promises are in docs/trust.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from killing import Workshop, leftovers, traces

HERE = Path(__file__).resolve().parent
BUDGETS = {"train": "960images", "distill": "480images"}
STAGES = {"train": "teacher", "distill": "generator"}
PLACES = ("at the start", "in training", "at the end")
A_RUN = 5  # kills before a run may end
# Rows that the test suite does: what, how many are tried in it (0: its tests), the tests.
SUITE = (
    (
        "pictures and archives mutated: used, or named with a reason",
        6280,
        ["pictures/test_mutated_pictures.py"],
    ),
    (
        "run files mutated: refused in a sentence, or equal",
        450,
        ["training/run/test_mutated_files.py"],
    ),
    ("caches killed, filled, flipped, shared", 0, ["pictures/test_cache.py"]),
    ("disks filled, folders closed, runs taken", 0, ["end_to_end/test_disks.py"]),
    ("checkpoints damaged, saves cut short", 0, ["training/run/test_checkpoints.py"]),
    ("ranks: equal to one, lost, changed in number", 0, ["training/devices/test_processes.py"]),
    ("runs of older versions", 0, ["training/run/test_frozen_runs.py"]),
    ("two commands at once on one run", 0, ["end_to_end/test_two_at_once.py"]),
    (
        "stopped and continued, clocks that go back",
        0,
        ["end_to_end/test_clocks.py", "training/devices/test_work_clock.py"],
    ),
    ("killed, and again while it resumes", 0, ["end_to_end/test_killed_resuming.py"]),
    ("no home, no temporary folder, a closed system", 0, ["end_to_end/test_surroundings.py"]),
    ("other users and umasks", 0, ["end_to_end/test_other_users.py"]),
    ("disks of 1 to 40 MB, disks closed in mid-run", 0, ["end_to_end/test_small_disks.py"]),
    ("100,000 names in one folder", 0, ["end_to_end/test_many_names.py"]),
    ("files that change while they are read", 0, ["end_to_end/test_changing_files.py"]),
    ("a report of hostile names in a browser", 0, ["app/report/test_hostile_report.py"]),
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
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="of a row's name")
    asked = parser.parse_args()
    out = asked.out / code_digest()
    out.mkdir(parents=True, exist_ok=True)
    done = read_rows(out)
    for verb in ("train", "distill"):
        number = 0
        wanted = asked.kills if is_wanted(f"kills in {verb}", asked.only) else 0
        while sum(row.tried for name, row in done.items() if f" {verb}," in name) < wanted:
            name = f"kills in {verb}, run {number}"
            if name not in done:
                keep(out, done, name, kills(out, verb, number))
            number += 1
    for what, tried, files in SUITE:
        if what not in done and is_wanted(what, asked.only):
            keep(out, done, what, suite(what, tried, files))
    print_table(list(done.values()))
    return 1 if any(row.failed for row in done.values()) else 0


def is_wanted(name: str, words: list[str]) -> bool:
    """Whether a row's name has one of the words."""
    return any(word.lower() in name.lower() for word in words)


def code_digest(root: Path = HERE.parent) -> str:
    """Twelve digits that change with package and tests: a row says nothing of other code."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted([*root.glob("src/**/*.py"), *root.glob("tests/**/*.py")]):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def shares(generator: np.random.Generator) -> list[float]:
    """When to kill, as shares of what is left: anywhere, and once a run in the last tenth."""
    found = [*generator.uniform(0.0, 1.0, A_RUN - 1), generator.uniform(0.9, 1.0)]
    return [float(share) for share in generator.permutation(found)]


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
    places, inside = Counter[str](), 0
    for share in shares(generator):
        before = begun_with(run)
        if not shop.kill(verb, run, BUDGETS[verb], share * left(run, verb, took)):
            break  # it has ended: what is started now would end at once
        places[where(run, verb, before)] += 1
        inside += bool(list(run.rglob(".*.tmp")))
    shop.finish(verb, run, BUDGETS[verb])
    stage = STAGES[verb]
    expected, found = traces(whole, stage), traces(run, stage)
    wrong = [key for key in expected if expected[key] != found[key]] + leftovers(run)
    died = places.total()
    note = ", ".join(f"{places[place]} {place}" for place in PLACES)
    note = f"{note}, {inside} inside a write" + (f"; differs: {wrong}" if wrong else "")
    return Row(f"kills in {verb}", died, died if wrong else 0, time.monotonic() - began, note)


def begun_with(run: Path) -> bytes:
    """The log as it is now."""
    log = run / "log.jsonl"
    return log.read_bytes() if log.exists() else b""


def where(run: Path, verb: str, before: bytes) -> str:
    """Where a process died: before its first line in the log, while it trained, or after that."""
    now = begun_with(run)
    if now == before:
        return PLACES[0]
    lines = now.split(b"\n")[:-1]
    last = json.loads(lines[-1]) if lines else {}
    ended = last.get("stage") == STAGES[verb] and last.get("kind") == "finished"
    return PLACES[2] if ended else PLACES[1]


def left(run: Path, verb: str, took: dict[str, float]) -> float:
    """Seconds that the next process will take, about: its start, what is left to train, its end."""
    done, stage = 0, STAGES[verb]
    for line in begun_with(run).split(b"\n")[:-1]:
        values = json.loads(line)
        done = values["images"] if values["stage"] == stage else done
    share = 1 - done / int(BUDGETS[verb].removesuffix("images"))
    return took["start"] + max(share, 0.0) * took["training"] + took["end"]


def whole_run(shop: Workshop) -> dict[str, dict[str, float]]:
    """The run that is never killed, made once; seconds that the parts of each stage took."""
    noted = shop.root / "took.json"
    if not noted.exists():
        took = {}
        for name in ("whole", "teacher-only"):
            shutil.rmtree(shop.root / name, ignore_errors=True)
        for verb, budget in BUDGETS.items():
            began = time.monotonic()
            shop.finish(verb, shop.root / "whole", budget)
            took[verb] = parts(shop.root / "whole", verb, time.monotonic() - began)
            if verb == "train":
                shutil.copytree(shop.root / "whole", shop.root / "teacher-only")
        noted.write_text(json.dumps(took))
    return json.loads(noted.read_text())


def parts(run: Path, verb: str, seconds: float) -> dict[str, float]:
    """How the seconds of a whole process were spent, by its log."""
    lines = [json.loads(line) for line in begun_with(run).split(b"\n")[:-1]]
    clock = [line["seconds"] for line in lines if line["stage"] == STAGES[verb]]
    return {
        "start": seconds - clock[-1],  # with what little follows the last line
        "training": clock[-2],
        "end": clock[-1] - clock[-2],
    }


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
    if failed:
        names = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
        note += f"; failed: {' '.join(names)}"
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
        note = same[0].note if len(same) == 1 else added([row.note for row in same])
        seconds = sum(row.seconds for row in same)
        print(f"| {what:<52} | {tried:5} | {failed:6} | {seconds:7.0f} | {note} |")


def added(notes: list[str]) -> str:
    """Add up the numbers of notes like `1 at the start, 3 in training`."""
    total = Counter[str]()
    for note in notes:
        for count, place in re.findall(r"(\d+) ([a-z ]+)", note.split(";")[0]):
            total[place] += int(count)
    return ", ".join(f"{count} {place}" for place, count in total.items())


if __name__ == "__main__":
    sys.exit(main())
