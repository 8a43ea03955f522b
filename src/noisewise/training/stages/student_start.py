"""A generator that does not start as a copy of its teacher: of other widths, or from nothing.

Paper: "Teacher weights matter more than its score" (arXiv 2502.08005) finds that a copy is what
makes distillation quick; `benchmarks/pictures/ablate.py --stage student` measures it here.
"""

from __future__ import annotations

import torch
from torch import nn

from noisewise.nets.carry_over import Trained, carry_over
from noisewise.nets.derive import build
from noisewise.training.models.models import Teacher
from noisewise.training.models.networks import network, with_network
from noisewise.training.settings.recipes import StudentRecipe

_WITH_WIDTHS = ("unet", "pyramid", "uvit")


def own_generator(teacher: Teacher, recipe: StudentRecipe, seed: int) -> nn.Module | None:
    """The generator of a recipe that asks for one of its own; None: it is a copy of the teacher.

    Args:
        teacher: any; of another width, what fits of its weights is carried over.
        recipe: `generator_widths` and `generator_start`.
        seed: of fresh weights.

    Raises:
        ValueError: if the net of the teacher has no widths, or cannot be built anew.
    """
    widths, start = recipe.generator_widths, recipe.generator_start
    if not widths and start == "teacher":
        return None
    described, net = teacher.config, dict(teacher.config.net)
    if net.get("name") not in _WITH_WIDTHS:
        raise ValueError(
            "recipe: this teacher's net is not one of noisewise with widths, so its generator is a "
            "copy; leave generator_widths and generator_start out"
        )
    if widths:
        net["widths"] = list(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build(net)
    if start == "teacher":
        total = sum(described.label_histogram) or 1
        shares = tuple(count / total for count in described.label_histogram)
        weights = dict(network(teacher.denoiser).state_dict())
        trained = Trained(
            described.net, weights, described.sigma_data, described.classes, shares, "the teacher"
        )
        carry_over(trained, made, described.sigma_data, described.classes)
    return with_network(teacher.denoiser, made).eval()
