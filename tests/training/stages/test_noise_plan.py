"""One measured factor moves every noise level, and mean colours come out as varied as they are."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import noisewise
from noisewise.app import cli
from noisewise.diffusion import (
    HEUN,
    EDMWeight,
    Extended,
    InterpolatedCosine,
    KarrasUniform,
    LogitNormal,
    LogNormal,
    ShiftedCosine,
    SigmoidWeight,
    VWeight,
    denoising_loss,
    karras_sigmas,
)
from noisewise.pictures.noise_curve import mean_colour_sd, noise_curve
from noisewise.pictures.pictures import Pictures
from noisewise.quality.wiener_filter import cosines
from noisewise.training.adapt import plan_adaptation
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Teacher
from noisewise.training.run.begin import create_run
from noisewise.training.run.resumed_plan import with_noise_of_run
from noisewise.training.run.run_json import read_info, write_info
from noisewise.training.settings.config import (
    AdaptConfig,
    DistillConfig,
    Loss,
    Schedule,
    TrainConfig,
)
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.noise_plan import (
    fake_noise,
    generator_noise,
    loss_weight,
    measured_scale,
    plan_noise,
    reaching,
    sampler_start,
    training_draw,
)
from noisewise.training.stages.plan import TeacherPlan, plan_teacher, student_values
from tiny import build, tiny_denoiser, tiny_pictures

SIZES = (64, 128, 256, 512, 1024)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
LOSSES: tuple[Loss, ...] = get_args(Loss)
RECIPE = TeacherRecipe(batch=8, distance_images=0, sampler_images=0)


def plain(size: int, count: int = 32) -> np.ndarray:
    """Pictures of one colour each, dark to light, uint8 [count, size, size, 3] (a view)."""
    levels = np.random.default_rng(0).normal(127.5, 0.2 * 127.5, (count, 1, 1, 3))
    levels = levels + np.random.default_rng(1).normal(0, 0.25 * 127.5, (count, 1, 1, 1))
    return np.broadcast_to(levels.clip(0, 255).astype(np.uint8), (count, size, size, 3))


def pictures_of(images: np.ndarray) -> Pictures:
    return replace(tiny_pictures(len(images)), images=images, labels=None, classes=())


def gaussian_spread(deviation: float, sigma_max: float, count: int = 4000) -> float:
    """Generated over real standard deviation of a Gaussian coefficient, drawn in 60 steps of Heun.

    The denoiser is exact: D(x, sigma) = x s^2 / (s^2 + sigma^2).
    """

    def denoiser(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return x * (deviation**2 / (deviation**2 + sigma[:, None] ** 2))

    noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = karras_sigmas(60, 0.01, sigma_max, dtype=torch.float64)
    *_, last = HEUN.states(denoiser, noise / noise.std(), levels, None)
    return float(last.x0.std()) / deviation


# --- sides that differ ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 128), (48, 192), (256, 64)])
def test_flat_pictures_are_shifted_by_their_number_of_pixels(shape: tuple[int, int]) -> None:
    """Averaged down to as many pixels as 32 x 32 have, they gain just that much."""
    levels = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 3)).astype(np.uint8)
    images = np.broadcast_to(levels, (64, *shape, 3))
    scale, why = measured_scale(images, shape)
    assert scale == pytest.approx(math.sqrt(shape[0] * shape[1]) / 32, rel=1e-3)
    assert measured_scale(images.transpose(0, 2, 1, 3), shape[::-1])[0] == pytest.approx(scale)
    assert f"(flat pictures: {shape[0] * shape[1] / 32**2:.3g})" in why
    assert measured_scale(None, (16, 64))[0] == 1.0  # as many pixels as a square of 32


def test_the_start_goes_by_the_coefficient_of_the_mean_colour() -> None:
    """That of the orthonormal cosine transform at frequency zero, in each channel alone."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (40, 1, 1, 1)) + rng.integers(-20, 20, (40, 48, 192, 1))
    images = values.clip(0, 255).astype(np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    spectrum = cosines(48) @ x @ cosines(192).mT
    deviation = float(spectrum[:, 0, 0, 0].std(correction=0))
    assert sampler_start(40.0, images, (48, 192))[0] == math.ceil(3 * deviation)


# --- the sampler's first level ----------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_mean_colours_vary_as_in_real_pictures_at_every_size(size: int) -> None:
    images = plain(size, 8)
    deviation = size * mean_colour_sd(images)
    start, why = sampler_start(40.0, images, size)
    assert gaussian_spread(deviation, start) >= 0.9
    assert f"{start / math.hypot(start, deviation):.0%}" in why
    old = gaussian_spread(deviation, 40.0)  # the start that no size moved
    assert old < 0.9
    assert old == pytest.approx(40 / math.hypot(40, deviation), rel=0.01)


def test_mean_colours_by_samples_of_whole_pictures() -> None:
    """Pictures of 64 pixels: one level each and white noise, drawn by their exact denoiser."""
    generator = np.random.default_rng(0)
    levels = generator.normal(0, 0.45, (400, 1, 1, 1))
    real = levels + generator.normal(0, 0.1, (400, 64, 64, 1))
    images = (127.5 * (1 + real.clip(-1, 1))).astype(np.uint8)
    s, w = 64 * float(levels.std()), 0.1
    start, _ = sampler_start(40.0, images, 64)

    def denoiser(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        square = sigma[:, None, None, None] ** 2
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean * (s**2 / (s**2 + square)) + (x - mean) * (w**2 / (w**2 + square))

    def spread(sigma_max: float) -> float:
        noise = torch.randn(300, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        *_, last = HEUN.states(denoiser, noise, karras_sigmas(12, 0.1, sigma_max), None)
        return float(last.x0.mean((1, 2, 3)).std() / levels.std())

    assert 0.9 <= spread(start) <= 1.1
    assert spread(40.0) < 0.9


def test_mean_colour_sd_is_the_largest_of_any_colour() -> None:
    images = plain(8, 200)
    means = images.mean((1, 2)) / 127.5
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = mean_colour_sd(images)
    assert found == pytest.approx((means @ directions.T).std(0).max(), rel=1e-3)
    assert found > means.std(0).max()
    assert mean_colour_sd(images[:1]) == 0


# --- up to 32 pixels nothing changes; above, one factor ---------------------------------------


@pytest.mark.parametrize("size", [8, 28, 32])
def test_small_pictures_keep_the_recipe_exactly(size: int) -> None:
    found = plan_noise(TrainConfig(), pictures_of(plain(size)), 0.5)
    assert found.noise == LogNormal(TeacherRecipe().noise_mean + math.log(0.5), 1.4)
    assert (found.noise_scale, found.sigma_max) == (1.0, 40.0)
    assert loss_weight("edm", 0.5, found.noise_scale) == EDMWeight(0.5)
    assert generator_noise(StudentRecipe(), 1.0, 1.0) == KarrasUniform(t_max=0.7)


def test_the_factor_is_the_size_of_flat_pictures_and_one_for_white_noise() -> None:
    assert measured_scale(plain(96), 96)[0] == pytest.approx(3, rel=1e-3)
    white = np.random.default_rng(0).integers(0, 256, (16, 128, 128, 1)).astype(np.uint8)
    assert measured_scale(white, 128)[0] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_moves_by_the_factor(schedule: Schedule) -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    draws = [training_draw(schedule, RECIPE, 0.5, scale)[0] for scale in (1, 2, 8, 16)]
    medians = [float(draw.quantile(half)) for draw in draws]
    assert medians[3] / medians[2] == pytest.approx(2, rel=1e-6)
    # Up to 256 pixels the clean end of the interpolated schedule, half of its median, is unmoved.
    middle = 4**0.5 if schedule == "interpolated" else 4
    assert medians[2] / medians[1] == pytest.approx(middle, rel=1e-6)
    if schedule == "cosine":
        assert medians[1] == pytest.approx(medians[0], rel=1e-6) == 1
        assert draws[2] == ShiftedCosine(256, 64)
    if schedule == "interpolated":
        assert draws[3] == InterpolatedCosine(512, 32, 256)


@pytest.mark.parametrize("size", [28, 64, 128])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_sees_where_the_sampler_starts(schedule: Schedule, size: int) -> None:
    images = plain(size)
    found = plan_noise(TrainConfig(schedule=schedule), pictures_of(images), 0.5)
    rarely = torch.tensor(1 - 1 / 4000, dtype=torch.float64)
    assert float(found.noise.quantile(rarely)) > 0.9 * found.sigma_max


def test_a_narrow_draw_is_extended_and_its_lower_levels_stay() -> None:
    narrow = LogitNormal(scale=0.5)
    extended, why = reaching(narrow, 40.0)
    assert extended == Extended(narrow, 40.0)
    assert "40, where the sampler starts" in why
    p = torch.tensor([0.01, 0.5, 0.98, 1.0], dtype=torch.float64)
    torch.testing.assert_close(extended.quantile(p)[:3], narrow.quantile(p)[:3])
    assert float(extended.quantile(p)[3]) == pytest.approx(40)
    assert reaching(LogNormal(-0.4, 1.4), 30.0) == (LogNormal(-0.4, 1.4), "")


def test_nets_of_bands_see_high_noise_in_the_share_that_is_set() -> None:
    """A finest band of 0.02 pulls the draw down; a tenth of it is spread evenly in ln sigma."""
    pictures = pictures_of(plain(64))
    usual = plan_noise(TrainConfig(), pictures, 0.5, finest=0.02)
    none = plan_noise(TrainConfig(recipe=TeacherRecipe(high_noise=0.0)), pictures, 0.5, finest=0.02)
    assert isinstance(usual.noise, Extended)
    assert usual.noise == Extended(none.noise, usual.sigma_max, 0.1)  # pyrefly: ignore
    p = torch.tensor([0.1, 0.5, 0.899], dtype=torch.float64)
    torch.testing.assert_close(usual.noise.quantile(p), none.noise.quantile(p))
    high = torch.tensor([0.9, 0.95, 1.0], dtype=torch.float64)
    start, middle, end = usual.noise.quantile(high).log().tolist()
    assert end == pytest.approx(math.log(usual.sigma_max))
    assert middle == pytest.approx((start + end) / 2)
    # The fake score keeps the share; other schedules and nets without bands have their own.
    moved = fake_noise(StudentRecipe(), usual.noise)
    assert isinstance(moved, Extended)
    assert (moved.share, moved.sigma_max) == (0.1, usual.sigma_max)
    without = plan_noise(TrainConfig(), pictures, 0.5).noise
    assert isinstance(without, Extended)
    assert without.share == Extended.share
    cosine = TrainConfig(schedule="cosine")
    other = plan_noise(cosine, pictures, 0.5, finest=0.02).noise
    assert not isinstance(other, Extended) or other.share == Extended.share
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="high_noise is"):
            TeacherRecipe(high_noise=wrong)


def test_the_fake_score_sees_more_high_noise_of_every_normal_draw() -> None:
    recipe = StudentRecipe(fake_noise_shift=0.8)
    half = torch.tensor(0.5, dtype=torch.float64)
    for draw in (LogNormal(0, 1.4), LogitNormal(), Extended(LogitNormal(scale=0.5), 40.0)):
        moved = fake_noise(recipe, draw)
        assert float(moved.quantile(half) / draw.quantile(half)) == pytest.approx(math.exp(0.8))
    for draw in (ShiftedCosine(64), InterpolatedCosine(64), KarrasUniform()):
        assert fake_noise(recipe, draw) == draw


def test_the_sigmoid_bends_where_the_pictures_noise_is() -> None:
    for size, paper in ((128, -1.0), (512, -3.0)):
        weight = loss_weight("sigmoid", 0.5, size / 32)
        assert isinstance(weight, SigmoidWeight)
        assert weight.bias == pytest.approx(2 * math.log(64 / size))
        assert abs(weight.bias - paper) < 1.2  # of flat pictures; real ones come nearer
        bend = torch.tensor([0.5 * size / 32])  # half of the weight of no noise
        torch.testing.assert_close(weight(bend), 0.5 * weight(torch.tensor([1e-6])))


def teacher_config(**more: object) -> ModelConfig:
    values = {
        "format": 2,
        "kind": "teacher",
        "net": {},
        "sigma_data": 0.5,
        "size": 8,
        "channels": 1,
        "noise": {"name": "LogNormal", "mean": -0.4, "std": 1.4},
        **more,
    }
    return ModelConfig.from_dict(values)


def test_a_generator_takes_the_factor_of_its_teacher() -> None:
    old, large = teacher_config(), teacher_config(noise_scale=4.0)
    assert (old.noise_scale, old.loss, old.multiscale) == (1.0, "edm", False)
    levels = [student_values(DistillConfig(), c)["sigma_init"] for c in (old, large)]
    assert [level.value for level in levels] == [2.5, 10.0]
    assert "noise_scale 4" in levels[1].reason
    assert generator_noise(StudentRecipe(), 0.5, 4.0).sigma_max == 320
    capped = teacher_config(noise_scale=4.0, sigma_range=[0.01, 6.0])
    assert student_values(DistillConfig(), capped)["sigma_init"].value == 6.0


def test_an_adapted_teacher_keeps_the_noise_and_the_loss_of_the_old_one() -> None:
    noise = {"name": "LogitNormal", "mean": 0.0, "std": 1.0, "scale": 0.5}
    sampler = {"sigma_max": 80.0}
    described = teacher_config(
        noise=noise, noise_scale=2.0, loss="v", multiscale=True, sampler=sampler
    )
    teacher = Teacher(tiny_denoiser(), described)
    plan = plan_adaptation(teacher, tiny_pictures(), AdaptConfig(start="full"))
    assert plan.noise == LogitNormal(scale=0.5)
    assert (plan.noise_scale, plan.sigma_max, plan.loss, plan.multiscale) == (2.0, 80.0, "v", True)
    assert plan.weight == VWeight()
    assert "as in the teacher" in plan.derived()["loss"].reason


@pytest.mark.parametrize("wrong", [{"noise_scale": math.nan}, {"noise_scale": 0}, {"loss": "l1"}])
def test_a_factor_or_a_loss_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="does not describe a model"):
        teacher_config(**wrong)


# --- losses -----------------------------------------------------------------------------------


def planned(**settings: object) -> TeacherPlan:
    config = TrainConfig(budget="64images", recipe=RECIPE, **settings)  # pyrefly: ignore
    return plan_teacher(config, tiny_pictures(), Engine.choose("cpu"))


@pytest.mark.parametrize(("loss", "multiscale"), list(itertools.product(LOSSES, (False, True))))
def test_the_held_out_loss_has_the_weight_of_training(loss: Loss, multiscale: bool) -> None:
    plan = planned(loss=loss, multiscale=multiscale)
    x0 = tiny_pictures().tensor(np.arange(16))
    denoiser = tiny_denoiser()
    held = HeldOutBatch(x0, None, plan, Engine.choose("cpu"))
    generator = torch.Generator().manual_seed(0)
    shares = (torch.randperm(16, generator=generator) + 0.5) / 16
    noise, sigma = torch.randn(x0.shape, generator=generator), plan.noise.quantile(shares)
    weight = loss_weight(loss, plan.sigma_data, 1.0)
    with torch.no_grad():
        by_hand = denoising_loss(denoiser, x0, sigma, noise, weight, multiscale=multiscale).mean()
    assert held.loss(denoiser) == pytest.approx(float(by_hand), rel=1e-5)
    assert plan.derived()["loss"].value == loss
    assert plan.reasons["multiscale"].startswith("set by hand" if multiscale else "one scale")


@pytest.mark.parametrize("schedule", ["logit-normal", "interpolated"])
def test_a_run_with_any_schedule_and_loss_is_trained_resumed_and_distilled(
    schedule: Schedule, tmp_path: Path
) -> None:
    data = tmp_path / "set.npz"
    np.savez(data, images=tiny_pictures().images)
    loss = LOSSES[1 + SCHEDULES.index(schedule)]
    config = TrainConfig(
        budget="32images", schedule=schedule, loss=loss, multiscale=True,
        recipe=RECIPE,
    )  # fmt: skip
    run = noisewise.train(data, tmp_path / "run", config=config, build=build)
    noisewise.train(data, tmp_path / "run", "48images", config=config, build=build)
    described = noisewise.Run(run.path).teacher(build).config
    assert (described.loss, described.multiscale) == (loss, True)
    assert run.info["derived"]["noise"]["value"] == described.noise
    distil = DistillConfig(budget="16images", recipe=StudentRecipe(batch=8, distance_images=16))
    assert noisewise.distill(run, config=distil, build=build).sample(2).isfinite().all()
    other = replace(config, schedule="cosine" if schedule != "cosine" else "lognormal")
    with pytest.raises(ValueError, match=f"schedule was '{schedule}' and is now"):
        noisewise.train(data, run.path, config=other)


# --- refusals and older runs ------------------------------------------------------------------


def test_ends_that_cross_are_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "set.npz", images=tiny_pictures().images)
    settings = {"schedule": "interpolated", "recipe": {"interpolated": [256, 32]}}
    (tmp_path / "c.json").write_text(json.dumps(settings))
    given = [str(tmp_path / "set.npz"), "--out", str(tmp_path / "run")]
    assert cli.main(["train", *given, "--config", str(tmp_path / "c.json")]) == 2
    complaint = capsys.readouterr().err
    assert "the ends of the interpolated schedule cross (256 and 32 pixels)" in complaint
    assert "Traceback" not in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--schedule", "linear"], ["--loss", "l1"]])
