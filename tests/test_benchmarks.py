"""The benchmarks' harness: finished cells are kept, tables state their conditions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning_rate import band_tables
from benchmarks.learning_rate import sweeps as lr_sweeps
from benchmarks.learning_rate import tables as lr_tables
from benchmarks.pictures import batch_rate
from benchmarks.shared import (
    harness,
    summaries,
)
from noisewise.scaling import Estimate, band

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
        [sys.executable, "-m", "benchmarks.shared.judge", "--data", "no/such/folder"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "fashion_mnist_zalando.npz" in done.stderr or "no/such/folder" in done.stderr
    assert "Traceback" not in done.stderr


# ----------------------------------------------------------------------------- sweeps of rates
def test_a_sweep_finds_an_optimum_that_its_first_grid_did_not_hold() -> None:
    """A quadratic loss at lr* = 0.7 from centres that are up to 4,000 times off."""
    for centre in (0.7, 0.02, 2e-4, 300.0):
        rates, losses = lr_sweeps.sweep(
            lambda lr: [(lr - 0.7) ** 2 + shift for shift in (0.0, 1.0)], centre, 0.5, range(-3, 4)
        )
        best = int(losses.mean(0).argmin())
        assert 2 <= best < len(rates) - 2
        foot, _, _ = lr_sweeps.optimum(np.log(rates), losses)
        assert foot == pytest.approx(0.7, rel=0.08)
    rates, losses = lr_sweeps.sweep(lambda lr: [-lr], 1.0, 1.0, range(-1, 2), most=9)
    assert np.isnan(lr_sweeps.optimum(np.log(rates), losses)[0])  # none: said, not guessed
    diverged, losses = lr_sweeps.sweep(
        lambda lr: [(np.log(lr) + 5) ** 2 if lr < 0.02 else np.inf], 1.0, 1.0, range(-1, 2)
    )
    assert lr_sweeps.parabola(np.log(diverged), losses[0]) == pytest.approx(np.exp(-5), rel=1e-6)


def noisy_sweeps(seed: int, num: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Parabolas in log lr about 1, each seed's foot moved at random by 0.3."""
    logs = np.log(2.0) * np.arange(-6, 7)
    moved = np.random.default_rng(seed).normal(0, 0.3, num)
    return logs, (logs - moved[:, None]) ** 2


def test_the_interval_of_an_optimum_covers_it_and_keeps_what_lies_at_the_edge() -> None:
    covered = 0
    for seed in range(60):
        _, low, high = lr_sweeps.optimum(*noisy_sweeps(seed))
        covered += low <= 1 <= high
    assert covered >= 48  # eight seeds: somewhat less than 95 %
    logs, values = noisy_sweeps(0)
    assert np.isnan(lr_sweeps.optimum(logs, values[:2])[1])  # two seeds give none
    feet = lr_sweeps.resampled_feet(
        logs[5:9], np.where(np.arange(8)[:, None] < 4, -1, 1) * logs[5:9]
    )
    assert [float(feet.min()), float(feet.max())] == pytest.approx([0.5, 4.0])


def losses_at_factors(num_seeds: int, noise: float) -> dict[float, dict[int, float]]:
    """Losses like those of two runs that differ by 0.0002 at half and once the rate."""
    means = {0.25: 0.2350, 0.5: 0.2294, 1.0: 0.2296, 2.0: 0.2420}
    rng = np.random.default_rng(0)
    return {
        f: {s: mean + noise * float(rng.normal()) for s in range(num_seeds)}
        for f, mean in means.items()
    }


def test_no_best_rate_is_named_from_one_seed_and_noise_widens_it() -> None:
    feet, shown = batch_rate.best_factor(losses_at_factors(1, 0.0))
    assert (len(feet), shown) == (0, "unknown: 1 seed")
    widths = []
    for noise in (1e-5, 2e-3):
        feet, shown = batch_rate.best_factor(losses_at_factors(5, noise))
        widths.append(np.ptp(np.log(np.quantile(feet, [0.025, 0.975]))))
        assert "[" in shown
    assert widths[0] < 0.02 < 0.15 < widths[1]
    falling = {f: {0: -f, 1: -f, 2: -f} for f in (0.5, 1.0, 2.0)}
    assert batch_rate.best_factor(falling)[1] == "unknown: at the end of the rates"
    assert batch_rate.next_factor(falling) == 4.0
    assert batch_rate.next_factor(losses_at_factors(3, 0.0)) is None


