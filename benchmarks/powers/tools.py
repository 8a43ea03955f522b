"""Comparing powers: noisewise against Python's integers, floats, sympy, mpmath and python-flint.

Each tool answers each question in a separate process with a time limit and a memory limit, and each
answer is checked. "with flint" is noisewise in the environment of the peers, where python-flint is
installed; plain "noisewise" uses only the standard library.

    python3 -m venv runs/benchmarks/powers-venv
    runs/benchmarks/powers-venv/bin/pip install python-flint==0.9.0 sympy==1.14.0 mpmath==1.3.0
    runs/benchmarks/powers-venv/bin/pip install gmpy2==2.3.2
    python -m benchmarks.powers.tools --peer-python runs/benchmarks/powers-venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

from benchmarks.powers.cases import CASES
from benchmarks.shared import harness
from benchmarks.shared.summaries import figure, ratio, summarise, table

TOOL_FILE = harness.ROOT / "benchmarks" / "peers" / "powers_tools.py"
PEERS = ("python int", "float logarithms", "sympy", "mpmath", "mpmath iv", "python-flint arb")
TOOLS = ("noisewise", "noisewise with flint", *PEERS)
PEER_VARIABLE = "NOISEWISE_POWERS_PYTHON"
QUICK_CASES = ("27^(10^6) = 9^(1.5 10^6)", "10^10^100 < 10^10^101")


def main() -> None:
    """Ask every tool every question, and print two tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument(
        "--peer-python", default=os.environ.get(PEER_VARIABLE), help="Python of the peers"
    )
    parser.add_argument("--limit", type=float, default=8.0, help="seconds for one question")
    parser.add_argument("--memory", type=float, default=2.0, help="GB of address space")
    arguments = parser.parse_args()
    if not arguments.peer_python and not arguments.table_only:
        raise harness.UsageError(
            f"The peers need their own Python: give --peer-python PATH or set {PEER_VARIABLE}."
        )
    conditions = harness.environment(1, packages=("noisewise",))
    if arguments.peer_python:
        conditions["versions"] = {"noisewise": harness.version_of("noisewise")} | peer_versions(
            arguments.peer_python
        )
    path = harness.results_file(arguments, "powers/tools")
    results = harness.Results(path, conditions, redo=arguments.redo)
    names = QUICK_CASES if arguments.quick else tuple(CASES)
    if not arguments.table_only:
        for name in names:
            for tool in TOOLS:
                setting = {"case": name, "tool": tool, "limit": arguments.limit}
                results.cell(setting, lambda n=name, t=tool: ask(n, t, arguments))
    harness.publish(results, "Comparing powers", tables(results, names, arguments.limit))


def peer_versions(python: str) -> dict[str, object]:
    """Package versions in the environment of the peers."""
    program = (
        "import json; from importlib.metadata import version; "
        "print(json.dumps({n: version(n) for n in ('python-flint', 'sympy', 'mpmath', 'gmpy2')}))"
    )
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.UsageError(
            f"{python} cannot run or a peer is not installed: {error}"
        ) from error
    return json.loads(done.stdout)


def ask(name: str, tool: str, arguments: argparse.Namespace) -> harness.Values:
    """Ask one tool one question: the outcome, and the seconds of each repetition."""
    limit, memory = arguments.limit, arguments.memory
    python = sys.executable if tool == "noisewise" else arguments.peer_python
    environment = {**os.environ, "PYTHONPATH": str(harness.ROOT / "src")}
    command = [python, str(TOOL_FILE), tool.removesuffix(" with flint"), name]

    def capped() -> None:
        size = int(memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    try:
        done = subprocess.run(
            command,
            env=environment,
            preexec_fn=capped,
            capture_output=True,
            text=True,
            # Extra time to start Python, import sympy and build the numbers; it is not measured.
            timeout=limit + 4,
        )
    except subprocess.TimeoutExpired:
        return {"outcome": f"> {limit:g} s"}
    if done.returncode < 0:
        return {"outcome": "aborts"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["failed"]
        return {"outcome": last[0].split(":")[0].rpartition(".")[2]}
    found = json.loads(done.stdout)
    if found["seconds"][0] > limit:
        return {"outcome": f"> {limit:g} s"}
    sign, truth = found["sign"], CASES[name]().sign
    outcome = "right" if sign == truth else "no answer" if sign is None else "WRONG"
    return {"outcome": outcome, "seconds": found["seconds"]}


def tables(results: harness.Results, names: tuple[str, ...], limit: float) -> list[str]:
    """The answer of every tool, and our speed relative to arb where arb answers."""
    rows, ratios = [], []
    for name in names:
        cells = {tool: results.find({"case": name, "tool": tool, "limit": limit}) for tool in TOOLS}
        if not all(cells.values()):
            continue
        rows.append((name, *(shown(cell) for cell in cells.values() if cell)))
        ours, with_flint = cells["noisewise"], cells["noisewise with flint"]
        arb = cells["python-flint arb"]
        assert ours
        assert with_flint
        assert arb
        right = arb.values["outcome"] == "right"
        ratios.append(
            (
                name,
                milliseconds(ours),
                milliseconds(with_flint),
                milliseconds(arb) if right else None,
                str(ratio([seconds(arb)], [seconds(with_flint)])) if right else None,
            )
        )
    first = table(["milliseconds, if right", *TOOLS], rows)
    second = table(
        ["median ms [95%]", "noisewise", "with flint", "arb", "arb / noisewise with flint"], ratios
    )
    return [first, second, score(results, limit, names)]


def score(results: harness.Results, limit: float, names: tuple[str, ...]) -> str:
    """How many questions each tool answered right, wrong or not at all."""
    rows = []
    for tool in TOOLS:
        cells = [results.find({"case": n, "tool": tool, "limit": limit}) for n in names]
        outcomes = [str(cell.values["outcome"]) for cell in cells if cell]
        right, wrong = outcomes.count("right"), outcomes.count("WRONG")
        rows.append((tool, str(right), str(wrong), str(len(outcomes) - right - wrong)))
    return table([f"of {len(names)} questions", "right", "wrong", "no answer"], rows)


def seconds(cell: harness.Cell) -> list[float]:
    """Seconds of each repetition."""
    return cell.numbers("seconds")


def milliseconds(cell: harness.Cell) -> str:
    """Median with its interval."""
    return str(summarise([[1000 * s for s in seconds(cell)]]) or cell.values["outcome"])


def shown(cell: harness.Cell) -> str:
    """Milliseconds of a right answer, else the outcome."""
    outcome = str(cell.values["outcome"])
    if outcome != "right":
        return outcome
    summary = summarise([[1000 * s for s in seconds(cell)]])
    return figure(summary.median if summary else None)


if __name__ == "__main__":
    harness.run_program(main)
