"""The nets of a distillation: three whole ones, or one with two adapters.

With adapters the frozen teacher is in memory once; generator and fake score are that net with an
adapter each (LoRA, Hu et al. 2022), and so are the weight averages. Of each net only the adapter
has gradients and a state of the optimiser. One adapter for the fake score is what ProlificDreamer
does (Wang et al. 2023), two on one net come from Yin et al. 2024 (DMD2) and its successors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from noisewise.diffusion import innermost
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.models.networks import network
from noisewise.training.settings.student_choices import RANK
from noisewise.training.stages.adapted_teacher import adapter_config
from noisewise.training.stages.student_guidance import check_guided

if TYPE_CHECKING:
    from noisewise.adapters.switching import Switchable
    from noisewise.training.models.models import Teacher
    from noisewise.training.settings.config import DistillConfig


Tell = Callable[[nn.Module], nn.Module]


class StudentNets(Protocol):
    """Teacher, generator and fake score.

    Attributes:
        generator: float32; its parameters are trained, averaged and saved in checkpoints.
        fake: the same for the fake score.
        shadow: as the generator; averages are written into it.
        generator_weights: computes the generator's calls.
        fake_weights: computes those of the fake score.
        heard: the net whose layers compute the fake score.
    """

    generator: nn.Module
    fake: nn.Module
    shadow: nn.Module
    generator_weights: MasterWeights[nn.Module]
    fake_weights: MasterWeights[nn.Module]
    heard: nn.Module

    def computing(self, denoiser: nn.Module) -> nn.Module:
        """The same denoiser in the precision of the training."""
        ...

    def whole(self, denoiser: nn.Module) -> nn.Module:
        """A denoiser that needs none of the others, float32."""
        ...


class WholeNets:
    """Three nets that start alike; see `StudentNets`.

    Args:
        teacher: the frozen denoiser; it gets the precision of the training.
        dtype: precision of the training.
        tell: makes the fake score one that is told the call.
        generator: where it is no copy of the teacher; on the same device.
    """

    def __init__(
        self,
        teacher: nn.Module,
        dtype: torch.dtype,
        tell: Tell,
        generator: nn.Module | None = None,
    ) -> None:
        """Copy the teacher."""
        self._dtype = dtype
        start = teacher if generator is None else generator
        self.generator = copy.deepcopy(start).requires_grad_(True)
        self.fake = tell(copy.deepcopy(teacher).requires_grad_(True))
        self.shadow = copy.deepcopy(start).requires_grad_(False)
        teacher.to(dtype)
        self.generator_weights = MasterWeights(self.generator, dtype)
        self.fake_weights = MasterWeights(self.fake, dtype)
        self.heard: nn.Module = self.fake_weights.module

    def computing(self, denoiser: nn.Module) -> nn.Module:
        """A copy in the precision of the training; with float32 the denoiser itself."""
        return MasterWeights(denoiser, self._dtype).module

    def whole(self, denoiser: nn.Module) -> nn.Module:
        """The denoiser itself."""
        return denoiser


class AdaptedNets:
    """One net, and an adapter each for generator, fake score and averages; see `StudentNets`.

    Args:
        teacher: the frozen denoiser; its layers are wrapped, and it gets the precision of the
            training. Called as it is, it is the teacher, bit for bit.
        original: the teacher in float32, which the finished adapter is added to; not changed.
        dtype: precision of the training; adapters are always float32.
        tell: makes the fake score one that is told the call.
        rank: of each adapter; smaller layers get their own full rank.
        seed: of the adapters' start; A is the same for both, B is 0.

    Raises:
        ValueError: if PEFT is missing, no layer can have an adapter, or the rank is too large.
    """

    def __init__(
        self,
        teacher: nn.Module,
        original: nn.Module,
        dtype: torch.dtype,
        tell: Tell,
        rank: int,
        seed: int,
    ) -> None:
        """Wrap the teacher's layers."""
        from noisewise.adapters.switching import Switchable

        config = adapter_config(network(original), rank, "use --student full")
        self._original, self._teacher = original, teacher
        teacher.to(dtype)
        names = ("generator", "fake", "shadow")
        self.adapters = Switchable(network(teacher), config, names)
        for name in names:
            self.adapters.restart(name, torch.Generator().manual_seed(seed))
        teacher.requires_grad_(False)
        nets = [Adapted(teacher, self.adapters, name, name != "shadow") for name in names]
        self.generator: nn.Module = nets[0]
        self.fake: nn.Module = tell(nets[1])
        self.shadow: nn.Module = nets[2]
        float32 = torch.float32
        self.generator_weights: MasterWeights[nn.Module] = MasterWeights(self.generator, float32)
        self.fake_weights: MasterWeights[nn.Module] = MasterWeights(self.fake, float32)
        self.heard: nn.Module = network(teacher)

    def computing(self, denoiser: nn.Module) -> nn.Module:
        """The denoiser itself: its net computes in the precision of the training."""
        return denoiser

    def whole(self, denoiser: nn.Module) -> nn.Module:
        """A copy of the teacher with the adapter added to its weights, in float32."""
        assert isinstance(denoiser, Adapted)
        made = copy.deepcopy(self._original).requires_grad_(False)
        made.to(next(self._teacher.parameters()).device)
        net = network(made)
        for name, change in self.adapters.change(denoiser.name).items():
            weight = net.get_submodule(name).get_parameter("weight")
            weight.data.add_(change.to(weight.dtype))
        return made.eval()


class Adapted(nn.Module):
    """A denoiser that computes with one adapter of a net; its parameters are the adapter's alone.

    Args:
        denoiser: with the net; shared, so it is no part of this module.
        adapters: of the net.
        name: of the adapter.
        trained: whether the adapter has gradients.
    """

    def __init__(self, denoiser: nn.Module, adapters: Switchable, name: str, trained: bool) -> None:
        """Take the adapter's parameters."""
        super().__init__()
        self.name, self._adapters = name, adapters
        self._shared = (denoiser,)  # in a tuple: not a part of this module's weights
        self.factors = nn.ParameterList(adapters.factors(name))
        self.requires_grad_(trained)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x [n, c, h, w] at sigma [n]."""
        with self._adapters.using(self.name):
            return self._shared[0](x, sigma, condition)


def check_student(config: DistillConfig, teacher: Teacher) -> None:
    """Refuse what this teacher cannot have, before anything is trained.

    Raises:
        ValueError: if PEFT is missing, no layer can have an adapter, or the rank is too large; if
            the teacher cannot be guided; if its net has no place for an adversary.
    """
    net = network(teacher.denoiser)
    if config.student == "lora":
        adapter_config(net, config.rank or RANK, "use --student full")
    check_guided(teacher, config.guidance)
    if config.data_term == "sida":
        innermost(net)
