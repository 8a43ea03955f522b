from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.diffusion import Preconditioned
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.guards import GeneratorGuard
from noisewise.training.stages.loop import Loop, TrainingFailed
from noisewise.training.stages.student import StudentStage, student_pace

MEAN, STD = 0.3, 0.4
# lambda 1: beyond it so high a learning rate runs off, which is not what these tests are about.
QUICK = StudentRecipe(
    batch=32,
    distance_images=128,
    lr=0.03,
    fake_lr=0.03,
    distance_every=0.25,
    lam=1.0,
    weight="l1",
    t_max=0.8,
    t_min=0.0,  # a Gaussian has no shapes that could come before its detail
    fake_noise_shift=0.0,
)
ENGINE = Engine.choose("cpu")


class GaussianNet(nn.Module):
    """Net whose denoiser is exact for pixels of N(mean, std^2), and can move to other Gaussians.

    With sigma_data 1, D = c_skip x + c_out F(c_in x); F is affine in its input at each noise level.
    """

    def __init__(self, mean: float = MEAN, log_std: float = 0.0, num_classes: int = 0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((1, 1, 1, 1), mean))
        self.log_std = nn.Parameter(torch.full((1, 1, 1, 1), log_std))
        self.of_class = nn.Parameter(torch.zeros(num_classes, 1, 1, 1)) if num_classes else None

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor | None = None) -> Tensor:
        sigma = noise_level.exp()[:, None, None, None]
        total = 1 + sigma.square()
        variance = (2 * self.log_std).exp()
        mean = self.mean if self.of_class is None else self.mean + self.of_class[condition]
        noised = x * total.sqrt()
        x0 = (variance * noised + sigma.square() * mean) / (variance + sigma.square())
        return (x0 - noised / total) * total.sqrt() / sigma


def teacher(num_classes: int = 0) -> Teacher:
    net = GaussianNet(MEAN, torch.tensor(STD).log().item(), num_classes)
    if net.of_class is not None:
        with torch.no_grad():
            net.of_class[1] -= 0.6
    config = ModelConfig(
        kind="teacher",
        net={},
        sigma_data=1.0,
        size=8,
        channels=1,
        noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
        classes=("a", "b")[:num_classes],
        label_histogram=(3, 1)[:num_classes],
        sampler=SamplerSettings(sigma_min=0.01, num_steps=8),
    )
    return Teacher(Preconditioned(net, 1.0).eval(), config)


def made(recipe: StudentRecipe = QUICK, budget: str = "4800images", **more: Any) -> Loop:  # noqa: ANN401
    config = DistillConfig(budget=budget, recipe=recipe, **more)
    return Loop(StudentStage(teacher(), config, ENGINE), config.amount, student_pace(recipe))


def stage_of(loop: Loop) -> StudentStage:
    assert isinstance(loop.stage, StudentStage)
    return loop.stage


def generator_of(loop: Loop) -> Generator:
    stage = stage_of(loop)
    return Generator(stage.best(), stage.model_config(), teacher)


def test_one_call_learns_the_teachers_spread_without_data() -> None:
    """One call of the teacher is the mean, almost; one of the generator has the data's spread."""
    loop = made()
    records = list(loop.records())
    before = Generator(teacher().denoiser, stage_of(loop).model_config()).sample(256)
    after = generator_of(loop).sample(256)
    assert before.std(0).mean() < 0.15
    assert after.std(0).mean() == pytest.approx(STD, rel=0.15)
    assert after.mean() == pytest.approx(MEAN, abs=0.05)
    distances = [r.distance for r in records if r.distance is not None]
    assert distances[-1] < 0.3 * distances[0]
    assert all(r.fisher is not None and r.fake_loss is not None for r in records[1:-1])


def test_the_best_over_time_is_kept_not_the_last() -> None:
    loop = made()
    stage, best, record = stage_of(loop), {}, None
    for record in loop.records():
        if record.step == 120:  # after the distance at three quarters
            best = copy.deepcopy(stage.judged.best_as)
            with torch.no_grad():
                for average in (*stage._ema.averages, list(stage._generator.parameters())):
                    for p in average:
                        p.add_(0.05)
    assert stage.judged.best_as == best
    assert loop.finished
    assert record is not None
    assert "kept the weight average" in (record.event or "")


