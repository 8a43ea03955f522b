"""Time of a training step of the small U-Net: number formats, norms, and measuring the noise.

The claims in nets/layers.py and training/devices/master_weights.py hold for one processor: run this
program on yours. The variants take turns, step by step, so a change of the machine's speed affects
all equally; ratios are ratios of medians.

    python -m benchmarks.pictures.precision
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared import harness
from benchmarks.shared.summaries import ratio, summarise, table
from noisewise.demo import demo_path
from noisewise.nets import build, derive
from noisewise.nets.layers import ChannelNorm
from noisewise.pictures.pictures import load_pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.plan import plan_teacher
from noisewise.training.stages.teacher import TeacherStage

BATCH = 64


def main() -> None:
    """Time all variants and print the tables."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=40, help="measurements of each variant")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    rounds = 3 if arguments.quick else arguments.rounds
    net = build(derive(28, 1, images=200_000).net)
    parts = [
        harness.describe(harness.environment(threads)),
        _table("one step (forward, backward), batch 64, 28 x 28", _steps(net), rounds),
        _table("norm alone (forward, backward), 64 x 32 x 14 x 14", _norms(), rounds),
        *(
            _table(f"one whole training step in {name}", _whole_steps(dtype), rounds)
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        ),
    ]
    text = "\n\n".join(parts)
    print(text)
    if not arguments.quick:
        folder = harness.RESULTS / "pictures"
        harness.write_atomically(folder / "precision.md", f"# Precision\n\n{text}\n")


def _table(what: str, ways: dict[str, Callable[[], None]], rounds: int) -> str:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - start))
    first = next(iter(ways))
    rows = [
        (
            name,
            str(summarise([taken])),
            "1" if name == first else str(ratio([times[first]], [taken])),
        )
        for name, taken in times.items()
    ]
    return table([what, "ms", f"times as quick as {first}"], rows)


def _steps(net: nn.Module) -> dict[str, Callable[[], None]]:
    x = torch.randn(BATCH, 1, 28, 28).to(memory_format=torch.channels_last)
    level = torch.zeros(BATCH)

    def step(module: nn.Module, autocast: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = module(x, level).float().square().mean()
            loss.backward()
            module.zero_grad(set_to_none=True)

        return run

    plain = Engine(torch.device("cpu")).prepare(net)
    return {
        "float32": step(plain, False),
        "bfloat16 by autocast": step(copy.deepcopy(plain), True),
        "bfloat16 weights (Twin)": step(copy.deepcopy(plain).bfloat16(), False),
    }


def _norms() -> dict[str, Callable[[], None]]:
    def norm(module: nn.Module, dtype: torch.dtype) -> Callable[[], None]:
        x = torch.randn(BATCH, 32, 14, 14).to(dtype).to(memory_format=torch.channels_last)
        x.requires_grad_()
        module = module.to(dtype)

        def run() -> None:
            module(x).backward(x.detach())
            x.grad = None

        return run

    return {
        "group norm, float32": norm(nn.GroupNorm(8, 32), torch.float32),
        "channel norm, float32": norm(ChannelNorm(32), torch.float32),
        "group norm, bfloat16": norm(nn.GroupNorm(8, 32), torch.bfloat16),
        "channel norm, bfloat16": norm(ChannelNorm(32), torch.bfloat16),
        "SiLU, float32": norm(_SiLU(), torch.float32),
    }


def _whole_steps(dtype: torch.dtype) -> dict[str, Callable[[], None]]:
    """Steps of the demo's training, with and without measuring the gradient's noise."""
    engine = Engine(torch.device("cpu"), dtype)
    config, pictures = TrainConfig(budget="5m", kinds=0), load_pictures(demo_path())
    plan = plan_teacher(config, pictures, engine)
    denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, None)
    stage = TeacherStage(pictures, denoiser, plan, config, engine)
    every = config.recipe.noise_every
    return {
        "plain": _stepping(stage, 4 * every + 1),
        "its noise measured": _stepping(stage, 4 * every),
    }


def _stepping(stage: TeacherStage, number: int) -> Callable[[], None]:
    def run() -> None:
        stage.step(number, 0, 1e-3, 0.1)

    return run


class _SiLU(nn.Module):
    """SiLU as a module, for comparison."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x)


if __name__ == "__main__":
    harness.run_program(main)
