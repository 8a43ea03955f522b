"""Our page in one file beside a gradio page with a diffusers pipeline of the same generator.

What the person who gets it needs and waits for: megabytes on the disk, seconds until the page is
there, and until its first picture is. The ways take turns, each in a browser without a cache.
Seconds count from opening the file, or from starting the server; processor seconds are those of
the browser and the server together, and say more where other programs run.

    python3 -m venv runs/benchmarks/gradio-venv
    runs/benchmarks/gradio-venv/bin/pip install torch==2.13.0 diffusers==0.42.1 gradio==6.31.0
    python -m benchmarks.export.page_to_send --run runs/demo \
        --peer-python runs/benchmarks/gradio-venv/bin/python

It needs the extras `export`, `diffusers` and `browser`, and chromium (Debian: chromium).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.shared import harness
from benchmarks.shared.summaries import ratio, summarise, table

NAME = "export/page_to_send"
WAYS = ("our page", "gradio")
PEER = harness.ROOT / "benchmarks" / "peers" / "gradio_page.py"
PEER_VARIABLE = "NOISEWISE_GRADIO_PYTHON"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
LIMIT = 900.0  # seconds for a page
THERE = {"our page": "#grid button", "gradio": "button:has-text('New pictures')"}
DRAWN = {
    "our page": "items[0].pixels !== null",
    "gradio": "[...document.querySelectorAll('img')].some((i) => i.complete && "
    "i.naturalWidth === WIDTH)",
}
MEASURES = ("start", "first", "processor")


def main() -> None:
    """Open both pages in turns, and print the table."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--run", default="runs/demo", help="a run with a generator")
    parser.add_argument("--rounds", type=int, default=5, help="times that each page is opened")
    parser.add_argument(
        "--peer-python", default=os.environ.get(PEER_VARIABLE), help="Python with gradio"
    )
    arguments = parser.parse_args()
    if not arguments.peer_python and not arguments.table_only:
        raise harness.UsageError(
            f"gradio has its own Python: give --peer-python PATH or set {PEER_VARIABLE}."
        )
    packages = ("noisewise", "torch", "diffusers", "onnxruntime")
    conditions = harness.environment(harness.cpu_cores(), packages=packages)
    path = harness.results_file(arguments, NAME)
    results = harness.Results(path, conditions, redo=arguments.redo)
    rounds = 1 if arguments.quick else arguments.rounds
    if not arguments.table_only:
        width = _export(arguments, harness.work_folder(arguments, NAME))
        results.cell({"size": "both"}, lambda: _sizes(arguments))
        for number in range(rounds):
            for way in WAYS:
                setting = {"way": way, "round": number}
                results.cell(setting, lambda w=way: _opened(w, arguments, width))
    harness.publish(results, "A page to send", [_table(results)])


# ------------------------------------------------------------------------------------- what is made


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    folder = harness.work_folder(arguments, NAME).resolve()
    return {"our page": folder / "page.html", "gradio": folder / "pipeline"}


def _export(arguments: argparse.Namespace, folder: Path) -> int:
    """Write both from the run; returns the width of a picture."""
    from noisewise.export import write
    from noisewise.sizes import sides
    from noisewise.training.load import load

    folder.mkdir(parents=True, exist_ok=True)
    files = _files(arguments)
    write(arguments.run, "html", files["our page"], overwrite=True)
    write(arguments.run, "diffusers", files["gradio"], overwrite=True)
    return sides(load(arguments.run).size)[1]


def _sizes(arguments: argparse.Namespace) -> dict[str, object]:
    """Megabytes of the page, and of all that the other one needs."""
    files = _files(arguments)
    done = subprocess.run(
        [arguments.peer_python, str(PEER), "size"],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    weights = sum(f.stat().st_size for f in files["gradio"].rglob("*") if f.is_file()) / 1e6
    return {
        "our page": files["our page"].stat().st_size / 1e6,
        "gradio": found["megabytes"] + weights,
        "torch": found["torch"],
        "packages": found["packages"],
        "versions": found["versions"],
    }


def _environment() -> dict[str, str]:
    more = {"PYTHONPATH": str(harness.ROOT / "src"), "GRADIO_ANALYTICS_ENABLED": "False"}
    return {**os.environ, **more, "HF_HUB_OFFLINE": "1"}


# --------------------------------------------------------------------------------- what is measured


def _opened(way: str, arguments: argparse.Namespace, width: int) -> dict[str, object]:
    """Seconds until the page and its first picture are there."""
    with _browser() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(1000 * LIMIT)
        file, used, begin = _files(arguments)[way], processor_seconds(), time.perf_counter()
        with _served(way, file, arguments) as address:
            page.goto(address, wait_until="domcontentloaded")
            page.wait_for_selector(THERE[way])
            start = time.perf_counter() - begin
            page.wait_for_function(DRAWN[way].replace("WIDTH", str(width)))
            first = time.perf_counter() - begin
            used = processor_seconds() - used
    return {"start": round(start, 3), "first": round(first, 3), "processor": round(used, 3)}


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise harness.UsageError("There is no chromium here (Debian: apt-get install chromium).")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def _served(way: str, file: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """The address of a page; a server is started for it if it needs one."""
    if way == "our page":
        yield file.as_uri()
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [arguments.peer_python, str(PEER), "serve", str(file), str(port)]
    server = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise harness.UsageError("The gradio page did not start: run peers/gradio_page.py by hand.")


def processor_seconds() -> float:
    """Processor time of all processes that this one has started, those that ended too (Linux)."""
    parents, times = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        number = int(place.parent.name)
        parents[number], times[number] = int(fields[1]), sum(map(int, fields[11:15]))
    found, waiting = 0, [os.getpid()]
    while waiting:
        number = waiting.pop()
        found += times[number]
        waiting += [child for child, parent in parents.items() if parent == number]
    return found / os.sysconf("SC_CLK_TCK")


def _table(results: harness.Results) -> str:
    sizes = results.find({"size": "both"})
    taken = {
        way: {m: [_number(c, m) for c in results.cells({"way": way})] for m in MEASURES}
        for way in WAYS
    }
    rows: list[tuple[object, ...]] = []
    if sizes is not None:
        ours, theirs = (_number(sizes, way) for way in WAYS)
        rows.append(("MB on the disk", ours, theirs, f"{theirs / ours:.0f}"))
    names = ("seconds to the page", "seconds to the first picture", "processor seconds to it")
    for name, measure in zip(names, MEASURES, strict=True):
        ours, theirs = ([taken[way][measure]] for way in WAYS)
        rows.append((name, str(summarise(ours)), str(summarise(theirs)), str(ratio(theirs, ours))))
    return table(("", *WAYS, "times as much"), rows)


def _number(cell: harness.Cell, name: str) -> float:
    value = cell.number(name)
    assert value is not None
    return value


if __name__ == "__main__":
    harness.run_program(main)