def test_a_second_call_is_offered_only_where_it_is_surely_better() -> None:
    loop = made()
    list(loop.records())
    stage = stage_of(loop)
    stats = stage.stats()
    tried = stats["two_call_floors"]
    assert set(tried) == {"0.1", "0.2", "0.3", "0.45", "0.7"}
    low, high = stats["two_calls_minus_one"]
    assert low <= high
    sigma = stage.model_config().two_call_sigma
    assert sigma == stats["two_call_sigma"]
    if high < 0:
        assert sigma is not None
        assert tried[f"{sigma:g}"] == min(tried.values())
        assert generator_of(loop).sample(2, calls=2).shape == (2, 1, 8, 8)
    else:
        assert sigma is None
        with pytest.raises(ValueError, match="two calls"):
            generator_of(loop).sample(2, calls=2)


def test_the_teacher_is_never_changed() -> None:
    config = DistillConfig(budget="320images", recipe=QUICK)
    given = teacher()
    before = copy.deepcopy(given.state_dict())
    stage = StudentStage(given, config, ENGINE)
    held = copy.deepcopy(stage._frozen.state_dict())
    list(Loop(stage, config.amount, student_pace(QUICK)).records())
    assert all(torch.equal(before[k], v) for k, v in given.state_dict().items())
    assert all(torch.equal(held[k], v) for k, v in stage._frozen.state_dict().items())


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_stopped_and_resumed_distillation_is_the_uninterrupted_one(stop_after: int) -> None:
    whole, first, second = (made(budget="320images") for _ in range(3))
    expected = list(whole.records())
    steps = itertools.count()
    before = list(first.records(stop=lambda: next(steps) == stop_after))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after = list(second.records())
    assert [r.loss for r in before[1:-1]] + [r.loss for r in after[1:-1]] == [
        r.loss for r in expected[1:-1]
    ]
    assert after[-1].distance == expected[-1].distance
    for a, b in zip(
        stage_of(second).best().parameters(), stage_of(whole).best().parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_labels_come_from_the_stored_histogram() -> None:
    config = DistillConfig(budget="2400images", recipe=QUICK)
    stage = StudentStage(teacher(num_classes=2), config, ENGINE)
    drawn = torch.cat([stage._labels() for _ in range(50)])  # pyrefly: ignore[bad-argument-type]
    assert (drawn == 0).float().mean() == pytest.approx(0.75, abs=0.05)
    list(Loop(stage, config.amount, student_pace(QUICK)).records())
    generator = Generator(stage.best(), stage.model_config())
    assert generator.sample(128, label="a").mean() == pytest.approx(MEAN, abs=0.1)
    assert generator.sample(128, label="b").mean() == pytest.approx(MEAN - 0.6, abs=0.1)


def test_a_fake_only_warm_up_leaves_the_generator_alone() -> None:
    loop = made(replace(QUICK, fake_warmup_steps=5), budget="320images")
    stage = stage_of(loop)
    start = copy.deepcopy(stage._generator.state_dict())
    fake = copy.deepcopy(stage._fake.state_dict())
    for record in loop.records():
        if record.step == 5:
            assert all(torch.equal(start[k], v) for k, v in stage._generator.state_dict().items())
            assert not all(torch.equal(fake[k], v) for k, v in stage._fake.state_dict().items())
            break


@pytest.mark.parametrize("grad_through", ["both", "none"])
@pytest.mark.parametrize("weight", ["l1", "sigma", "none"])
def test_every_variant_comes_closer(grad_through: Any, weight: Any) -> None:  # noqa: ANN401
    recipe = replace(QUICK, grad_through=grad_through, weight=weight, distance_images=64)
    records = made(recipe, "1600images").records()
    distances = [r.distance for r in records if r.distance is not None]
    assert distances[-1] < 0.8 * distances[0]


# ---------------------------------------------------------------------- guards
def test_a_rate_that_explodes_is_caught_and_gone_back_from() -> None:
    loop = made(replace(QUICK, lr=30.0, fake_lr=30.0, lam=1.2))
    events = []
    with pytest.raises(TrainingFailed, match="generator training failed 4 times"):
        events += [r.event for r in loop.records()]
    stage = stage_of(loop)
    assert stage.lam == 0.5
    assert all(
        torch.isfinite(p).all() for p in stage.best().parameters()
    )  # the best is still there
    assert generator_of(loop).sample(4).shape == (4, 1, 8, 8)


def test_going_back_halves_the_rate_and_lowers_lambda() -> None:
    loop = made()
    stage, events, poisoned = stage_of(loop), [], False
    for record in loop.records():
        events.append(record.event)
        if record.step == 60 and not poisoned:
            poisoned = True
            with torch.no_grad():
                next(stage._generator.parameters()).fill_(float("nan"))
    back = [e for e in events if e and "went back" in e]
    assert "loss is nan; learning rate halved, lambda lowered to 0.5" in back[0]
    assert loop.at.lr_scale == 0.5 ** len(back)
    assert stage.lam == 0.5
    assert loop.finished


def test_each_going_back_softens_one_more_thing_and_a_resume_keeps_it() -> None:
    stage = stage_of(made())
    said = [stage.retreat() for _ in range(4)]
    assert said[0] == "lambda lowered to 0.5"
    assert said[1:] == [
        "2 steps of the fake score for each step",
        "4 steps of the fake score for each step",
        "",
    ]
    again = stage_of(made())
    stage.judged.most_varied = 0.7
    again.load_rest(stage.rest())
    assert (again.lam, again.fake_steps, again.judged.most_varied) == (0.5, 4, 0.7)


def test_what_is_set_by_hand_is_what_is_trained() -> None:
    config = DistillConfig(weight="l1", through="none", fake_steps=3, recipe=StudentRecipe())
    stage = StudentStage(teacher(), config, ENGINE)
    assert (stage._recipe.weight, stage._recipe.grad_through) == ("l1", "none")
    assert stage.fake_steps == 3
    assert DistillConfig().constants == StudentRecipe()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lam": 3.0}, "lambda 3 diverges"),
        ({"weight": "edm"}, "weight 'edm' is unknown"),
        ({"through": "teacher"}, "through 'teacher' is unknown"),
        ({"fake_steps": 0}, "fake_steps is 0"),
        ({"fake_steps": 1000}, "fake_steps is 1000"),
    ],
)
def test_what_cannot_be_distilled_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**wrong)


