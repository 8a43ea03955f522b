"""The judges: Frechet distances in the features of two small Fashion-MNIST classifiers.

Two Gaussians (Frechet 1957; Dowson and Landau 1982) are fitted to the 64 penultimate features of
generated pictures and of the 10,000 test pictures; the features are divided by one scalar, the root
of their mean variance. This is NOT the Inception distance of papers: compare these numbers only
with each other.

Compare them only within one judge. Two classifiers that differ by 1 % in accuracy and agree on
noise differ by 2 to 5 times on generated pictures; the second one, with batch norms, is the severe
judge. So every result has both. If a goal is a number, the plain judge decides: it was trained to
the 92 % accuracy that the goals name, and it gives a prototype's recipe the prototype's numbers.
The same seed gives another judge on another processor. So both judges are stored in
benchmarks/judges, rounded to half precision, and every result has their fingerprint.

    python -m benchmarks.shared.judge --data FOLDER   prints their scales; trains missing judges
"""

from __future__ import annotations

import argparse
import hashlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.shared import harness, ours, summaries

DATA = "fashion_mnist_zalando.npz"
SIZE = 28
HOME = harness.ROOT / "benchmarks" / "judges"


@dataclass(frozen=True)
class FashionMNIST:
    """Zalando's own split: float32 [n, 1, 28, 28] in [-1, 1] and int64 labels."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_data(path: Path) -> FashionMNIST:
    """The 60,000 and the 10,000.

    Raises:
        harness.UsageError: if the file is not the complete set with its `split`.
    """
    try:
        with np.load(path) as stored:
            missing = {"images", "labels", "split"} - set(stored.files)
            if missing:
                raise harness.UsageError(
                    f"{path} has no {', '.join(sorted(missing))}: the judge needs {DATA} with all "
                    "70,000 pictures and Zalando's split."
                )
            images, labels, split = stored["images"], stored["labels"], stored["split"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, harness.UsageError):
            raise
        raise harness.UsageError(f"{path} cannot be read as {DATA} ({error}).") from error
    if (split == 0).sum() < 60_000 or (split == 1).sum() < 10_000:
        raise harness.UsageError(
            f"{path} holds {len(images)} pictures: the judge needs all 70,000."
        )
    x = torch.from_numpy(images.reshape(-1, 1, SIZE, SIZE)).float().div(127.5).sub(1)
    y = torch.from_numpy(labels.astype(np.int64))
    first, second = torch.from_numpy(split == 0), torch.from_numpy(split == 1)
    return FashionMNIST(x[first], y[first], x[second], y[second])


def training_file(data: FashionMNIST, folder: Path, classes: bool) -> Path:
    """The 60,000 training pictures as an .npz, with or without labels; written once."""
    name = "fashion_train_labelled.npz" if classes else "fashion_train.npz"
    labels = data.train_labels.numpy() if classes else None
    return ours.prepare(folder / name, ours.to_pixels(data.train_images), labels)


@dataclass(frozen=True)
class Recipe:
    """How to train a judge; its file has the recipe's name."""

    name: str
    normed: bool
    epochs: int
    max_lr: float
    weight_decay: float = 0.0
    dropout: float = 0.0
    flips: bool = False


PLAIN = Recipe("plain", normed=False, epochs=10, max_lr=2e-3)
SEVERE = Recipe("severe", True, epochs=6, max_lr=4e-3, weight_decay=1e-3, dropout=0.2, flips=True)


