"""A generator of a guided teacher, and one with an adversary in its fake score."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import Hearing, Preconditioned, guided, with_shares
from noisewise.nets.derive import build
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.loop import Loop
from noisewise.training.stages.plan import student_values
from noisewise.training.stages.real_batches import RealBatches
from noisewise.training.stages.student import StudentStage, student_pace
from noisewise.training.stages.student_guidance import Guide
from noisewise.training.stages.student_nets import check_student

QUICK = StudentRecipe(
    batch=8, distance_images=64, lr=1e-3, fake_lr=1e-3, lam=1.0, distance_every=0.5
)
ENGINE = Engine.choose("cpu")
CLASSES = ("left", "right")


def described(**more: Any) -> ModelConfig:  # noqa: ANN401
    plain = ModelConfig(
        kind="teacher",
        net={},
        sigma_data=0.5,
        size=8,
        channels=1,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        classes=CLASSES,
        label_histogram=(30, 10),
        sampler=SamplerSettings(sigma_min=0.05, num_steps=4, guidance_interval=(0.05, 20.0)),
    )
    return replace(plain, **more)


class LinesNet(nn.Module):
    """The denoisers of classes N(m_c, 0.2^2) and, by shares, of N(m, W^2), at every noise level."""

    takes_shares = True

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.tensor([-0.3, 0.3]))
        self.spread = nn.Parameter(torch.tensor(0.2))
        self.whole = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        told = nn.functional.one_hot(condition, 2).float() if condition.ndim == 1 else condition
        sure = (told.amax(1) == 1).float()[:, None, None, None]
        sd = sure * self.spread + (1 - sure) * self.whole
        place = (told @ self.places)[:, None, None, None]
        sigma = noise_level.exp()[:, None, None, None]
        noised, total = x * (1 + sigma.square()).sqrt(), 1 + sigma.square()
        v, own = sigma.square(), sd.square()
        x0 = (own * noised + v * place) / (own + v)
        return (x0 - noised / total) * total.sqrt() / sigma


def lines() -> Teacher:
    net = Preconditioned(LinesNet(), 1.0).eval()
    return Teacher(net, described(sigma_data=1.0, label_histogram=(20, 20)))


def small(classes: int = 2) -> Teacher:
    """A teacher with a real net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        form = {"name": "unet", "channels": 1, "size": 8, "widths": [8, 8], "blocks": [1, 1]}
        net = build({**form, "num_classes": classes})
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.05 * torch.randn_like(p))
    named = {"classes": CLASSES} if classes else {"classes": (), "label_histogram": ()}
    denoiser = Preconditioned(net, 0.5).eval().requires_grad_(False)
    return Teacher(denoiser, described(**named))


def real(labelled: bool = True) -> RealBatches:
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(60) % 2 if labelled else None
    classes = CLASSES if labelled else ()
    pictures = Pictures(images, labels, classes, (), (), "", "memory", ())
    return RealBatches(pictures, np.arange(50), False, labelled)


def made(
    budget: str = "64images",
    recipe: StudentRecipe = QUICK,
    of: Teacher | None = None,
    pictures: RealBatches | None = None,
    **more: Any,  # noqa: ANN401
) -> Loop:
    config = DistillConfig(budget=budget, recipe=recipe, **more)
    stage = StudentStage(of or small(), config, ENGINE, pictures)
    return Loop(stage, config.amount, student_pace(recipe))


def stage_of(loop: Loop) -> StudentStage:
    assert isinstance(loop.stage, StudentStage)
    return loop.stage


# ---------------------------------------------------------------------- guidance
def test_teacher_and_fake_score_are_guided_as_drawn_pictures_are() -> None:
    stage, teacher = stage_of(made(guidance=2.0)), small()
    source = torch.Generator().manual_seed(0)
    x, labels = torch.randn(6, 1, 8, 8, generator=source), torch.tensor([0, 1] * 3)
    sigma = torch.tensor([0.01, 0.1, 0.5, 2.0, 19.0, 30.0])
    expected = teacher.guided(2.0)(x, sigma, labels)
    torch.testing.assert_close(stage._aim(x, sigma, labels), expected)
    torch.testing.assert_close(stage._scored(x, sigma, labels), expected)  # they start alike
    assert not torch.equal(expected, teacher(x, sigma, labels))
    judged = stage.judged
    judged.begin(None)
    assert judged._teachers is not None
    drawn = teacher.sample(64, seed=0, guidance=2.0)
    torch.testing.assert_close(judged._teachers[:64], drawn)


