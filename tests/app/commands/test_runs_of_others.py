"""Runs from somebody else: no command writes outside them, hangs, or ends with a trace."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from noisewise.app import cli
from noisewise.app.report.collect import report
from noisewise.diffusion import Preconditioned
from noisewise.pictures import cache
from noisewise.training.files.atomic import load_tensors, save_tensors, write_text
from noisewise.training.files.sample_sheet import save_sheet, sheet_path
from noisewise.training.load import load
from noisewise.training.models.model_folder import save_model
from noisewise.training.run.begin import new_run
from noisewise.training.run.log import Log
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import new_run_info
from tiny import UNET as NET
from tiny import UNET_CONFIG as CONFIG

pytestmark = [
    pytest.mark.timeout(120),  # a pipe that is opened the usual way would wait for ever
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names"),
]
LINE = {"stage": "teacher", "step": 10, "images": 320, "seconds": 1.0, "loss": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small whole run as somebody may send it: with a teacher, without its pictures."""
    path = tmp_path / "run"
    data = {
        "source": str(tmp_path / "not sent"),
        "fingerprint": "f",
        "num_pictures": 64,
        "num_training": 50,
        "num_held_out": 14,
        "size": 8,
        "channels": 1,
        "notes": [],
        "skipped": [],
    }
    stages = {"teacher": {"finished": True, "budget": "64images", "steps": 10, "seconds": 1.0}}
    new_run(path, {**new_run_info(0), "data": data, "train": {}, "derived": {}, "stages": stages})
    for name in ("teacher", "checkpoints/best-teacher"):
        (path / name).mkdir(parents=True)
        save_model(path / name, Preconditioned(NET, 0.5), CONFIG)
    save_sheet(sheet_path(path, "teacher", 10), torch.zeros(16, 1, 8, 8))
    (path / "cache").mkdir()
    (path / "log.jsonl").write_text(json.dumps(LINE) + "\n")
    (path / ".lock").write_text("123\n")
    return path


def commands(run: Path) -> list[list[str]]:
    """Every command that opens a run."""
    return [
        ["distill", str(run), "--budget", "64images"],
        ["train", str(run.parent), "--out", str(run), "--budget", "64images"],
        ["adapt", str(run), str(run.parent), "--out", str(run), "--budget", "64images"],
        ["sample", str(run), "-n", "1"],
        ["sample", str(run / "teacher"), "-n", "1"],
        ["evaluate", str(run)],
        ["report", str(run)],
    ]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says: one sentence."""
    assert cli.main(words) == 2, words
    said = capsys.readouterr().err.strip()
    assert "\n" not in said, said
    assert "Traceback" not in said
    return said


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


LINKED = (
    *(".lock", "run.json", "run-copy.json", "log.jsonl", "noise.json", "kinds.safetensors"),
    *("local.json", ".gitignore"),
    *("report.html", "samples/seed-0.png", "samples/teacher-0000010.png", "cache/x.npy"),
    *("checkpoints/teacher-0000010.safetensors", "checkpoints/best-teacher/config.json"),
    *("teacher/model.safetensors", "samples/.x.tmp"),
)


@pytest.mark.parametrize("part", LINKED)
def test_a_file_of_a_run_is_no_link(
    run: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = run.parent / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_bytes((run / part).read_bytes() if (run / part).exists() else b"years of work")
    (run / part).unlink(missing_ok=True)
    (run / part).symlink_to(victim)
    before, there = files_of(outside), sorted(run.rglob("*"))
    for words in commands(run):
        if words[1] == str(run / "teacher") and not part.startswith(("samples", "teacher")):
            continue  # reads nothing of the run but the teacher
        if words[1] == str(run / "teacher") and part.startswith("samples"):
            continue  # its sheet goes into the teacher's own folder
        assert f"{run / part} is a link" in refused(words, capsys)
    assert files_of(outside) == before
    assert sorted(run.rglob("*")) == there


@pytest.mark.parametrize(
    "part", ["samples", "cache", "checkpoints", "teacher", "generator", "checkpoints/best-teacher"]
)
def test_a_folder_of_a_run_is_no_link(
    run: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = run.parent / "outside"
    outside.mkdir()
    if (run / part).exists():
        shutil.copytree(run / part, outside, dirs_exist_ok=True)
        shutil.rmtree(run / part)
    for name in (".a.1.tmp", ".tmpabcdef", ".new-x", "seed-0.png", "teacher-0000001.safetensors"):
        (outside / name).write_bytes(b"years of work")
    (run / part).symlink_to(outside)
    before = files_of(outside)
    for words in commands(run):
        if words[1] != str(run / "teacher"):
            assert f"{run / part} is a link" in refused(words, capsys)
    assert files_of(outside) == before


def test_the_samples_of_a_model_folder_are_no_link(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = run.parent / "outside"
    outside.mkdir()
    (run / "teacher" / "samples").symlink_to(outside)
    assert "is a link" in refused(["sample", str(run / "teacher"), "-n", "1"], capsys)
    assert not list(outside.iterdir())


def test_the_run_folder_itself_may_be_a_link(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = run.parent / "link"
    link.symlink_to(run)
    assert cli.main(["sample", str(link), "-n", "1"]) == 0, capsys.readouterr().err
    assert (run / "samples" / "seed-0.png").is_file()
    assert Run(link).data.num_pictures == 64


def test_links_of_ones_own_beside_the_parts_do_no_harm(run: Path) -> None:
    (run / "pictures").symlink_to(run.parent)
    assert cli.main(["sample", str(run), "-n", "1"]) == 0


def test_a_lock_that_is_another_file_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hard link looks like a file of the run."""
    victim = run.parent / "victim"
    victim.write_text("years of work")
    (run / ".lock").unlink()
    os.link(victim, run / ".lock")
    said = refused(["distill", str(run), "--budget", "64images"], capsys)
    assert "is no lock of noisewise" in said
    assert victim.read_text() == "years of work"


