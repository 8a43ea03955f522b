"""A generator of several calls: after each call noise is added anew, and the next call removes it.

    x_1 = G(s_1 z_1, s_1),    x_k = G(x_{k-1} + s_k z_k, s_k),    s_1 > ... > s_K

z_k is standard normal and new in every call. With K = 1 this is the generator of one call.

It is trained as one generator that draws from all its calls alike: k is uniform, the calls before
k have no gradient, call k has. One fake score learns the pictures of all of them. In the papers it
is not told k and knows their mixture only; ours is told (`Told`), as `gaussian_calls` shows that
the mixture hides what one call has too much and another too little.

Papers: Zhou et al. 2025 (few-step SiD, arXiv 2505.12674); Yin et al. 2024 (DMD2, the rollout by
the student itself); Song et al. 2023 (consistency models, algorithm 1, the walk).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from noisewise.diffusion.noise import per_image

Call = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def in_calls(
    denoiser: Call,
    z: Tensor,
    sigmas: Sequence[float],
    noises: Sequence[Tensor] = (),
    label: Tensor | None = None,
) -> Tensor:
    """Draw pictures in as many calls as there are noise levels; unclamped.

    Args:
        denoiser: G.
        z: standard normal noise of the first call, float [n, ...].
        sigmas: noise level of each call, falling.
        noises: standard normal noise of each later call, in the shape of z.
        label: class of each, int64 [n], or None.

    Raises:
        ValueError: if noises are not one fewer than sigmas.

    Source: Song et al. 2023, algorithm 1.

    Example:
        >>> one = torch.ones(1, 1)
        >>> in_calls(lambda x, sigma, c: x / sigma[0], one, (2.0, 0.5), [one])  # (1 + 0.5) / 0.5
        tensor([[3.]])
    """
    if len(noises) != len(sigmas) - 1:
        raise ValueError(
            f"{len(sigmas)} calls need {len(sigmas) - 1} noises beside z, not {len(noises)}"
        )
    x0 = denoiser(z * sigmas[0], z.new_full(z.shape[:1], sigmas[0]), label)
    for sigma, noise in zip(sigmas[1:], noises, strict=True):
        x0 = denoiser(x0.add(noise, alpha=sigma), z.new_full(z.shape[:1], sigma), label)
    return x0


def which_call(
    num_images: int, calls: int, generator: torch.Generator, device: torch.device | str
) -> Tensor:
    """The call that each picture of a batch is trained on: 0 to calls - 1 in turn, uniform.

    ``k_i = (i + offset) mod K`` with a random offset: each k is as likely for every picture, and a
    batch has them in equal shares.

    Args:
        num_images: of the batch.
        calls: K.
        generator: source of the offset.
        device: of the result, which is int64 [num_images].

    Example:
        >>> which_call(6, 2, torch.Generator().manual_seed(0), "cpu").sum()
        tensor(3)
    """
    offset = torch.randint(calls, (1,), generator=generator, device=generator.device).to(device)
    return (torch.arange(num_images, device=device) + offset) % calls


@torch.no_grad()
def inputs_of_calls(
    denoiser: Call,
    z: Tensor,
    sigmas: Sequence[float],
    noises: Sequence[Tensor],
    which: Tensor,
    label: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What call `which` of each picture is given: the pictures of the calls before, and noise.

    Args:
        denoiser: G, for the calls before.
        z: standard normal noise of the first call, float [n, ...].
        sigmas: noise level of each call, falling.
        noises: standard normal noise of each later call, in the shape of z.
        which: number of the call, from 0, int64 [n].
        label: class of each, int64 [n], or None.

    Returns:
        x in the shape of z, and the noise level of each, [n]; without gradient.

    Source: Yin et al. 2024 (DMD2), section 4.5.

    Example:
        >>> z = torch.ones(2, 1)
        >>> inputs_of_calls(lambda x, s, c: x, z, (2.0, 0.5), [z], torch.tensor([0, 1]))
        (tensor([[2.0000],
                [2.5000]]), tensor([2.0000, 0.5000]))
    """
    x = z * sigmas[0]
    for number, (sigma, noise) in enumerate(zip(sigmas[1:], noises, strict=True), start=1):
        rows = (which >= number).nonzero()[:, 0]
        if not len(rows):
            break
        level = z.new_full((len(rows),), sigmas[number - 1])
        x0 = denoiser(x[rows], level, None if label is None else label[rows])
        x[rows] = x0.to(x.dtype).add(noise[rows], alpha=sigma)
    return x, z.new_tensor(sigmas)[which]


class Told(nn.Module):
    """A denoiser that is told which call its pictures come from, by a mark that it learns.

    ``D_k(x, sigma) = D(x + s m_k, sigma) - c s m_k``, ``s^2 = sigma^2 + sigma_data^2`` and ``c =
    sigma_data^2 / s^2``: the input is marked as strongly at every noise level, and what a denoiser
    hands through at low noise is taken off again. It starts at ``m_k = 0``, as D.

    Args:
        denoiser: D; its weights are a part of this module.
        calls: number of calls.
        shape: of a picture, (channels, height, width).
        sigma_data: standard deviation of the pictures.

    Example:
        >>> told = Told(nn.Identity(), 2, (1, 1, 1), 0.5)
        >>> told.denoiser.forward = lambda x, sigma, c=None: x / 2
        >>> told(torch.ones(1, 1, 1, 1), torch.ones(1), None, torch.tensor([1])).flatten()
        tensor([0.5000], grad_fn=<ViewBackward0>)
    """

    def __init__(
        self, denoiser: nn.Module, calls: int, shape: tuple[int, ...], sigma_data: float
    ) -> None:
        """Start without marks."""
        super().__init__()
        self.denoiser, self.sigma_data = denoiser, sigma_data
        device = next((p.device for p in denoiser.parameters()), None)
        self.marks = nn.Parameter(torch.zeros(calls, *shape, device=device))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None, which: Tensor) -> Tensor:
        """Denoise x [n, ...] at sigma [n]; `which` is the call of each, from 0, int64 [n]."""
        total = sigma.square() + self.sigma_data**2
        mark = self.marks[which].to(x.dtype) * per_image(total.sqrt().to(x.dtype), x)
        share = per_image((self.sigma_data**2 / total).to(x.dtype), x)
        return self.denoiser(x + mark, sigma, condition) - share * mark


class OfCall(nn.Module):
    """A `Told` denoiser for the pictures of one batch: ``D(x, sigma, condition)`` again.

    Args:
        told: the denoiser, or anything that calls it.
        which: call of each picture of the batch.
    """

    def __init__(self, told: nn.Module, which: Tensor) -> None:
        """Take the calls."""
        super().__init__()
        self.told, self._which = told, which

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise x [n, ...] at sigma [n]."""
        return self.told(x, sigma, condition, self._which)