def test_a_guided_generator_moves_on_towards_each_class_and_is_narrower() -> None:
    recipe = replace(
        QUICK, lr=0.01, fake_lr=0.01, batch=32, t_max=0.6, t_min=0.0, fake_noise_shift=0.0
    )
    apart = []
    for guidance in (1.0, 2.0):
        loop = made("4800images", recipe, lines(), guidance=guidance)
        list(loop.records())
        stage = stage_of(loop)
        generator = Generator(stage.best(), stage.model_config(), lines)
        drawn = [generator.sample(64, label=c).mean().item() for c in (0, 1)]
        apart.append(drawn[1] - drawn[0])
    assert apart[0] == pytest.approx(0.6, abs=0.12)
    assert apart[1] > 1.15 * apart[0]


def test_some_pictures_are_not_told_their_class_the_same_in_every_process() -> None:
    guide = Guide(2.0, torch.tensor([0.75, 0.25]), (0.0, 1.0), 0.3)
    labels = torch.tensor([0, 1] * 50)
    whole = guide.untold(labels, 100, slice(0, 100), torch.Generator().manual_seed(0))
    assert whole is not None
    hidden = (whole == torch.tensor([0.75, 0.25])).all(1)
    assert 0.15 < hidden.float().mean() < 0.45
    assert torch.equal(whole[~hidden].argmax(1), labels[~hidden])
    half = slice(40, 100)
    part = guide.untold(labels[half], 100, half, torch.Generator().manual_seed(0))
    assert part is not None
    assert torch.equal(part, whole[half])
    two = guide.untold(
        labels[half].repeat(2), 100, half, torch.Generator().manual_seed(0), batches=2
    )
    assert two is not None
    assert torch.equal(two[:60], part)
    assert not torch.equal(two[60:], part)
    plain = Guide.of(small(), 1.0, 0.1)
    draws = torch.Generator().manual_seed(0)
    before = draws.get_state()
    assert plain.untold(labels, 100, half, draws) is labels
    assert torch.equal(draws.get_state(), before), "without guidance no number is drawn"


def test_guidance_is_told_with_its_reason_and_source() -> None:
    found = student_values(DistillConfig(guidance=1.5), described())["guidance"]
    assert found.value == 1.5
    assert "arXiv 2406.01561" in found.reason
    assert "guidance" not in student_values(DistillConfig(), described())


class OneClassOnly(nn.Module):
    """A net that takes one class a picture, and no shares."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 1)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        return x + self.table(condition)[:, :, None, None]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (small(0), "trained without classes or kinds; leave --guidance out"),
        (Teacher(Preconditioned(OneClassOnly(), 0.5), described()), "one class a picture"),
    ],
)
def test_a_teacher_that_cannot_be_guided_is_refused(of: Teacher, message: str) -> None:
    config = DistillConfig(guidance=1.5)
    with pytest.raises(ValueError, match=message):
        check_student(config, of)
    with pytest.raises(ValueError, match=message):
        StudentStage(of, config, ENGINE)
    check_student(DistillConfig(), of)


# ---------------------------------------------------------------------- an adversary
def test_the_adversary_learns_from_the_start_and_the_generator_follows_later() -> None:
    """Before a tenth of the budget the generator's gradient is that without it."""
    data = {"data_weight": 0.5, "data_term": "sida"}
    one, two = (
        stage_of(made(recipe=replace(QUICK, adversarial_from=at), pictures=real(), **data))
        for at in (0.0, 0.5)
    )
    before = [p.detach().clone() for p in one._generator.parameters()]
    for stage in (one, two):
        stage.step(0, 0, 1.0, 0.2)
    fakes = zip(one._fake.parameters(), two._fake.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in fakes)
    moved = [
        torch.cat(
            [(p - b).flatten() for p, b in zip(s._generator.parameters(), before, strict=True)]
        )
        for s in (one, two)
    ]
    assert not torch.equal(*moved)


