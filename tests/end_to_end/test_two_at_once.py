"""Two commands at once on one run: each ends as if alone, or says in a sentence who is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from forked import Command, run, stopped_in_training
from killing import Workshop, contents, leftovers, traces

BUDGETS = {"train": "160images", "distill": "96images"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures, and a run of a teacher and a generator that was alone."""
    shop = Workshop.make(tmp_path_factory.mktemp("two"))
    run(*words(shop, "train", shop.root / "teacher")).ended()
    shutil.copytree(shop.root / "teacher", shop.root / "whole")
    run(*words(shop, "distill", shop.root / "whole")).ended()
    return shop


def words(shop: Workshop, verb: str, folder: Path, budget: str = "") -> list[str]:
    return shop.command(verb, folder, budget or BUDGETS[verb])[3:]


def begun(shop: Workshop, verb: str, folder: Path, budget: str = "") -> Command:
    return stopped_in_training(words(shop, verb, folder, budget), folder)


def test_two_trainings_in_one_run_are_one_training(shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = begun(shop, "train", folder)
    before = contents(folder)
    said = run(*words(shop, "train", folder)).refused("another process", "is training in")
    assert f"(number {first.number})" in said
    run(*words(shop, "train", folder, "240images")).refused("another process")
    run("train", shop.root / "blobs.npz", "--out", folder, "--seed", "1").refused()
    assert contents(folder) == before
    first.go_on()
    first.wait().ended()
    assert traces(folder, "teacher") == traces(shop.root / "teacher", "teacher")
    assert leftovers(folder) == []


def test_two_trainings_that_start_in_the_same_instant(shop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    both = [Command(words(shop, "train", folder)) for _ in range(2)]
    ends = [command.wait() for command in both]
    assert 0 in [end.code for end in ends], ends
    for end in ends:
        if end.code:  # the other one ended as alone, or finds that all is done
            end.refused("another process")
    assert traces(folder, "teacher") == traces(shop.root / "teacher", "teacher")
    assert leftovers(folder) == []


@pytest.mark.slow
def test_a_run_that_is_in_training_can_be_looked_at(shop: Workshop, tmp_path: Path) -> None:
    """A first teacher draws, is judged and is distilled from elsewhere, while it trains on."""
    folder = tmp_path / "run"
    young = begun(shop, "train", folder)
    for verb in ("sample", "evaluate"):
        run(verb, folder, *few(verb)).refused("has no finished teacher yet")
    run(*words(shop, "distill", folder)).refused()
    young.go_on()
    young.wait().ended()
    longer = begun(shop, "train", folder, "240images")
    for verb in ("sample", "evaluate", "report"):
        run(verb, folder, *few(verb)).ended()
    run(*words(shop, "distill", folder)).refused("another process")
    longer.go_on()
    longer.wait().ended()
    alone = tmp_path / "alone"
    shutil.copytree(shop.root / "teacher", alone)
    run(*words(shop, "train", alone, "240images")).ended()
    assert traces(folder, "teacher") == traces(alone, "teacher")


def few(verb: str) -> list[str]:
    return {"sample": ["-n", "4"], "evaluate": ["-n", "16"], "report": ["-n", "64"]}[verb]


@pytest.mark.slow
def test_a_teacher_is_distilled_and_adapted_at_the_same_time(
    shop: Workshop, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    folder = tmp_path / "run"
    shutil.copytree(shop.root / "teacher", folder)

    def adapt(out: Path) -> list[str]:
        given = ["adapt", str(folder), str(shop.root / "blobs.npz"), "--out", str(out)]
        return [*given, "--budget", "64images", "--config", str(shop.root / "adapt.json")]

    run(*adapt(tmp_path / "alone")).ended()
    both = [Command(words(shop, "distill", folder)), Command(adapt(tmp_path / "beside"))]
    for command in both:
        command.wait().ended()
    assert traces(folder, "generator") == traces(shop.root / "whole", "generator")
    beside, alone = (traces(tmp_path / name, "teacher") for name in ("beside", "alone"))
    assert beside["weights"] == alone["weights"]


def test_two_calls_that_draw_into_one_folder(shop: Workshop, tmp_path: Path) -> None:
    """Of the same pictures one call draws; different ones lie side by side."""
    out = tmp_path / "many"
    sample = ["sample", shop.root / "whole", "-n", "12", "--out", out, "--seed"]
    both = [Command([*sample, "1"]), Command([*sample, "1"]), Command([*sample, "2"])]
    ends = [command.wait() for command in both]
    assert sorted(end.code for end in ends[:2]) == [0, 2], ends
    next(end for end in ends if end.code).refused("already holds pictures of seed 1")
    names = {f"seed-{seed}-{i:05d}.png" for seed in (1, 2) for i in range(12)}
    assert {path.name for path in out.iterdir()} == {*names, "seed-1.json", "seed-2.json"}
    before = contents(out)
    both = [Command([*sample, "1", "--overwrite"]) for _ in range(2)]
    for command in both:
        command.wait().ended()
    after = contents(out)
    assert all(after[name] == before[name] for name in names)
    assert set(after) == set(before)
    assert json.loads((out / "seed-1.json").read_text())["num_images"] == 12
