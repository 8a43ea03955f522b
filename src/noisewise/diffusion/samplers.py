"""Samplers: generators that walk down the noise levels and yield every state.

Papers: Karras et al. 2022 (EDM) for Heun with churn; Song et al. 2021 for DDIM; Ho et al. 2020 for
ancestral sampling (DDPM).

The contract, for all: start from ``x = noise * sigmas[0]``, follow the falling sigmas, and at the
last one, sigma_min, denoise once and stop. Each State holds the point x, its noise level sigma and
x0 = D(x, sigma); the last State's x0 is the picture. The caller watches, saves, or stops early:

    for state in heun(denoiser, noise, karras_sigmas(5, 0.3, 40.0)):
        print(state.step, state.num_steps)
    pictures = state.x0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser


@dataclass(frozen=True)
class State:
    """Where a sampler stands.

    Attributes:
        step: 1, 2, ..., num_steps.
        num_steps: how many states there will be: the number of sigmas.
        sigma: noise level of x.
        x: noised pictures, [n, ...].
        x0: denoised pictures D(x, sigma), [n, ...].
        calls: how often the denoiser was called up to now.
    """

    step: int
    num_steps: int
    sigma: float
    x: Tensor
    x0: Tensor
    calls: int


Denoise = Callable[[Tensor, float], Tensor]


def heun(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    condition: Tensor | None = None,
    churn: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """EDM's sampler: Heun's second-order step on ``dx / dsigma = (x - D(x, sigma)) / sigma``.

    With churn each step first adds noise, up to ``sigma (1 + min(churn / num_steps, sqrt 2 - 1))``,
    which lets the sampler repair its own errors; then the State's sigma is that raised level. The
    final denoise adds none. The denoiser is called 2 (num_steps - 1) + 1 times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps], for example `karras_sigmas`.
        condition: class of each picture, int64 [n], or None.
        churn: S_churn of the paper, 0 is deterministic.
        generator: source of the churn's noise; needed if churn > 0.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall, or churn has no generator.

    Source: Karras et al. 2022, algorithms 1 and 2 (S_min = 0, S_max = infinity, S_noise = 1).

    Example:
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([2.0, 1.0])
        >>> states = heun(lambda x, sigma, c: 0 * x, noise, sigmas)
        >>> [(s.step, s.sigma, s.x.item(), s.calls) for s in states]
        [(1, 2.0, 2.0, 1), (2, 1.0, 1.0, 3)]
    """

    def advance(denoise: Denoise, x: Tensor, x0: Tensor, sigma: float, lower: float) -> Tensor:
        slope = (x - x0) / sigma
        euler = x.add(slope, alpha=lower - sigma)
        slope += (euler - denoise(euler, lower)) / lower
        return x.add(slope, alpha=(lower - sigma) / 2)

    levels = _checked(sigmas)
    if churn == 0:
        return _walk(denoiser, noise, levels, condition, advance)
    if churn < 0 or generator is None:
        raise ValueError(f"churn {churn} must be positive and comes with a generator")
    gain = 1 + min(churn / len(levels), math.sqrt(2) - 1)

    def raised(x: Tensor, sigma: float) -> tuple[Tensor, float]:
        higher = sigma * gain
        return x.add(_normal(x, generator), alpha=math.sqrt(higher**2 - sigma**2)), higher

    return _walk(denoiser, noise, levels, condition, advance, raised)


def ddim(
    denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor | None = None
) -> Iterator[State]:
    """DDIM, deterministic: ``x' = x0 + (sigma' / sigma) (x - x0)``.

    It is Euler's first-order step on the same equation as `heun`. The denoiser is called num_steps
    times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps].
        condition: class of each picture, int64 [n], or None.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall.

    Source: Song et al. 2021, equation 13.

    Example:
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([2.0, 1.0])
        >>> [s.x.item() for s in ddim(lambda x, sigma, c: 0 * x, noise, sigmas)]
        [2.0, 1.0]
    """

    def advance(_: Denoise, x: Tensor, x0: Tensor, sigma: float, lower: float) -> Tensor:
        return torch.lerp(x0, x, lower / sigma)

    return _walk(denoiser, noise, _checked(sigmas), condition, advance)


def ddpm(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator,
) -> Iterator[State]:
    """DDPM's ancestral sampling: draw x' from the posterior ``q(x' | x, x0)``.

    Mean ``x0 + (sigma'/sigma)^2 (x - x0)``, variance ``sigma'^2 (1 - (sigma'/sigma)^2)``: the
    paper's beta-tilde, divided by alpha^2. The denoiser is called num_steps times.

    Args:
        denoiser: D(x, sigma, condition), already in eval mode.
        noise: standard normal, float [n, ...].
        sigmas: falling noise levels [num_steps].
        condition: class of each picture, int64 [n], or None.
        generator: source of the noise of each step.

    Returns:
        An iterator of States; nothing is computed before its first step.

    Raises:
        ValueError: if sigmas do not fall.

    Source: Ho et al. 2020, equations 6 and 7.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> states = ddpm(lambda x, sigma, c: 0 * x, torch.ones(1, 1), torch.tensor([2.0, 1.0]),
        ...               generator=generator)
        >>> sample(states)
        tensor([[0.]])
    """

    def advance(_: Denoise, x: Tensor, x0: Tensor, sigma: float, lower: float) -> Tensor:
        ratio = (lower / sigma) ** 2
        mean = torch.lerp(x0, x, ratio)
        return mean.add_(_normal(x, generator), alpha=lower * math.sqrt(1 - ratio))

    return _walk(denoiser, noise, _checked(sigmas), condition, advance)


def sample(states: Iterable[State]) -> Tensor:
    """Run a sampler to its end and return the pictures: the last State's x0.

    Raises:
        ValueError: if there is no state left to take.

    Example:
        >>> sample(ddim(lambda x, sigma, c: x / 2, torch.ones(1, 1), torch.tensor([4.0])))
        tensor([[2.]])
    """
    state = None
    for state in states:  # noqa: B007 (only the last one counts)
        pass
    if state is None:
        raise ValueError("this sampler is already exhausted; start a new one")
    return state.x0


Advance = Callable[[Denoise, Tensor, Tensor, float, float], Tensor]
Raise = Callable[[Tensor, float], tuple[Tensor, float]]


@torch.no_grad()
def _walk(
    denoiser: Denoiser,
    noise: Tensor,
    levels: list[float],
    condition: Tensor | None,
    advance: Advance,
    raised: Raise | None = None,
) -> Iterator[State]:
    """Denoise, yield, advance to the next level; at the last level denoise, yield, stop."""
    calls = 0

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return denoiser(x, x.new_full((len(x),), sigma), condition)

    num_steps = len(levels)
    x = noise * levels[0]
    for step, (sigma, lower) in enumerate(pairwise(levels), start=1):
        if raised is not None:
            x, sigma = raised(x, sigma)
        x0 = denoise(x, sigma)
        yield State(step, num_steps, sigma, x, x0, calls)
        x = advance(denoise, x, x0, sigma, lower)
    x0 = denoise(x, levels[-1])
    yield State(num_steps, num_steps, levels[-1], x, x0, calls)


def _checked(sigmas: Tensor) -> list[float]:
    levels = sigmas.tolist()
    if (
        sigmas.ndim != 1
        or not levels
        or levels[-1] <= 0
        or any(a <= b for a, b in pairwise(levels))
    ):
        raise ValueError("sigmas must be a row of falling, positive noise levels")
    return levels


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    return noise.to(x.device)