def test_the_stored_many_step_sweeps_become_a_table_that_hides_no_outside_optimum(
    tmp_path: Path,
) -> None:
    results = harness.Results(tmp_path / "results.json", CONDITIONS)
    where = {"net": "mlp", "kind": "sgd", "checkpoint": 400}
    scale = {"value": 100.0}
    laws = {str(b): {"preconditioned": 1 / (1 + 100 / b)} for b in lr_tables.BATCHES}
    results.add({"part": "one", **where}, {"b_noise": scale, "b_simple": scale, **laws}, 1.0)
    for seed in range(4):
        grid = 2.0 ** np.arange(-8, 3)
        sweeps = {
            str(b): [[r, (np.log(r * (1 + 100 / b)) - 0.1 * seed) ** 2] for r in grid]
            for b in (16, 64, 256)
        }
        sweeps["1024"] = [[r, -r] for r in grid]
        results.add({"part": "many", **where, "seed": seed}, sweeps, 1.0)
    results.add({"part": "edge", **where}, {"edge": 0.5}, 1.0)

    def read(found: str) -> tuple[list[str], list[str]]:
        lines = [line for line in found.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.split("|")] for line in (lines[0], lines[-1])]
        return rows[0], rows[1]

    optima, fitted, anchored = lr_tables.many_tables(results)
    head, row = read(optima)
    assert "1024: outside" in row[head.index("observed optimum")]
    assert row[head.index("observed optimum")].count("[") == 3
    head, row = read(anchored)
    assert float(row[head.index("preconditioned")]) == pytest.approx(1.0, abs=0.03)
    # The mean over four seeds is best at exp(0.15) of the law; it is bent at 0.5 through 64.
    low, at, high = (np.exp(0.15) / (1 + 100 / b) for b in (16, 64, 256))
    bent = [1 / ((1 / at - 2) * at / law + 2) for law in (low, high)]
    wanted = lr_tables.factor_error(bent, [low, high], False)
    assert float(row[head.index("edge")]) == pytest.approx(wanted, abs=0.03)
    assert wanted > 1.3
    head, row = read(fitted)
    assert float(row[head.index("edge")]) > 1.1
    for law in ("preconditioned", "square root", "alpha 1/2", "B_noise, level"):
        assert law in head
    assert float(row[head.index("preconditioned")]) == pytest.approx(1.0, abs=0.03)
    wanted = lr_tables.factor_error(
        [(1 + 100 / b) ** -0.5 for b in (16, 64, 256)],
        [1 / (1 + 100 / b) for b in (16, 64, 256)],
        True,
    )
    assert float(row[head.index("alpha 1/2")]) == pytest.approx(wanted, abs=0.03)


def test_half_octaves_beside_the_best_one_decide_where_they_are_known() -> None:
    def losses(octaves: Sequence[float]) -> dict[float, list[float]]:
        return {k: [(k + 3.3) ** 2 + draw for draw in (0.0, 0.1, 0.2)] for k in octaves}

    whole = [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0]
    for octaves in (whole, [*whole, -3.5, -2.5]):
        foot, low, high = lr_sweeps.halves_optimum(losses(octaves))
        assert foot == pytest.approx(2**-3.3)
        assert low == pytest.approx(foot) == pytest.approx(high)
    assert np.isnan(lr_sweeps.halves_optimum(losses([-6.0, -5.0, -4.0]))[0])


def test_a_case_of_the_band_compares_with_the_square_root_and_names_the_power_needed() -> None:
    def point(value: float) -> Estimate:
        return Estimate(value, value, value)

    case = band_tables.Case(
        "gru", "sgd", 512, (8.0, 7.0, 9.0),
        {"watch": Estimate(6.0, 3.0, 9.0), "square root": point(4.0), "linear": point(16.0)},
        {"watch": Estimate(6.0, 5.0, 7.0)},
    )  # fmt: skip
    assert case.error("watch") == pytest.approx(8 / 6)
    assert case.error("linear") == case.error("square root") == pytest.approx(2)
    assert case.holds("watch")
    assert not case.holds("square root")
    assert (case.verdict("watch"), case.verdict("linear")) == ("beats", "ties")
    assert not case.beyond("watch")
    power = case.power("watch")
    wide = band.widened(case.bare["watch"], 512, 32, several=True)
    assert 7.0 * 16**power == pytest.approx(8.0)
    assert wide.high >= 8.0  # as 0.35 is more than that power
