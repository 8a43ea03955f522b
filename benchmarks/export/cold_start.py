"""How long a command takes from cold: the help text, and 64 pictures beside `import torch`.

Each is a process of its own; they take turns. Processor seconds say more than the clock where
other programs run. Python's compiled files are there, as after a first call. The goals: 0.1
processor seconds for the help text, and 1.2 times the import of torch for 64 pictures.

    python -m benchmarks.export.cold_start --run runs/demo
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks.shared import harness
from benchmarks.shared.summaries import ratio, summarise, table

NAME = "export/cold_start"
TORCH = "import torch"
MEASURES = ("seconds", "processor")


def main() -> None:
    """Start all commands in turns, and print the table."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--run", default="runs/demo", help="a run with a generator")
    parser.add_argument("--rounds", type=int, default=15, help="starts of each command")
    arguments = parser.parse_args()
    threads = arguments.threads or harness.cpu_cores()
    path = harness.results_file(arguments, NAME)
    results = harness.Results(path, harness.environment(threads), redo=arguments.redo)
    if not arguments.table_only:
        ways = _ways(arguments)
        for command in ways.values():
            _started(command, threads)  # compiles the files, and reads them once
        for number in range(2 if arguments.quick else arguments.rounds):
            for name, command in ways.items():
                setting = {"command": name, "round": number, "threads": threads}
                results.cell(setting, lambda c=command: _started(c, threads))
    harness.publish(results, "From cold", [_table(results)])


def _ways(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Words after `python`; `sample` writes beside the run, as people call it."""
    return {
        "python": ["-c", ""],
        "noisewise --help": ["-m", "noisewise", "--help"],
        TORCH: ["-c", TORCH],
        "noisewise sample -n 64": ["-m", "noisewise", "sample", arguments.run, "-n", "64"],
        "noisewise sample -n 1": ["-m", "noisewise", "sample", arguments.run, "-n", "1"],
    }


def _started(words: list[str], threads: int) -> dict[str, object]:
    """Seconds of a process by the clock and of the processor.

    Raises:
        UsageError: if it fails.
    """
    more = {"PYTHONPATH": str(harness.ROOT / "src"), "OMP_NUM_THREADS": str(threads)}
    environment = {**os.environ, **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise harness.UsageError(f"python {' '.join(words)} failed: try it by hand.")
    return {"seconds": round(seconds, 4), "processor": round(used.ru_utime + used.ru_stime, 4)}


def _table(results: harness.Results) -> str:
    taken: dict[str, dict[str, list[float]]] = {}
    for cell in results.cells({}):
        of_command = taken.setdefault(str(cell.setting["command"]), {m: [] for m in MEASURES})
        for measure in MEASURES:
            of_command[measure].append(cell.number(measure) or 0.0)
    rows = []
    for name, values in taken.items():
        shown = [str(summarise([values[m]])) for m in MEASURES]
        against = [str(ratio([values[m]], [taken[TORCH][m]])) for m in MEASURES]
        rows.append((name, *shown, *against))
    columns = (
        "command",
        "seconds",
        "processor seconds",
        "times import torch",
        "the same, processor",
    )
    return table(columns, rows)


if __name__ == "__main__":
    harness.run_program(main)