def test_a_temporary_name_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to(victim)
    write_text(tmp_path / "a.json", "new")
    assert victim.read_text() == "years of work"
    assert (tmp_path / "a.json").read_text() == "new"
    assert not (tmp_path / "a.json").is_symlink()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_pipe, _folder])
@pytest.mark.parametrize("part", ["run.json", "run-copy.json", "log.jsonl", ".lock", "noise.json"])
def test_a_file_of_a_run_is_a_file(
    run: Path, part: str, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / part).unlink(missing_ok=True)
    make(run / part)
    for words in commands(run):
        if words[1] != str(run / "teacher"):
            assert str(run / part) in refused(words, capsys)


@pytest.mark.parametrize("part", ["samples/teacher-0000020.png", "checkpoints/x", "cache/.new-x"])
def test_pipes_inside_a_run_are_refused(
    run: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(run / part)
    for words in commands(run):
        if words[1] != str(run / "teacher"):
            assert f"{run / part} is not a file" in refused(words, capsys)


def test_a_pipe_in_a_cache_of_ones_own_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".new-x")
    (tmp_path / ".new-y").symlink_to(tmp_path / "nowhere")
    assert cache.sweep(tmp_path) == 0
    for ending in ("json", "npy"):
        os.mkfifo(tmp_path / f"k.{ending}")
    assert cache.read_cached(tmp_path, "k") is None


def test_a_cache_with_deep_facts_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text("[" * 200_000)
    assert cache.read_cached(tmp_path, "k") is None