def test_its_gradient_is_the_formula_by_hand() -> None:
    """(1 - W) grad L + W a mean w grad softplus(-l), for the generator's pictures."""
    data = {"data_weight": 0.3, "data_term": "sida"}
    recipe = replace(QUICK, adversarial_scale=0.1, adversarial_from=0.0)
    stage = stage_of(made(recipe=recipe, pictures=real(), **data))
    stage.step(0, 0, 1.0, 0.2)  # fake score and teacher differ now
    layer = stage._adversary
    assert layer is not None
    from noisewise.diffusion import fooling_loss, score_identity_loss

    source = torch.Generator().manual_seed(3)
    x_g = torch.randn(8, 1, 8, 8, generator=source).requires_grad_()
    noise, sigma = torch.randn(8, 1, 8, 8, generator=source), torch.linspace(0.1, 2.0, 8)
    labels = torch.tensor([0, 1] * 4)
    heard = Hearing(stage._scored, layer)
    identity = score_identity_loss(
        stage._aim, heard, x_g, sigma, noise, labels, weight="sigma", sigma_data=0.5
    )
    (found,) = torch.autograd.grad(
        stage._with_fooling(identity, heard, 0.5), x_g, retain_graph=True
    )
    (own,) = torch.autograd.grad(identity.loss, x_g, retain_graph=True)
    (fooled,) = torch.autograd.grad(fooling_loss(heard.logits), x_g)
    c_out = sigma * 0.5 / (sigma.square() + 0.25).sqrt()
    mean_weight = (1 / c_out.clamp(min=0.01)).mean()
    torch.testing.assert_close(found, 0.7 * own + 0.3 * 0.1 * mean_weight * fooled)
    assert fooled.abs().max() > 0


def test_what_an_adversary_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="add --data-weight"):
        DistillConfig(data_term="sida")
    with pytest.raises(ValueError, match="use --through both"):
        DistillConfig(data_term="sida", data_weight=0.5, through="none")
    with pytest.raises(ValueError, match="data_term 'gan' is unknown"):
        DistillConfig(data_term="gan", data_weight=0.5)  # pyrefly: ignore[bad-argument-type]
    config = DistillConfig(data_term="sida", data_weight=0.5)
    with pytest.raises(ValueError, match="use --data-term realuid"):
        check_student(config, lines())
    with pytest.raises(ValueError, match="leave --data-weight out"):
        StudentStage(small(), config, ENGINE)


# ---------------------------------------------------------------------- both
BOTH: list[dict[str, Any]] = [
    {"guidance": 2.0},
    {"guidance": 1.5, "calls": 2, "data_weight": 0.06},
    {"data_weight": 0.5, "data_term": "sida", "calls": 2, "guidance": 1.5},
    {"data_weight": 0.5, "data_term": "sida", "student": "lora", "rank": 2},
    {"guidance": 1.5, "through": "none"},
]


@pytest.mark.parametrize("more", BOTH, ids=lambda more: "+".join(more))
def test_a_resumed_distillation_is_the_uninterrupted_one(more: dict[str, Any]) -> None:
    if more.get("student"):
        pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
    pictures = real() if more.get("data_weight") else None
    whole, first, second = (made("48images", pictures=pictures, **more) for _ in range(3))
    expected = list(whole.records())
    assert all(np.isfinite(r.loss) for r in expected if r.loss is not None)
    steps = itertools.count()
    before = list(first.records(stop=lambda: next(steps) == 3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after = list(second.records())
    assert [r.loss for r in before[1:-1]] + [r.loss for r in after[1:-1]] == [
        r.loss for r in expected[1:-1]
    ]
    ends = (stage_of(second).best().parameters(), stage_of(whole).best().parameters())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_in_bfloat16_both_compute() -> None:
    engine = replace(ENGINE, dtype=torch.bfloat16)
    config = DistillConfig(
        budget="32images", recipe=QUICK, guidance=1.5, data_weight=0.5, data_term="sida"
    )
    stage = StudentStage(small(), config, engine, real())
    loop = Loop(stage, config.amount, student_pace(QUICK))
    assert all(np.isfinite(r.loss) for r in loop.records() if r.loss is not None)


def test_the_guided_function_is_what_the_module_computes() -> None:
    teacher = small()
    shares = torch.tensor([0.75, 0.25])
    weak = with_shares(teacher.denoiser, shares)
    expected = guided(teacher.denoiser, weak, 1.5, (0.05, 20.0))
    x, labels = torch.ones(2, 1, 8, 8), torch.tensor([0, 1])
    found = Guide.of(teacher, 1.5, 0.1).around(teacher.denoiser)
    torch.testing.assert_close(found(x, torch.ones(2), labels), expected(x, torch.ones(2), labels))
