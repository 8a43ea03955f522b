"""The page: complete at every stage, small, self-contained, without errors in a real browser."""

from __future__ import annotations

import hashlib
import html.parser
import io
import json
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

import noisewise
from noisewise.app import cli
from noisewise.app.command import Command
from noisewise.app.commands.adapt import AdaptOptions
from noisewise.app.commands.table import load
from noisewise.app.commands.train import TrainOptions
from noisewise.app.flags import plain
from noisewise.app.plots.svg import as_pixels
from noisewise.app.report.collect import gather, report
from noisewise.app.report.contents import Contents
from noisewise.app.report.events import events
from noisewise.app.report.facts import Copies, Event, Facts, Way
from noisewise.app.report.page import render
from noisewise.app.report.resume_command import again
from noisewise.pictures import gather as gather_pictures
from noisewise.pictures import pictures, read
from noisewise.quality.copies import CopyReference
from noisewise.quality.distance import Reference
from noisewise.training.evaluate import evaluate
from noisewise.training.models import model_folder
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.begin import new_run
from noisewise.training.run.run import Run
from noisewise.training.run.run_json import FORMAT, must_match
from noisewise.training.settings.budget import Budget
from noisewise.training.settings.config import AdaptConfig, EvaluateConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe

NUM_IMAGES = 128
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page(html.parser.HTMLParser):
    """Collects headings, addresses and unclosed tags."""

    EMPTY = frozenset({"meta", "link", "img", "input", "br", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and value:
                self.addresses.append(value)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2"}:
            self.headings.append(data)


@pytest.fixture(scope="module")
def page(distilled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a distilled run."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    return report(distilled_run, out, num_images=NUM_IMAGES)


def test_the_page_is_whole_small_and_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    seen = Page(text)
    assert seen.open == []
    assert len(text.encode()) < 2_000_000
    assert all(a.startswith(("data:", "#")) for a in seen.addresses)
    outside = re.sub(r'"http://www\.w3\.org/[^"]*"', "", text)
    assert not re.search(r"https?://", outside)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_page_shows_everything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for heading in (
        "Pictures",
        "The same noise in few calls and in many",
        "How they differ",
        "The same noise during training",
        "Does it copy training pictures?",
        "How training went",
        "The data",
        "Settings, and why",
        "Time, machine and versions",
        "What to do next",
    ):
        assert heading in Page(text).headings
    for words in (
        "One call",
        "Two calls",
        "Teacher, 5 calls",
        "floors",
        "told apart",
        "near copies",
        "planted ones found",
        "Detail of generated pictures against real ones",
        "How often each class is drawn",
        "The pictures that look least real",
        "broken.png",
        "set by hand",
    ):
        assert words in text
    assert "image-rendering: pixelated" in text


def test_a_run_with_a_teacher_only(teacher_run: Path, tmp_path: Path) -> None:
    facts = gather(Run.open(teacher_run), NUM_IMAGES)
    assert [way.kind for way in facts.ways] == ["teacher"]
    assert facts.ways[0].network_calls == 5
    assert facts.has_teacher
    assert not facts.has_generator
    assert any("distill" in command for _, command in facts.commands)
    assert facts.floor is not None
    text = render(facts)
    assert Page(text).open == []
    assert "A diffusion model of" in text


def test_every_way_has_its_copy_test(distilled_run: Path) -> None:
    facts = gather(Run.open(distilled_run), NUM_IMAGES)
    assert [way.kind for way in facts.ways] == ["one_call", "two_calls", "teacher"]
    for way in facts.ways:
        copies = way.copies
        assert copies is not None
        assert copies.pictures.shape == copies.nearest.shape
        assert len(copies.distances) == copies.num_images == NUM_IMAGES
        assert set(copies.shown_distances) <= set(copies.distances)
        assert copies.held_out_distances


def test_the_numbers_are_those_of_evaluate(distilled_run: Path) -> None:
    """The page measures the same pictures in the same way, every digit of it."""
    run = Run.open(distilled_run)
    for way in gather(run, NUM_IMAGES).ways:
        config = EvaluateConfig(
            num_images=NUM_IMAGES,
            teacher=way.kind == "teacher",
            calls=2 if way.kind == "two_calls" else None,
        )
        found = evaluate(run, config=config)
        assert (way.distance, way.distance_low, way.distance_high) == (
            *(found.distance, found.distance_low, found.distance_high),
        )
        assert way.network_calls == found.network_calls
        assert way.found is not None
        shared = {k: v for k, v in found.to_dict().items() if k in way.found and k != "floors"}
        assert {k: v for k, v in way.found.items() if k != "floors"} == shared
        assert way.found["floors"]["value"] == found.floors["value"]
        assert way.copies is not None
        assert found.copies is not None
        assert found.copies["fraction"] == way.copies.fraction
        assert found.copies["high"] == way.copies.high


def test_the_sheet_shows_pictures_that_were_measured(distilled_run: Path) -> None:
    """Picture i of a seed depends on the seed and on i alone."""
    first, *_ = gather(Run.open(distilled_run), NUM_IMAGES).ways
    drawn = as_pixels(noisewise.load(distilled_run).sample(NUM_IMAGES, seed=0))
    assert np.array_equal(first.pictures, drawn[:64])


def test_copies_beyond_chance_are_an_alarm(distilled_run: Path) -> None:
    """Not if real held-out pictures look like copies as often."""
    contents = Contents.read(Run(distilled_run))
    black = np.zeros((2, 8, 8, 1), np.uint8)
    copies = Copies(200, 0.2, 0.15, 0.26, 0.01, 1 / 3, black, black, (0.1, 0.1), (0.1,), ())
    for held_out, alarms in ((0.01, 1), (None, 1), (0.2, 0)):
        way = Way("teacher", 5, black, copies=replace(copies, held_out_fraction=held_out))
        bad = [event for event in events(contents, (way,)) if event.bad]
        assert [event.about for event in bad] == ["teacher, 5 calls"] * alarms


def test_too_few_pictures_for_a_page_are_refused(teacher_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="63 pictures are too few for a page; use at least 64"):
        report(teacher_run, tmp_path / "page.html", num_images=63)


_TEXTS = (".json", ".jsonl")


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, key: Callable[..., str]
) -> Counter[str]:
    """Count the calls of a function by a key made from their arguments; it works as before."""
    calls: Counter[str] = Counter()
    function = getattr(owner, name)

    def counting(*args: object, **kwargs: object) -> object:
        calls[key(*args)] += 1
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_everything_is_read_and_tested_once(
    distilled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of three ways: each file is loaded once, and hashed once for each of its digests."""

    def of_run(path: object, *_: object) -> str:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        return os.path.relpath(name, distilled_run) if str(distilled_run) in name else ""

    opened = counted(monkeypatch, os, "open", of_run)  # what `open_plain` calls
    opened_plainly = counted(monkeypatch, io, "open", of_run)  # what `Path.open` calls
    weights = counted(monkeypatch, safetensors, "safe_open", of_run)
    sealed = counted(monkeypatch, model_folder, "digest_of", lambda tensors: str(len(tensors)))
    hashed = counted(monkeypatch, hashlib, "sha256", lambda *_: "a whole file")
    digested = counted(monkeypatch, hashlib, "file_digest", lambda *_: "a whole file")
    listed = counted(monkeypatch, read, "source_type", str)
    marked = counted(monkeypatch, gather_pictures, "digests", lambda images: str(len(images)))
    marked_again = counted(monkeypatch, pictures, "digests", lambda *_: "")
    prepared = counted(monkeypatch, CopyReference, "__init__", lambda *_: "")
    copy_tests = counted(monkeypatch, CopyReference, "test", lambda _, made: str(len(made)))
    references = counted(monkeypatch, Reference, "__init__", lambda *_: "")
    drawn = counted(monkeypatch, Generator, "sample", lambda _, count, *__: f"{count}")
    drawn_slowly = counted(monkeypatch, Teacher, "sample", lambda _, count, *__: f"{count}")

    ways = gather(Run.open(distilled_run), NUM_IMAGES).ways

    assert len(ways) == 3
    models = {f"{stage}/model.safetensors": 1 for stage in ("teacher", "generator")}
    assert weights == models
    assert sum(sealed.values()) == 2, "the damage check of two models"
    assert hashed == {"a whole file": 1}, "the weights that are the generator's name"
    assert digested == {"a whole file": 1}, "the generator's teacher"
    every = (opened + opened_plainly).items()
    assert all(n == 1 for name, n in every if name.startswith("cache/"))
    texts = {n: c for n, c in every if n.endswith(_TEXTS) and not n.startswith("cache/")}
    once = ("run.json", "local.json", "log.jsonl", "teacher/config.json", "generator/config.json")
    assert texts == dict.fromkeys(once, 1)
    assert sum(listed.values()) == 1
    assert marked == {"120": 1}, "the fingerprint; the split uses the same digests"
    assert not marked_again
    assert sum(prepared.values()) == 1
    assert sum(references.values()) == 2, "in frozen features and in the teacher's"
    assert copy_tests == {f"{NUM_IMAGES}": 3}
    in_turns, slowly_in_turns = drawn.pop("16"), drawn_slowly.pop("16")
    assert drawn == {"8": 2, f"{NUM_IMAGES}": 2}, "8 to warm up"
    assert drawn_slowly == {"8": 1, f"{NUM_IMAGES}": 1}
    assert 2 * slowly_in_turns <= in_turns <= 10, "the times; a slow way has fewer turns"


WITHOUT_FLAGS: dict[str, Any] = {
    "batch": 24,
    "crop": "pad",
    "background": "black",
    "widths": (4, 4),
}


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(size="48x32", flips="off"),
        TrainConfig(size=16, classes=True, kinds=0, flips="on", net="unet", lr=0.25, seed=7),
        TrainConfig(lr=0.5, **WITHOUT_FLAGS, recipe=TeacherRecipe(dropout=0.5, betas=(0.5, 0.6))),
    ],
)
def test_the_command_to_go_on_has_every_setting(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is typed into a shell for real, and its flags are read back."""
    run = begun(tmp_path / "a run", "my pictures", asdict(config))
    options = typed(again(run, "30m"), tmp_path, monkeypatch)
    assert isinstance(options, TrainOptions)
    assert (options.folder, options.out) == ("my pictures", "a run"), "typed where the run is"
    must_match(run.info["train"], plain(options, TrainConfig), run.path, "do not")
    assert plain(options, TrainConfig) == replace(config, budget="30m")


@pytest.mark.parametrize(
    "config",
    [
        AdaptConfig(),
        AdaptConfig(rank=3, start="lora", samples=99, flips="off", batch=8, lr=0.5, seed=3),
        AdaptConfig(recipe=TeacherRecipe(optimizer="adamw", distance_images=9)),
    ],
)
def test_the_command_that_goes_on_with_an_adapted_run_has_every_setting(
    config: AdaptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {
        **asdict(config),
        "teacher_from": "old run/teacher",
        "teacher_digest": "0",
    }
    del how["recipe"]
    run = begun(tmp_path / "run", "new", asdict(config.training(False, 64)), how)
    options = typed(again(run, "30m"), tmp_path, monkeypatch)
    assert isinstance(options, AdaptOptions)
    assert (options.run, options.folder) == ("old run/teacher", "new")
    assert plain(options, AdaptConfig) == replace(config, budget="30m")
    with pytest.raises(ValueError, match="noisewise adapt 'old run/teacher' new --out"):
        run.teacher()


def begun(
    path: Path, source: str, train: dict[str, Any], adapt: dict[str, Any] | None = None
) -> Run:
    """A run folder with nothing but its run.json."""
    numbers = dict.fromkeys(("num_pictures", "num_training", "num_held_out", "size", "channels"), 1)
    info: dict[str, Any] = {
        "format": FORMAT,
        "seed": 0,
        "data": {"source": source, "fingerprint": "", **numbers},
        "train": train,
        "stages": {},
    }
    return new_run(path, info if adapt is None else info | {"adapt": adapt})


def typed(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run all but the last line in a shell, and read the last one as noisewise does."""
    *before, last = command.split("\n")
    monkeypatch.chdir(place)
    for line in before:
        subprocess.run(line, shell=True, check=True)
    name, verb, *words = shlex.split(last)
    assert name == "noisewise"
    found = load(verb)
    assert isinstance(found, Command)
    return found.read(words)


def test_an_unfinished_run_has_a_page_that_says_so(teacher_run: Path, tmp_path: Path) -> None:
    """A run that stopped before its first model: log and data are shown, and the line to go on."""
    run = tmp_path / "unfinished"
    shutil.copytree(teacher_run, run)
    shutil.rmtree(run / "teacher")
    info = json.loads((run / "run.json").read_text())
    info["stages"]["teacher"]["finished"] = False
    del info["seal"]  # as somebody may who changes it on purpose
    (run / "run.json").write_text(json.dumps(info))
    text = report(run, num_images=NUM_IMAGES).read_text()
    assert "Look at this first" in text
    assert "not finished" in text
    assert "Resume training" in text
    assert "No model has been saved yet" in text


def test_a_run_that_failed_is_not_to_be_resumed(teacher_run: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(teacher_run, tmp_path / "broken"))
    run.info["stages"]["teacher"] |= {"finished": False, "failed": "it broke down"}
    run.write()
    event = "failed: teacher training broke down 4 times"
    line = {"stage": "teacher", "step": 9, "images": 288, "seconds": 1.5, "event": event}
    with (run.path / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    facts = gather(Run.open(run.path), NUM_IMAGES)
    bad = [found.text for found in facts.events if found.bad]
    assert event in bad
    assert "this stage failed too often and ended; start again in a new folder" in bad
    assert "run the same command again" not in " ".join(bad)
    assert not [command for name, command in facts.commands if "noisewise train" in command]


def test_a_run_whose_pictures_are_gone(teacher_run: Path, tmp_path: Path) -> None:
    """A run sent to somebody else still has a page; what needs the pictures says so."""
    run = tmp_path / "sent"
    shutil.copytree(teacher_run, run)
    info = json.loads((run / "run.json").read_text())
    info["data"]["source"] = str(tmp_path / "nowhere")
    del info["seal"]  # as somebody may who changes it on purpose
    (run / "run.json").write_text(json.dumps(info))
    text = report(run, num_images=NUM_IMAGES).read_text()
    assert "Real pictures cannot be shown" in text
    assert "Copies cannot be looked for" in text
    assert "ms" in text


def test_trouble_stands_on_top(distilled_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "troubled"
    shutil.copytree(distilled_run, run)
    line = {
        "stage": "generator", "step": 9, "images": 288, "seconds": 1.5,
        "event": "went back to the last good state (1 of 3): loss is nan; learning rate halved",
    }  # fmt: skip
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    facts = gather(Run.open(run), NUM_IMAGES)
    assert facts.events[0].bad
    text = render(facts)
    assert text.index("loss is nan") < text.index("<h1>")


def test_names_cannot_break_out_of_the_page() -> None:
    """Folder and file names are text, whatever signs they hold."""
    evil = "<script>alert(1)</script>"
    facts = Facts(
        name=evil, path=evil, size=8, channels=1, num_pictures=1, source=evil,
        has_teacher=False, has_generator=False, missing=evil,
        events=(Event(evil, 1.0, evil, True),), skipped=((evil, 1, evil),),
        data_card=((evil, evil),), commands=((evil, evil),),
    )  # fmt: skip
    assert "alert(1)</script>" not in render(facts)


def test_training_longer_is_twice_as_long(teacher_run: Path) -> None:
    run = Run.open(teacher_run)
    lines = dict(gather(run, NUM_IMAGES).commands)
    images = Budget.parse(run.info["stages"]["teacher"]["budget"]).images
    assert images is not None
    assert lines["Train longer"].endswith(f"--budget {2 * images}images")


def test_the_command_writes_the_page(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["report", str(teacher_run), "-n", "64", "--out", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values == {"report": str(out), "bytes": out.stat().st_size}
    assert cli.main(["report", str(teacher_run), "--out", str(tmp_path)]) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_without_errors_or_requests(page: Path, tmp_path: Path) -> None:
    """The script runs to its end, nothing is asked of the network, no error is logged."""
    assert CHROMIUM is not None
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={log}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    # What the script does: a frame is switched on, a tip waits beside each plot, the output is set.
    assert '<figure class="on">' in done.stdout
    assert '<div class="tip"' in done.stdout
    assert re.search(r"<output>picture 1 of \d+</output>", done.stdout)
    # The browser's own errands may stand in the log; the page's may not.
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text())
    assert not [url for url in asked if page.name in url or "noisewise" in url]


def test_a_run_without_copies_raises_no_alarm_about_them(distilled_run: Path) -> None:
    """An interval that starts at nothing but rounding is no sign of copies."""
    bad = [e.text for e in gather(Run.open(distilled_run), NUM_IMAGES).events if e.bad]
    assert not [text for text in bad if "cop" in text]


def test_a_poor_way_is_said_before_anything_else(distilled_run: Path) -> None:
    """The page of a model that was hardly trained starts with what anybody sees."""
    facts = gather(Run.open(distilled_run), NUM_IMAGES)
    poor = [way.name for way in facts.ways if way.verdict == "poor"]
    assert poor
    assert [event.about for event in facts.events[: len(poor)]] == poor
    text = render(facts)
    assert (
        text.index("Look at this first") < text.index("the pictures are poor") < text.index("<h1>")
    )
    assert '<span class="v-poor">poor</span>' in text
    assert "A low share is no praise: noise has none" in text
