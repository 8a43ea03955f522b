"""The gradient's noise inside training, and the learning rate that follows from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import noisewise
from noisewise.app import cli
from noisewise.diffusion import LogNormal
from noisewise.scaling import Measurement, advise
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.processes import Ranks
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch, Batches
from noisewise.training.stages.gradient_noise import NoiseScale
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.teacher import TeacherStage
from tiny import blobs, build, tiny_denoiser, tiny_pictures

RECIPE = TeacherRecipe(
    batch=16, distance_images=0, sampler_images=0, heldout_every=0.5, noise_every=2
)
CONFIG = TrainConfig(budget=f"{16 * 200}images", recipe=RECIPE)


class Linear(nn.Module):
    """A gradient of known law: the loss w.(g + noise) has the gradient g + noise."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size))
        self.idle = nn.Parameter(torch.ones(3))

    def loss(self, batch: Batch) -> Tensor:
        return (batch.x0 @ self.w).mean()


def noise_of(config: TrainConfig) -> NoiseScale:
    pictures = tiny_pictures()
    plan = plan_teacher(config, pictures, Engine.choose("cpu"))
    return NoiseScale(plan, config.recipe, Ranks())


@pytest.mark.parametrize("batch", [16, 18])  # 18: parts of 5, 5, 4 and 4
def test_a_known_noise_is_found_and_the_gradient_is_the_batchs(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    net, noise = Linear(40), noise_of(replace(CONFIG, batch=batch))
    blank = torch.zeros(batch)
    assert not noise.due(6)  # the start is left out
    for step in range(8, 608, 2):
        assert noise.due(step)
        rows = 0.5 + 2.0 * torch.randn(batch, 40, generator=generator)  # 160 / 10 = 16 pictures
        net.zero_grad()
        loss = noise.backward(Batch(rows, blank, blank, None), net.loss, net.parameters())
        torch.testing.assert_close(net.w.grad, rows.mean(0))
        assert loss.item() == 0
        assert net.idle.grad is not None
        assert not net.idle.grad.any()
    found = noise.measurement()
    assert found is not None
    assert found.b_simple.low < 16 < found.b_simple.high
    assert found.b_simple.high / found.b_simple.low < 2
    assert noise.value == found.b_simple.value
    assert found.num_parameters == 43
    assert len(found.scales) == 3  # of the thirds of the training
    assert all(4 < scale < 64 for scale in found.scales)
    again = noise_of(replace(CONFIG, batch=batch))
    again.load_state_dict(noise.state_dict())
    same = again.measurement()
    assert same is not None
    assert same.to_dict() == found.to_dict()
    older = {name: value for name, value in noise.state_dict().items() if name != "history"}
    again = noise_of(replace(CONFIG, batch=batch))
    again.load_state_dict(older)
    measured = again.measurement()
    assert measured is not None
    assert measured.scales == ()


def test_a_measured_step_takes_no_more_pictures_at_once_than_the_others() -> None:
    """Parts that fit into the memory are smaller than the parts that are measured."""
    generator = torch.Generator().manual_seed(0)
    rows, blank = torch.randn(18, 40, generator=generator), torch.zeros(18)
    found = []
    for accumulate, most in ((1, 5), (9, 2)):
        config = replace(CONFIG, batch=18, accumulate=accumulate)
        net, noise, sizes = Linear(40), noise_of(config), []

        def loss(batch: Batch, net: Linear = net, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(batch))
            return net.loss(batch)

        noise.backward(Batch(rows, blank, blank, None), loss, net.parameters())
        assert max(sizes) == most
        assert sum(sizes) == 18
        found.append((net.w.grad, noise.state_dict()["noise"]))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert str(found[0][1].keys()) == str(found[1][1].keys())


def test_levels_are_spread_over_each_part_and_over_any_number_of_ranks_alike() -> None:
    pictures, engine = tiny_pictures(), Engine.choose("cpu")
    plan = plan_teacher(CONFIG, pictures, engine)
    assert isinstance(plan.noise, LogNormal)
    batches = Batches(pictures, np.arange(96), plan, 0, engine)
    batch = batches.next(0, 4)
    for first in (0, 4, 8, 12):
        part = batch.rows(slice(first, first + 4))
        share = 0.5 * (
            1 + torch.erf((part.sigma.log() - plan.noise.mean) / plan.noise.std / 2**0.5)
        )
        assert (share * 4).floor().tolist() == [0, 1, 2, 3]
    noise = NoiseScale(plan, RECIPE, Ranks(), measures=False)  # a net in parts
    assert (noise.num_parts(8), noise.num_parts(9), noise.due(8)) == (4, 1, False)


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    net, noise, blank = Linear(4), noise_of(CONFIG), torch.zeros(16)
    rows = torch.full((16, 4), torch.inf)
    noise.backward(Batch(rows, blank, blank, None), net.loss, net.parameters())
    assert net.w.grad is not None
    assert noise.value is None
    assert noise.measurement() is None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise")
    np.savez(path / "blobs.npz", images=blobs(128, 8))
    noisewise.train(path / "blobs.npz", path / "run", config=CONFIG, build=build)
    return path


def by_hand(folder: Path, batch: int, batch0: int) -> float:
    """Muon's factor, from the two numbers that the run measured."""
    noise = json.loads((folder / "noise.json").read_text())["noise"]
    scale = noise["trace_sigma"]["value"] / noise["g2"]["value"]
    return math.sqrt((1 + scale / batch0) / (1 + scale / batch))


def rates(config: TrainConfig, root: Path, out: str) -> tuple[float, float, str]:
    run = noisewise.train(root / "blobs.npz", root / out, config=config, build=build)
    derived = run.info["derived"]
    return derived["lr"]["value"], derived["adam_lr"]["value"], derived["lr"]["reason"]


def test_a_run_keeps_its_noise_and_another_batch_gets_its_rate_by_it(root: Path) -> None:
    found = Measurement.load(root / "run" / "noise.json")
    assert found.optimizer.family == "muon"
    assert found.batch == 16
    shown = [r.noise_scale for r in noisewise.Run.open(root / "run").records() if r.noise_scale]
    assert shown
    assert shown[-1] == pytest.approx(found.b_simple.value, rel=1e-5)
    assert rates(replace(CONFIG, lr_from=str(root / "run")), root, "same")[0] == RECIPE.lr
    lr, adam_lr, why = rates(replace(CONFIG, batch=64, lr_from=str(root / "run")), root, "new")
    assert lr / RECIPE.lr == pytest.approx(by_hand(root / "run", 64, 16))
    advice = advise(found, batch=64, batch0=16, lr=RECIPE.lr)
    reach = max(2.0, advice.high / RECIPE.lr)  # at least the square root: a lower bound
    assert f"to {reach:.3g}) at batch 64" in why
    assert "is a lower bound" in why
    assert adam_lr / lr == pytest.approx(RECIPE.adam_lr / RECIPE.lr)
    assert "Muon" in why


def test_a_run_goes_on_with_another_batch_and_says_so(root: Path) -> None:
    more = replace(CONFIG, budget=f"{16 * 300}images")
    larger = replace(more, batch=32)
    np.savez(root / "blobs2.npz", images=blobs(128, 8))
    run = noisewise.train(root / "blobs2.npz", root / "on", config=CONFIG, build=build)
    steps, factor = run.records()[-1].step, by_hand(root / "on", 32, 16)
    run = noisewise.train(root / "blobs2.npz", root / "on", config=larger, build=build)
    assert run.finished("teacher")
    assert run.records()[-1].step == steps + 16 * 100 // 32
    lr = run.info["derived"]["lr"]["value"]
    assert lr / RECIPE.lr == pytest.approx(factor)
    events = [r.event for r in run.records() if r.event and "resumed" in r.event]
    assert "the batch changed from 16 to 32" in events[-1]
    before = len(run.records())
    again = replace(larger, budget=f"{16 * 320}images")
    run = noisewise.train(root / "blobs2.npz", root / "on", config=again, build=build)
    assert run.info["derived"]["lr"]["value"] == lr  # and not scaled a second time
    assert not any("the batch changed" in (r.event or "") for r in run.records()[before:])


def test_a_rate_set_by_hand_stays_and_the_run_says_its_new_batch(root: Path) -> None:
    """Else a later run that takes its rate from this one would scale it from the wrong batch."""
    data, hand = root / "blobs.npz", replace(CONFIG, budget="320images", lr=0.01)
    noisewise.train(data, root / "hand", config=hand, build=build)
    larger = replace(hand, batch=32, budget="640images")
    run = noisewise.train(data, root / "hand", config=larger, build=build)
    assert run.info["derived"]["batch"]["value"] == run.info["train"]["batch"] == 32
    assert run.info["derived"]["lr"] == {"value": 0.01, "reason": "set by hand"}
    events = [r.event for r in run.records() if r.event and "resumed" in r.event]
    assert "the batch changed from 16 to 32; learning rate 0.01: set by hand" in events[-1]
    later = replace(CONFIG, batch=32, lr_from=str(root / "hand"))
    assert noisewise.plan(data, later).lr == 0.01


def test_a_run_that_does_not_say_its_rate_goes_on_and_says_its_new_batch(root: Path) -> None:
    data, short = root / "blobs.npz", replace(CONFIG, budget="320images")
    run = noisewise.train(data, root / "old", config=short, build=build)
    del run.info["derived"]["lr"], run.info["derived"]["adam_lr"]
    run.write()
    larger = replace(short, batch=32, budget="640images")
    run = noisewise.train(data, root / "old", config=larger, build=build)
    assert run.info["derived"]["batch"]["value"] == 32
    assert run.info["derived"]["lr"]["value"] == RECIPE.lr
    assert any("the batch changed from 16 to 32" in (r.event or "") for r in run.records())


def test_a_dry_run_shows_what_going_on_would_do(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = root / "blobs.npz", root / "run"
    before = (folder / "run.json").read_text()
    shown = noisewise.plan(data, replace(CONFIG, batch=64), folder)
    assert shown.lr / RECIPE.lr == pytest.approx(by_hand(folder, 64, 16))
    far = noisewise.plan(data, replace(CONFIG, batch=512), folder).reasons["lr"]
    measured = advise(Measurement.load(folder / "noise.json"), batch=512, batch0=16)
    coded = dict(zip(measured.warning_codes, measured.warnings, strict=True))
    schedule = coded.pop("whole_schedule").rstrip(".")
    assert "when_measured" not in coded, "the run knows when it was measured"
    assert "a factor of 32" in coded["far_batch"]
    assert all(f"warning: {sentence.rstrip('.')}" in far for sentence in coded.values())
    assert schedule not in far  # the training does that itself
    (tmp_path / "batch.json").write_text('{"batch": 64}')
    words = ["train", str(data), "--dry-run", "--json", "--out", str(folder)]
    assert cli.main([*words, "--config", str(tmp_path / "batch.json")]) == 0
    told = json.loads(capsys.readouterr().out)["derived"]["lr"]
    assert told["value"] == pytest.approx(shown.lr)
    assert (folder / "run.json").read_text() == before


def test_what_is_not_known_is_refused(root: Path) -> None:
    data, short = root / "blobs.npz", replace(CONFIG, budget="160images")
    noisewise.train(data, root / "short", config=short, build=build)
    with pytest.raises(
        ValueError, match=r"no measured gradient noise yet.*keep the batch, or use a new"
    ):
        noisewise.train(data, root / "short", config=replace(short, batch=32), build=build)
    another = replace(short, batch=32, lr_from=str(root / "short"))
    with pytest.raises(ValueError, match=r"no measured gradient noise yet.*set lr instead"):
        noisewise.train(data, root / "x", config=another, build=build)
    with pytest.raises(ValueError, match="is not a run; give the folder of a run"):
        noisewise.train(
            data, root / "x", config=replace(short, lr_from=str(root / "no")), build=build
        )
    assert not (root / "x").exists()
    assert rates(replace(short, batch=32, lr=0.01), root, "by_hand")[::2] == (0.01, "set by hand")
    with pytest.raises(ValueError, match="lr and lr_from are both set"):
        replace(short, lr=0.01, lr_from="run")
    with pytest.raises(ValueError, match="noise_every is -1"):
        replace(short, recipe=replace(RECIPE, noise_every=-1))
    adam = replace(short, recipe=replace(RECIPE, optimizer="adamw"), lr_from=str(root / "run"))
    with pytest.raises(
        ValueError, match="was trained with muon, and its learning rate does not suit"
    ):
        noisewise.train(data, root / "x", config=adam, build=build)
    damaged = root / "run" / "noise.json"
    whole = damaged.read_text()
    damaged.write_text(whole[: len(whole) // 2])
    try:
        with pytest.raises(ValueError, match=r"noise\.json cannot be read as a measurement"):
            noisewise.train(
                data,
                root / "x",
                config=replace(short, batch=32, lr_from=str(root / "run")),
                build=build,
            )
    finally:
        damaged.write_text(whole)


def test_a_finished_run_keeps_the_batch_that_it_was_trained_with(root: Path) -> None:
    before = (root / "run" / "run.json").read_text()
    events: list[str | None] = []
    noisewise.train(
        root / "blobs.npz",
        root / "run",
        config=replace(CONFIG, batch=64),
        build=build,
        on_record=lambda record: events.append(record.event),
    )
    assert any("already finished" in (event or "") for event in events)
    assert (root / "run" / "run.json").read_text() == before


def test_a_compiled_net_never_meets_a_part_of_a_batch() -> None:
    pictures, engine = tiny_pictures(), Engine.choose("cpu")
    plan = plan_teacher(CONFIG, pictures, engine)
    stage = TeacherStage(pictures, tiny_denoiser(), plan, CONFIG, engine)
    quick, sizes = stage._denoise, []

    def counted(x: Tensor, *rest: Tensor | None) -> Tensor:
        sizes.append(len(x))
        return quick(x, *rest)  # pyrefly: ignore[bad-argument-type]

    stage._denoise = counted
    for step in range(8, 11):  # the first and the third are measured
        stage.step(step, 16 * step, 1.0, 0.1)
    assert sizes == [16]