@pytest.mark.parametrize("value", [math.nan, 3e38])
def test_nothing_is_drawn_by_weights_that_are_no_numbers(
    run: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not finite themselves, or so large that their pictures are not finite."""
    path = run / "teacher" / "model.safetensors"
    weights, _ = load_tensors(path)
    weights = {name: torch.full_like(tensor, value) for name, tensor in weights.items()}
    digest = save_tensors(path, weights)
    described = json.loads((run / "teacher" / "config.json").read_text())
    del described["seal"]
    text = json.dumps({**described, "weights": digest})
    (run / "teacher" / "config.json").write_text(text)
    assert "values that are not finite" in refused(["sample", str(run), "-n", "2"], capsys)
    assert not (run / "samples" / "seed-0.png").exists()
    if math.isnan(value):
        assert "not finite" in refused(["report", str(run)], capsys)


@pytest.mark.parametrize(
    "line",
    [
        {**LINE, "step": "x"},
        {**LINE, "step": 10**400},
        {**LINE, "step": -1},
        {**LINE, "images": None},
        {**LINE, "seconds": "1"},
        {**LINE, "seconds": math.nan},
        {**LINE, "loss": [1]},
        {**LINE, "loss": True},
        {**LINE, "floors": "0.5"},
        {**LINE, "stage": 5},
        {**LINE, "stage": ["teacher"]},
        {**LINE, "kind": {}},
        {**LINE, "event": 5},
        {**LINE, "fisher": 10**400},
        ["teacher"],
        3,
        None,
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_log_line_of_another_type_is_left_out(run: Path, line: object) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n" + "[" * 100_000 + "\n")
        file.write(json.dumps({**LINE, "step": 20}) + "\n")
    assert [record.step for record in Log(run / "log.jsonl").read()] == [10, 20]


def _junk(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _bomb(path: Path) -> None:
    Image.new("1", (40_000, 40_000)).save(path, "PNG")


def _thin(path: Path) -> None:
    Image.new("L", (3, 3)).save(path, "PNG")


def _postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")


def test_a_report_does_without_what_it_cannot_read(run: Path) -> None:
    """Junk in samples/, a folder there, lines of another type, extreme numbers."""
    good = sheet_path(run, "teacher", 10)
    for step, make in enumerate((_junk, _cut, _bomb, _thin, _postscript), 20):
        path = sheet_path(run, "teacher", step)
        shutil.copy(good, path)
        make(path)
    sheet_path(run, "teacher", 30).mkdir()
    with (run / "log.jsonl").open("a") as file:
        for number, change in enumerate(
            (
                {"step": "x"},
                {"loss": 1e308, "heldout_loss": 1e308},
                {"loss": -1e308, "floors": math.nan, "distance": math.inf},
                {"seconds": 1e300},
                {"step": 0, "images": 0, "seconds": 0, "loss": 0.0},
                {"stage": "else", "event": "<script>"},
            )
        ):
            file.write(json.dumps({**LINE, "step": 11 + number, **change}) + "\n")
    page = report(run, num_images=64)
    text = page.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "change",
    [
        {"data": []},
        {"data": {"size": 0}},
        {"data": {"size": "abc"}},
        {"data": {"num_pictures": "many"}},
        {"data": {"num_training": -1}},
        {"data": {"channels": None}},
        {"data": {"classes": [1]}},
        {"data": {"classes": "abc"}},
        {"data": {"skipped": [3]}},
        {"data": {"skipped": [{"name": "a"}]}},
        {"data": {"twins": [[1]]}},
        {"data": {"source": 3}},
        {"data": {"source": "/a\0b"}},
        {"data": {"source": "/" + "a" * 99999}},
        {"data": {"seconds_to_first_batch": "x"}},
        {"stages": []},
        {"stages": {"teacher": 3}},
        {"stages": {"teacher": {"seconds": "x"}}},
        {"stages": {"teacher": {"steps": 1.5}}},
        {"stages": {"teacher": {"finished": "yes"}}},
        {"seed": "x"},
        {"train": 3},
        {"train": {"recipe": 3}},
        {"train": {"crop": 5}},
        {"train": {"recipe": {"lr": "x"}}},
        {"derived": []},
        {"distill": 3},
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_entries_of_another_type_in_run_json_are_one_sentence(
    run: Path, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    info = json.loads((run / "run.json").read_text())
    del info["seal"]
    for name, value in change.items():
        info[name] = {**info[name], **value} if isinstance(value, dict) else value
    for name in ("run.json", "run-copy.json"):
        (run / name).write_text(json.dumps(info))
    for words in (["report", str(run)], ["evaluate", str(run)], ["sample", str(run), "-n", "1"]):
        assert "is damaged: its " in refused(words, capsys)


def test_a_measurement_with_deep_brackets_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "noise.json"
    for text in ("[" * 200_000, '{"noise":' * 100_000, "[]", '{"noisewise_measurement": []}'):
        path.write_text(text)
        for words in (["advise", str(path), "--batch", "64"], ["watch", str(path), "--once"]):
            assert str(path) in refused(["lr", *words], capsys)
    path.unlink()
    os.mkfifo(path)
    assert "is not a file" in refused(["lr", "advise", str(path), "--batch", "64"], capsys)
    zeros = tmp_path / "zeros"
    zeros.symlink_to("/dev/zero")
    assert "is not a file" in refused(["lr", "watch", str(zeros), "--once"], capsys)


def test_a_run_that_is_a_model_too_is_checked_as_a_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a config.json beside run.json, `sample` takes it as a model."""
    save_model(run, Preconditioned(NET, 0.5), replace(CONFIG))
    outside = run.parent / "outside"
    outside.mkdir()
    shutil.rmtree(run / "samples")
    (run / "samples").symlink_to(outside)
    assert "is a link" in refused(["sample", str(run), "-n", "1"], capsys)
    (run / "samples").unlink()
    (run / "cache" / "x").symlink_to(outside)
    assert "is a link" in refused(["sample", str(run), "-n", "1"], capsys)


def test_a_run_with_only_its_copy_is_guarded_too(run: Path, tmp_path: Path) -> None:
    (run / "run.json").rename(run / "run-copy.json")
    weights = run / "teacher" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    for path in (run, run / "teacher"):
        with pytest.raises(ValueError, match="is a link"):
            load(path)


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_the_largest_seeds_are_no_damage(run: Path, seed: int) -> None:
    values = {**json.loads((run / "run.json").read_text()), "seed": seed}
    values.pop("seal", None)
    (run / "run.json").write_text(json.dumps(values))
    assert Run(run).info["seed"] == seed


def test_a_log_of_empty_lines_is_read_at_once(run: Path) -> None:
    log = run / "log.jsonl"
    log.write_text("\n" * 2**22 + json.dumps(LINE) + "\n")
    assert [record.step for record in Log(log).read()] == [10]
