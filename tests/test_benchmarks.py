"""The benchmarks' harness: finished cells are kept, tables state their conditions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402
import summaries  # noqa: E402

CONDITIONS = harness.environment(threads=1)


def counted(calls: list[int], value: float) -> Callable[[], harness.Values]:
    def compute() -> harness.Values:
        calls.append(1)
        return {"distance": value}

    return compute


def test_a_finished_cell_is_read_and_not_run_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "results.json", []
    for _ in range(2):  # the second time as a new process would find it
        results = harness.Results(path, CONDITIONS)
        cell = results.cell({"minutes": 3.0, "seed": 0}, counted(calls, 1.5))
        assert cell.number("distance") == 1.5
    assert calls == [1]
    results.cell({"minutes": 3.0, "seed": 1}, counted(calls, 2.5))
    assert len(results.cells({"minutes": 3.0})) == 2


def test_redo_runs_each_cell_once_more(tmp_path: Path) -> None:
    path, calls = tmp_path / "results.json", []
    harness.Results(path, CONDITIONS).cell({"seed": 0}, counted(calls, 1.0))
    again = harness.Results(path, CONDITIONS, redo=True)
    for _ in range(2):
        again.cell({"seed": 0}, counted(calls, 2.0))
    assert len(calls) == 2
    assert harness.Results(path, CONDITIONS).cells({"seed": 0})[0].number("distance") == 2.0


def test_an_interruption_leaves_the_finished_cells(tmp_path: Path) -> None:
    results = harness.Results(tmp_path / "results.json", CONDITIONS)
    results.cell({"seed": 0}, lambda: {"distance": 1.0})

    def interrupted() -> harness.Values:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.cell({"seed": 1}, interrupted)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert list(kept["cells"]) == ['{"seed": 0}']
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    results = harness.Results(tmp_path / "results.json", CONDITIONS)
    cell = results.cell({"seed": 0}, lambda: {"distance": [float("nan"), np.float64(2.0)]})
    assert cell.numbers("distance") == [2.0]


def test_a_model_made_again_forgets_what_was_measured_on_the_old_one(tmp_path: Path) -> None:
    results = harness.Results(tmp_path / "results.json", CONDITIONS)
    for seed in (0, 1):
        for stage in ("train", "one call"):
            results.cell({"seed": seed, "stage": stage}, lambda: {"distance": 1.0})
    results.forget({"seed": 0})
    assert [cell.asked("seed") for cell in results.cells({})] == [1.0, 1.0]


def test_a_broken_results_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"cells": ')
    with pytest.raises(harness.UsageError, match="not a results file"):
        harness.Results(path, CONDITIONS)
    assert path.read_text() == '{"cells": '


def test_header_states_hardware_threads_and_versions(tmp_path: Path) -> None:
    results = harness.Results(tmp_path / "results.json", CONDITIONS)
    results.cell({"seed": 0}, lambda: {"distance": 1.0})
    header = results.header("A benchmark")
    assert harness.cpu_name() in header
    assert "1 threads" in header
    assert f"numpy {np.__version__}" in header


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    """15 values with one run: 95 % aimed at, the percentile bootstrap of a median gives 88-99 %."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        found = summaries.summarise([rng.normal(3.0, 1.0, 15).tolist()], resamples=200)
        assert found is not None
        hits += found.low <= 3.0 <= found.high
    assert 176 <= hits <= 198


def test_runs_that_disagree_widen_the_interval_more_than_samples_do() -> None:
    apart = summaries.summarise([[1.0, 1.1, 0.9], [2.0, 2.1, 1.9], [3.0, 3.1, 2.9]])
    pooled = summaries.summarise([[1.0, 1.1, 0.9, 2.0, 2.1, 1.9, 3.0, 3.1, 2.9]])
    assert apart is not None
    assert pooled is not None
    assert apart.median == pooled.median == 2.0
    assert apart.high - apart.low > pooled.high - pooled.low


def test_ratio_of_medians_and_nothing_without_values() -> None:
    found = summaries.ratio([[4.0], [4.0]], [[2.0], [2.0]])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0) if found else False
    assert summaries.ratio([[1.0]], []) is None
    assert summaries.summarise([[], []]) is None


def test_table_lines_up_and_shows_three_figures() -> None:
    text = summaries.table(["who", "distance"], [["ours", 1.23456], ["theirs", None]])
    assert text.splitlines() == [
        "| who    | distance |",
        "|--------|----------|",
        "| ours   | 1.23     |",
        "| theirs | -        |",
    ]


def test_a_program_without_its_data_says_so_and_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "judge.py"), "--data", "no/such/folder"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "fashion_mnist_zalando.npz" in done.stderr or "no/such/folder" in done.stderr
    assert "Traceback" not in done.stderr