def test_unknown_words_are_refused_with_the_known_ones(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "set.npz", "--dry-run", *flags]) == 2
    assert ("logit-normal" if "--schedule" in flags else "min-snr") in capsys.readouterr().err


def test_a_run_of_an_older_version_keeps_its_noise(tmp_path: Path) -> None:
    """Versions before noise_scale shifted nothing at 64 pixels; such a run goes on like that."""
    pictures = pictures_of(plain(64).copy())
    config = TrainConfig(budget="64images", recipe=RECIPE)
    new = plan_teacher(config, pictures, Engine.choose("cpu"))
    assert new.noise_scale > 1.9
    run = create_run(tmp_path / "run", config, new, pictures)
    assert with_noise_of_run(new, config, run.path) == new
    info = read_info(run.path)
    old = {"name": "LogNormal", "mean": -1.0, "std": 1.4}
    info["derived"]["noise"] = {"value": old, "reason": "as it was"}
    for name in ("noise_scale", "sigma_max", "loss", "multiscale"):
        del info["derived"][name]
    for name in ("schedule", "loss", "multiscale"):
        del info["train"][name]
    del info["train"]["recipe"]["interpolated"]
    write_info(run.path, info, damaged=False)
    create_run(run.path, config, new, pictures)  # the same settings: it resumes
    kept = with_noise_of_run(new, config, run.path)
    assert kept.noise == LogNormal(-1.0, 1.4)
    assert (kept.noise_scale, kept.sigma_max) == (1.0, config.recipe.sigma_max)
    assert kept.reasons["noise"] == "as it was"
    with pytest.raises(ValueError, match="loss was 'edm' and is now 'v'"):
        create_run(run.path, replace(config, loss="v"), new, pictures)


def test_a_size_that_cannot_be_halved_has_a_curve_too() -> None:
    curve = noise_curve(plain(99))
    assert list(curve) == [1, 2, 4, 8, 16, 32]
    assert measured_scale(plain(99), 99)[0] == pytest.approx(99 / 32, rel=1e-3)
