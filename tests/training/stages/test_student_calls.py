"""A generator of several calls, as adapters, and with real pictures: on a Gaussian teacher."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noisewise.adapters.layers import as_matrix, base_of, factor_parameters, from_matrix
from noisewise.diffusion import Preconditioned, score_identity_loss
from noisewise.nets.derive import build
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.real_batches import RealBatches
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.stages.student_nets import AdaptedNets, check_student

MEAN, STD = 0.3, 0.4
QUICK = StudentRecipe(
    batch=32,
    distance_images=64,
    lr=0.02,
    fake_lr=0.02,
    lam=1.0,
    distance_every=0.5,
    weight="l1",
    t_max=0.8,
    t_min=0.0,
    fake_noise_shift=0.0,
    last_call_scale=0.3,
    adapter_lr_scale=1.0,
)
ENGINE = Engine.choose("cpu")


class GaussianNet(nn.Module):
    """The denoiser of N(mean, std^2); its width can be another one at each noise level.

    With sigma_data 1, D = c_skip x + c_out F(c_in x). It can also see a chequered mark.
    """

    def __init__(self, mean: float = MEAN, log_std: float = float(np.log(STD))) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((1, 1, 1, 1), mean))
        self.log_std = nn.Parameter(torch.full((1, 1, 1, 1), log_std))
        self.more = nn.Parameter(torch.zeros(1, 1, 1, 1))  # above noise of 1
        self.seen = nn.Parameter(torch.full((1, 1, 1, 1), 0.5))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        level = noise_level[:, None, None, None]
        sigma = level.exp()
        total = 1 + sigma.square()
        chequered = 1 - 2 * (torch.arange(8)[:, None] + torch.arange(8)).remainder(2)
        mark = self.seen * (x * chequered).mean((1, 2, 3), keepdim=True)
        variance = (2 * (self.log_std + self.more * (8 * level).sigmoid() + mark)).exp()
        noised = x * total.sqrt()
        x0 = (variance * noised + sigma.square() * self.mean) / (variance + sigma.square())
        return (x0 - noised / total) * total.sqrt() / sigma


def described(**more: Any) -> ModelConfig:  # noqa: ANN401
    plain = ModelConfig(
        kind="teacher",
        net={},
        sigma_data=1.0,
        size=8,
        channels=1,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        sampler=SamplerSettings(sigma_min=0.01, num_steps=8),
    )
    return replace(plain, **more)


def teacher(mean: float = MEAN) -> Teacher:
    return Teacher(Preconditioned(GaussianNet(mean), 1.0).eval(), described())


def small() -> Teacher:
    """A teacher with a real net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build({"name": "unet", "channels": 1, "size": 8, "widths": [8, 8], "blocks": [1, 1]})
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return Teacher(Preconditioned(net, 0.5).eval().requires_grad_(False), described(sigma_data=0.5))


def made(
    budget: str = "320images",
    recipe: StudentRecipe = QUICK,
    of: Teacher | None = None,
    real: RealBatches | None = None,
    **more: Any,  # noqa: ANN401
) -> Loop:
    config = DistillConfig(budget=budget, recipe=recipe, **more)
    stage = StudentStage(of or teacher(), config, ENGINE, real)
    return Loop(stage, config.amount, student_pace(recipe))


def stage_of(loop: Loop) -> StudentStage:
    assert isinstance(loop.stage, StudentStage)
    return loop.stage


def generator_of(loop: Loop) -> Generator:
    stage = stage_of(loop)
    return Generator(stage.best(), stage.model_config(), teacher)


# ---------------------------------------------------------------------- several calls
def test_both_calls_learn_the_teachers_spread() -> None:
    """One call of the teacher is the mean, almost, and its second call narrows what it is given."""
    loop = made("4800images", calls=2)
    list(loop.records())
    generator, config = generator_of(loop), stage_of(loop).model_config()
    assert config.call_sigmas == pytest.approx((5.0, 0.3))
    assert config.two_call_sigma is None
    before = Generator(teacher().denoiser, config)
    assert before.sample(256).std(0).mean() < 0.25
    for calls in (1, 2):
        drawn = generator.sample(256, calls=calls)
        assert drawn.std(0).mean() == pytest.approx(STD, rel=0.2)
        assert drawn.mean() == pytest.approx(MEAN, abs=0.06)
    assert torch.equal(generator.sample(4), generator.sample(4, calls=2))
    stats = stage_of(loop).stats()
    assert set(stats["floors_by_call"]) == {"1", "2"}
    assert "two_call_floors" not in stats


