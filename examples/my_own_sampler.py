"""A sampler of your own: write its walk, give it a name, and let a teacher draw with it.

    python examples/my_own_sampler.py

This trains a tiny teacher for a few seconds, draws with Heun's sampler and with the new one, both
in 9 network calls, and prints the distance of each one's pictures to real pictures.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

import noisewise
from noisewise.demo import demo_path
from noisewise.diffusion import HEUN, Sampler
from noisewise.diffusion.samplers import Denoise, Normal
from noisewise.quality import distance
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe


def walk(
    denoise: Denoise, x: Tensor, levels: list[float], normal: Normal
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Euler's method with churn: add a little noise, then take a step to the next level."""
    for level, lower in pairwise(levels):
        sigma = 1.05 * level
        x = x + math.sqrt(sigma**2 - level**2) * normal()
        x0 = denoise(x, sigma)  # one network call
        yield sigma, x, x0
        x = x + (lower - sigma) * (x - x0) / sigma
    yield levels[-1], x, denoise(x, levels[-1])


CHURNED_EULER = Sampler("churned Euler", walk, stochastic=True)


def main() -> None:
    """Train, draw with both samplers, compare."""
    recipe = TeacherRecipe(heldout_every=0.5, distance_images=0, noise_every=0)
    small = TrainConfig(budget="4000images", size=16, widths=(8, 16), kinds=0, recipe=recipe)
    with tempfile.TemporaryDirectory() as folder:
        run = noisewise.train(demo_path(), out=folder, config=small)
        teacher, real = run.teacher(), run.pictures().shown(range(256))
    for sampler in (HEUN, CHURNED_EULER):
        found = distance(teacher.sample(128, calls=9, sampler=sampler), real)
        print(
            f"{sampler.name}: distance {found.value:.2f}, real pictures {found.floor:.2f} at most"
        )


if __name__ == "__main__":
    main()
