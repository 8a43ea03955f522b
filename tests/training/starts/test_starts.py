"""A training that begins with the weights of another teacher: worth it, remembered, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import noisewise
from noisewise.app import cli
from noisewise.training import adapt as adapting
from noisewise.training.models.model_card import training_rows
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import build_denoiser, save_model
from noisewise.training.settings.config import AdaptConfig, TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.record import Record
from noisewise.training.starts import base as bases
from noisewise.training.starts.base import load_base
from noisewise.training.starts.candidates import check_steps
from noisewise.training.train import TrainTask, plan, train
from tiny import UNET, UNET_CONFIG, blobs, build

RECIPE = TeacherRecipe(distance_images=0, sampler_images=0, num_steps=2, heldout_every=0.25)
CONFIG = TrainConfig(budget="3200images", batch=8, threads=1, kinds=0, recipe=RECIPE)


def folder_of(pictures: np.ndarray, place: Path, classes: tuple[str, ...] = ()) -> Path:
    for i, picture in enumerate(pictures):
        sub = place / classes[i % 2] if classes else place
        sub.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
            sub / f"{i:03d}.png"
        )
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sets of squares, and a run that has learnt the first."""
    place = tmp_path_factory.mktemp("starts")
    folder_of(blobs(96), place / "first")
    folder_of(blobs(64, seed=7), place / "second")
    train(place / "first", place / "old", config=CONFIG, build=build)
    return place


def events_of(records: list[Record]) -> str:
    return "; ".join(record.event for record in records if record.event)


def weights(run: noisewise.Run) -> list[torch.Tensor]:
    return [p.detach() for p in run.teacher(build).parameters()]


def same(one: noisewise.Run, other: noisewise.Run) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(one), weights(other), strict=True))


def test_a_warm_start_has_the_lower_loss_and_says_so(place: Path, tmp_path: Path) -> None:
    records: list[Record] = []
    run = train(
        *(place / "second", tmp_path / "warm"),
        start_from=place / "old", config=CONFIG, build=build, on_record=records.append,
    )  # fmt: skip
    cold = train(place / "second", tmp_path / "cold", config=CONFIG, build=build)
    losses = run.info["start"]["losses"]
    assert losses["old"] < losses["nothing"]
    assert "start: old, 100 % of the weights; held-out loss after 64images each" in events_of(
        records
    )
    first = [next(r.heldout_loss for r in one.records() if r.heldout_loss) for one in (run, cold)]
    assert first[0] < first[1]
    assert run.info["start"]["digest"] == noisewise.Run(place / "old").teacher_digest()
    assert run.info["derived"]["start"]["value"] == "old"
    assert str(place) not in (run.path / "run.json").read_text()
    # The trials are a part of the budget.
    assert run.info["start"]["spent"] == {"images": 128}
    assert run.info["stages"]["teacher"]["images"] == 3200
    assert run.info["stages"]["teacher"]["steps"] == (3200 - 128) // 8
    again = train(
        place / "second", tmp_path / "again", start_from=place / "old", config=CONFIG, build=build
    )
    assert same(run, again)


def test_a_resumed_run_does_not_decide_again(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "old", tmp_path / "base")
    config = replace(CONFIG, start_from=str(tmp_path / "base"))
    whole = train(place / "second", tmp_path / "whole", config=config, build=build)
    calls = iter(range(99))
    part = tmp_path / "part"
    stopped = train(
        place / "second", part, config=config, build=build, stop=lambda: next(calls) >= 60
    )
    assert not stopped.finished("teacher")
    noted = stopped.info["start"]
    shutil.rmtree(tmp_path / "base")
    found = train(place / "second", part, config=config, build=build)
    assert found.info["start"] == noted
    assert same(found, whole)


def test_stopped_in_a_trial_it_compares_again(place: Path, tmp_path: Path) -> None:
    config, calls = replace(CONFIG, start_from=str(place / "old")), iter(range(9))
    part = tmp_path / "part"
    stopped = train(
        place / "second", part, config=config, build=build, stop=lambda: next(calls) >= 3
    )
    assert "start" not in stopped.info
    found = train(place / "second", part, config=config, build=build)
    whole = train(place / "second", tmp_path / "whole", config=config, build=build)
    assert same(found, whole)
    assert found.info["start"] == whole.info["start"]


