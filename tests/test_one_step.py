"""The programs that compare ways to few calls run, in small, and rivals do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.pictures import lambda_map
from benchmarks.pictures.one_call_rivals import Limits, regression
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Teacher

ROOT = Path(__file__).resolve().parents[1]


def ran(program: str, tmp_path: Path, *words: str) -> dict[str, dict[str, object]]:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", f"benchmarks.pictures.{program}", "--quick", *words]
    command += ["--threads", "1", "--work", str(tmp_path), "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(results.read_text())


@pytest.mark.slow
def test_one_step_runs_in_small(tmp_path: Path) -> None:
    text = json.dumps(ran("one_step", tmp_path))
    for way in ("SiD 1", "2 calls", "with data 0.06", "adversary", "regression", "consistency"):
        assert f'"{way}' in text or f'{way}\\"' in text
    assert "teacher, 2 steps" in text


def test_the_map_in_the_exact_case_is_what_the_theory_says() -> None:
    fates = {
        (lam, lr): lambda_map.exact(lam, lr, 400)["fate"]
        for lam in (0.5, 1.0, 2.0)
        for lr in (0.05, 5.0)
    }
    assert fates[0.5, 0.05] == fates[1.0, 0.05] == "converges"
    assert fates[2.0, 5.0] == "explodes"


@pytest.mark.slow
def test_the_map_runs_in_small(tmp_path: Path) -> None:
    ran("lambda_map", tmp_path, "--steps", "40")
    assert "converges" in (tmp_path / "results.svg").read_text()


class Line(nn.Module):
    """The denoiser of a Gaussian, of width 1 at first; a rate of 3e-4 moves it by 0.03."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        v = (1 + 100 * self.more) ** 2
        return v * x / (v + sigma.square()[:, None, None, None])


def test_a_regression_learns_what_the_sampler_draws() -> None:
    """The paths of a Gaussian keep the rank of each pixel: the picture is a multiple of z."""
    config = ModelConfig(
        "teacher",
        {},
        1.0,
        4,
        1,
        {"name": "LogNormal", "mean": -0.4, "std": 1.4},
        prediction="denoiser",
        sampler=SamplerSettings(sigma_min=0.01, num_steps=9),
    )
    teacher = Teacher(Line(), config)
    z = teacher.noise(0, 0, 200)
    found = regression(teacher, 2.5, Limits(20.0, 400), 0)
    before = Teacher(Line(), config).denoiser(2.5 * z, torch.full((200,), 2.5))
    drawn = teacher.draw(0, 0, 200, None, 17, "heun", 1.0)
    assert before.std() < 0.5 < drawn.std()
    assert (found(z) - drawn).square().mean() < 0.5 * (before - drawn).square().mean()
