"""`noisewise lowrank` on `.npy` files that are larger than the memory allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisewise.app import cli
from noisewise.app.commands import mapped_arrays
from spectra import values, with_values

Capture = pytest.CaptureFixture[str]
MIB = 2**20
A = with_values(300, 120, values("1/i", 120)).numpy()
SMALL = MIB / 2**30 / 4  # GiB: a quarter of a MiB


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_arrays, "BLOCK_BYTES", 5_000)


def ask(file: Path, *words: object) -> int:
    return cli.main(["lowrank", str(file), *(str(word) for word in words)])


def row(capsys: Capture, file: Path, *words: object) -> dict[str, Any]:
    assert ask(file, *words, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["matrices"]
    return found


def stored(folder: Path, a: np.ndarray, name: str = "a.npy") -> Path:
    np.save(folder / name, a)
    return folder / name


KINDS = ("float32", "float64", ">f8", "complex128", "float16", "int16", "uint8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_give_what_the_whole_matrix_gives(
    tmp_path: Path, capsys: Capture, kind: str, order: str
) -> None:
    a = A * 30000 / abs(A).max() if kind == "int16" else A
    a = abs(A) * 200 / abs(A).max() if kind == "uint8" else a
    a = a + 1j * a[::-1] if kind == "complex128" else a
    file = stored(tmp_path, np.asarray(a.astype(kind), order=order))  # pyrefly: ignore
    computed = {"float32": 4, "float16": 4, "complex128": 16}.get(kind, 8)
    memory = 3.9 * A.size * computed / 2**30
    for wish in (("--rank", 4), ("--tol", "20%"), ("--rank", 4, "--failure-probability", 0)):
        whole, read = row(capsys, file, *wish), row(capsys, file, *wish, "--memory", memory)
        assert whole["memory_bytes"] is None
        assert read["memory_bytes"] > 0
        assert read["shape"] == [300, 120]
        assert read["rank"] == whole["rank"]
        best = row(capsys, file, *wish, "--failure-probability", 0)["relative_error"]
        assert 0.99 * best <= read["relative_error"] <= 6 * best


def test_columns_and_factors_are_written(tmp_path: Path, capsys: Capture) -> None:
    from safetensors.torch import load_file

    file = stored(tmp_path, A)
    out = tmp_path / "out.safetensors"
    words = ("--rank", 5, "--memory", 0.0006)
    assert row(capsys, file, *words, "--method", "id", "--write", out)["rank"] == 5
    found = load_file(out)
    assert np.array_equal(found["left"].numpy(), A[:, found["columns"].numpy()])
    assert ask(file, *words, "--method", "cur", "--plot", tmp_path / "s.svg") == 0
    text = capsys.readouterr()
    assert "read in blocks of rows" in text.out
    assert "GiB of memory" in text.err


def test_the_memory_limits_the_rank(tmp_path: Path, capsys: Capture) -> None:
    file = stored(tmp_path, A)
    assert ask(file, "--rank", 100, "--memory", SMALL) == 2
    assert "give a larger --memory, or a lower --rank" in capsys.readouterr().err
    assert ask(file, "--tol", 0.01, "--memory", 0.00001) == 2
    assert "larger --memory" in capsys.readouterr().err
    least = row(capsys, file, "--tol", 0.0001, "--memory", 0.0007)
    assert 0 < least["rank"] < 100
    assert not least["converged"]
    assert any("larger --memory" in note for note in least["notes"])
    assert ask(file, "--rank", 3, "--memory", 0) == 2
    assert "positive number of GiB" in capsys.readouterr().err


def test_a_folder_of_large_matrices(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").mkdir()
    stored(tmp_path / "in", A, "a.npy")
    bad = A.copy()
    bad[150, 7] = np.nan
    stored(tmp_path / "in", bad, "b.npy")
    words = ("--rank", 4, "--memory", 0.0006, "--json")
    assert ask(tmp_path / "in", *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in found["matrices"]] == ["a"]
    assert found["left_out"] == {"b": "holds NaN or Inf"}
    assert ask(tmp_path / "in", *words, "--write", tmp_path / "o.safetensors") == 2
    assert "larger than the memory allowed" in capsys.readouterr().err
    assert ask(tmp_path / "in" / "b.npy", *words) == 2
    assert "NaN or Inf in rows" in capsys.readouterr().err


def test_a_file_that_ends_too_early_is_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    file = stored(tmp_path, A)
    file.write_bytes(file.read_bytes()[:-1000])
    assert ask(file, "--rank", 3, "--memory", SMALL) == 2
    err = capsys.readouterr().err
    assert "cannot be read: it ends before its last entry" in err
    assert "Traceback" not in err


# ------------------------------------------------------------------------------ real memory
_CHILD = """
import json, sys, contextlib, io
from noisewise.app import cli

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

def ask(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["lowrank", *words, "--json"]) == 0
    return json.loads(out.getvalue())["matrices"][0]

small, large, *words = sys.argv[1:]
ask(small, "--rank", "3", "--memory", "0.1")
ask(small, "--tol", "0.5", "--memory", "0.1")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before = status("VmRSS")
row = ask(large, *words)
print(json.dumps({**row, "before": before, "peak": status("VmHWM")}))
"""


def peak_of(folder: Path, shape: tuple[int, int], *words: str) -> dict[str, Any]:
    """What the command says, and the memory it takes in a process of its own."""
    large = folder / "large.npy"
    if not large.exists():
        made = np.lib.format.open_memmap(large, "w+", np.float32, shape)
        random = np.random.default_rng(0)
        right = random.normal(size=(5, shape[1])).astype(np.float32)
        for start in range(0, shape[0], 1024):
            rows = min(1024, shape[0] - start)
            made[start : start + rows] = random.normal(size=(rows, 5)) @ right
        made.flush()
        del made
    small = stored(folder, A, "small.npy")
    result = subprocess.run(
        [sys.executable, "-c", _CHILD, str(small), str(large), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


needs_linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory"
)


@needs_linux
@pytest.mark.parametrize("wish", [("--rank", "5"), ("--tol", "0.01")])
def test_the_stated_peak_is_true(tmp_path: Path, wish: tuple[str, str]) -> None:
    found = peak_of(tmp_path, (8192, 6144), *wish, "--memory", "0.1")  # 192 MiB
    assert found["rank"] <= 5
    assert found["memory_bytes"] < 104 * MIB
    assert found["peak"] - found["before"] <= found["memory_bytes"] + 8 * MIB


@needs_linux
@pytest.mark.slow
def test_two_gib_in_half_a_gib(tmp_path: Path) -> None:
    for wish in (("--rank", "20"), ("--tol", "0.01")):
        found = peak_of(tmp_path, (32768, 16384), *wish, "--memory", "0.2")
        assert found["peak"] <= 512 * MIB
        assert found["peak"] - found["before"] <= found["memory_bytes"] + 8 * MIB
