"""`noisewise lowrank`: matrices and checkpoints, tables, JSON, files, one sentence for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from noisewise import lowrank
from noisewise.app import cli
from noisewise.app.commands.factor_files import SHAPE, names_of
from spectra import error_of, seeded, values, with_values


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    np.save(tmp_path / "m.npy", with_values(60, 50, values("1/i^2", 50)).numpy())
    return tmp_path / "m.npy"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    g = seeded()
    tensors = {
        "low.weight": with_values(64, 48, torch.linspace(2, 1, 3), torch.float32),
        "conv.weight": with_values(32, 27, torch.linspace(2, 1, 4), torch.float32).reshape(
            32, 3, 3, 3
        ),
        "half.weight": with_values(40, 30, torch.linspace(2, 1, 2)).to(torch.bfloat16),
        "noise.weight": torch.randn(20, 20, generator=g),
        "low.bias": torch.randn(64, generator=g),
        "steps": torch.arange(6).reshape(2, 3),
    }
    save_file(tensors, tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def ask(*words: object) -> int:
    return cli.main(["lowrank", *(str(word) for word in words)])


def test_a_matrix_is_answered_by_a_sentence(
    matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(matrix, "--tol", "1e-2") == 0
    out = capsys.readouterr().out
    assert out.startswith("LowRank 60x50, rank 14, ||A-LR||_F <= ")
    assert "size: 12,3" in out
    assert "one in 1.94" in out


@pytest.mark.parametrize("method", ["svd", "id", "cur"])
def test_json_and_factors_of_every_method(
    method: str, matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "factors.safetensors"
    assert ask(matrix, "--tol", "0.05", "--method", method, "--write", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["converged"]
    (row,) = found["matrices"]
    with safe_open(str(out), "pt") as stored:
        r = lowrank.from_state(load_file(out), stored.metadata())
    a = torch.from_numpy(np.load(matrix))
    assert r.rank == row["rank"]
    truth = float(error_of(a, r.dense()) / a.norm())
    assert truth <= row["relative_error"] <= 0.05
    assert (r.columns is not None) == (method != "svd")
    if r.columns is not None and method == "id":
        assert torch.equal(r.left, a[:, r.columns])


def test_a_checkpoint_gets_a_table_and_keeps_what_does_not_pay(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.safetensors"
    assert ask(checkpoint, "--tol", "0.02", "--write", out) == 0
    text, told = capsys.readouterr()
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "conv.weight",
        "half.weight",
        "low.weight",
        "noise.weight",
    ]
    assert "3/48" in text
    assert "4/27" in text
    assert "kept as it is" in lines[4]
    assert "in all: 19,744 bytes" in text
    assert "left out (kept as they are in the written file):\n  steps holds int64" in text
    assert "noise.weight: rank" in told
    kept, before = load_file(out), load_file(checkpoint)
    with safe_open(str(out), "pt") as stored:
        metadata = stored.metadata()
    assert sorted(names_of(metadata)) == ["conv.weight", "half.weight", "low.weight"]
    for name in ("noise.weight", "low.bias", "steps"):
        assert torch.equal(kept[name], before[name])
    for name in names_of(metadata):
        r = lowrank.from_state(kept, metadata, name)
        weight = before[name].flatten(1).float()
        made = r.left.double() @ r.right.double()
        assert error_of(weight, made) <= r.error.upper <= 0.021 * weight.norm()
    assert json.loads(metadata[SHAPE + "conv.weight"]) == [32, 3, 3, 3]
    assert out.stat().st_size < checkpoint.stat().st_size


def test_a_pattern_a_rank_and_a_plot(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p.svg", "p.png"):
        plot = tmp_path / name
        assert ask(checkpoint, "--rank", "40", "--only", "[lc]*", "--plot", plot, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["rank"] for row in found["matrices"]] == [27, 40]  # at most what each has
        assert plot.stat().st_size > 1000
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_a_batch_and_a_file_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = with_values(50, 40, values("1/i", 40), batch=(3,)).numpy()
    np.savez(tmp_path / "several.npz", batch=batch, vector=np.ones(4), ints=np.eye(4, dtype=int))
    assert ask(tmp_path / "several.npz", "--tol", "0.2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["matrices"]] == ["batch", "ints"]
    assert found["matrices"][0]["shape"] == [3, 50, 40]


def test_the_same_seed_gives_the_same_answer(
    matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for seed in (1, 1, 2):
        assert ask(matrix, "--rank", "5", "--method", "id", "--seed", seed, "--json") == 0
        answers.append(json.loads(capsys.readouterr().out)["matrices"])
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]  # the seed is used: other columns, another error


def test_a_tolerance_out_of_reach_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "m.npy", with_values(60, 50, values("1/i", 50)).numpy().astype(np.float32))
    assert ask(tmp_path / "m.npy", "--tol", "1e-12") == 0
    assert "below the precision of float32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rank", "51"], "ranks from 0 to 50"),
        ([], "--tol 0.1 or --rank 50"),
        (["--tol", "-1"], "positive"),
        (["--tol", "x"], "--tol takes a number, not 'x'"),
        (["--rank", "3", "--method", "qr"], "qr"),
        (["--rank", "3", "--write", "out.npy"], ".safetensors"),
        (["--rank", "3", "--plot", "out.gif"], ".svg"),
        (["--rank", "3", "--failure-probability", "0.5"], "between 0 and 0.1"),
        (["--rank", "3", "--method", "id", "--accurate"], "leave it out"),
        (["--rank", "3", "--only", "nothing*"], "no matrix whose name matches"),
        (["--rnk", "3"], "--rank"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(
    words: list[str], says: str, matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(matrix, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.strip().count("\n") == 0
    assert err.startswith("noisewise lowrank: ")


def test_files_that_hold_no_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "vector.npy", np.ones(5))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan))
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "table.xlsx").write_text("1,2")
    for name, says in {
        "vector.npy": "holds no matrix",
        "text.npy": "does not hold only numbers",
        "nan.npy": "NaN or Inf",
        "objects.npy": "objects.npy",
        "broken.npy": "broken.npy",
        "broken.npz": "broken.npz",
        "broken.safetensors": "cannot be read",
        "table.xlsx": ".npy, .npz, .csv, .tsv or .safetensors",
        "missing.npy": "does not exist",
    }.items():
        assert ask(tmp_path / name, "--rank", "1") == 2, name
        err = capsys.readouterr().err
        assert says in err, err
        assert err.strip().count("\n") == 0
