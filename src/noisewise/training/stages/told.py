"""How a net is told what was done to its training pictures: a vector joins its embedding.

Paper: Karras et al. 2022 (EDM), appendix F.2. The map is a matrix without bias, so a vector of
zeros (nothing was done) changes nothing, at the start and later. Models, weight averages and
everything that draws do without it: they are told nothing. It lives in training alone.

It starts at random, as vectors of classes do. From zero it was hardly used after 250 steps on
mirrored arrows, and the net guessed both directions alike; from random numbers it told them apart
after 120.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from noisewise.diffusion import Denoiser
from noisewise.nets.layers import NoiseEmbedding
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.processes import Ranks
from noisewise.training.models.networks import network
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.augmentation import Augmentation
from noisewise.training.stages.optimizers import Optimizers, adam
from noisewise.training.stages.plan import TeacherPlan


def can_be_told(denoiser: nn.Module) -> bool:
    """Whether a denoiser has a net of noisewise, whose embedding takes more than a label.

    Example:
        >>> can_be_told(nn.Identity())
        False
    """
    return isinstance(getattr(network(denoiser), "embedding", None), NoiseEmbedding)


class Told(nn.Module):
    """The map from what was done to the embedding of a net: ``W v``.

    Args:
        length: of the vector that tells what was done.
        width: of the embedding of the net.
        seed: of its first weights.

    Example:
        >>> Told(3, 8, seed=0)(torch.zeros(2, 3)).abs().max().item()  # nothing was done
        0.0
    """

    def __init__(self, length: int, width: int, seed: int) -> None:
        """Draw the first weights."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn((width, length), generator=generator))

    def forward(self, vector: Tensor) -> Tensor:
        """Map vectors, float [n, length], to [n, width]."""
        return vector @ self.weight.mT

    @property
    def width(self) -> int:
        """Width of the embedding."""
        return len(self.weight)

    @staticmethod
    def of(denoiser: nn.Module, plan: TeacherPlan, seed: int, engine: Engine) -> Told | None:
        """The map for a denoiser; None if its pictures are not changed."""
        if not plan.augment:
            return None
        embedding = getattr(network(denoiser), "embedding")  # noqa: B009 (nets differ in type)
        assert isinstance(embedding, NoiseEmbedding)
        length = Augmentation.from_dict(plan.augment).length
        return Told(length, embedding.width, seed).to(engine.device)

    def with_optimizer(
        self, others: Optimizers, plan: TeacherPlan, recipe: TeacherRecipe
    ) -> Optimizers:
        """The optimisers of a net, with one for the map: an embedding is trained by Adam."""
        lr = plan.adam_lr if recipe.optimizer == "muon" else plan.lr
        return Optimizers([*others.optimizers, adam(self.parameters(), lr, recipe.betas)])

    def telling(self, denoise: Denoiser, told: Tensor | None) -> Denoiser:
        """A denoiser that is told the vectors; None: nothing."""
        vectors = None if told is None else self(told)

        def denoised(x: Tensor, sigma: Tensor, condition: Tensor | None = None, /) -> Tensor:
            return denoise(x, sigma, condition, vectors)  # pyrefly: ignore[bad-argument-count]

        return denoised

    def average_gradients(self, ranks: Ranks) -> None:
        """Average the gradient over all processes, as theirs is averaged for the net."""
        if self.weight.grad is not None and ranks.world > 1:
            self.weight.grad = ranks.added([self.weight.grad])[0] / ranks.world


def parameters_of(told: Told | None) -> Iterable[nn.Parameter]:
    """The weights of a map; none if there is none."""
    return () if told is None else told.parameters()