@pytest.mark.parametrize("more", [{"calls": 4}, {"calls": 2, "student": "lora", "rank": 2}])
def test_a_resumed_distillation_is_the_uninterrupted_one(more: dict[str, Any]) -> None:
    if more.get("student"):
        pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    recipe = replace(QUICK, lr=1e-3, fake_lr=1e-3, batch=8)
    whole, first, second = (made("64images", recipe, small(), **more) for _ in range(3))
    expected = list(whole.records())
    steps = itertools.count()
    before = list(first.records(stop=lambda: next(steps) == 3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after = list(second.records())
    assert [r.loss for r in before[1:-1]] + [r.loss for r in after[1:-1]] == [
        r.loss for r in expected[1:-1]
    ]
    ends = (stage_of(second).best().parameters(), stage_of(whole).best().parameters())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_papers_mixture_is_there_too() -> None:
    loop = made(recipe=replace(QUICK, fake_told=False), calls=2)
    list(loop.records())
    assert not any("marks" in name for name in stage_of(loop).learned()["fake"])
    assert any("marks" in name for name in stage_of(made(calls=2)).learned()["fake"])
    assert not any("marks" in name for name in stage_of(made()).learned()["fake"])


def test_one_call_draws_no_random_number_more() -> None:
    """So runs of before resume as they were: the state of the draws after a step is the same."""
    stage = stage_of(made())
    again = ENGINE.generator(0)
    for _ in range(2):  # z of the generator, levels and noise of both losses
        stage.step(0, 0, 1.0, 0.5)
    shape = (32, 1, 8, 8)
    for _ in range(2):
        torch.randn(shape, generator=again)
        for _ in range(2):
            torch.rand(32, generator=again)
            torch.randn(shape, generator=again)
    assert torch.equal(stage._draws.get_state(), again.get_state())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"calls": 3}, "3 calls is not trained; use --calls 1, 2 or 4"),
        ({"student": "half"}, "student 'half' is unknown"),
        ({"rank": 4}, "add --student lora"),
        ({"student": "lora", "rank": 0}, "rank 0 adapts nothing"),
        ({"data_weight": 0.9}, "data weight of 0.9"),
        ({"data_weight": float("nan")}, "data weight of nan"),
    ],
)
def test_what_cannot_be_distilled_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**wrong)


def test_a_teacher_without_low_noise_has_no_second_call() -> None:
    narrow = Teacher(teacher().denoiser, described(sigma_range=(4.9, 6.0)))
    config = DistillConfig(calls=2, recipe=replace(QUICK, sigma_init_scale=4.5))
    with pytest.raises(ValueError, match="use --calls 1"):
        StudentStage(narrow, config, ENGINE)


# ---------------------------------------------------------------------- adapters
def adapted(rank: int, of: Teacher | None = None) -> StudentStage:
    pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    recipe = replace(QUICK, lr=1e-3, fake_lr=1e-3)
    return stage_of(made("64images", recipe, of or small(), student="lora", rank=rank))


def stir(stage: StudentStage) -> None:
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for net in (stage._generator, stage._fake):
            for p in net.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=source))


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(2)
    x, noise = torch.randn(2, 5, 1, 8, 8, generator=source)
    return x, torch.linspace(0.1, 3.0, 5), noise


def test_off_it_is_the_teacher_bit_for_bit_also_after_training() -> None:
    given = small()
    stage, (x, sigma, _) = adapted(2, given), inputs()
    start = stage._generator(x, sigma)
    assert torch.equal(start, given.denoiser(x, sigma))  # B is 0
    for step in range(3):
        stage.step(step, 32 * step, 1.0, 0.5)
    assert torch.equal(stage._frozen(x, sigma), given.denoiser(x, sigma))
    assert not torch.equal(stage._generator(x, sigma), start)
    assert not torch.equal(stage._fake(x, sigma), stage._generator(x, sigma))


def test_one_net_is_in_memory_and_only_adapters_have_a_state() -> None:
    stage, whole = adapted(2), small()
    teachers = {id(p) for p in stage._frozen.parameters()}
    for net in (stage._generator, stage._fake, stage.judged.best()):
        assert {id(p) for p in net.parameters()} <= teachers
    trained = sum(p.numel() for p in stage._generator.parameters())
    assert trained < 0.5 * sum(p.numel() for p in whole.parameters())
    assert sum(t.numel() for t in stage.judged.best_weights) == trained


def test_the_merged_generator_draws_what_the_adapter_draws() -> None:
    stage, (x, sigma, _) = adapted(2), inputs()
    stir(stage)
    stage.judged.best_weights = [p.detach().clone() for p in stage._generator.parameters()]
    merged = stage.best()
    assert type(merged) is type(small().denoiser)
    assert merged.state_dict().keys() == small().denoiser.state_dict().keys()
    torch.testing.assert_close(merged(x, sigma), stage._generator(x, sigma), atol=1e-5, rtol=1e-5)