def test_a_recipe_knows_the_same_limits_as_the_flags() -> None:
    with pytest.raises(ValueError, match="diverges"):
        StudentRecipe(lam=3.0)
    with pytest.raises(ValueError, match="diverges"):
        StudentRecipe(safe_lam=2.0)
    with pytest.raises(ValueError, match="variety_fall"):
        StudentRecipe(variety_fall=2.0)


@torch.no_grad()
def spoil(stage: StudentStage, shift: float) -> None:
    """Make every average's pictures brighter; the net that learns is left alone."""
    for average in stage._ema.averages:
        average[0].add_(shift)


def test_a_distance_that_climbs_is_trouble_and_gone_back_from() -> None:
    loop = made()
    stage, events, before = stage_of(loop), [], {}
    for record in loop.records():
        events.append(record.event or "")
        if record.step == 112:  # the next step is judged
            before = dict(stage.judged.best_as)
            spoil(stage, 2.0)
    (back,) = (event for event in events if "went back" in event)
    assert "the distance rose to" in back
    assert loop.finished
    assert stage.judged.best_as["distance"] <= before["distance"]
    assert all(average[0].abs().max() < 1 for average in stage._ema.averages)  # none is spoilt


def test_the_limit_of_the_distance_is_a_multiple_of_the_best_ones_upper_end() -> None:
    loop = made()
    list(loop.records())
    stage, best = stage_of(loop), dict(stage_of(loop).judged.best_as)
    kept, judged = [stage.judged.best_weights for _ in stage._ema.averages], []
    for shift in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6):
        stage._ema.load_state_dict({"averages": kept})
        spoil(stage, shift)
        judged.append(stage.judge(True, None))
    assert judged[0].distance == best["distance"]
    limit = QUICK.distance_jump * best["high"]
    for found in judged:
        far = found.floors or 0.0
        if found.trouble:  # the lower end of its interval is beyond the limit
            assert far > limit
        if far <= limit:
            assert found.trouble is None
    assert judged[0].trouble is None
    assert "the distance rose" in (judged[-1].trouble or "")
    spoil(stage, float("nan"))
    assert stage.judge(True, None).trouble == "a generated pixel is not a number"
    assert stage.judged.best_as == best


