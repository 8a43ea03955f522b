"""The programs of benchmarks/export: what they sum up from finished cells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.export import cold_start, engines, page_to_send
from benchmarks.shared import harness


def results_with(
    folder: Path, cells: Sequence[tuple[Mapping[str, object], Mapping[str, object]]]
) -> harness.Results:
    results = harness.Results(folder / "some.json", harness.environment(1))
    for setting, values in cells:
        results.add(setting, values, 1.0)
    return results


def test_a_cold_start_is_compared_with_the_import_of_torch(tmp_path: Path) -> None:
    cells = [
        ({"command": name, "round": i}, {"seconds": clock, "processor": used})
        for i in range(3)
        for name, clock, used in ((cold_start.TORCH, 2.0, 4.0), ("sample", 3.0, 5.0))
    ]
    *_, row = cold_start._table(results_with(tmp_path, cells)).splitlines()
    ratios = [part.strip().split()[0] for part in row.split("|")[4:6]]
    assert ratios == ["1.50", "1.25"]


def test_a_quicker_engine_has_a_ratio_above_one(tmp_path: Path) -> None:
    values = {"torch": [4.0, 4.0], "onnxruntime": [2.0, 2.0], "difference": 1e-6}
    more = {"torch, processor": [6.0, 6.0], "onnxruntime, processor": [2.0, 2.0]}
    cell = ({"pictures": "some", "batch": 1, "threads": 1}, {**values, **more})
    *_, row = engines._table(results_with(tmp_path, [cell])).splitlines()
    ratios = [part.strip().split()[0] for part in row.split("|")[6:8]]
    assert ratios == ["2.00", "3.00"]


def test_a_page_is_compared_with_the_other_page(tmp_path: Path) -> None:
    cells: list[tuple[Mapping[str, object], Mapping[str, object]]] = [
        ({"size": "both"}, {"our page": 5.0, "gradio": 1000.0}),
        *(
            ({"way": way, "round": 0}, {"start": t, "first": 2 * t, "processor": 3 * t})
            for way, t in zip(page_to_send.WAYS, (1.0, 20.0), strict=True)
        ),
    ]
    rows = page_to_send._table(results_with(tmp_path, cells)).splitlines()[2:]
    assert [row.split("|")[4].split()[0] for row in rows] == ["200", "20.0", "20.0", "20.0"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_the_time_of_processes_that_were_started_counts() -> None:
    before = page_to_send.processor_seconds()
    program = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert page_to_send.processor_seconds() - before > 0.25


@pytest.mark.parametrize(
    ("program", "message"),
    [("page_to_send", "gradio has its own Python"), ("cold_start", "failed: try it by hand")],
)
def test_what_is_missing_is_one_sentence(program: str, message: str, tmp_path: Path) -> None:
    words = ["--quick", "--run", str(tmp_path / "none"), "--results", str(tmp_path / "r.json")]
    environment = {k: v for k, v in os.environ.items() if k != page_to_send.PEER_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.export.{program}", *words],
        capture_output=True, text=True, check=False, env=environment, cwd=harness.ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