def test_at_full_rank_its_gradient_is_that_of_the_merged_weights() -> None:
    """dL/dB = G A^T, dL/dA = B^T G, G the gradient of whole nets; A of full rank gives G back."""
    stage, (z, sigma, noise) = adapted(32), inputs()
    stir(stage)
    nets = stage._nets
    assert isinstance(nets, AdaptedNets)
    whole, fake = (copy.deepcopy(small().denoiser).requires_grad_(True) for _ in range(2))
    for net, name in ((whole, "generator"), (fake, "fake")):
        for key, change in nets.adapters.change(name).items():
            net.net.get_submodule(key).weight.data.add_(change)  # pyrefly: ignore

    def loss(generator: nn.Module, of_fake: nn.Module, frozen: nn.Module) -> Tensor:
        x_g = generator(2.5 * z, torch.full((5,), 2.5), None)
        return score_identity_loss(
            frozen, of_fake, x_g, sigma, noise, None, 1.2, "sigma", "both", 0.5
        ).loss

    loss(whole, fake, small().denoiser).backward()
    adapters_loss = loss(stage._generator, stage._fake, stage._frozen)
    adapters_loss.backward()
    assert all(p.grad is None for p in fake.parameters())
    assert all(p.grad is None for p in stage._fake.parameters())
    full_rank = 0
    for key, layer in nets.adapters.layers.items():
        weight = whole.net.get_submodule(key).weight  # pyrefly: ignore
        gradient = as_matrix(base_of(layer), weight.grad)
        a, b = factor_parameters(layer, "generator")
        assert a.grad is not None
        assert b.grad is not None
        flat_a, flat_b = a.detach().flatten(1), b.detach().flatten(1)
        scale = float(gradient.abs().max()) + 1e-12
        off_b = (b.grad.flatten(1) - gradient @ flat_a.T).abs().max() / scale
        off_a = (a.grad.flatten(1) - flat_b.T @ gradient).abs().max() / scale
        assert max(float(off_a), float(off_b)) < 1e-3
        if flat_a.shape[0] == flat_a.shape[1]:  # A is square: nothing of G is lost
            full_rank += 1
            back = torch.linalg.solve(flat_a.double(), b.grad.flatten(1).double().T).T
            back = from_matrix(base_of(layer), back, weight.shape)
            torch.testing.assert_close(back.float(), weight.grad, atol=2e-2 * scale, rtol=2e-2)
    assert full_rank


def test_a_rank_above_the_width_is_refused() -> None:
    pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    with pytest.raises(ValueError, match="rank 5000 is above the width of this net"):
        check_student(DistillConfig(student="lora", rank=5000), small())
    with pytest.raises(ValueError, match="use --student full"):
        check_student(DistillConfig(student="lora"), teacher())


def test_without_peft_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install noisewise\[adapters\]"):
        check_student(DistillConfig(student="lora"), small())


# ---------------------------------------------------------------------- real pictures
def real(mean: float = MEAN, flips: bool = False) -> RealBatches:
    drawn = np.random.default_rng(0).normal(mean, STD, (400, 8, 8, 1)).clip(-1, 1)
    images = np.round((drawn + 1) * 127.5).astype(np.uint8)
    pictures = Pictures(images, None, (), (), (), "", "memory", ())
    return RealBatches(pictures, np.arange(300), flips, False)


def test_real_pictures_are_those_that_were_trained_on() -> None:
    source = torch.Generator().manual_seed(0)
    x, labels = real().batch(500, source)
    assert labels is None
    known = {one.tobytes() for one in real().pictures.images[:300]}
    seen = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert {np.ascontiguousarray(one).tobytes() for one in seen} <= known
    flipped, _ = real(flips=True).batch(500, torch.Generator().manual_seed(0))
    same = (flipped == x).flatten(1).all(1).float().mean()
    assert same == pytest.approx(0.5, abs=0.1)


def test_a_data_weight_without_pictures_is_refused_and_pictures_without_one_not_read() -> None:
    with pytest.raises(ValueError, match="leave --data-weight out"):
        made(data_weight=0.1)
    plain, given = made(), made(real=real())
    losses = [[r.loss for r in loop.records()] for loop in (plain, given)]
    assert losses[0] == losses[1]


def test_real_pictures_move_a_generator_from_its_teacher_to_them() -> None:
    """The teacher's mean is wrong by 0.3."""
    ends = []
    for weight in (0.0, 0.5):
        recipe = replace(QUICK, data_target=0.0, t_max=0.5)
        loop = made("3200images", recipe, teacher(0.0), real(0.3), data_weight=weight)
        list(loop.records())
        ends.append(stage_of(loop)._generator.net.mean.item())  # pyrefly: ignore
    assert abs(ends[0]) < 0.1
    assert 0.05 < ends[1] - ends[0]


def test_several_calls_adapters_and_data_work_together() -> None:
    pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    recipe = replace(QUICK, lr=1e-3, fake_lr=1e-3, batch=8)
    more = {"calls": 2, "student": "lora", "rank": 2, "data_weight": 0.06}
    loop = made("48images", recipe, small(), real(), **more)
    losses = [r.loss for r in loop.records() if r.loss is not None]
    assert np.isfinite(losses).all()
    assert generator_of(loop).sample(2).shape == (2, 1, 8, 8)
