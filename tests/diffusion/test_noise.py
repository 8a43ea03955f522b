"""Schedules, the resolution shift and the training draws, against their closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from noisewise.diffusion import (
    AnyDraw,
    Extended,
    InterpolatedCosine,
    KarrasUniform,
    LogitNormal,
    LogNormal,
    ShiftedCosine,
    add_noise,
    cosine_logsnr,
    draw_from_dict,
    draw_to_dict,
    interpolated_logsnr,
    karras_sigmas,
    logsnr_from_sigma,
    measured_shift,
    sigma_from_logsnr,
    stratified,
)

DRAWS = [
    LogNormal(-0.8, 1.4),
    ShiftedCosine(128),
    ShiftedCosine(32),
    KarrasUniform(),
    KarrasUniform(0.01, 20.0, 5.0, 0.2, 0.7),
    LogitNormal(-0.8, 0.8, 2.5),
    InterpolatedCosine(128.5),
    Extended(LogitNormal(), 40.0, 0.1),
]


def test_sigma_and_logsnr_round_trip() -> None:
    sigma = torch.logspace(-4, 4, 200, dtype=torch.float64)
    torch.testing.assert_close(sigma_from_logsnr(logsnr_from_sigma(sigma)), sigma)
    alpha_squared = torch.sigmoid(logsnr_from_sigma(sigma))  # a^2 of the variance-preserving form
    torch.testing.assert_close(
        ((1 - alpha_squared) / alpha_squared).sqrt(), sigma, rtol=1e-6, atol=0
    )


def test_add_noise_is_the_variance_preserving_form_over_alpha() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    sigma = torch.logspace(-2, 2, 5, dtype=torch.float64)
    alpha = (1 / (1 + sigma**2).sqrt()).reshape(-1, 1, 1, 1)
    s = (1 - alpha**2).sqrt()
    torch.testing.assert_close(add_noise(x0, sigma, noise) * alpha, alpha * x0 + s * noise)


# --- schedules --------------------------------------------------------------------------------


def test_unshifted_schedule_is_the_cosine() -> None:
    assert cosine_logsnr(0.5).item() == pytest.approx(0, abs=1e-6)
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    truth = -2 * torch.tan(math.pi * t / 2).log()
    torch.testing.assert_close(cosine_logsnr(t), truth, rtol=0, atol=0.07)  # the ends are moved
    wide = cosine_logsnr(t, logsnr_min=-60, logsnr_max=60)  # and with far ends hardly so
    torch.testing.assert_close(wide, truth, rtol=0, atol=1e-10)


def test_shift_at_256_pixels() -> None:
    assert cosine_logsnr(0.5, size=256).item() == pytest.approx(-2.7726, abs=5e-5)
    assert cosine_logsnr(0.5, size=256, reference=32).item() == pytest.approx(-6 * math.log(2))


@pytest.mark.parametrize("size", [8, 64, 96, 256, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_met_by_moving_t_not_by_clamping(size: int, dtype: torch.dtype) -> None:
    t = torch.linspace(0, 1, 1001, dtype=dtype)
    logsnr = cosine_logsnr(t, size)
    ends = torch.tensor([15.0, -15.0], dtype=dtype)
    torch.testing.assert_close(logsnr[[0, -1]], ends, rtol=0, atol=100 * torch.finfo(dtype).eps)
    assert (logsnr.diff() < 0).all()  # a clamp would leave a flat stretch


def test_no_shift_below_the_reference() -> None:
    t = torch.linspace(0, 1, 11)
    torch.testing.assert_close(cosine_logsnr(t, size=16), cosine_logsnr(t, size=64))


def test_float32_schedule_is_as_good_as_float64_at_both_ends() -> None:
    t = torch.linspace(0, 1, 4097, dtype=torch.float64)  # exact in float32
    exact = cosine_logsnr(t, 256)
    torch.testing.assert_close(cosine_logsnr(t.float(), 256).double(), exact, rtol=0, atol=1e-5)


def test_limits_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match="widen the limits"):
        cosine_logsnr(0.5, size=100_000, logsnr_min=-10)


@pytest.mark.parametrize("s", [2, 4])
def test_block_averages_have_the_snr_of_the_smaller_schedule(s: int) -> None:
    """Flat blocks: the size-d schedule, seen after averaging, is the size-d/s schedule."""
    generator = torch.Generator().manual_seed(s)
    size = 256
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    small = torch.randn(3, 4, size // s, size // s, generator=generator, dtype=torch.float64)
    x0 = small.repeat_interleave(s, 2).repeat_interleave(s, 3)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x = add_noise(x0, sigma_from_logsnr(cosine_logsnr(t, size)), noise)
    noise_seen = torch.nn.functional.avg_pool2d(x, s) - small
    variances = small.var((1, 2, 3)), noise_seen.var((1, 2, 3))
    snr = (variances[0] / variances[1]).log()
    torch.testing.assert_close(snr, cosine_logsnr(t, size // s), rtol=0, atol=0.05)
    unshifted = cosine_logsnr(t, size, reference=size)  # without the shift: s^2 times too clean
    assert (cosine_logsnr(t, size // s, reference=size) - unshifted).abs().max() < 1e-9


def test_interpolated_schedule() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    logsnr = interpolated_logsnr(t, low=32, high=256, size=512)
    noisy, clean = cosine_logsnr(t, 512, 32), cosine_logsnr(t, 512, 256)
    assert ((logsnr >= noisy - 1e-9) & (logsnr <= clean + 1e-9)).all()
    assert logsnr[[0, -1]].tolist() == pytest.approx([15, -15])
    assert logsnr[95] - noisy[95] < clean[95] - logsnr[95]  # the low reference rules at t = 1
    assert clean[5] - logsnr[5] < logsnr[5] - noisy[5]  # the high one at t = 0
    with pytest.raises(ValueError, match="swap"):
        interpolated_logsnr(t, low=256, high=32, size=512)


@given(
    num_steps=st.integers(1, 50),
    sigma_min=st.floats(1e-4, 0.9),
    ratio=st.floats(1.1, 1e5),
    rho=st.floats(0.5, 10),
)
@settings(max_examples=50, deadline=None)
def test_karras_sigmas(num_steps: int, sigma_min: float, ratio: float, rho: float) -> None:
    sigma_max = sigma_min * ratio
    sigmas = karras_sigmas(num_steps, sigma_min, sigma_max, rho, torch.float64)
    assert sigmas[0] == sigma_max
    assert len(sigmas) == num_steps
    if num_steps > 1:
        assert sigmas[-1] == sigma_min
        assert (sigmas.diff() < 0).all()
        spacing = sigmas.pow(1 / rho).diff()  # equation 5: equal steps in sigma^(1/rho)
        torch.testing.assert_close(spacing, spacing[:1].expand_as(spacing), rtol=1e-5, atol=1e-9)


def test_karras_sigmas_are_edm_s() -> None:
    n, low, high = 18, 0.002, 80.0
    i = torch.arange(n, dtype=torch.float64)
    reference = (high ** (1 / 7) + i / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    torch.testing.assert_close(karras_sigmas(n, low, high, dtype=torch.float64), reference)


def test_karras_sigmas_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        karras_sigmas(0, 0.1, 1.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        karras_sigmas(5, 1.0, 0.1)


# --- the measured shift -----------------------------------------------------------------------


def test_measured_shift_of_flat_blocks_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(20, 3, 64, 64, generator=generator)
    shift = measured_shift(small.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert shift.survival[:3] == pytest.approx([1, 1, 1], rel=1e-4)
    assert shift.snr_gain[:3] == pytest.approx([1, 4, 16], rel=1e-4)
    assert shift.log_shift == pytest.approx(shift.formula_shift, abs=1e-3)
    assert shift.formula_shift == pytest.approx(-2.7726, abs=1e-4)


def test_measured_shift_of_white_noise_is_none() -> None:
    images = torch.randn(20, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    shift = measured_shift(images)
    assert shift.survival[:4] == pytest.approx([1, 1 / 4, 1 / 16, 1 / 64], rel=0.05)
    assert shift.log_shift == pytest.approx(0, abs=0.05)  # averaging cleans nothing: no shift


def test_measured_shift_between_scales_and_below_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(20, 1, 32, 32, generator=generator)
    images = small.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert measured_shift(images, reference=96).log_shift == pytest.approx(
        2 * math.log(96 / 256), abs=1e-3
    )
    assert measured_shift(small).log_shift == 0
    assert measured_shift(small).scales == (1, 2, 4, 8, 16)


def test_measured_shift_refuses() -> None:
    with pytest.raises(ValueError, match="same value"):
        measured_shift(torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match="float tensor"):
        measured_shift(torch.ones(2, 8, 8))


# --- draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_draws_follow_their_quantiles(
    draw: AnyDraw,
) -> None:
    sigma = draw.sample(20_000, torch.Generator().manual_seed(3))
    assert sigma.dtype == torch.float32
    p = torch.linspace(0.02, 0.98, 49)
    below = (sigma < draw.quantile(p)[:, None]).float().mean(1)
    assert (below - p).abs().max() < 0.015  # Kolmogorov: 1.95 / sqrt(n) = 0.0138 at 0.1%


def test_draws_against_other_people_s_formulas() -> None:
    sigma = LogNormal(-1.2, 1.2).sample(5_000, torch.Generator().manual_seed(0)).log().double()
    assert stats.kstest(sigma.numpy(), "norm", args=(-1.2, 1.2)).pvalue > 1e-3
    # SiD's code: (max^(1/rho) + (1 - t) (min^(1/rho) - max^(1/rho)))^rho, t in [0, 0.8]
    t = torch.linspace(0, 0.8, 9, dtype=torch.float64)
    reference = (80 ** (1 / 7) + (1 - t) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(KarrasUniform().quantile(t / 0.8), reference)
    assert reference[-1].item() == pytest.approx(24.41, abs=0.01)
    # cosine: share of t below sigma is (2 / pi) atan(sigma)
    p = ShiftedCosine(64).quantile(torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64))
    torch.testing.assert_close(
        2 / math.pi * p.atan(), torch.tensor([0.25, 0.5, 0.9]).double(), rtol=0, atol=1e-3
    )


def test_the_logit_normal_is_a_shifted_time_and_a_log_normal_sigma() -> None:
    """Time t = sigmoid(N(m, s^2)) is shifted to a t / (1 + (a - 1) t); sigma is t / (1 - t)."""
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    t = torch.from_numpy(stats.norm(-0.3, 0.9).ppf(p.numpy())).sigmoid()
    shifted = 3 * t / (1 + 2 * t)
    found = LogitNormal(-0.3, 0.9, scale=3.0).quantile(p)
    torch.testing.assert_close(found, shifted / (1 - shifted))
    torch.testing.assert_close(found, LogNormal(-0.3 + math.log(3), 0.9).quantile(p))


def test_the_interpolated_draw_lies_between_its_ends_and_rises() -> None:
    p = torch.linspace(0, 1, 401, dtype=torch.float64)
    low, high = ShiftedCosine(512, 32).quantile(p), ShiftedCosine(512, 256).quantile(p)
    found = InterpolatedCosine(512).quantile(p)
    inside = (found >= high * (1 - 1e-9)) & (found <= low * (1 + 1e-9))
    assert inside.all()
    assert (found.diff() > 0).all()
    close = found.log() - high.log()
    assert close[40] < 0.2 * (low.log() - high.log())[40]  # at the clean end it is the high one
    assert InterpolatedCosine(512, 64, 64).quantile(p) == pytest.approx(
        ShiftedCosine(512).quantile(p)
    )
    with pytest.raises(ValueError, match=r"low \(256\) is larger than high \(32\)"):
        InterpolatedCosine(512, 256, 32)


def test_an_extended_draw_spreads_its_highest_share_evenly_and_leaves_the_rest() -> None:
    draw = Extended(LogNormal(0.0, 1.0), 100.0, 0.2)
    p = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    torch.testing.assert_close(draw.quantile(p), LogNormal(0.0, 1.0).quantile(p))
    start = float(draw.quantile(p)[2])
    top = draw.quantile(torch.tensor([0.9, 1.0], dtype=torch.float64))
    assert top.tolist() == pytest.approx([math.sqrt(100 * start), 100.0])
    with pytest.raises(ValueError, match="use the draw as it is"):
        Extended(LogNormal(5.0, 1.0), 100.0)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_draws_are_seeded_and_survive_json(
    draw: AnyDraw,
) -> None:
    again = draw_from_dict(json.loads(json.dumps(draw_to_dict(draw))))
    assert again == draw
    first, second = (d.sample(8, torch.Generator().manual_seed(5)) for d in (draw, again))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw.sample(8, torch.Generator().manual_seed(6)))


def test_unknown_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="LogNormal, LogitNormal, ShiftedCosine, Interp"):
        draw_from_dict({"name": "Uniform"})
    with pytest.raises(ValueError, match="cannot be made from"):
        draw_from_dict({"name": "LogNormal", "mu": 0.0})
    with pytest.raises(ValueError, match="t_min"):
        KarrasUniform(t_min=0.9)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_stratified_levels_keep_the_law_and_vary_less(
    draw: AnyDraw,
) -> None:
    generator = torch.Generator().manual_seed(0)
    spread = [stratified(draw, 64, generator).log() for _ in range(200)]
    plain = [draw.sample(64, generator).log() for _ in range(200)]
    levels = torch.cat(spread).exp()
    for p in (0.05, 0.5, 0.95):
        below = (levels < draw.quantile(torch.tensor(p))).double().mean()
        assert abs(float(below) - p) < 0.01
    means = [torch.stack([level.mean() for level in batches]) for batches in (spread, plain)]
    # The mean of n stratified uniforms varies 1 / n^2 as much; the tails of a law take some back.
    assert means[0].var() < 0.05 * means[1].var()
    assert torch.stack(spread).isfinite().all()
