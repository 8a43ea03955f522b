"""How a teacher is judged while it trains: held-out loss, distance, best average, sampler.

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
from noisewise.training.devices.master_weights import Twin
from noisewise.training.devices.sharding import copy_all
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Teacher
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.choose_sampler import choose_sampler
from noisewise.training.stages.guards import LossGuard
from noisewise.training.stages.heldout_loss import HeldOut
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import Budget

_SHEET = 64  # pictures on a sample sheet
_CHOICE = 10.0  # the choice of the sampler may take this many times longer than a distance
_CHUNK = 64  # pictures drawn at a time when time is short
_FEWEST = 32  # pictures for each sampler that is tried, with a budget in images
_IMAGES_A_CHOICE = 200  # images trained on for each picture drawn: the choice stays a small part
_WASTED = 0.8  # share of the run; if the held-out loss was lowest before it, the user is told
_ENOUGH_HELD_OUT = 256  # with as many real pictures, distances are to held-out ones alone


class TeacherJudge:
    """Judges every weight average of a teacher, and keeps the best weights ever seen.

    Args:
        shadow: a frozen copy of the denoiser; averages are written into it to be judged.
        quick: the same in the precision that computes.
        ema: the weight averages.
        pictures: all of them.
        split: indices of training and of held-out pictures.
        plan: everything derived from the pictures.
        recipe: how often and on how many pictures.
        budget: of the training; it bounds the choice of the sampler.
        engine: where to compute.
    """

    def __init__(
        self,
        shadow: nn.Module,
        quick: Twin,
        ema: EMA,
        pictures: Pictures,
        split: tuple[np.ndarray, np.ndarray],
        plan: TeacherPlan,
        recipe: TeacherRecipe,
        budget: Budget,
        engine: Engine,
    ) -> None:
        """Keep the weights as they are now; nothing is measured yet."""
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
        self._held: HeldOut | None = None

    def prepare(self) -> None:
        """Draw the held-out noise, and compute the features of the real pictures."""
        self._held = self._held_batch()
        if self._recipe.distance_images:
            real, self._against = self.real()
            self._reference = Reference(self._pictures.tensor(real))

    @torch.no_grad()
    def judge(self, seen: int, full: bool, seconds: float | None) -> Judgement:
        """Held-out loss of every average; the distance of the best one; keep the best ever.

        Args:
            seen: images seen by now.
            full: whether to measure the distance.
            seconds: about how long that may take; None: as long as it takes.
        """
        self._losses = losses = self._heldout_losses()
        best = min(range(len(losses)), key=lambda at: (math.isnan(losses[at]), losses[at]))
        loss, kept = losses[best], self.kept_as
        trouble = self.guard.climbed(loss, kept["loss"])
        self._ema.copy_to(self._shadow, best)
        # Where nothing is held out, the loss cannot tell learning from learning by heart.
        if not trouble and (loss < kept["loss"] or not len(self._held_out)):
            share = self._recipe.ema_shares[best]
            self.kept_as = {"loss": loss, "share": share, "images": seen}
            copy_all(self.kept, list(self._shadow.parameters()))
        measures = full and self._reference is not None and math.isfinite(loss)
        distance = self._distance(seconds) if measures else None
        return Judgement(loss if math.isfinite(loss) else None, distance, trouble=trouble)

    def finish(self, seen: int, seconds: float | None) -> Judgement:
        """Keep the average with the lowest held-out loss ever, measure it, choose its sampler."""
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
        listed = ", ".join(f"{s:g}: {x:.4f}" for s, x in zip(shares, losses, strict=True))
        event = f"kept the weight average over a share of {kept['share']:g}"
        if kept["images"] < seen:
            event += (
                f" as it was after {kept['images']:,} of {seen:,} images, where the held-out loss "
                f"was lowest, {kept['loss']:.4f}"
            )
        if kept["images"] < _WASTED * seen:
            event += (
                "; what came after made it worse: more pictures, a shorter budget or a lower "
                "learning rate would help"
            )
        event += f" (held-out losses at the end {listed}){why}"
        return Judgement(heldout_loss=kept["loss"], distance=distance, event=event)

    # ------------------------------------------------------------------ the best model so far
    @torch.no_grad()
    def write_best(self, denoiser: nn.Module) -> None:
        """Write the best weights so far into a denoiser of the same architecture."""
        copy_all(list(denoiser.parameters()), self.kept)

    def best(self) -> nn.Module:
        """A denoiser with the best weights, in eval mode; later calls reuse it."""
        self.write_best(self._shadow)
        return self._shadow

    def best_so_far(self) -> dict[str, Any] | None:
        """What `best` is; None before the first judgement."""
        return self.kept_as if self.kept_as["images"] else None

    def model_config(self) -> ModelConfig:
        """What teacher/config.json shall say."""
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
        """Best weights, sampler, guard and what was measured."""
        return {
            "kept": self.kept,
            "kept_as": self.kept_as,
            "sampler": asdict(self._sampler),
            "stats": self.stats,
            "guard": self.guard.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.guard.state = state.get("guard", self.guard.state)  # older versions had none
        self.stats = state["stats"]
        copy_all(self.kept, state["kept"])
        self.kept_as = state["kept_as"]
        self._sampler = SamplerSettings(**state["sampler"])

    # ------------------------------------------------------------------ measuring
    def real(self) -> tuple[np.ndarray, str]:
        """Indices of the real pictures that distances are to: held-out ones if there are enough."""
        most = self._recipe.reference_images
        if len(self._held_out) >= _ENOUGH_HELD_OUT:
            return self._held_out[:most], "held-out pictures"
        return self._training[:most], "training pictures (too few are held out)"

    def _held_batch(self) -> HeldOut:
        chosen = self._held_out[: self._recipe.heldout_images]
        if not len(chosen):  # too few pictures to hold any out
            chosen = self._training[: self._recipe.heldout_images]
        labels = None
        if self._plan.classes:
            assert self._pictures.labels is not None
            labels = torch.from_numpy(self._pictures.labels[chosen].astype(np.int64))
            labels = labels.to(self._engine.device)
        return HeldOut(self._pictures.tensor(chosen), labels, self._plan, self._engine)

    def _heldout_losses(self) -> list[float]:
        assert self._held is not None
        losses = []
        for index in range(len(self._recipe.ema_shares)):
            self._ema.copy_to(self._shadow, index)
            self._quick.refresh()
            losses.append(self._held.loss(self._quick.module))
        return losses

    def _distance(self, seconds: float | None) -> float:
        """Distance of the shadow's pictures to real ones: as many pictures as the time allows."""
        assert self._reference is not None
        self._quick.refresh()
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
        """Measure where to stop and in how many calls; returns the reason, for the log."""
        if self._reference is None or not self._recipe.sampler_images:
            return ""
        self.best()
        self._quick.refresh()
        model = Teacher(self._quick.module, self.model_config())

        def inputs(start: int, count: int) -> tuple[Tensor, Tensor | None]:
            return model.noise(0, start, count), model.labels(0, start, count, None)

        # A budget in images knows no seconds: then the run's own length bounds the choice.
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
        return f"; sampler {choice.settings.reason}"