def collapse(stage: StudentStage) -> None:
    """Every average draws one picture for every noise: a Gaussian of no width."""
    names = [name for name, _ in stage._generator.named_parameters()]
    state = stage._ema.state_dict()
    for average in state["averages"]:
        average[next(i for i, name in enumerate(names) if "log_std" in name)].fill_(-20.0)
    stage._ema.load_state_dict(state)


def test_pictures_that_become_alike_are_trouble_and_never_the_best() -> None:
    loop = made()
    list(loop.records())
    stage = stage_of(loop)
    best = dict(stage.judged.best_as)
    assert 0.8 < stage.judged.most_varied <= 1
    stage.judged.best_as["floors"] = stage.judged.best_as["high"] = 1e9  # no distance is worse
    collapse(stage)
    found = stage.judge(True, None)
    assert found.variety == pytest.approx(0, abs=1e-3)
    assert "the pictures became alike" in (found.trouble or "")
    assert stage.judged.best_as["share"] == best["share"]


def test_a_collapse_that_was_kept_is_said_at_the_end() -> None:
    loop = made(replace(QUICK, variety_fall=0.0))
    list(loop.records())
    stage = stage_of(loop)
    stage.judged.best_as["floors"] = 1e9
    collapse(stage)
    assert "too alike" in (stage.finish(None).event or "")
    assert stage.stats()["variety"]["value"] == pytest.approx(0, abs=1e-3)


def steady(guard: GeneratorGuard, steps: int = 100) -> None:
    for _ in range(steps):
        assert guard.trouble({"_max": 1.0, "_std": 0.5, "fisher": 0.1}, 0.5) is None


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"_max": 6.0, "_std": 0.5, "fisher": 0.1}, "pixel reached 6"),
        ({"_max": 1.0, "_std": 0.05, "fisher": 0.1}, "generated pixels is 0.1 times"),
        ({"_max": 1.0, "_std": 2.0, "fisher": 0.1}, "generated pixels is 4 times"),
        ({"_max": 1.0, "_std": 0.5, "fisher": 20.0}, "score gap (fisher) jumped"),
    ],
)
def test_each_guard_bites(measured: dict[str, float], words: str) -> None:
    guard = GeneratorGuard(StudentRecipe(), sigma_data=0.5)
    steady(guard)
    assert words in (guard.trouble(measured, 0.5) or "")


def test_a_gap_that_grows_from_nothing_at_the_start_is_no_trouble() -> None:
    guard = GeneratorGuard(StudentRecipe(), sigma_data=0.5)
    for step in range(200):
        measured = {"_max": 1.0, "_std": 0.5, "fisher": 1e-6 * 1.3 ** min(step, 40)}
        assert guard.trouble(measured, step / 2000) is None


def test_a_start_duller_than_the_data_is_no_collapse() -> None:
    guard = GeneratorGuard(StudentRecipe(), sigma_data=1.0)
    guard.begin(0.2)
    assert guard.trouble({"_max": 1.0, "_std": 0.2, "fisher": 0.0}, 0.0) is None
    assert guard.trouble({"_max": 1.0, "_std": 0.09, "fisher": 0.0}, 0.0) is not None


def test_the_distance_that_is_told_is_that_of_all_pictures() -> None:
    """The one by which the weights were chosen is a least of many; here it is made absurdly low."""
    loop = made()
    list(loop.records())
    stage = stage_of(loop)
    stage.judged.best_as["floors"] = -1.0
    told = stage.finish(None).distance
    assert stage.judged.reference is not None
    pictures = stage.judged.pictures(stage.best(), stage.judged.num_images, 1_000_000)
    assert (
        told == stage.stats()["distance"] == stage.judged.reference.measure(pictures).parts[0].value
    )
