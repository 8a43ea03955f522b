"""One training step of large pictures: seconds and memory, ours and diffusers' UNet2DModel.

Each way runs in a process of its own, with float32, the net of its defaults (diffusers: the layout
of its README, at half the width), its loss, and AdamW for both. A first step fills caches; the
seconds are of the steps after it, the memory is what the steps added to the process at most.

    python -m benchmarks.pictures.large_step --sizes 128,256,512,1024
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.shared import harness, summaries
from noisewise.diffusion import Preconditioned
from noisewise.nets.derive import build, derive, prediction_of

NAME = "pictures/large_step"
WAYS = ("noisewise", "diffusers UNet2DModel")
STEPS = 3
WIDTHS = (32, 64, 128)  # of diffusers' net, as in peers_equal_time


def our_loss(size: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The default net of this size, with the EDM loss."""
    config = derive(size, 3).net
    denoiser = Preconditioned(build(config), 0.5, prediction_of(config))

    def loss(x0: Tensor) -> Tensor:
        sigma = torch.full((len(x0),), 0.5)
        x = x0 + 0.5 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        return (denoiser(x, sigma, None) - x0).square().mean()

    return denoiser, loss


def peer_loss(size: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """UNet2DModel with its prediction of the noise."""
    from diffusers import DDPMScheduler, UNet2DModel

    # As in its training example: halved down to 32 pixels or fewer, attention there.
    levels = max(3, (size // 32).bit_length())
    widths = (*WIDTHS, *[WIDTHS[-1]] * (levels - 3))
    downs = (*["DownBlock2D"] * (levels - 1), "AttnDownBlock2D")
    ups = ("AttnUpBlock2D", *["UpBlock2D"] * (levels - 1))
    net = UNet2DModel(
        sample_size=size, in_channels=3, out_channels=3, layers_per_block=2,
        block_out_channels=widths, down_block_types=downs, up_block_types=ups,
        norm_num_groups=8, attention_head_dim=32,
    )  # fmt: skip
    schedule = DDPMScheduler(num_train_timesteps=1000)

    def loss(x0: Tensor) -> Tensor:
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        at = torch.full((len(x0),), 500)
        return (net(schedule.add_noise(x0, noise, at), at).sample - noise).square().mean()

    return net, loss


def peak() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(way: str, size: int, threads: int) -> harness.Values:
    """Seconds of a step and the memory that steps add; runs in a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net, loss = our_loss(size) if way == WAYS[0] else peer_loss(size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    x0 = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before, seconds = peak(), []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(x0).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds[1:],
        "gib": peak() - before,
        "parameters": sum(p.numel() for p in net.parameters()),
    }


def measure_apart(way: str, size: int, threads: int) -> harness.Values:
    """Measure in a new process, so that its memory is its own.

    Raises:
        harness.UsageError: if the process fails.
    """
    words = ["--one", way, "--sizes", str(size), "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pictures.large_step", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise harness.UsageError(f"{way} at {size} pixels failed: {done.stderr[-300:]}")
    values = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(values, dict)
    return values


def table(results: harness.Results, sizes: list[int]) -> str:
    """Seconds and memory of each way, and the ratios."""
    rows = []
    for size in sizes:
        found = {c.setting["way"]: c for c in results.cells({"size": size})}
        if set(found) != set(WAYS):
            continue
        ours, peer = (found[way] for way in WAYS)
        times = [statistics.median(cell.numbers("seconds")) for cell in (ours, peer)]
        memory = [cell.number("gib") or 0.0 for cell in (ours, peer)]
        rows.append(
            [
                size, *map(summaries.figure, times), summaries.figure(times[1] / times[0]),
                *map(summaries.figure, memory), summaries.figure(memory[1] / memory[0]),
                *(f"{(cell.number('parameters') or 0) / 1e6:.2f} M" for cell in (ours, peer)),
            ]
        )  # fmt: skip
    columns = [
        "pixels", "s a step, ours", "theirs", "ratio", "GiB, ours", "theirs", "ratio",
        "parameters, ours", "theirs",
    ]  # fmt: skip
    return summaries.table(columns, rows)


def main() -> None:
    """Measure the missing cells and print the table."""
    parser = harness.parser("One training step of large pictures: seconds and memory.")
    parser.add_argument("--sizes", type=harness.numbers(int), default=[128, 256, 512, 1024])
    parser.add_argument("--one", choices=WAYS, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    sizes = [64] if arguments.quick else arguments.sizes
    if arguments.one:
        print(json.dumps(measure(arguments.one, sizes[0], threads)))
        return
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    for size in [] if arguments.table_only else sizes:
        for way in WAYS:
            setting: dict[str, object] = {"way": way, "size": size, "threads": threads}
            results.cell(setting, lambda w=way, s=size: measure_apart(w, s, threads))
    about = f"Batch 1, float32, medians of {STEPS} steps after a first one."
    harness.publish(results, "One training step of large pictures", [about, table(results, sizes)])


if __name__ == "__main__":
    harness.run_program(main)