def test_killed_between_the_decision_and_the_first_step(place: Path, tmp_path: Path) -> None:
    """The base is needed again, and it has to be the same one."""
    shutil.copytree(place / "old", tmp_path / "base")
    config = replace(CONFIG, start_from=str(tmp_path / "base"))
    whole = train(place / "second", tmp_path / "whole", config=config, build=build)
    killed = tmp_path / "killed"
    calls = iter(range(99))
    train(place / "second", killed, config=config, build=build, stop=lambda: next(calls) >= 20)
    shutil.rmtree(killed / "checkpoints")
    (killed / "log.jsonl").unlink()
    moved = tmp_path / "elsewhere" / "base"
    shutil.move(tmp_path / "base", moved)
    with pytest.raises(ValueError, match="its base base is missing or has changed"):
        train(place / "second", killed, config=config, build=build)
    run = train(
        *(place / "second", killed), config=replace(config, start_from=str(moved)), build=build
    )
    assert same(run, whole)


def test_an_explicit_base_is_used_with_a_warning(place: Path, tmp_path: Path) -> None:
    """A base that has learnt nothing but nonsense is worse than nothing."""
    teacher = noisewise.Run(place / "old").teacher(build)
    bad = tmp_path / "bad"
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_(3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    save_model(bad, teacher.denoiser, teacher.config)
    records: list[Record] = []
    run = train(
        *(place / "second", tmp_path / "run"),
        start_from=bad, config=CONFIG, build=build, on_record=records.append,
    )  # fmt: skip
    assert run.info["start"]["from"] == "bad"
    assert "warning: nothing was better than bad in this trial" in events_of(records)


def test_auto_takes_the_lower_loss_or_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, start_from="auto")
    old = train(place / "first", tmp_path / "old", config=replace(CONFIG, widths=(8, 8)))
    good, bad = tmp_path / "bases" / "icons_8", tmp_path / "bases" / "bad_8"
    shutil.copytree(old.path / "teacher", good)
    sources = [{"name": "Squares", "license": "CC0-1.0"}]
    (good / "sources.json").write_text(json.dumps({"sources": sources}))
    teacher = old.teacher()
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    save_model(bad, teacher.denoiser, teacher.config)
    monkeypatch.setattr(bases, "packaged", lambda: [bad, good])
    longer = replace(config, budget="4800images")  # three trials of 8 steps
    run = train(place / "second", tmp_path / "run", config=longer)
    assert run.info["start"]["from"] == "icons_8"
    assert set(run.info["start"]["losses"]) == {"bad_8", "icons_8", "nothing"}
    monkeypatch.setattr(bases, "packaged", lambda: [bad])
    other = train(place / "second", tmp_path / "other", config=config)
    assert other.info["start"]["from"] == ""
    assert "nothing; held-out loss after" in other.info["start"]["reason"]
    # The licence goes with the weights, into the card and into the model's own folder.
    for info in (run.info, {}):
        rows = training_rows(run.teacher().config, info)
        assert any("Squares (CC0-1.0)" in row for row in rows)
    later = load_base(run.path / "teacher")
    assert later.sources[-1] == sources[0]


def test_auto_without_a_base_is_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "packaged", list)
    config = replace(CONFIG, budget="320images")
    auto = train(place / "second", tmp_path / "a", start_from="auto", config=config, build=build)
    none = train(place / "second", tmp_path / "b", start_from="none", config=config, build=build)
    assert same(auto, none)
    assert auto.info["start"]["reason"] == (
        "nothing, because this installation has no packaged base"
    )
    assert "start" not in none.info
    assert none.info["train"]["start_from"] is None


