"""Whether two versions of noisewise compute the same: digests of weights, pictures and numbers.

Run it before and after a change that may move code but not change results, and compare the lines:

    python -m benchmarks.shared.same_results

Everything is seeded, has a budget in images, and runs on one CPU thread in float32. What is
digested: the weights and pictures of a teacher and its generator (3,000 and 1,500 pictures), the
numbers of their logs and of `evaluate`, a small colour teacher with classes read from a folder, a
teacher adapted to other pictures, the factors of a seeded matrix, and one piece of advice. Not
digested: run.json, texts, and everything measured by the clock. Digests of two machines, or of two
versions of torch, may differ; two runs on one machine may not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import noisewise
from noisewise import lowrank, scaling
from noisewise.demo import demo_path

_NUMBERS = ("step", "images", "loss", "heldout_loss", "lr", "grad_norm", "distance", "fisher")
_CLOCKS = ("seconds_per_image", "device", "against")


def digest(*parts: Tensor | bytes) -> str:
    """First 16 hex digits of the SHA-256 of tensors and bytes, shapes and dtypes included."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{tuple(part.shape)} {part.dtype}".encode())
            part = part.detach().contiguous().cpu().numpy().tobytes()
        found.update(part)
    return found.hexdigest()[:16]


def of_values(values: object) -> str:
    """Digest of JSON values; every digit of a number counts."""
    return digest(json.dumps(values, sort_keys=True).encode())


def of_weights(folder: Path) -> str:
    """Digest of the tensors in a model folder, in the order of their names."""
    state = load_file(folder / "model.safetensors")
    return digest(*(part for name in sorted(state) for part in (name.encode(), state[name])))


def of_log(run: Path) -> str:
    """Digest of a log's numbers that no clock decides."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return of_values([{name: line.get(name) for name in _NUMBERS} for line in lines])


def of_evaluation(run: Path) -> str:
    """Digest of what `evaluate` measures on 256 pictures."""
    found = noisewise.evaluate(run, num_images=256).to_dict()
    return of_values({name: value for name, value in found.items() if name not in _CLOCKS})


def other_pictures(folder: Path) -> Path:
    """400 of the demo's pictures upside down and inverted, as .npz: something to adapt to."""
    with np.load(demo_path()) as demo:
        images = 255 - demo["images"][:400, ::-1]
    path = folder / "other.npz"
    np.savez(path, images=images)
    return path


def colour_folder(folder: Path) -> Path:
    """90 seeded colour pictures of 40 x 36 pixels in three class folders, as PNG files."""
    random = np.random.default_rng(0)
    for number in range(90):
        name = ("blue", "green", "red")[number % 3]
        picture = random.integers(0, 90, (36, 40, 3), dtype=np.uint8)
        top, left = random.integers(0, 20, 2)
        picture[top : top + 14, left : left + 18, 2 - number % 3] = 230
        (folder / "colour" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "colour" / name / f"{number:03}.png")
    return folder / "colour"


def trained(folder: Path) -> Iterable[tuple[str, str]]:
    """A teacher and its generator."""
    run = folder / "demo"
    noisewise.train(demo_path(), run, "3000images", seed=0)
    yield "teacher weights", of_weights(run / "teacher")
    teacher = noisewise.load(run, "teacher")
    yield "teacher pictures", digest(teacher.sample(16, seed=1))
    noisewise.distill(run, "1500images", seed=0)
    yield "generator weights", of_weights(run / "generator")
    generator = noisewise.load(run)
    yield "one call", digest(generator.sample(16, seed=1))
    sigma = generator.config.two_call_sigma
    yield "two calls", digest(generator.sample(16, seed=1, calls=1 if sigma is None else 2))
    yield "log", of_log(run)
    yield "evaluate", of_evaluation(run)


def moved(folder: Path) -> Iterable[tuple[str, str]]:
    """The teacher adapted to other pictures, and a colour teacher with classes."""
    run = folder / "adapted"
    pictures = other_pictures(folder)
    noisewise.adapt(folder / "demo", pictures, run, "1000images", rank=4, seed=0)
    yield "adapted weights", of_weights(run / "teacher")
    yield "adapted log", of_log(run)
    run = folder / "classes"
    noisewise.train(colour_folder(folder), run, "1000images", size=32, classes=True, seed=0)
    yield "classes weights", of_weights(run / "teacher")
    yield "classes pictures", digest(noisewise.load(run).sample(6, seed=2, label="green"))
    yield "classes log", of_log(run)


def algebra() -> Iterable[tuple[str, str]]:
    """Factors of a seeded matrix, with their certificates."""
    random = torch.Generator().manual_seed(0)
    a = torch.randn(120, 12, generator=random, dtype=torch.float64)
    a = a @ torch.randn(12, 80, generator=random, dtype=torch.float64)
    a = a + 1e-3 * torch.randn(120, 80, generator=random, dtype=torch.float64)
    for name, method in (
        ("svd", lowrank.svd),
        ("interpolative", lowrank.interpolative),
        ("cur", lowrank.cur),
    ):
        found = method(a, rank=10, generator=torch.Generator().manual_seed(1))
        yield name, digest(found.dense())
    yield "pinv", digest(lowrank.pinv(a[:, :40]).dense())
    low = lowrank.lstsq(a[:, :40], a[:, 40:42])
    yield "lstsq", digest(low.x)


def advice() -> Iterable[tuple[str, str]]:
    """The advice for another batch, of a small seeded net."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(512, 6, generator=random)
    y = torch.sin(x.sum(1, keepdim=True)) + 0.3 * torch.randn(512, 1, generator=random)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0]) - batch[1]).square().mean()

    parts = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 512, 32)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = scaling.calibrate(model, loss, parts, optimizer, batch=64, seed=2)
    values: dict[str, Any] = scaling.advise(found, batch=512).to_dict()
    yield "advice", of_values({k: v for k, v in values.items() if isinstance(v, int | float)})


def main() -> None:
    """Print a line for each digest, and one of them all."""
    argparse.ArgumentParser(description="Digests of what noisewise computes.").parse_args()
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (trained(folder), moved(folder), algebra(), advice()):
            for what, value in part:
                found[what] = value
                print(f"{value}  {what}", flush=True)
    print(f"{of_values(found)}  all of them, torch {torch.__version__}")


if __name__ == "__main__":
    main()
