"""The held-out loss: the same pictures and noise every time, so that small gains are visible."""

from __future__ import annotations

import torch
from torch import Tensor

from noisewise.diffusion import Denoiser, denoising_loss
from noisewise.training.devices.engine import Engine
from noisewise.training.stages.at_once import at_once
from noisewise.training.stages.plan import TeacherPlan


class HeldOutBatch:
    """Held-out pictures with fixed noise; their noise levels are even quantiles of the training's.

    Args:
        x0: float [n, c, h, w] in [-1, 1].
        labels: int64 [n], or None.
        plan: gives the distribution of noise levels and the weight of the loss.
        engine: device and precision.
    """

    def __init__(
        self, x0: Tensor, labels: Tensor | None, plan: TeacherPlan, engine: Engine
    ) -> None:
        """Draw the noise."""
        n, generator = len(x0), torch.Generator().manual_seed(0)
        shares = (torch.randperm(n, generator=generator) + 0.5) / n
        noise = torch.randn(x0.shape, generator=generator)
        self._x0, self._noise = engine.tensor(x0), engine.tensor(noise)
        self._sigma = engine.tensor(plan.noise.quantile(shares))
        self._labels, self._weight, self._multiscale = labels, plan.weight, plan.multiscale

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._x0)

    @torch.no_grad()
    def loss(self, denoiser: Denoiser) -> float:
        """Mean of the training loss over the pictures."""
        parts = []
        group = at_once(self._x0[0, 0].numel())
        for at in range(0, len(self._x0), group):
            part = slice(at, at + group)
            labels = None if self._labels is None else self._labels[part]
            x0, sigma, noise = self._x0[part], self._sigma[part], self._noise[part]
            loss = denoising_loss(
                denoiser, x0, sigma, noise, self._weight, labels, self._multiscale
            )
            parts.append(loss.float())
        return torch.cat(parts).mean().item()
