"""A sampler is a value with a name and a walk down the noise levels that yields every state.

The contract of all samplers: start at ``x = noise * sigmas[0]``, follow the falling sigmas, denoise
once at the last one, and stop. Each State holds the point x, its noise level sigma and
x0 = D(x, sigma); the last State's x0 is the picture. The caller watches, saves, or stops early:

    for state in HEUN.states(denoiser, noise, karras_sigmas(5, 0.3, 40.0)):
        print(state.step, state.num_steps)
    pictures = state.x0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from noisewise.diffusion.denoiser import Denoiser

Denoise = Callable[[Tensor, float], Tensor]
"""``denoise(x, sigma) -> x0``: one network call; all pictures have the same sigma."""
Normal = Callable[[], Tensor]
"""``normal()``: fresh standard normal noise, the shape of the pictures."""
Walk = Callable[[Denoise, Tensor, list[float], Normal], Iterator[tuple[float, Tensor, Tensor]]]
"""``walk(denoise, x, levels, normal)`` yields (sigma, x, x0) at each level; see `Sampler`."""


@dataclass(frozen=True)
class State:
    """Where a sampler is on its walk.

    Attributes:
        step: 1, 2, ..., num_steps.
        num_steps: number of states in all: the number of sigmas.
        sigma: noise level of x.
        x: noised pictures, [n, ...].
        x0: denoised pictures D(x, sigma), [n, ...].
        calls: number of calls of the denoiser so far.
    """

    step: int
    num_steps: int
    sigma: float
    x: Tensor
    x0: Tensor
    calls: int


@dataclass(frozen=True)
class Sampler:
    """A sampler: its walk, and how many network calls the walk takes.

    The walk is a generator function ``walk(denoise, x, levels, normal)``. It starts at x, which has
    noise level levels[0], and yields (sigma, x, x0) once for each level; the last one is
    ``levels[-1], x, denoise(x, levels[-1])``. A method that needs an earlier x0 keeps it in a local
    variable. The walk does not change a tensor that it has yielded.

    Args:
        name: how people choose it.
        walk: the method.
        calls_each: network calls from one level to the next, 1 or more; the last level takes 1.
        stochastic: whether the walk calls ``normal()``.

    Raises:
        ValueError: if calls_each is below 1.

    Example:
        >>> def walk(denoise, x, levels, normal):  # Euler's method
        ...     for sigma, lower in pairwise(levels):
        ...         x0 = denoise(x, sigma)
        ...         yield sigma, x, x0
        ...         x = x + (lower - sigma) * (x - x0) / sigma
        ...     yield levels[-1], x, denoise(x, levels[-1])
        >>> noise, sigmas = torch.ones(1, 1), torch.tensor([2.0, 1.0])
        >>> states = Sampler("euler", walk).states(lambda x, sigma, c: 0 * x, noise, sigmas)
        >>> [s.x.item() for s in states]
        [2.0, 1.0]
    """

    name: str
    walk: Walk
    calls_each: int = 1
    stochastic: bool = False

    def __post_init__(self) -> None:
        """Check the number of calls."""
        if self.calls_each < 1:
            raise ValueError(f"calls_each is {self.calls_each}; use 1 or more")

    def num_calls(self, num_steps: int) -> int:
        """Network calls for num_steps noise levels: ``calls_each (num_steps - 1) + 1``.

        Raises:
            ValueError: if num_steps is below 1.

        Example:
            >>> Sampler("heun", lambda *_: iter(()), calls_each=2).num_calls(5)
            9
        """
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}; a sampler needs at least 1 noise level")
        return self.calls_each * (num_steps - 1) + 1

    def most_steps(self, calls: int) -> int:
        """Return the largest number of noise levels that takes at most `calls` network calls.

        Raises:
            ValueError: if calls is below 1.

        Example:
            >>> Sampler("heun", lambda *_: iter(()), calls_each=2).most_steps(8)
            4
        """
        if calls < 1:
            raise ValueError(f"{calls} network calls draw nothing; use 1 or more")
        return (calls - 1) // self.calls_each + 1

    def steps_for(self, calls: int) -> int:
        """Return the number of noise levels that takes exactly `calls` network calls.

        Raises:
            ValueError: if there is none; the message has the nearest numbers of calls.

        Example:
            >>> Sampler("heun", lambda *_: iter(()), calls_each=2).steps_for(9)
            5
        """
        steps = self.most_steps(calls)
        below = self.num_calls(steps)
        if below != calls:
            first = ", ".join(str(self.num_calls(n)) for n in (1, 2, 3))
            raise ValueError(
                f"{self.name} takes {first}, ... network calls; use {below} or "
                f"{self.num_calls(steps + 1)} instead of {calls}"
            )
        return steps

    def states(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        sigmas: Tensor,
        condition: Tensor | None = None,
        normal: Normal | None = None,
    ) -> Iterator[State]:
        """Walk down the noise levels.

        Args:
            denoiser: D(x, sigma, condition), already in eval mode.
            noise: standard normal, float [n, ...].
            sigmas: falling noise levels [num_steps], for example `karras_sigmas`.
            condition: class of each picture, int64 [n], or None.
            normal: source of fresh noise, the shape of `noise`; a stochastic sampler needs it.

        Returns:
            An iterator of States; nothing is computed before its first step.

        Raises:
            ValueError: if sigmas do not fall, if a stochastic sampler has no source of noise, or,
                from the iterator, if the walk breaks the contract.
        """
        levels = _checked(sigmas)
        if self.stochastic and normal is None:
            raise ValueError(f"{self.name} adds noise at each level; give it a source of noise")
        if not self.stochastic or normal is None:
            normal = self._refuse
        return self._states(denoiser, noise, levels, condition, normal)

    @torch.no_grad()
    def _states(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        levels: list[float],
        condition: Tensor | None,
        normal: Normal,
    ) -> Iterator[State]:
        """Count the steps and the network calls of the walk."""
        step = calls = 0

        def denoise(x: Tensor, sigma: float) -> Tensor:
            nonlocal calls
            calls += 1
            return denoiser(x, x.new_full((len(x),), sigma), condition)

        num_steps = len(levels)
        for sigma, x, x0 in self.walk(denoise, noise * levels[0], levels, normal):
            step += 1
            yield State(step, num_steps, sigma, x, x0, calls)
        expected = self.num_calls(num_steps)
        if (step, calls) != (num_steps, expected):
            raise ValueError(
                f"sampler {self.name} gave {step} states in {calls} network calls; "
                f"for {num_steps} noise levels it must give {num_steps} in {expected}"
            )

    def _refuse(self) -> Tensor:
        raise ValueError(f"the walk of {self.name} adds noise; define it with stochastic=True")


def sample(states: Iterable[State]) -> Tensor:
    """Run a sampler to its end and return the pictures: the last State's x0.

    Raises:
        ValueError: if no state is left.

    Example:
        >>> from noisewise.diffusion import ddim
        >>> sample(ddim(lambda x, sigma, c: x / 2, torch.ones(1, 1), torch.tensor([4.0])))
        tensor([[2.]])
    """
    state = None
    for state in states:  # noqa: B007 (only the last one counts)
        pass
    if state is None:
        raise ValueError("these states are already used; start the sampler again")
    return state.x0


def normal_from(noise: Tensor, generator: torch.Generator) -> Normal:
    """Return a source of standard normal noise like `noise`, drawn where the generator is.

    Example:
        >>> normal_from(torch.ones(2, 3), torch.Generator().manual_seed(0))().shape
        torch.Size([2, 3])
    """

    def normal() -> Tensor:
        drawn = torch.randn(
            noise.shape, generator=generator, device=generator.device, dtype=noise.dtype
        )
        return drawn.to(noise.device)

    return normal


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