class Judge(nn.Module):
    """Three convolutions, 64 features, ten classes.

    The plain judge uses strides on pictures padded to 32 pixels; the severe judge uses batch norm
    and max pooling.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Weights from torch's global generator."""
        super().__init__()
        self.recipe = recipe
        layers = (
            [*_stage(1, 32), nn.MaxPool2d(2), *_stage(32, 64), nn.MaxPool2d(2), *_stage(64, 64)]
            if recipe.normed
            else [nn.ZeroPad2d(2), *_strided(1, 32), *_strided(32, 64), *_strided(64, 64)]
        )
        side = 7 if recipe.normed else 4
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side**2, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        """[n, 1, 28, 28] in [-1, 1] -> [n, 64]."""
        # Black is -1. Padding is 0, so shift the pictures to make the padding black.
        return self.body(images if self.recipe.normed else images + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [n, 10]."""
        found = self.features(images)
        return self.head(F.dropout(found, self.recipe.dropout, self.training))


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _strided(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]


def _channels_last(judge: Judge) -> Judge:
    return judge.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]


def train_judge(
    data: FashionMNIST, recipe: Recipe, seed: int = 0, epochs: int | None = None, batch: int = 128
) -> Judge:
    """Train a classifier (AdamW, one cycle): a minute or two on two cores."""
    epochs = epochs or recipe.epochs
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = _channels_last(Judge(recipe))
        steps = len(data.train_images) // batch
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=recipe.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.max_lr, steps * epochs)
        for epoch in range(epochs):
            order = torch.randperm(len(data.train_images))
            for k in range(steps):
                chosen = order[k * batch : (k + 1) * batch]
                images = data.train_images[chosen]
                images = images.flip(3) if recipe.flips and k % 2 else images
                images = images.to(memory_format=torch.channels_last)
                loss = F.cross_entropy(judge(images), data.train_labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
            done = f"epoch {epoch + 1} of {epochs}, loss {float(loss.detach()):.3f}"
            harness.note(f"{recipe.name} judge: {done}")
    return judge.eval()


@torch.no_grad()
def features(judge: Judge, images: Tensor, batch: int = 500) -> Tensor:
    """Penultimate features, float64 [n, 64], of float [n, 1, 28, 28] clamped to [-1, 1].

    Raises:
        ValueError: for pictures with another size or number of channels.
    """
    if images.ndim != 4 or images.shape[1:] != (1, SIZE, SIZE):
        raise ValueError(
            f"Pictures of shape {list(images.shape)} do not fit: give [n, 1, {SIZE}, {SIZE}]."
        )
    parts = images.clamp(-1, 1).split(batch)
    found = [judge.features(part.to(memory_format=torch.channels_last)) for part in parts]
    return torch.cat(found).double()


def moments(found: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance [d, d] of features [n, d]."""
    return found.mean(0), torch.cov(found.T)


def frechet(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) of two (mean, covariance) pairs."""
    (mean_1, cov_1), (mean_2, cov_2) = first, second
    values, vectors = torch.linalg.eigh(cov_1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp_min(0).sqrt().sum()
    shift = (mean_1 - mean_2).square().sum()
    return float(shift + cov_1.trace() + cov_2.trace() - 2 * cross)


class Scale:
    """One judge with its reference, the 10,000 test pictures."""

    def __init__(self, judge: Judge, data: FashionMNIST) -> None:
        """Measure the reference once."""
        self.judge = judge
        found = features(judge, data.test_images)
        self.scale = float(found.var(0).mean().sqrt())
        self.reference = moments(found / self.scale)
        guessed = judge.head(found.float()).argmax(1)
        self.accuracy = float((guessed == data.test_labels).double().mean())
        self.fingerprint = _fingerprint(judge)

    def distance(self, images: Tensor) -> float:
        """Frechet distance of pictures to the 10,000."""
        return frechet(moments(features(self.judge, images) / self.scale), self.reference)


class Bench:
    """Both judges: `distance` is that of the plain judge, `severe` that of the severe one."""

    def __init__(self, plain: Judge, severe: Judge, data: FashionMNIST) -> None:
        """Measure the references."""
        self.data = data
        self.scales = {j.recipe.name: Scale(j, data) for j in (plain, severe)}
        self.fingerprint = "-".join(scale.fingerprint for scale in self.scales.values())

    @property
    def judge(self) -> Judge:
        """The plain judge."""
        return self.scales["plain"].judge

    @property
    def accuracy(self) -> float:
        """Share of the 10,000 test pictures that the plain judge classifies correctly."""
        return self.scales["plain"].accuracy

    def distance(self, images: Tensor) -> float:
        """Frechet distance of pictures to the 10,000, by the plain judge."""
        return self.scales["plain"].distance(images)

    def severe(self, images: Tensor) -> float:
        """Frechet distance of pictures to the 10,000, by the severe judge."""
        return self.scales["severe"].distance(images)

    @torch.no_grad()
    def entropy(self, images: Tensor) -> float:
        """Entropy of the predicted classes over ln 10: 1 if all ten are equally frequent."""
        scores = self.judge.head(features(self.judge, images).float())
        share = torch.bincount(scores.argmax(1), minlength=10).double() / len(images)
        return float(-(share * share.clamp_min(1e-12).log()).sum() / math.log(10))

    def conditions(self) -> dict[str, object]:
        """Fingerprint and accuracy of the judges, stored with each result."""
        return {
            "judge": self.fingerprint,
            "judge_accuracy": {n: round(s.accuracy, 4) for n, s in self.scales.items()},
        }


def _fingerprint(judge: Judge) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(judge.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def open_bench(data_file: Path, home: Path, seed: int = 0, quick: bool = False) -> Bench:
    """The bench with its judges from a folder; missing judges are trained and written there.

    A quick judge has seen 6,400 pictures once: use it to try a program, not to measure.
    """
    data = load_data(data_file)
    plain, severe = (_open_judge(data, recipe, home, seed, quick) for recipe in (PLAIN, SEVERE))
    return Bench(plain, severe, data)


def _open_judge(data: FashionMNIST, recipe: Recipe, home: Path, seed: int, quick: bool) -> Judge:
    path = home / f"{recipe.name}{f'-seed{seed}' * bool(seed)}{'-quick' * quick}.safetensors"
    if not path.is_file():
        harness.note(f"judge: training it once; saved as {path}")
        seen, epochs = (_first(data, 6400), 1) if quick else (data, None)
        _keep(train_judge(seen, recipe, seed, epochs), path)
    judge = Judge(recipe)
    judge.load_state_dict(load_file(path))
    return _channels_last(judge.eval())


def _keep(judge: Judge, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    found = judge.state_dict().items()
    save_file(
        {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in found}, temporary
    )
    temporary.replace(path)


def _first(data: FashionMNIST, count: int) -> FashionMNIST:
    images, labels = data.train_images[:count], data.train_labels[:count]
    return FashionMNIST(images, labels, data.test_images, data.test_labels)


def bench_from(arguments: argparse.Namespace) -> Bench:
    """The bench that a program's options ask for."""
    home = arguments.judges or (harness.SCRATCH / "quick" if arguments.quick else HOME)
    return open_bench(harness.data_file(arguments.data, DATA), home, quick=arguments.quick)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option of all programs with a judge."""
    parser.add_argument("--judges", type=Path, default=None, help="folder with other judges")


# --------------------------------------------------------------------- the scale of the judges


def _blurred(images: Tensor, mode: str) -> Tensor:
    return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode=mode)


def subjects(data: FashionMNIST, seed: int) -> dict[str, Tensor]:
    """Pictures that show what a distance means: real ones, damaged ones, noise."""
    generator = torch.Generator().manual_seed(seed)
    drawn = data.train_images[torch.randperm(len(data.train_images), generator=generator)]
    test = data.test_images[torch.randperm(len(data.test_images), generator=generator)[:2000]]
    noise = torch.randn(test.shape, generator=generator)
    return {
        "real, n = 1,000": drawn[:1000],
        "real, n = 2,000": drawn[:2000],
        "real, n = 5,000": drawn[:5000],
        "real + 0.03 noise": test + 0.03 * noise,
        "real + 0.1 noise": test + 0.1 * noise,
        "real, blurred 2x2": _blurred(test, "bilinear"),
        "real, 2x2 blocks": _blurred(test, "nearest"),
        "mean picture": data.train_images.mean(0, keepdim=True).expand(2000, -1, -1, -1),
        "noise": noise,
    }


def main() -> None:
    """Train missing judges and print their scale."""
    parser = harness.parser("The judges' accuracy, floor and scale.")
    add_options(parser)
    parser.add_argument("--seeds", type=int, default=3, help="draws of real pictures and noise")
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    bench = bench_from(arguments)
    conditions = harness.environment(threads) | bench.conditions()
    results = harness.Results(
        harness.results_file(arguments, "shared/judge"), conditions, arguments.redo
    )
    for seed in range(1 if arguments.quick else arguments.seeds):
        for name, images in subjects(bench.data, seed).items():
            setting = {"subject": name, "seed": seed, "judge": bench.fingerprint}
            results.cell(
                setting,
                lambda images=images: {
                    "distance": bench.distance(images),
                    "severe": bench.severe(images),
                    "entropy": bench.entropy(images),
                },
            )
    measures = ("distance", "severe", "entropy")
    rows = []
    for name in subjects(bench.data, 0):
        cells = results.cells({"subject": name, "judge": bench.fingerprint})
        numbers = {m: [n for cell in cells if (n := cell.number(m)) is not None] for m in measures}
        rows.append([name, *(summaries.summarise([numbers[m]]) for m in measures)])
    right = " and ".join(f"{100 * s.accuracy:.1f} % ({n})" for n, s in bench.scales.items())
    summary = (
        f"Judges {bench.fingerprint}: {right} of the 10,000 are correct. "
        "Median and 95 % bootstrap interval over draws."
    )
    listing = summaries.table(["pictures", "plain judge", "severe judge", "class entropy"], rows)
    harness.publish(results, "The judges and their scales", [summary, listing])


if __name__ == "__main__":
    harness.run_program(main)
