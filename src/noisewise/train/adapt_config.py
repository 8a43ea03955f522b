"""Settings of an adaptation: a trained teacher, moved to a second folder by few weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from noisewise.train.config import Budget, Precision, TrainConfig
from noisewise.train.recipes import TeacherRecipe

AdapterStart = Literal["lora-ga", "lora", "full"]


@dataclass(frozen=True)
class AdaptConfig:
    """Adapting a run's teacher to another folder of pictures. What is None is derived."""

    budget: str = "5m"
    """How much training: 90s, 30m, 2h, or 200000images."""
    rank: int = 8
    """Rank of the adapter in each layer; in layers that are smaller, all of theirs."""
    start: AdapterStart = "lora-ga"
    """lora-ga: first steps follow full fine-tuning; lora: random; full: all weights, no adapter."""
    samples: int = 512
    """Pictures behind the gradient that lora-ga starts from."""
    flips: Literal["auto", "on", "off"] = "auto"
    """Mirror half of the pictures left to right; auto: where the set looks mirrored already."""
    batch: int | None = None
    """Images a step."""
    lr: float | None = None
    """Learning rate of AdamW at its highest."""
    seed: int = 0
    """Source of everything random; the same seed and an image budget give the same weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Arithmetic inside the net; auto: bfloat16 on GPUs that have it, else float32."""
    threads: int | None = None
    """CPU threads; None: as torch decides."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    recipe: TeacherRecipe = field(
        default_factory=lambda: TeacherRecipe(optimizer="adamw", betas=(0.9, 0.99))
    )
    """The constants of the recipe; its noise is not used: that is the teacher's."""

    @property
    def amount(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def training(self, classes: bool, batch: int | None = None) -> TrainConfig:
        """The same as a configuration of teacher training."""
        return TrainConfig(
            budget=self.budget,
            classes=classes,
            flips=self.flips,
            batch=batch or self.batch,
            lr=self.lr,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            checkpoint_seconds=self.checkpoint_seconds,
            recipe=replace(self.recipe, optimizer="adamw"),
        )

    def __post_init__(self) -> None:
        """Refuse what cannot be adapted before any picture is read."""
        if self.start not in get_args(AdapterStart):
            known = ", ".join(get_args(AdapterStart))
            raise ValueError(f"start {self.start!r} is unknown; use one of {known}")
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} adapts nothing; use 1 or more, best 4 to 32")
        if self.samples < 1:
            raise ValueError(f"{self.samples} pictures have no gradient; use 1 or more")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"learning rate {self.lr:g} trains nothing; it must be above 0")
        self.training(False)
