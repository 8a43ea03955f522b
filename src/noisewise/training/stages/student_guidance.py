"""Guidance in a distillation: teacher and fake score are guided alike (long and short guidance).

A guided teacher alone asks for more than the fake score is trained to say. So the fake score is
trained *inside* the same guidance: ``f_psi(x, all) + w (f_psi(x, c) - f_psi(x, all))`` learns the
generator's pictures. It starts equal to the guided teacher, and where generator and guided teacher
agree, their difference is 0. A tenth of the pictures keep their class to themselves, so that the
fake score knows all classes at once too.

Paper: Zhou et al. 2024, "Guided score identity distillation" (SiD-LSG, arXiv 2406.01561), with
kappa_1 = ... = kappa_4 = w, its best. There "all" is the empty text; ours is the shares of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noisewise.diffusion import GuidedByShares
from noisewise.training.models.models import Teacher


@dataclass(frozen=True, eq=False)
class Guide:
    """Guides teacher and fake score.

    Attributes:
        weight: w; 1: nothing is guided.
        shares: of the classes, float [num_classes], summing to 1; None: not guided.
        interval: noise levels that are guided, as in the teacher's own sampler.
        drop: share of pictures whose class the fake score is not told.
    """

    weight: float
    shares: Tensor | None
    interval: tuple[float, float]
    drop: float

    @classmethod
    def of(cls, teacher: Teacher, weight: float, drop: float) -> Guide:
        """The guide of a teacher that was checked by `check_guided`."""
        if weight == 1:
            return cls(1.0, None, (0.0, 1.0), 0.0)
        histogram = torch.tensor(teacher.config.label_histogram, dtype=torch.float32)
        shares = (histogram / histogram.sum()).to(teacher.device)
        return cls(weight, shares, teacher.sampler.guidance_interval, drop)

    def around(self, denoiser: nn.Module) -> nn.Module:
        """The guided denoiser; itself without guidance."""
        if self.shares is None:
            return denoiser
        return GuidedByShares(denoiser, self.shares, self.weight, self.interval)

    def untold(
        self,
        labels: Tensor | None,
        num_images: int,
        part: slice,
        draws: torch.Generator,
        batches: int = 1,
    ) -> Tensor | None:
        """The labels of a fake score's pictures, some of them replaced by the shares of all.

        Args:
            labels: of this process's part of a batch, int64 [n]; or of several batches.
            num_images: of a whole batch.
            part: of this process.
            draws: source of the choice, the same in all processes.
            batches: number of them.

        Returns:
            The labels themselves without guidance, else shares, float [n, num_classes].
        """
        if self.shares is None or labels is None:
            return labels
        told = nn.functional.one_hot(labels, len(self.shares)).to(self.shares.dtype)
        chosen = [
            torch.rand(num_images, generator=draws, device=draws.device)[part]
            for _ in range(batches)
        ]
        hidden = torch.cat(chosen).to(labels.device) < self.drop
        return torch.where(hidden[:, None], self.shares, told)


def check_guided(teacher: Teacher, weight: float) -> None:
    """Refuse guidance of a teacher that cannot be guided.

    Raises:
        ValueError: with the way out.
    """
    if weight == 1:
        return
    if len(teacher.classes) < 2:
        raise ValueError(
            "guidance leads towards a class, and this teacher was trained without classes or "
            "kinds; leave --guidance out"
        )
    if teacher.of_all_classes() is None:
        raise ValueError(
            "guidance leads away from all classes at once, and the net of this teacher takes only "
            "one class a picture; leave --guidance out"
        )
