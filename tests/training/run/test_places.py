"""What a run publishes of the machine, and that it finds its pictures again all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import noisewise
from noisewise.app import cli
from noisewise.app.report.collect import report
from noisewise.training.run.places import Places, public_name, public_place, without_places
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import read_info, write_info
from noisewise.training.settings.config import AdaptConfig, DistillConfig, TrainConfig
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from picture_files import colour

TEACH = TrainConfig(
    budget="32images",
    size=8,
    widths=(4, 4),
    recipe=TeacherRecipe(batch=16, distance_images=16, sampler_images=16),
)
DISTIL = DistillConfig(
    budget="32images", recipe=StudentRecipe(batch=16, distance_images=16, two_call_sigmas=(0.3,))
)
PRIVATE = ("ann.lee", "secret-client", "study-7")


def write(folder: Path, count: int = 24, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for i in range(first, first + count):
        colour(i, 8, 8).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody whose name and folders nobody else is to know."""
    place = tmp_path / "ann.lee"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "ann.lee")
    return place


def told(run: Path, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each file of a run, but the private one, with each of the words that it holds."""
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name != "local.json":
            data = path.read_bytes()
            yield from ((name, word) for word in words if word.encode() in data)


# ---------------------------------------------------------------------- what is written
def test_nothing_of_the_home_is_in_a_run_that_is_published(home: Path, tmp_path: Path) -> None:
    """Every command of a run's life, with absolute paths, and with trouble on the way."""
    pictures = write(home / "secret-client" / "study-7" / "pictures")
    first, run = home / "secret-client" / "runs" / "first", home / "secret-client" / "runs" / "x"
    noisewise.train(pictures, first, config=TEACH)
    config = replace(TEACH, lr_from=str(first))
    noisewise.train(pictures, run, config=config)
    shutil.copy(run / "run.json", tmp_path / "whole.json")
    (run / "run.json").write_text("{")  # the log tells of it, by its path
    noisewise.train(pictures, run, "64images", config=config)
    noisewise.distill(run, config=DISTIL)
    (run / "run.json").unlink()
    noisewise.evaluate(run, num_images=16)
    report(run, num_images=64)
    assert cli.main(["sample", str(run), "-n", "4"]) == 0
    drawn = home / "secret-client" / "drawn"
    assert cli.main(["sample", str(run), "-n", "4", "--out", str(drawn)]) == 0
    shutil.copy(tmp_path / "whole.json", run / "run.json")
    (run / "run.json.damaged").unlink()  # it is as it was found; .gitignore leaves it out

    private = (*PRIVATE, str(tmp_path))
    assert all(word in (run / "local.json").read_text() for word in private), "it is looked for"
    assert list(told(run, private)) == []
    assert list(told(drawn, private)) == []
    assert Run(run).source() == pictures
    ignored = (run / ".gitignore").read_text().split("\n")
    assert {"/local.json", "/cache/", "/run.json.damaged"} <= set(ignored)
    assert "its copy run-copy.json was used instead" in (run / "log.jsonl").read_text()
    assert "as in first" in json.dumps(Run(run).info["derived"])
    noisewise.train(pictures, run, "96images", config=config)  # by its name lr_from is the same


def test_an_adapted_run_and_one_with_a_copied_teacher_tell_nothing_either(home: Path) -> None:
    pictures = write(home / "secret-client" / "pictures")
    first = home / "study-7" / "runs" / "first"
    noisewise.train(pictures, first, config=TEACH)
    copied = home / "copied"
    noisewise.distill(copied, teacher=first, config=DISTIL)
    assert list(told(copied, (*PRIVATE, str(home)))) == []
    assert Run(copied).source() == pictures, "it is evaluated on the teacher's pictures"
    assert Run(copied).info["teacher_from"] == "first/teacher"
    more = write(home / "secret-client" / "more", first=30)
    config = AdaptConfig(budget="32images", start="full", recipe=replace(TEACH.recipe, batch=8))
    adapted = noisewise.adapt(first, more, home / "study-7" / "runs" / "adapted", config=config)
    assert list(told(adapted.path, (*PRIVATE, str(home)))) == []
    assert adapted.info["adapt"]["teacher_from"] == "../first/teacher"
    assert Run(adapted.path).teacher_source() == str(first / "teacher")
    assert adapted.source() == more


def test_only_what_has_one_name_and_stays_below_the_home_is_a_path(home: Path) -> None:
    run = home / "work" / "runs" / "x"
    cases = {
        home / "work" / "cats": "../../cats",
        home / "work" / "runs" / "cats.zip": "../cats.zip",
        home / "work": "../..",
        run / "cats": "./cats",
        home / "work" / "client" / "cats": "cats",
        home / "cats": "cats",
        home: "pictures",
        home.parent: "pictures",
        home.parent / "cats": "cats",
        Path("/data/ann.lee"): "pictures",
        Path("/"): "pictures",
    }
    assert {place: public_place(place, run, "pictures") for place in cases} == cases
    assert public_name(home, "home") == "home"


def test_texts_lose_the_places_and_keep_the_rest(home: Path) -> None:
    run = home / "runs" / "x"
    clean = Places(run, {}).with_({"pictures": Path("/data/client/cats")}).cleaner()
    told = f"{run}/log.jsonl, {run}2, /data/client/cats/a b.png: '{home}/a/b' {home}er 1/2 images/s"
    kept = f"x/log.jsonl, x2, cats/a b.png: 'b' {home}er 1/2 images/s"
    assert clean(told) == kept
    info = {"data": {"source": "C:\\Users\\ann\\cats"}, "stages": {"teacher": {"failed": told}}}
    public, found = without_places(info, Places(run, {}))
    assert public["data"]["source"] == "cats"
    assert found == {}
    assert str(home / "a") not in json.dumps(public)


# ---------------------------------------------------------------------- what is found again
def test_run_and_pictures_that_move_together_are_found(home: Path, tmp_path: Path) -> None:
    near, far = write(home / "work" / "near"), write(home / "work" / "client" / "far", first=30)
    noisewise.train(near, home / "work" / "runs" / "near", config=TEACH)
    noisewise.train(far, home / "work" / "runs" / "far", config=TEACH)
    (home / "work" / "runs" / "near" / "local.json").unlink()  # as in a copy by git
    (home / "work").rename(tmp_path / "elsewhere")
    runs = tmp_path / "elsewhere" / "runs"
    assert Run(runs / "near").pictures().source == str(tmp_path / "elsewhere" / "near")
    assert Run(runs / "far").pictures().source == str(tmp_path / "elsewhere" / "client" / "far")
    write(runs / "moved" / "client" / "far", first=60)  # others, where the run would look first
    shutil.copytree(runs / "far", runs / "moved" / "runs" / "far")
    local = json.loads((runs / "far" / "local.json").read_text())
    local["pictures"]["path"] = str(tmp_path / "elsewhere" / "client" / "far")
    (runs / "moved" / "runs" / "far" / "local.json").write_text(json.dumps(local))
    moved = Run(runs / "moved" / "runs" / "far")
    assert moved.pictures().fingerprint == moved.data.fingerprint


@pytest.mark.parametrize("private", ["{", "[]", '{"pictures": {"path": 3}}', "[" * 99999, None])
def test_a_damaged_private_file_costs_a_flag(tmp_path: Path, private: str | None) -> None:
    pictures, run = write(tmp_path / "a" / "b" / "cats"), tmp_path / "run"
    noisewise.train(pictures, run, config=TEACH)
    if private is None:
        (run / "local.json").unlink()
    else:
        (run / "local.json").write_text(private)
    with pytest.raises(ValueError, match=r"pictures \(cats\) are missing: run.json has only their"):
        Run(run).pictures()
    with pytest.raises(ValueError, match=r"say where they are now with --data FOLDER"):
        noisewise.evaluate(run, num_images=16)
    assert Run(run).pictures(pictures).fingerprint == Run(run).data.fingerprint
    assert Run(run).source() == pictures, "the run has noted it"


def test_data_says_where_moved_pictures_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, run = write(tmp_path / "old"), tmp_path / "run"
    noisewise.train(old, run, config=TEACH)
    new, others = tmp_path / "far" / "new", write(tmp_path / "others", first=30)
    new.parent.mkdir()
    old.rename(new)
    few, before = ["-n", "64"], sorted(path.name for path in (run / "cache").iterdir())
    assert cli.main(["evaluate", str(run), *few, "--data", str(others)]) == 2
    assert sorted(path.name for path in (run / "cache").iterdir()) == before
    assert f"the pictures in {others} have changed since training, or are others" in (
        capsys.readouterr().err
    )
    assert cli.main(["report", str(run), *few, "--data", str(others)]) == 2
    assert cli.main(["report", str(run), *few, "--data", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["report", str(run), *few]) == 0
    assert "say where they are with --data FOLDER" in (run / "report.html").read_text()
    assert cli.main(["report", str(run), *few, "--data", str(new)]) == 0
    assert "held-out" in (run / "report.html").read_text()
    assert cli.main(["evaluate", str(run), *few]) == 0
    new.rename(old)
    assert cli.main(["evaluate", str(run), *few, "--data", str(old)]) == 0


def test_a_run_of_an_older_version_gets_the_new_form_when_it_is_written(tmp_path: Path) -> None:
    pictures, run = write(tmp_path / "a" / "cats"), tmp_path / "run"
    noisewise.train(pictures, run, config=TEACH)
    info = read_info(run)
    for name in ("local.json", ".gitignore"):
        (run / name).unlink()
    info["data"]["source"] = str(pictures)
    for name in ("run.json", "run-copy.json"):
        (run / name).write_text(json.dumps(info))
    before = (run / "run.json").read_bytes()
    assert Run(run).source() == pictures
    assert noisewise.evaluate(run, num_images=16).num_images == 16
    report(run, num_images=64)
    assert (run / "run.json").read_bytes() == before, "nothing but training writes it"
    assert str(tmp_path) not in (run / "report.html").read_text()
    noisewise.train(pictures, run, "64images", config=TEACH)
    assert list(told(run, (str(tmp_path),))) == []
    assert Run(run).source() == pictures


def test_the_private_file_is_written_before_run_json_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two writes must not lose where the pictures of an older run lie."""
    from noisewise.training.run import run_json

    pictures, run = write(tmp_path / "a" / "cats"), tmp_path / "run"
    noisewise.train(pictures, run, config=TEACH)
    info = read_info(run)
    info["data"]["source"] = str(pictures)
    (run / "local.json").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_json, "write_sealed", killed)
    with pytest.raises(KeyboardInterrupt):
        write_info(run, info, damaged=False)
    assert Run(run).source() == pictures
