from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisewise.training.settings.budget import Budget, parse_duration
from noisewise.training.settings.config import (
    DistillConfig,
    EvaluateConfig,
    SampleConfig,
    TrainConfig,
)
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe, lr_factor


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("0.5m", 30), ("1m30s", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "m", "5 minutes", "-5m", "5d", "1e3s", "m5", "0s", "0h0m"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"write (for example )?90s"):
        parse_duration(text)


@given(st.one_of(st.integers(1, 10**9), st.floats(0.01, 1e6)))
def test_a_budget_reads_what_it_writes(amount: float) -> None:
    budget = Budget(images=amount) if isinstance(amount, int) else Budget(seconds=amount)
    again = Budget.parse(str(budget)) if "e" not in str(budget) else budget
    if isinstance(amount, int):
        assert again == budget
    else:
        assert again.seconds == pytest.approx(amount, rel=1e-5)


def test_budgets_of_images() -> None:
    assert Budget.parse("200000images") == Budget.parse("200_000images") == Budget(images=200_000)
    assert Budget.parse("200kimages") == Budget(images=200_000)
    assert Budget.parse("1.5Mimages") == Budget(images=1_500_000)


def test_progress_is_of_the_measure_that_the_budget_has() -> None:
    assert Budget(seconds=100).progress(seconds=25, images=7) == 0.25
    assert Budget(images=100).progress(seconds=25, images=50) == 0.5


@pytest.mark.parametrize("text", ["0s", "0images", "0m", "five minutes", "5", "200000", "-1images"])
def test_a_budget_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        TrainConfig(budget=text)
    with pytest.raises(ValueError, match="write"):
        DistillConfig(budget=text)


def test_a_budget_has_one_measure() -> None:
    with pytest.raises(ValueError, match="either"):
        Budget()
    with pytest.raises(ValueError, match="either"):
        Budget(seconds=1.0, images=1)


def test_values_that_cannot_be_used_are_refused_with_advice() -> None:
    for make in (
        lambda: TrainConfig(size=4),
        lambda: TrainConfig(channels=2),
        lambda: TrainConfig(batch=0),
        lambda: TrainConfig(lr=0.0),
        lambda: TrainConfig(lr=float("nan")),
        lambda: TrainConfig(seed=-1),
        lambda: TrainConfig(threads=0),
        lambda: TrainConfig(checkpoint_seconds=0.0),
        lambda: TrainConfig(widths=(32, 0)),
        lambda: DistillConfig(lam=2.0),
        lambda: DistillConfig(batch=-1),
        lambda: SampleConfig(num_images=0),
        lambda: EvaluateConfig(num_images=1),
    ):
        with pytest.raises(ValueError, match=r"use|must|smallest|ask for"):
            make()


def test_the_learning_rate_rises_holds_and_falls_to_nothing() -> None:
    factors = [lr_factor(p / 1000, warmup=0.02, decay_from=0.5) for p in range(1001)]
    assert factors[0] > 0
    assert factors[10] == pytest.approx(0.5)
    assert factors[20:501] == [1.0] * 481
    assert factors[750] == pytest.approx(0.5)
    assert factors[1000] == 0
    assert factors[:21] == sorted(factors[:21])
    assert factors[500:] == sorted(factors[500:], reverse=True)


def test_configurations_do_not_import_torch() -> None:
    code = "import sys, noisewise.training.settings.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_words_are_refused_as_a_file_may_hold_them() -> None:
    with pytest.raises(ValueError, match="precision 'bf16' is unknown; use one of auto, float32"):
        TrainConfig(precision="bf16")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ValueError, match="net 'resnet'"):
        TrainConfig(net="resnet")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ValueError, match="optimizer 'sgd'"):
        TrainConfig(recipe=TeacherRecipe(optimizer="sgd"))  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ValueError, match="weight 'l2'"):
        DistillConfig(recipe=StudentRecipe(weight="l2"))  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ValueError, match="precision 'fp16'"):
        DistillConfig(precision="fp16")  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: TeacherRecipe(heldout_every=0.0), "heldout_every is 0; it must be above 0"),
        (lambda: TeacherRecipe(ema_shares=()), "ema_shares is"),
        (lambda: TeacherRecipe(clip=math.nan), "clip is nan"),
        (lambda: TeacherRecipe(warmup=2.0), "warmup is 2; it is a share"),
        (lambda: TeacherRecipe(sigma_min=50.0), "sigma_min is 50; it must be below 40"),
        (lambda: StudentRecipe(t_min=0.9), "t_min is 0.9; it must be below 0.7"),
        (lambda: StudentRecipe(two_call_sigmas=()), "two_call_sigmas"),
    ],
)
def test_recipes_that_cannot_be_followed_are_refused(bad, says: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=says):
        bad()


def test_a_size_is_kept_as_it_is_written() -> None:
    assert TrainConfig(size="48x32").size == TrainConfig(size=" 48 X 32").size == "48x32"
    assert TrainConfig(size="32").size == TrainConfig(size="32x32").size == 32
    from_python = TrainConfig(size=(32, 48))  # pyrefly: ignore[bad-argument-type]
    assert from_python == TrainConfig(size="48x32")
    for wrong in ("4x32", "32x4", "0x32", "-48x32", 7, 30, "48x30"):
        with pytest.raises(ValueError, match=r"multiples? of 4, at least 8"):
            TrainConfig(size=wrong)
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        TrainConfig(size="large")
