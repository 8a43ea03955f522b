"""Each command on a tiny real run: results on stdout, notes on stderr, codes as promised."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisewise.app import cli, demo
from noisewise.app.terminal.program_name import program
from noisewise.app.terminal.progress import Progress

Settings = Callable[[str], list[str]]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """Run a command with --json and return its one object."""
    assert cli.main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_inspect(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    found = told(capsys, "inspect", str(folder), "--out", str(sheet))
    assert found["num_pictures"] == 120
    assert found["classes"] == {"round": 60, "rounder": 60}
    assert sum(item["count"] for item in found["skipped"]) == 2
    with Image.open(sheet) as image:
        assert image.width > 100
    assert cli.main(["inspect", str(folder)]) == 0
    assert "120 usable pictures" in capsys.readouterr().out


def test_a_contact_sheet_is_the_old_one_or_the_new_one(folder: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk that fills while the sheet is written."""
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"the old one")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "from noisewise.app import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "inspect", str(folder), "--out", str(sheet)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "there is no room" in done.stderr
    assert sheet.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [sheet]


def test_training_says_first_what_it_made_of_the_pictures(
    folder: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    for i in range(3):
        Image.new("RGB", (30, 16), (i, 90, 0)).save(pictures / "round" / f"wide{i}.png")
    words = ["--out", str(tmp_path / "run"), "--budget", "64images", *settings("train")]
    assert cli.main(["train", str(pictures), *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    for line in (
        "pictures: 123 of 16 x 16 pixels, colour",
        "skipped: 1 not a picture despite the name (round/broken.png)",
        "skipped: 1 not a picture (readme.txt)",
    ):
        assert line in lines
    assert any(line.startswith("note: 3 pictures not square: cropped") for line in lines)
    begun = next(i for i, line in enumerate(lines) if line.startswith("teacher: "))
    told = ("pictures: ", "skipped: ", "judge: ", "note: ")
    assert all(line.startswith(told) for line in lines[:begun])
    assert any(line.startswith("judge: tells clear damage from ") for line in lines)


@pytest.mark.parametrize("verb", ["train", "adapt", "demo"])
def test_the_first_signal_ends_reading(
    verb: str,
    folder: Path,
    teacher_run: Path,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real signal, sent when the first file has been read; no run comes about."""
    shown, sent = Progress.count, []

    def interrupted(self: Progress, done: int, total: int) -> None:
        if not sent:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        shown(self, done, total)

    monkeypatch.setattr(Progress, "count", interrupted)
    out = tmp_path / "run"
    where = ["--out", str(out), "--budget", "64images"]
    if verb == "demo":
        code = demo.main(where)
    elif verb == "train":
        code = cli.main(["train", str(folder), *where, *settings("train")])
    else:
        code = cli.main(["adapt", str(teacher_run), str(folder), *where, "--start", "full"])
    assert code == 130
    assert not (out / "run.json").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_dry_run_says_why_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", str(folder), "--out", str(out), "--dry-run", "--lr", "0.01"]
    derived = told(capsys, *words)["derived"]
    assert derived["lr"] == {"value": 0.01, "reason": "set by hand"}
    assert all(item["reason"] for item in derived.values())
    assert not out.exists()
    assert cli.main(words) == 0
    assert "set by hand" in capsys.readouterr().out


def test_train_leaves_a_run_and_says_what_is_next(
    teacher_run: Path, folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder), "--out", str(teacher_run), "--budget", "1000images"]
    before = (teacher_run / "teacher" / "model.safetensors").read_bytes()
    values = told(capsys, "train", *words, *settings("train"))
    assert values["stage"] == "teacher"
    assert values["finished"]
    assert values["images"] >= 1000
    assert (teacher_run / "teacher" / "model.safetensors").read_bytes() == before
    assert cli.main(["train", *words, *settings("train")]) == 0
    out, err = capsys.readouterr()
    assert f"next: {program()} distill {teacher_run}" in out
    assert "already finished" in err


def test_sample_a_sheet_a_folder_and_a_teacher(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, single = tmp_path / "sheet.png", tmp_path / "single"
    run = str(distilled_run)
    values = told(capsys, "sample", run, "-n", "9", "--out", str(sheet), "--scale", "2")
    assert (values["model"], values["network_calls"]) == ("generator", 1)
    with Image.open(sheet) as image:
        assert image.size == (2 * (3 * 16 + 2),) * 2
        first = np.asarray(image.convert("RGB"))[:32:2, :32:2]
    told(capsys, "sample", run, "-n", "3", "--out", str(single))
    drawn = sorted(p.name for p in single.glob("*.png"))
    assert drawn == [f"seed-0-0000{i}.png" for i in range(3)]
    assert json.loads((single / "seed-0.json").read_text())["num_images"] == 3
    with Image.open(single / "seed-0-00000.png") as image:
        shown = np.asarray(image.convert("RGB"))
        assert np.array_equal(shown, first)  # the same seed, however many are drawn
    words = ["-n", "2", "--teacher", "--steps", "4", "--out", str(single), "--overwrite"]
    values = told(capsys, "sample", run, *words)
    assert (values["model"], values["network_calls"]) == ("teacher", 7)
    drawn = sorted(p.name for p in single.glob("*.png"))
    assert drawn == ["seed-0-00000.png", "seed-0-00001.png"]  # none of the earlier three


def test_a_folder_takes_several_seeds_and_keeps_what_is_there(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(distilled_run), "-n", "2", "--out", str(tmp_path / "many")]
    for seed in ("0", "1", "10"):
        told(capsys, *words, "--seed", seed)
    (tmp_path / "many" / ".DS_Store").touch()
    before = {path.name: path.read_bytes() for path in (tmp_path / "many").iterdir()}
    assert len(before) == 3 * 3 + 1
    assert cli.main([*words, "--seed", "1", "--label", "0"]) == 2
    said = capsys.readouterr().err
    assert "already holds pictures of seed 1 (seed-1-00000.png)" in said
    assert "--overwrite" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "many").iterdir()} == before
    told(capsys, *words, "--seed", "1", "--overwrite", "--scale", "2")
    after = {path.name: path.read_bytes() for path in (tmp_path / "many").iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"seed-1.json", "seed-1-00000.png", "seed-1-00001.png"}


def test_a_folder_of_an_older_version_takes_new_pictures(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "00000.png")
    (tmp_path / "samples.json").write_text("{}")
    told(capsys, "sample", str(distilled_run), "-n", "1", "--out", str(tmp_path))
    assert (tmp_path / "00000.png").exists()
    (tmp_path / "seed-0.json").unlink()  # now they may be somebody's own
    words = ["sample", str(distilled_run), "--overwrite", "--out", str(tmp_path)]
    assert cli.main(words) == 2
    assert "holds something else (seed-0-00000.png)" in capsys.readouterr().err


def test_samplers_are_chosen_by_name(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(distilled_run)
    drawn = {}
    for sampler in ("heun", "ddpm"):
        out = tmp_path / f"{sampler}.png"
        words = ["sample", run, "--teacher", "-n", "4", "--sampler", sampler, "--out", str(out)]
        values = told(capsys, *words)
        assert values["sampler"] == sampler
        drawn[sampler] = out.read_bytes()
    assert drawn["heun"] != drawn["ddpm"]
    values = told(capsys, "evaluate", run, "-n", "64", "--teacher", "--sampler", "ddim")
    assert (values["model"], values["network_calls"]) == ("teacher", 5)
    assert cli.main(["sample", run, "--teacher", "--sampler", "dpm++"]) == 2
    assert "unknown sampler 'dpm++'; use one of heun, " in capsys.readouterr().err
    assert cli.main(["sample", run, "--sampler", "ddim"]) == 2
    assert "a generator draws in one call and has no sampler" in capsys.readouterr().err


def test_guidance_is_drawn_counted_and_refused(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Path(__file__).parents[2] / "frozen" / "one_checkpoint" / "run" / "teacher"
    drawn, calls = {}, {}
    for weight in ("1", "2"):
        out = tmp_path / f"{weight}.png"
        words = ["sample", str(known), "-n", "4", "--teacher", "--out", str(out)]
        values = told(capsys, *words, "--steps", "4", "--guidance", weight)
        drawn[weight], calls[weight] = out.read_bytes(), values["network_calls"]
        assert values["guidance"] == float(weight)
    assert drawn["1"] != drawn["2"]
    assert calls["1"] == 7 < calls["2"] <= 14
    run = str(distilled_run)
    for words, message in (
        (["sample", run, "--teacher", "--guidance", "2"], "without classes, and guidance needs"),
        (["evaluate", run, "--teacher", "--guidance", "2"], "without classes, and guidance needs"),
        (["sample", run, "--guidance", "2"], "cannot be guided; use the teacher"),
        (["sample", run, "--teacher", "--guidance", "0.5"], "use 1 for none, or more"),
        (["evaluate", run, "--teacher", "--guidance", "nan"], "guidance of nan does not work"),
    ):
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err
    values = told(capsys, "evaluate", run, "-n", "64", "--teacher", "--guidance", "1")
    assert values["network_calls"] == 5


def test_sample_does_not_take_somebodys_pictures_for_its_own(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "00000.png"  # as sets of faces are named
    Image.new("L", (4, 4)).save(theirs)
    before = theirs.read_bytes()
    assert cli.main(["sample", str(distilled_run), "--out", str(tmp_path)]) == 2
    assert "holds something else (00000.png)" in capsys.readouterr().err
    assert theirs.read_bytes() == before


def test_a_report_is_written_over_no_other_kind_of_file(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("dear")
    assert cli.main(["report", str(teacher_run), "--out", str(notes)]) == 2
    assert "ending in .html" in capsys.readouterr().err
    assert notes.read_text() == "dear"


def test_sample_does_not_write_over_other_things(
    distilled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    run = str(distilled_run)
    assert cli.main(["sample", run, "--out", str(tmp_path)]) == 2
    assert "holds something else (thesis.tex)" in capsys.readouterr().err
    assert cli.main(["sample", run, "--out", str(tmp_path / "x.jpg")]) == 2
    assert "PNG" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_evaluate_has_the_promised_keys(
    distilled_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = told(capsys, "evaluate", str(distilled_run), "-n", "128")
    promised = (
        "model num_images distance distance_low distance_high floor wasserstein copies "
        "seconds_per_image network_calls device "
        "verdict verdict_reason floors told_apart precision recall spectrum_db flat_area even_area "
        "class_shares fid kid"
    )
    assert set(promised.split()) <= set(values)
    assert values["num_images"] == 128
    assert {"fraction", "threshold"} <= set(values["copies"])
    assert values["distance_low"] <= values["distance"] <= values["distance_high"]
    assert cli.main(["evaluate", str(distilled_run), "-n", "128", "--teacher"]) == 0
    out, err = capsys.readouterr()
    assert "judging" in err
    lines = out.splitlines()
    assert lines[0].startswith("poor (a glance is enough): ")
    assert max(len(line) for line in lines) <= 100
    below = lines[lines.index("") :]  # the verdict may take two lines
    named = [line.split("  ")[0] for line in below if line[:1].islower() and "  " in line]
    assert named == [
        *("floors", "told apart", "precision", "recall", "spectrum", "flat area", "even area"),
        *("class shares", "copies", "near copies"),
    ]
    assert "A low share is no praise" in " ".join(out.split())
    assert "To compare with other runs" in " ".join(out.split())


def test_evaluate_fits_a_narrow_terminal(
    teacher_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["evaluate", str(teacher_run), "-n", "64"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


def test_weights_for_fid_that_are_wrong_are_one_sentence(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before a picture is drawn; nothing is downloaded."""
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(b"not these")
    for path, words in (
        (tmp_path / "none.pth", "does not exist"),
        (tmp_path, "is no file"),
        (wrong, "is not weights-"),
    ):
        assert cli.main(["evaluate", str(teacher_run), "--fid-weights", str(path)]) == 2
        said = [
            line for line in capsys.readouterr().err.splitlines() if "FID" in line or words in line
        ]
        assert len(said) == 1
        assert words in said[0]


@pytest.mark.parametrize("command", ["distill", "sample", "evaluate", "report"])
def test_without_a_run_there_is_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(tmp_path / "nothing")]) == 2
    err = capsys.readouterr().err
    assert "is not a run" in err
    assert len([line for line in err.splitlines() if line.startswith("noisewise ")]) == 1


def test_a_damaged_model_is_one_sentence(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "damaged"
    shutil.copytree(teacher_run, run)
    weights = run / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert cli.main(["sample", str(run), "--out", str(tmp_path / "x.png")]) == 2
    err = capsys.readouterr().err
    assert "model.safetensors" in err
    assert "Traceback" not in err


def test_train_into_a_strangers_folder_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    assert cli.main(["train", str(folder), "--out", str(tmp_path)]) == 2
    assert "contains other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_printed_line_resumes(
    number: signal.Signals, code: int, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "stopped run"
    words = [str(folder), "--out", str(out), "--budget", "10m", *settings("train")]
    command = [sys.executable, "-m", "noisewise", "train", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    log = out / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    printed, noted = process.communicate(timeout=60)
    assert process.returncode == code, noted
    assert printed == ""
    assert list((out / "checkpoints").glob("teacher-*.safetensors"))
    line = next(line for line in noted.splitlines() if line.startswith("Saved. To resume: "))
    assert line.endswith(f"train {words[0]} --out '{out}' --budget 10m {' '.join(words[5:])}")
    steps = json.loads(log.read_text().splitlines()[-1])["step"]
    assert steps > 0


def test_a_disk_that_takes_no_more_is_told_in_a_sentence_and_nothing_is_lost(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    """A limit on file sizes stands for the full disk: the same refusal by the system."""
    out = tmp_path / "run"
    words = ["train", str(folder), "--out", str(out), "--budget", "600images", *settings("train")]
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)); "
        "from noisewise.app import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("noisewise train: there is no room for ")
    assert "free some and run the same command again" in said
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("*.tmp"))
    assert cli.main(words) == 0
    assert (out / "teacher" / "model.safetensors").exists()


def test_settings_of_a_dry_run_are_saved_and_read_back(
    folder: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person does: try, save, look at the file, train with it."""
    path, out = tmp_path / "mine.toml", tmp_path / "run"
    words = ["train", str(folder), *settings("train"), "--budget", "64images", "--lr", "0.01"]
    first = told(capsys, *words, "--dry-run", "--save-config", str(path))
    assert not out.exists()
    assert "lr = 0.01\n" in path.read_text()
    words = ["train", str(folder), "--config", str(path)]
    assert told(capsys, *words, "--dry-run") == first
    again = tmp_path / "again.json"
    told(capsys, *words, "--out", str(out), "--save-config", str(again))
    trained = json.loads((out / "run.json").read_text())["train"]
    assert json.loads(again.read_text()) == trained
    assert trained["widths"] == [8, 16]
    assert trained["budget"] == "64images"


def test_a_note_says_where_the_settings_are(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.json"
    words = ["distill", str(teacher_run), "--dry-run", "--lam", "0.5", "--save-config", str(path)]
    assert cli.main(words) == 0
    assert capsys.readouterr().err == f"settings: {path}\n"
    assert json.loads(path.read_text())["lam"] == 0.5