# ---------------------------------------------------------------------- other forms
@pytest.fixture(scope="module")
def net_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained U-Net of ours in a folder."""
    place = tmp_path_factory.mktemp("unet") / "unet8"
    denoiser = build_denoiser(dict(UNET_CONFIG.net), 0.5)
    denoiser.net.load_state_dict(UNET.state_dict())  # pyrefly: ignore
    save_model(place, denoiser, UNET_CONFIG)
    return place


def test_the_plan_follows_the_base(net_of_ours: Path, place: Path) -> None:
    config = replace(CONFIG, start_from=str(net_of_ours))
    planned = plan(place / "second", config)
    assert planned.net["widths"] == [8, 8]
    assert planned.start == "unet8"
    assert "of the weights" in planned.reasons["start"]
    assert "a warning if nothing is better" in planned.reasons["start"]
    assert planned.reasons["net"] == "as in unet8"
    by_hand = plan(place / "second", replace(config, widths=(8, 16)))
    assert by_hand.net["widths"] == [8, 16]
    coloured = plan(place / "second", replace(config, channels=3, size=16))
    assert (coloured.net["channels"], coloured.net["widths"]) == (3, [8, 8])
    with pytest.raises(ValueError, match="unet8 has the net unet, and 40 pixels take the net pyr"):
        plan(place / "second", replace(config, size=40, allow_enlarging=True))


def test_a_run_of_our_nets_starts_at_another_size(net_of_ours: Path, tmp_path: Path) -> None:
    colours = blobs(24, 12).repeat(3, -1)
    data = folder_of(colours, tmp_path / "c", ("left", "right"))
    config = replace(CONFIG, budget="32images", classes=True, start_from=str(net_of_ours))
    run = train(data, tmp_path / "run", config=config)
    assert run.teacher().classes == ("left", "right")
    assert run.teacher().config.stats["start"]["from"] == "unet8"
    assert "the budget is too short to compare" in run.info["start"]["reason"]
    assert train(data, tmp_path / "run", config=config).finished("teacher")


def test_adapting_all_weights_maps_other_classes_and_sizes(tmp_path: Path) -> None:
    config = replace(CONFIG, budget="160images", classes=True)
    first = folder_of(blobs(48), tmp_path / "a", ("left", "right"))
    old = train(first, tmp_path / "old", config=config)
    asked = AdaptConfig(budget="96images", batch=8, threads=1, start="full", recipe=replace(
        RECIPE, optimizer="adamw", betas=(0.9, 0.99)
    ))  # fmt: skip
    named = folder_of(blobs(48, seed=3), tmp_path / "b", ("right", "up"))
    run = adapting.adapt(old, named, tmp_path / "new", config=asked)
    assert run.teacher().classes == ("right", "up")
    assert run.info["start"]["from"] == "old"
    assert run.info["derived"]["lr"]["value"] == pytest.approx(3e-3)
    larger = replace(asked, size=16, channels=3)
    made = adapting.adapt(old, first, tmp_path / "larger", config=larger)
    assert (made.teacher().size, made.teacher().channels) == (16, 3)
    assert adapting.adapt(old, first, tmp_path / "larger", config=larger).finished("teacher")
    with pytest.raises(ValueError, match="an adapter works only at the size and channels"):
        replace(larger, start="lora")


# ---------------------------------------------------------------------- refusals
def test_what_is_no_base_is_refused_before_anything_is_made(
    net_of_ours: Path, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two"
    net = dict(UNET_CONFIG.net) | {"channels": 2}
    save_model(two, build_denoiser(net, 0.5), replace(UNET_CONFIG, net=net, channels=2))
    unknown = tmp_path / "unknown"
    shutil.copytree(net_of_ours, unknown)
    described = UNET_CONFIG.to_dict() | {"net": {"name": "mlp", "channels": 1, "size": 8}}
    (unknown / "config.json").write_text(json.dumps(described))
    generator = tmp_path / "generator"
    config: ModelConfig = replace(UNET_CONFIG, kind="generator", sigma_init=2.5)
    save_model(generator, build_denoiser(dict(UNET_CONFIG.net), 0.5), config)
    begun = tmp_path / "begun"
    train(place / "second", begun, config=CONFIG, build=build, stop=lambda: True)
    refused = {
        two: "has 2 channels and these pictures have 1",
        unknown: "mlp",
        generator: "contains a generator; a start needs a teacher",
        begun: "has no finished teacher to start from yet",
        place / "first": "holds neither run.json nor config.json",
        tmp_path / "none_here": "it does not exist",
    }
    for given, why in refused.items():
        out = tmp_path / "out"
        words = ["train", str(place / "second"), "--out", str(out), "--from", str(given)]
        assert cli.main([*words, "--budget", "64images"]) == 2, given
        told = capfd.readouterr().err
        assert why in told, given
        assert "Traceback" not in told
        assert not out.exists()


def test_a_base_that_is_too_large_for_the_time_is_refused(net_of_ours: Path, place: Path) -> None:
    slow = plan(place / "second", replace(CONFIG, start_from=str(net_of_ours)))
    cold = replace(slow, cost={"images_per_second": 20.0, "gflops_a_picture": 0.1})
    slow = replace(slow, cost={"images_per_second": 2.0, "gflops_a_picture": 1.0})
    with pytest.raises(ValueError, match="the net of big is too large for this budget: 30s are"):
        check_steps("big", replace(CONFIG, budget="30s"), slow, cold)
    check_steps("big", replace(CONFIG, budget="30s"), slow, slow)  # the machine is slow
    check_steps("big", replace(CONFIG, budget="1h"), slow, cold)
    check_steps("big", CONFIG, slow, cold)


def test_a_split_net_is_not_compared() -> None:
    with pytest.raises(ValueError, match="start_from auto compares starts"):
        TrainConfig(start_from="auto", shard=True)
    task = TrainTask("pictures", Path("run"), TrainConfig(start_from="none"), None)
    assert task.config.start_from is None
