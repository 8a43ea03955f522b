"""`noisewise lowrank` and files: nothing is lost, every form is read, what is left out is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from noisewise import lowrank
from noisewise.app import cli
from noisewise.app.commands.factor_files import names_of
from spectra import error_of, seeded, values, with_values

Capture = pytest.CaptureFixture[str]


def ask(*words: object) -> int:
    return cli.main(["lowrank", *(str(word) for word in words)])


def answer(capsys: Capture, *words: object) -> dict[str, Any]:
    assert ask(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Capture, *words: object) -> str:
    assert ask(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("noisewise lowrank: ")
    return last


def weight(m: int, n: int, rank: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return with_values(m, n, torch.linspace(2, 1, rank), dtype)


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(str(file), "pt") as stored:
        return stored.metadata() or {}


# ------------------------------------------------------------------------------ lost data
def test_the_file_that_is_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"a": weight(40, 30, 2)}, file)
    before = file.read_bytes()
    (tmp_path / "inner").mkdir()
    (tmp_path / "link.safetensors").symlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path)
    os.link(file, tmp_path / "hard.safetensors")
    monkeypatch.chdir(tmp_path / "inner")
    for spelling in (
        file,
        "../m.safetensors",
        "../inner/../m.safetensors",
        tmp_path / "link.safetensors",
        tmp_path / "folder" / "m.safetensors",
        tmp_path / "hard.safetensors",
    ):
        for read in (file, "../m.safetensors", tmp_path / "link.safetensors"):
            err = refused(capsys, read, "--tol", "0.1", "--write", spelling)
            assert "is the file that is read" in err
    assert file.read_bytes() == before
    if (tmp_path / "M.SAFETENSORS").exists():  # a file system that ignores case
        upper = tmp_path / "M.safetensors"
        assert "is read" in refused(capsys, file, "--tol", "0.1", "--write", upper)


def test_no_part_of_a_checkpoint_is_written_over(tmp_path: Path, capsys: Capture) -> None:
    index = _sharded(tmp_path)
    for read in (index, tmp_path):
        for part in ("one.safetensors", "two.safetensors"):
            err = refused(capsys, read, "--tol", "0.1", "--write", tmp_path / part)
            assert "is the file that is read" in err


def test_weights_named_like_factors_lose_nothing(tmp_path: Path, capsys: Capture) -> None:
    tensors = {
        "a": weight(60, 50, 2),
        "a.left": weight(60, 40, 3),
        "b": weight(60, 50, 2),
        "b.error.upper": torch.randn(5, generator=seeded()),
        "c": weight(60, 50, 2),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    out = tmp_path / "out.safetensors"
    assert ask(tmp_path / "m.safetensors", "--tol", "0.01", "--write", out) == 0
    text = capsys.readouterr().out
    assert "kept as it is: its factors would take the name of a.left" in text
    assert "kept as it is: its factors would take the name of b.error.upper" in text
    kept, metadata = load_file(out), metadata_of(out)
    assert sorted(names_of(metadata)) == ["a.left", "c"]
    for name, tensor in tensors.items():
        if name in names_of(metadata):
            r = lowrank.from_state(kept, metadata, name)
            assert float(error_of(tensor, r.dense())) <= 0.011 * float(tensor.norm())
        else:
            assert torch.equal(kept[name], tensor)


def test_metadata_are_kept(tmp_path: Path, capsys: Capture) -> None:
    given = {"format": "pt", "author": "somebody"}
    save_file({"a": weight(60, 50, 2)}, tmp_path / "m.safetensors", given)
    out = tmp_path / "out.safetensors"
    assert ask(tmp_path / "m.safetensors", "--tol", "0.01", "--write", out) == 0
    assert given.items() <= metadata_of(out).items()


def test_factors_of_an_earlier_run_are_kept(tmp_path: Path, capsys: Capture) -> None:
    save_file({"a": weight(300, 200, 30), "b": weight(60, 50, 2)}, tmp_path / "m.safetensors")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert ask(tmp_path / "m.safetensors", "--tol", "0.01", "--only", "a", "--write", first) == 0
    capsys.readouterr()
    found = answer(capsys, first, "--rank", "2", "--write", second)
    assert [row["name"] for row in found["matrices"]] == ["b"]
    assert found["left_out"] == dict.fromkeys(("a.left", "a.right"), "is a factor already")
    kept, metadata = load_file(second), metadata_of(second)
    assert sorted(names_of(metadata)) == ["a", "b"]
    assert lowrank.from_state(kept, metadata, "a").rank == 30


@pytest.mark.parametrize("method", ["svd", "id", "cur"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_get_factors_of_their_own(
    dtype: torch.dtype, method: str, tmp_path: Path, capsys: Capture
) -> None:
    """The saving is that of the file, and the error is that of the rounded factors."""
    a = weight(256, 192, 8, dtype)
    save_file({"a": a}, tmp_path / "m.safetensors")
    out = tmp_path / "out.safetensors"
    found = answer(
        capsys, tmp_path / "m.safetensors", "--rank", 8, "--method", method, "--write", out
    )
    (row,) = found["matrices"]
    kept, metadata = load_file(out), metadata_of(out)
    assert kept["a.left"].dtype == kept["a.right"].dtype == dtype
    r = lowrank.from_state(kept, metadata, "a")
    true = float(error_of(a, r.left.double() @ r.right.double()) / a.double().norm())
    rounding = torch.finfo(dtype).eps
    assert 0.05 * rounding < true <= row["relative_error"] < 8 * rounding
    assert true <= float(r.error.relative_upper)
    header = 1200
    by_file = (tmp_path / "m.safetensors").stat().st_size / (out.stat().st_size - header)
    assert row["compression"] == pytest.approx(by_file, rel=0.15)
    if method == "id":
        assert torch.equal(r.left, a[:, r.columns])


def test_a_tolerance_holds_after_rounding_or_the_weight_stays(
    tmp_path: Path, capsys: Capture
) -> None:
    a = with_values(256, 192, values("10^(-i/10)", 192), torch.bfloat16)
    save_file({"a": a, "b": a.clone()}, tmp_path / "m.safetensors")
    for tol in ("0.02", "0.005"):
        found = answer(capsys, tmp_path / "m.safetensors", "--tol", tol)
        for row in found["matrices"]:
            assert row["converged"]
            assert row["relative_error"] <= float(tol)
            assert "factors are bfloat16" in row["notes"]
    found = answer(capsys, tmp_path / "m.safetensors", "--tol", "1e-4")
    assert [row["factored"] for row in found["matrices"]] == [False, False]
    assert found["bytes_after"] == found["bytes_before"] == 2 * a.nbytes
    low = weight(400, 300, 2, torch.bfloat16)
    exact = (torch.ones(400, 1) @ torch.ones(1, 300)).to(torch.bfloat16)
    save_file({"exact": exact, "low": low}, tmp_path / "m.safetensors")
    for row in answer(capsys, tmp_path / "m.safetensors", "--tol", "1e-5")["matrices"]:
        assert row["relative_error"] <= 1e-5 or not row["factored"]
    # A single matrix always gets factors: of float32 where rounding is too coarse.
    np.save(tmp_path / "m.npy", with_values(60, 50, values("step", 50)).to(torch.float16).numpy())
    (row,) = answer(capsys, tmp_path / "m.npy", "--tol", "1e-5")["matrices"]
    assert row["relative_error"] <= 1e-5
    assert any("factors are float32" in note for note in row["notes"])


def test_factors_that_float16_cannot_hold_are_balanced(tmp_path: Path, capsys: Capture) -> None:
    a = (weight(512, 512, 1, torch.float64) * 1e6).to(torch.float16)
    assert bool(a.isfinite().all())
    save_file({"a": a, "b": a.clone()}, tmp_path / "m.safetensors")
    out = tmp_path / "out.safetensors"
    assert ask(tmp_path / "m.safetensors", "--rank", "1", "--write", out) == 0
    kept = load_file(out)
    assert bool(kept["a.left"].isfinite().all() and kept["a.right"].isfinite().all())
    made = kept["a.left"].double() @ kept["a.right"].double()
    assert float(error_of(a, made)) < 2e-3 * float(a.double().norm())


def test_eight_bits_get_sixteen(tmp_path: Path, capsys: Capture) -> None:
    a = weight(256, 192, 4).to(torch.float8_e4m3fn)
    save_file({"a": a, "b": a.clone()}, tmp_path / "m.safetensors")
    out = tmp_path / "out.safetensors"
    assert ask(tmp_path / "m.safetensors", "--rank", "4", "--write", out) == 0
    assert load_file(out)["a.left"].dtype == torch.bfloat16


def test_what_the_format_cannot_hold_is_not_dropped(tmp_path: Path, capsys: Capture) -> None:
    a = weight(40, 30, 2, torch.float64).numpy()
    np.savez(tmp_path / "m.npz", a=a, b=a[:5], words=np.array([["x"]]))
    found = answer(capsys, tmp_path / "m.npz", "--rank", 2)
    assert found["left_out"] == {"words": "holds <U1"}
    err = refused(capsys, tmp_path / "m.npz", "--rank", 2, "--write", tmp_path / "o.safetensors")
    assert "words is kept as it is, but holds text" in err
    assert not (tmp_path / "o.safetensors").exists()


# ---------------------------------------------------------------------- what is left out
def test_a_weight_with_nan_is_named_and_the_others_are_done(
    tmp_path: Path, capsys: Capture
) -> None:
    bad = weight(40, 30, 2)
    bad[3, 4] = float("nan")
    worse = bad.clone().to(torch.bfloat16)
    worse[0, 0] = float("inf")
    good = weight(60, 50, 2)
    tensors = {
        "bad": bad,
        "good": good,
        "worse": worse,
        "ids": torch.arange(12).reshape(3, 4),
        "mask": torch.ones(3, 4, dtype=torch.bool),
        "bias": torch.ones(3),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    out = tmp_path / "out.safetensors"
    found = answer(capsys, tmp_path / "m.safetensors", "--tol", "0.01", "--write", out)
    assert [row["name"] for row in found["matrices"]] == ["good"]
    assert found["left_out"] == {
        "bad": "holds NaN or Inf",
        "worse": "holds NaN or Inf",
        "ids": "holds int64, no weights",
        "mask": "holds bool, no weights",
    }
    kept = load_file(out)
    for name in ("bad", "worse", "ids", "mask", "bias"):
        assert torch.equal(kept[name].nan_to_num(), tensors[name].nan_to_num())
    assert ask(tmp_path / "m.safetensors", "--tol", "0.01") == 0
    text, told = capsys.readouterr()
    assert "left out:\n  bad holds NaN or Inf\n  ids holds int64" in text
    assert "bad is left out: it holds NaN or Inf" in told
    save_file({"bad": bad}, tmp_path / "only.safetensors")
    err = refused(capsys, tmp_path / "only.safetensors", "--tol", "0.01")
    assert "bad holds NaN or Inf" in err


# ---------------------------------------------------------------------------- what is read
def _sharded(folder: Path) -> Path:
    save_file({"a": weight(60, 50, 2), "n": torch.ones(3)}, folder / "one.safetensors", {"x": "1"})
    save_file({"b": weight(50, 60, 3)}, folder / "two.safetensors", {"format": "pt"})
    places = {"a": "one.safetensors", "n": "one.safetensors", "b": "two.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_a_checkpoint_in_several_files(tmp_path: Path, capsys: Capture) -> None:
    index = _sharded(tmp_path)
    out = tmp_path / "new" / "out.safetensors"
    found = answer(capsys, index, "--tol", "0.01", "--write", out)
    assert [(row["name"], row["rank"]) for row in found["matrices"]] == [("a", 2), ("b", 3)]
    kept, metadata = load_file(out), metadata_of(out)
    assert torch.equal(kept["n"], torch.ones(3))
    assert metadata["format"] == "pt"
    assert sorted(names_of(metadata)) == ["a", "b"]
    assert answer(capsys, tmp_path, "--tol", "0.01")["matrices"] == found["matrices"]
    index.unlink()
    assert answer(capsys, tmp_path, "--tol", "0.01")["matrices"] == found["matrices"]
    save_file({"a": weight(60, 50, 2)}, tmp_path / "three.safetensors")
    assert "holds a in two files" in refused(capsys, tmp_path, "--tol", "0.01")


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../one.safetensors"}}, "beside it"),
        ({"weight_map": {"a": "one.bin"}}, "beside it"),
        ({"weight_map": {"a": "gone.safetensors"}}, "missing"),
        ({"weight_map": {}}, "names no file"),
        ({}, "not an index"),
        ([], "not an index"),
    ],
)
def test_a_broken_index_is_one_sentence(
    index: object, says: str, tmp_path: Path, capsys: Capture
) -> None:
    _sharded(tmp_path).write_text(json.dumps(index))
    assert says in refused(capsys, tmp_path / "model.safetensors.index.json", "--tol", "0.1")


def test_folders(tmp_path: Path, capsys: Capture) -> None:
    assert "holds no .npy" in refused(capsys, tmp_path, "--tol", "0.1")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pickle" in refused(capsys, tmp_path, "--tol", "0.1")
    np.save(tmp_path / "one.npy", weight(40, 30, 2, torch.float64).numpy())
    np.savez(tmp_path / "two.npz", x=weight(30, 40, 3, torch.float64).numpy())
    (tmp_path / "three.csv").write_text("1,2\n2,4\n")
    found = answer(capsys, tmp_path, "--tol", "0.01")
    ranks = {row["name"]: row["rank"] for row in found["matrices"]}
    assert ranks == {"one": 2, "two.x": 3, "three": 1}


def test_tables(tmp_path: Path, capsys: Capture) -> None:
    expected = np.outer([1.5, 2, 3], [1, 2.5, -1])
    for name, text in {
        "plain.csv": "1.5,3.75,-1.5\n2,5,-2\n3,7.5,-3\n",
        "names.csv": "\ufeffa,b,c\n1.5,3.75,-1.5\n\n2,5,-2\n3,7.5,-3",
        "german.csv": "1,5;3,75;-1,5\n2;5;-2\n3;7,5;-3\n",
        "tabs.tsv": "1.5\t3.75\t-1.5\r\n2\t5\t-2\r\n3\t7.5\t-3\r\n",
        "upper.CSV": "1.5,3.75,-1.5\n2,5,-2\n3,7.5,-3\n",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        out = tmp_path / "out.safetensors"
        assert ask(tmp_path / name, "--tol", "1e-6", "--write", out) == 0, name
        r = lowrank.from_state(load_file(out), metadata_of(out))
        assert r.rank == 1
        assert np.allclose(np.asarray(r), expected)
    capsys.readouterr()
    for name, text, says in (
        ("word.csv", "1,2\n3,x\n", "line 2: 'x' is not a number"),
        ("short.csv", "1,2\n3\n", "line 2 has 1 values"),
        ("empty.csv", "a,b\n", "holds no numbers"),
        ("hole.csv", "1,2\n3,\n", "line 2: '' is not a number"),
    ):
        (tmp_path / name).write_text(text)
        assert says in refused(capsys, tmp_path / name, "--tol", "0.1")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_matrices_of_scipy(kind: str, tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    a = scipy.sparse.random(200, 150, 0.05, format=kind, random_state=rng)
    scipy.sparse.save_npz(tmp_path / "m.npz", a)
    out = tmp_path / "out.safetensors"
    plot = tmp_path / "p.svg"
    assert ask(tmp_path / "m.npz", "--rank", 20, "--write", out, "--plot", plot) == 0
    text = capsys.readouterr().out
    assert "the factors are no smaller than the matrix" in text
    r = lowrank.from_state(load_file(out), metadata_of(out))
    true = np.linalg.norm(a.toarray() - np.asarray(r))
    assert true <= float(r.error.upper) < 1.01 * true + 1e-9


def test_sparse_files_that_cannot_be_read(tmp_path: Path, capsys: Capture) -> None:
    a = scipy.sparse.random(20, 15, 0.2, random_state=np.random.default_rng(0))
    scipy.sparse.save_npz(tmp_path / "m.npz", a.todia())
    assert "tocsr()" in refused(capsys, tmp_path / "m.npz", "--rank", 2)
    with np.load(tmp_path / "m.npz") as stored:
        arrays = dict(stored)
    bad = {"format": b"csr", "indices": np.array([99]), "indptr": np.array([0, 1])}
    np.savez(tmp_path / "bad.npz", shape=arrays["shape"], data=np.ones(1), **bad)
    assert "damaged" in refused(capsys, tmp_path / "bad.npz", "--rank", 2)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.PKL"])
def test_pickles_are_refused_with_the_reason(name: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / name).write_bytes(b"not opened")
    err = refused(capsys, tmp_path / name, "--tol", "0.1")
    assert "can run any program" in err
    assert "safetensors.torch.save_file" in err


def test_big_endian_and_unsigned_arrays(tmp_path: Path, capsys: Capture) -> None:
    a = np.outer(np.arange(1, 40), np.arange(1, 30))
    for dtype in (">f4", ">f8", "uint16", ">u4", "int8"):
        np.save(tmp_path / "m.npy", (a % 100).astype(dtype))
        found = answer(capsys, tmp_path / "m.npy", "--rank", 29)
        assert found["matrices"][0]["relative_error"] < 1e-5


# ---------------------------------------------------------------------------- how it is said
def test_tolerances_in_percent(tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "m.npy", with_values(60, 50, values("1/i", 50)).numpy())
    ranks = {
        tol: answer(capsys, tmp_path / "m.npy", "--tol", tol)["matrices"][0]["rank"]
        for tol in ("0.05", "5%", "5 %", "5e-2", "0.5%", "0.005")
    }
    assert ranks["0.05"] == ranks["5%"] == ranks["5 %"] == ranks["5e-2"]
    assert ranks["0.5%"] == ranks["0.005"]
    assert answer(capsys, tmp_path / "m.npy", "--tol", "5%")["tol"] == 0.05
    for wrong in ("five", "%", "5%%", "nan%", "-5%", "0%", "inf"):
        assert "--tol" in refused(capsys, tmp_path / "m.npy", f"--tol={wrong}")


def test_larger_factors_are_said_to_be_larger(tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "m.npy", with_values(60, 50, values("1/i", 50)).numpy())
    assert ask(tmp_path / "m.npy", "--rank", 50) == 0
    text = capsys.readouterr().out
    assert "one in" not in text
    assert "no smaller than the matrix" in text
    tensors = {"a": weight(40, 30, 30), "b": weight(40, 30, 30)}
    save_file(tensors, tmp_path / "m.safetensors")
    assert ask(tmp_path / "m.safetensors", "--rank", 30) == 0
    text = capsys.readouterr().out
    assert "times fewer" not in text
    assert text.count("kept as it is") == 2
