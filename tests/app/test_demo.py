"""The demo: goes on where it stopped, says what it does, and is quick when it has been done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisewise.app import demo
from noisewise.demo import SHA256, demo_path
from noisewise.training.settings.config import DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe


@pytest.mark.parametrize("text", ["5m", "90s", "20000images", "1h"])
def test_the_budget_is_split_without_loss(text: str) -> None:
    teacher, student = (demo.Budget.parse(part) for part in demo.budgets(text))
    whole = demo.Budget.parse(text)
    if whole.seconds is not None:
        assert (teacher.seconds or 0) + (student.seconds or 0) == pytest.approx(whole.seconds)
        assert teacher.seconds == pytest.approx(demo.TEACHER_SHARE * whole.seconds)
    else:
        assert (teacher.images or 0) + (student.images or 0) == whole.images


def test_bad_usage_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--budget", "0m"]) == 2
    assert demo.main(["--bugdet", "5m"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "Traceback" not in err
    assert demo.main(["--help"]) == 0
    assert "--budget BUDGET" in capsys.readouterr().out


def test_the_demo_from_start_to_finish_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A very small demo leaves everything that was promised; the second call changes nothing."""
    monkeypatch.setattr(demo, "NUM_JUDGED", 64)
    small = TeacherRecipe(distance_images=64, reference_images=256, sampler_images=0, num_steps=2)
    monkeypatch.setattr(demo, "TEACHER", TrainConfig(widths=(8, 16), recipe=small))
    student = StudentRecipe(distance_images=128)
    monkeypatch.setattr(demo, "STUDENT", DistillConfig(recipe=student))
    out = tmp_path / "demo"
    words = ["--out", str(out), "--budget", "640images"]
    assert demo.main(words) == 0
    printed, told = capsys.readouterr()
    for name in ("report.html", "samples/one-call.png", "teacher", "generator"):
        assert (out / name).exists()
        assert str(out / name) in printed
    for words_shown in (
        *("verdict", "floors", "one call", "teacher, ", "distillation", "noisewise train"),
        *("poor", "The result is poor (one call", "--budget 30m"),
    ):
        assert words_shown in printed
    assert "distance" not in printed
    assert told.count("kept: ") == 2  # a short line for each stage
    assert "sampler: heun, 3 calls" in told
    assert [line[:6] for line in told.splitlines() if line[1:5] == " of "] == [
        "1 of 3", "2 of 3", "3 of 3"
    ]  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert demo.main(words) == 0
    again, told = capsys.readouterr()
    assert again == printed
    assert "is finished" in told
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    summary = (out / demo.SUMMARY).read_text()
    assert json.loads(summary)["budget"] == "640images"
    assert str(tmp_path) not in summary, "the run may be published"


def test_packaged_pictures_that_have_changed_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = demo_path().parent
    assert SHA256 in (place / "README.md").read_text("utf-8")
    other = tmp_path / "pictures.npz"
    data = bytearray(demo_path().read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    out = tmp_path / "demo"
    for path, why in ((other, "are not the ones that were packaged"), (tmp_path / "no", "cannot")):
        monkeypatch.setattr(demo, "demo_path", lambda path=path: path)
        assert demo.main(["--out", str(out), "--budget", "640images"]) == 2
        err = capsys.readouterr().err
        assert why in err
        assert "install noisewise again" in err
        assert "Traceback" not in err
    assert not out.exists()
