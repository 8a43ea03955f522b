"""Other ways to a generator of one call, in their plain forms, for the same teacher and time.

* Regression (Luhman and Luhman 2021): pairs of noise and what the teacher's deterministic sampler
  makes of it; a third of the time draws pairs, the rest fits them by the squared error.
* Consistency (Song et al. 2023, consistency distillation): the generator gives the same picture at
  two neighbouring noise levels of a path; one Euler step of the teacher leads from one to the
  other, from real pictures with noise. At the lowest level the teacher's picture is the target.

Both start from the teacher's weights, and the generator is an average of the weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from noisewise.diffusion import karras_sigmas
from noisewise.training.models.models import Generator, Teacher, one_call
from noisewise.training.stages.real_batches import RealBatches
from noisewise.training.stages.weight_averages import EMA

_BATCH, _LR, _SHARE = 64, 3e-4, 0.2
_DRAW_SHARE = 1 / 3  # of the time of a regression
_LEVELS = 18
_AT_ONCE = 128


@dataclass(frozen=True)
class Limits:
    """When a rival ends: after some seconds, or (in tests) after some steps."""

    seconds: float
    steps: int | None = None

    def turns(self, share: float = 1.0) -> Iterator[int]:
        """Numbers from 0 until the time, or a share of it, is over; at least one."""
        end, most, turn = time.perf_counter() + share * self.seconds, self.steps, 0
        while turn == 0 or (time.perf_counter() < end and (most is None or turn < most)):
            yield turn
            turn += 1


Loss = Callable[[nn.Module], Tensor]


def regression(teacher: Teacher, sigma_init: float, limits: Limits, seed: int) -> Generator:
    """Fit what the teacher's deterministic sampler draws from each noise."""
    noises, pictures, labels = [], [], []
    calls = max(3, teacher.network_calls(guidance=1.0, sampler="heun") // 2 * 2 + 1)
    for turn in limits.turns(_DRAW_SHARE):
        start = turn * _AT_ONCE
        noises.append(teacher.noise(seed, start, _AT_ONCE))
        drawn = teacher.draw(seed, start, _AT_ONCE, None, calls, "heun", 1.0)
        pictures.append(drawn)
        labels.append(teacher.labels(seed, start, _AT_ONCE, None))
    z, x0, source = torch.cat(noises), torch.cat(pictures), torch.Generator().manual_seed(seed)
    classes = None if labels[0] is None else torch.cat([one for one in labels if one is not None])

    def loss(net: nn.Module) -> Tensor:
        rows = torch.randint(len(z), (_BATCH,), generator=source)
        condition = None if classes is None else classes[rows]
        return (one_call(net, z[rows], sigma_init, condition) - x0[rows]).square().mean()

    return _fitted(teacher, sigma_init, loss, limits, 1 - _DRAW_SHARE)


def consistency(
    teacher: Teacher, real: RealBatches, sigma_init: float, limits: Limits, seed: int
) -> Generator:
    """Agree with itself along the teacher's paths."""
    levels = karras_sigmas(_LEVELS, 0.02, sigma_init).flip(0)  # rising
    source = torch.Generator().manual_seed(seed)
    target = copy.deepcopy(teacher.denoiser)

    def loss(net: nn.Module) -> Tensor:
        x0, condition = real.batch(_BATCH, source)
        at = torch.randint(1, _LEVELS, (_BATCH,), generator=source)
        high, low = levels[at], levels[at - 1]
        x = x0 + high[:, None, None, None] * torch.randn(x0.shape, generator=source)
        with torch.no_grad():
            for own, live in zip(target.parameters(), net.parameters(), strict=True):
                own.copy_(live)
            slope = (x - teacher(x, high, condition)) / high[:, None, None, None]
            lower = x + (low - high)[:, None, None, None] * slope
            own_picture = target(lower, low, condition)
            lowest = (at == 1)[:, None, None, None]
            aim = torch.where(lowest, teacher(lower, low, condition), own_picture)
        return ((net(x, high, condition) - aim).square().mean((1, 2, 3)) + 1e-6).sqrt().mean()

    return _fitted(teacher, sigma_init, loss, limits, 1.0)


def _fitted(
    teacher: Teacher, sigma_init: float, loss: Loss, limits: Limits, share: float
) -> Generator:
    """A copy of the teacher that makes a loss small."""
    net = copy.deepcopy(teacher.denoiser).requires_grad_(True)
    average, optimizer = EMA(net, (_SHARE,)), torch.optim.Adam(net.parameters(), _LR)
    for turn in limits.turns(share):
        optimizer.zero_grad()
        loss(net).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update(_BATCH, (turn + 1) * _BATCH)
    average.copy_to(net, 0)
    config = replace(teacher.config, kind="generator", sigma_init=sigma_init, two_call_sigma=None)
    return Generator(net.eval().requires_grad_(False), config).eval()
