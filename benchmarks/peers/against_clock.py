"""Train the net of another project for a given wall-clock time, sample it, print one JSON object.

The programs of the peers in this folder import it. They run in a separate environment without
noisewise. The EMA is the power-function EMA (Karras et al. 2024, Analyzing and Improving the
Training Dynamics of Diffusion Models, eq. 3-4): its length is a share of the run, so it fits any
budget. The peers' own decays (0.995 every 10 steps, 0.9999) are for runs a hundred times longer and
would return the initial weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """What the benchmark passes to the program of a peer."""

    data: Path
    out: Path
    seconds: float
    lr: float
    layout: str
    seed: int
    batch: int
    num_images: int
    steps: int
    threads: int


def read_task(description: str, layouts: tuple[str, ...]) -> Task:
    """Read the command line that all peers share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help=".npz with `images`, uint8 NHWC")
    parser.add_argument("--out", type=Path, required=True, help=".npz file for the samples")
    parser.add_argument("--seconds", type=float, required=True, help="wall-clock time of training")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--layout", choices=layouts, default=layouts[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50, help="network calls of their DDIM sampler")
    parser.add_argument("--threads", type=int, default=2)
    return Task(**vars(parser.parse_args()))


def side(path: Path) -> int:
    """Side of the pictures in pixels."""
    with np.load(path) as stored:
        return int(stored["images"].shape[1])


def load_images(path: Path, pad_to: int) -> Tensor:
    """Return pictures as float32 NCHW in [-1, 1], padded with black to `pad_to` pixels."""
    with np.load(path) as stored:
        images = stored["images"]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    border = (pad_to - x.shape[-1]) // 2
    return nn.functional.pad(x, (border,) * 4, value=-1.0) if border else x


class PowerEMA:
    """Average of the weights; its standard deviation in time is a share of the run so far."""

    def __init__(self, model: nn.Module, share: float = 0.1) -> None:
        """Start with the model's weights; gamma solves share^2 = (g+1) / ((g+2)^2 (g+3))."""
        low, high = 0.0, 1e4
        for _ in range(80):
            middle = (low + high) / 2
            width = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3)))
            low, high = (middle, high) if width > share else (low, middle)
        self.gamma = low
        self.weights = [p.detach().clone() for p in model.parameters()]
        self.step = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average; call it after each optimiser step."""
        self.step += 1
        decay = (1 - 1 / self.step) ** (self.gamma + 1)
        current = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(self.weights, current, 1 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the average and the model's weights; a second call undoes it."""
        for mine, parameter in zip(self.weights, model.parameters(), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(mine)
            mine.copy_(kept)


@dataclass(frozen=True)
class Trained:
    """The result of a training: steps, times, loss, and which weights were better."""

    steps: int
    seconds: float
    cores_used: float
    last_loss: float
    weights: str
    held_out_loss: float


def train(
    net: nn.Module,
    images: Tensor,
    task: Task,
    loss_of: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[float], float],
) -> Trained:
    """Train until the time is over; the net keeps the better of the raw and averaged weights.

    Args:
        net: the net to train.
        images: float32 NCHW in [-1, 1]; the last 512, or an eighth if that is fewer, are held out
            for the choice of weights.
        task: seconds, batch and seed.
        loss_of: the peer's own loss of a batch, a scalar.
        optimizer: the peer's own optimiser.
        lr_at: factor of the learning rate at a share of the time in [0, 1].
    """
    outside = min(512, len(images) // 8)
    held_out, images = images[-outside:], images[:-outside]
    generator = torch.Generator().manual_seed(task.seed)
    ema, steps, loss = PowerEMA(net), 0, torch.zeros(())
    net.train()
    start, processor = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - start) < task.seconds:
        for group in optimizer.param_groups:
            group["lr"] = task.lr * lr_at(passed / task.seconds)
        chosen = torch.randint(len(images), (task.batch,), generator=generator)
        loss = loss_of(images[chosen])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(net)
        steps += 1
    seconds = time.perf_counter() - start
    cores = (time.process_time() - processor) / seconds
    weights, held_out_loss = _keep_better(net, ema, held_out, loss_of)
    return Trained(steps, seconds, cores, float(loss.detach()), weights, held_out_loss)


@torch.no_grad()
def _held_out_loss(net: nn.Module, images: Tensor, loss_of: Callable[[Tensor], Tensor]) -> float:
    net.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same times and noise for both sets of weights
        return float(torch.stack([loss_of(part) for part in images.split(16)]).mean())


def _keep_better(
    net: nn.Module, ema: PowerEMA, images: Tensor, loss_of: Callable[[Tensor], Tensor]
) -> tuple[str, float]:
    raw = _held_out_loss(net, images, loss_of)
    ema.swap(net)
    averaged = _held_out_loss(net, images, loss_of)
    if averaged <= raw:
        return "ema", averaged
    ema.swap(net)
    return "raw", raw


def sample(task: Task, draw: Callable[[int], Tensor], crop_to: int) -> tuple[np.ndarray, float]:
    """Draw all samples in batches; return uint8 NHWC without padding, and seconds.

    Batches are of 125 pictures of 32 pixels, or fewer of larger ones; no picture: nothing is drawn.

    Args:
        task: number of images and seed.
        draw: function from a number to float NCHW in [-1, 1], with the peer's own sampler.
        crop_to: side of the unpadded picture.
    """
    if not task.num_images:
        return np.zeros((0, crop_to, crop_to, 3), np.uint8), 0.0
    torch.manual_seed(task.seed + 1000)
    most = max(8, 125 * 32**2 // max(32, crop_to) ** 2)
    start = time.perf_counter()
    with torch.inference_mode():
        counts = [min(most, task.num_images - k) for k in range(0, task.num_images, most)]
        x = torch.cat([draw(count) for count in counts])
    seconds = time.perf_counter() - start
    border = (x.shape[-1] - crop_to) // 2
    x = x[..., border : border + crop_to, border : border + crop_to]
    pixels = x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy(), seconds


def finish(
    task: Task, net: nn.Module, trained: Trained, pixels: np.ndarray, seconds: float, package: str
) -> None:
    """Write the samples and print the report as the last line on stdout."""
    task.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(task.out, images=pixels)
    report = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "train_steps": trained.steps,
        "train_seconds": round(trained.seconds, 3),
        "cores_used": round(trained.cores_used, 2),
        "images_seen": trained.steps * task.batch,
        "images_per_second": round(trained.steps * task.batch / trained.seconds, 2),
        "last_loss": trained.last_loss,
        "weights": trained.weights,
        "held_out_loss": trained.held_out_loss,
        "calls": task.steps,
        "ms_per_image": round(1000 * seconds / max(1, len(pixels)), 3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "version": f"{package} {metadata.version(package)}",
    }
    print(json.dumps(report), flush=True)
