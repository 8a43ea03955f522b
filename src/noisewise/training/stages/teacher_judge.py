"""Evaluates a teacher during training: held-out loss, distance, best weight average, sampler.

Paper: Karras et al. 2024 (EDM2) for choosing among weight averages after training.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from noisewise.diffusion import draw_to_dict
from noisewise.quality.distance import Reference
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.devices.sharding import copy_tensors
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Teacher
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.choose_sampler import choose_sampler
from noisewise.training.stages.guards import LossGuard
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import Budget

_SHEET = 64  # pictures on a sample sheet
_CHOICE = 10.0  # the choice of the sampler may take this many times as long as a distance
_CHUNK = 64  # pictures drawn at once
_FEWEST = 32  # least number of pictures for each sampler, with a budget of images
_IMAGES_A_CHOICE = 200  # one picture per sampler for each 200 training images, to keep it cheap
_WASTED = 0.8  # if the held-out loss was lowest before this share of the run, the user is told
_ENOUGH_HELD_OUT = 256  # held-out pictures; with fewer, distances use training pictures


class TeacherJudge:
    """Evaluates every weight average of a teacher, and keeps the best weights.

    Args:
        shadow: a frozen copy of the denoiser; averages are written into it for evaluation.
        quick: `shadow` with a copy in the computing precision.
        ema: the weight averages.
        pictures: all pictures.
        split: indices of the training pictures and of the held-out pictures.
        plan: the values derived from the pictures.
        recipe: how often to evaluate, and on how many pictures.
        budget: budget of the training; it limits the choice of the sampler.
        engine: device and precision.
    """

    def __init__(
        self,
        shadow: nn.Module,
        quick: MasterWeights,
        ema: EMA,
        pictures: Pictures,
        split: tuple[np.ndarray, np.ndarray],
        plan: TeacherPlan,
        recipe: TeacherRecipe,
        budget: Budget,
        engine: Engine,
    ) -> None:
        """Keep the current weights as the best; nothing is measured yet."""
        self._shadow, self._quick, self._ema = shadow, quick, ema
        self._pictures, self._plan, self._recipe = pictures, plan, recipe
        self._training, self._held_out = split
        self._budget, self._engine = budget, engine
        self.guard = LossGuard()
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self.kept = [p.detach().clone() for p in shadow.parameters()]
        self.kept_as: dict[str, Any] = {"loss": math.inf, "share": None, "images": 0}
        self._losses: list[float] = []
        self._against = ""
        self._sampler = SamplerSettings(
            sigma_max=recipe.sigma_max, sigma_min=recipe.sigma_min, num_steps=recipe.num_steps
        )
        self._reference: Reference | None = None
        self._held: HeldOutBatch | None = None

    def prepare(self) -> None:
        """Draw the held-out noise, and compute the features of the real pictures."""
        self._held = self._held_batch()
        if self._recipe.distance_images:
            real, self._against = self.real_indices()
            self._reference = Reference(self._pictures.tensor(real))

    @torch.no_grad()
    def judge(self, seen: int, full: bool, seconds: float | None) -> Judgement:
        """Measure every average's held-out loss and the best one's distance; keep the best ever.

        Args:
            seen: number of images seen so far.
            full: whether to measure the distance.
            seconds: approximate time limit of the distance; None: no limit.
        """
        self._losses = losses = self._heldout_losses()
        best = min(range(len(losses)), key=lambda at: (math.isnan(losses[at]), losses[at]))
        loss, kept = losses[best], self.kept_as
        trouble = self.guard.climbed(loss, kept["loss"])
        self._ema.copy_to(self._shadow, best)
        # Without held-out pictures the loss cannot tell learning from memorising.
        if not trouble and (loss < kept["loss"] or not len(self._held_out)):
            share = self._recipe.ema_shares[best]
            self.kept_as = {"loss": loss, "share": share, "images": seen}
            copy_tensors(self.kept, list(self._shadow.parameters()))
        measures = full and self._reference is not None and math.isfinite(loss)
        distance = self._distance(seconds) if measures else None
        return Judgement(loss if math.isfinite(loss) else None, distance, trouble=trouble)

    def finish(self, seen: int, seconds: float | None) -> Judgement:
        """Choose the average with the lowest held-out loss ever, measure it, choose its sampler."""
        judgement = self.judge(seen, False, seconds)
        shares, losses, kept = self._recipe.ema_shares, self._losses, self.kept_as
        if kept["share"] is None:
            return judgement
        self.stats |= {
            "ema_share": kept["share"],
            "heldout_loss": kept["loss"],
            "kept_after_images": kept["images"],
        }
        self.best()
        distance = self._distance(seconds) if self._reference is not None else None
        if distance is not None:
            self.stats |= {"distance": distance, "distance_against": self._against}
        why = self._choose_sampler(None if seconds is None else _CHOICE * seconds)
        listed = ", ".join(f"{x:.4f} at {s:g}" for s, x in zip(shares, losses, strict=True))
        event = f"kept the weight average with look-back {kept['share']:g}"
        if kept["images"] < seen:
            event += (
                f" from {kept['images']:,} of {seen:,} images, where the held-out loss was lowest "
                f"({kept['loss']:.4f})"
            )
        if kept["images"] < _WASTED * seen:
            event += (
                "; training after that made it worse: use more pictures, a shorter budget or a "
                "lower learning rate"
            )
        event += f"; held-out loss at the end for each look-back: {listed}{why}"
        return Judgement(heldout_loss=kept["loss"], distance=distance, event=event)

    # ------------------------------------------------------------------ the best model so far
    @torch.no_grad()
    def write_best(self, denoiser: nn.Module) -> None:
        """Write the best weights so far into a denoiser of the same architecture."""
        copy_tensors(list(denoiser.parameters()), self.kept)

    def best(self) -> nn.Module:
        """A denoiser with the best weights, in eval mode; later calls reuse it."""
        self.write_best(self._shadow)
        return self._shadow

    def best_so_far(self) -> dict[str, Any] | None:
        """Which weights `best` has; None before the first evaluation."""
        return self.kept_as if self.kept_as["images"] else None

    def model_config(self) -> ModelConfig:
        """The content of teacher/config.json."""
        plan, pictures = self._plan, self._pictures
        return ModelConfig(
            kind="teacher",
            net=plan.net,
            sigma_data=plan.sigma_data,
            prediction=plan.prediction,
            size=plan.size,
            channels=plan.channels,
            noise=draw_to_dict(plan.noise),
            classes=plan.classes,
            label_histogram=pictures.label_histogram if plan.classes else (),
            sampler=self._sampler,
            stats={
                "num_pictures": len(pictures),
                "fingerprint": pictures.fingerprint,
                **({"kinds": pictures.kinds} if pictures.kinds else {}),
                **self.stats,
            },
        )

    # ------------------------------------------------------------------ for checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Best weights, sampler, guard and measurements."""
        return {
            "kept": self.kept,
            "kept_as": self.kept_as,
            "sampler": asdict(self._sampler),
            "stats": self.stats,
            "guard": self.guard.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.guard.state = state.get("guard", self.guard.state)  # older versions had none
        self.stats = state["stats"]
        copy_tensors(self.kept, state["kept"])
        self.kept_as = state["kept_as"]
        self._sampler = SamplerSettings(**state["sampler"])

    # ------------------------------------------------------------------ measuring
    def real_indices(self) -> tuple[np.ndarray, str]:
        """Indices of the real pictures for distances (held-out ones if enough), and their name."""
        most = self._recipe.reference_images
        if len(self._held_out) >= _ENOUGH_HELD_OUT:
            return self._held_out[:most], "held-out pictures"
        return self._training[:most], "training pictures (too few are held out)"

    def _held_batch(self) -> HeldOutBatch:
        chosen = self._held_out[: self._recipe.heldout_images]
        if not len(chosen):  # there are too few pictures to hold any out
            chosen = self._training[: self._recipe.heldout_images]
        labels = None
        if self._plan.classes:
            assert self._pictures.labels is not None
            labels = torch.from_numpy(self._pictures.labels[chosen].astype(np.int64))
            labels = labels.to(self._engine.device)
        return HeldOutBatch(self._pictures.tensor(chosen), labels, self._plan, self._engine)

    def _heldout_losses(self) -> list[float]:
        assert self._held is not None
        losses = []
        for index in range(len(self._recipe.ema_shares)):
            self._ema.copy_to(self._shadow, index)
            self._quick.update_copy()
            losses.append(self._held.loss(self._quick.module))
        return losses

    def _distance(self, seconds: float | None) -> float:
        """Distance of the shadow's pictures to real ones, on as many as the time allows."""
        assert self._reference is not None
        self._quick.update_copy()
        teacher = Teacher(self._quick.module, self.model_config())
        clock = self._engine.ranks.clock
        start, parts, drawn = clock(), [], 0
        while drawn < self._recipe.distance_images:
            count = min(_CHUNK, self._recipe.distance_images - drawn)
            parts.append(teacher.draw(0, drawn, count).float().cpu())
            drawn += count
            if seconds is not None and clock() - start > seconds:
                break
        pictures = torch.cat(parts)
        self.preview = pictures[:_SHEET]
        return float(self._reference.distance(pictures).value)

    def _choose_sampler(self, seconds: float | None) -> str:
        """Measure the best sampler settings; return the reason for the log, or ""."""
        if self._reference is None or not self._recipe.sampler_images:
            return ""
        self.best()
        self._quick.update_copy()
        model = Teacher(self._quick.module, self.model_config())

        def inputs(start: int, count: int) -> tuple[Tensor, Tensor | None]:
            return model.noise(0, start, count), model.labels(0, start, count, None)

        # A budget of images has no time limit; the number of training images limits the choice.
        num_images = self._recipe.sampler_images
        if seconds is None:
            most = max(_FEWEST, (self._budget.images or 0) // _IMAGES_A_CHOICE)
            num_images = min(num_images, most)
        clock = self._engine.ranks.clock
        choice = choose_sampler(
            model, self._reference, inputs, self._sampler, num_images, seconds, clock
        )
        self._sampler = choice.settings
        self.stats["sampler"] = choice.to_dict()
        return f"; sampler: {choice.settings.reason}"
