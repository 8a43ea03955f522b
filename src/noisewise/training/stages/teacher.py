"""The first stage: a denoiser learns a set of pictures.

Papers: Karras et al. 2022 (EDM) for the loss; Karras et al. 2024 (EDM2) for the weight averages.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noisewise.diffusion import (
    Denoiser,
    Preconditioned,
    denoising_loss,
    draw_to_dict,
)
from noisewise.nets.timing import LONG_ENOUGH, compile_if_quicker
from noisewise.quality.distance import Reference
from noisewise.scaling import Measurement
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import Twin
from noisewise.training.devices.sharding import copy_all, like, shard, whole
from noisewise.training.models.model_config import ModelConfig, SamplerSettings
from noisewise.training.models.models import Teacher
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch, Batches
from noisewise.training.stages.choose_sampler import choose_sampler
from noisewise.training.stages.gradient_noise import NoiseScale
from noisewise.training.stages.guards import LossGuard
from noisewise.training.stages.heldout_loss import HeldOut
from noisewise.training.stages.optimizers import build_optimizers
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement, Pace
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import TrainConfig

_SHEET = 64  # pictures on a sample sheet
_CHOICE = 10.0  # the choice of the sampler may take so many times longer than a distance
_CHUNK = 64  # pictures drawn at a time when time is short
_FEWEST = 32  # pictures for each sampler that is tried, with a budget in images
_IMAGES_A_CHOICE = 200  # images trained on for each picture drawn: the choice stays a small part
_WASTED = 0.8  # share of the run; a lowest held-out loss before it is worth a word
_ENOUGH_HELD_OUT = 256  # real pictures, for a distance against held-out ones alone


def teacher_pace(recipe: TeacherRecipe) -> Pace:
    """When things happen, as the recipe has it."""
    return Pace(
        recipe.warmup,
        recipe.decay_from,
        recipe.heldout_every,
        recipe.distance_every,
        recipe.evaluation_share,
        recipe.tries,
    )


class TeacherStage:
    """Teacher training as the loop drives it; see `Stage` for the methods.

    Args:
        pictures: what to learn.
        denoiser: trained in place.
        plan: everything derived from the pictures.
        config: seed and recipe.
        engine: where to compute.
    """

    name = "teacher"
    measures: tuple[str, ...] = ("loss", "grad_norm")
    finish_cost = 20.0  # a last distance, and the choice of the sampler

    def __init__(
        self,
        pictures: Pictures,
        denoiser: Preconditioned,
        plan: TeacherPlan,
        config: TrainConfig,
        engine: Engine,
    ) -> None:
        """Split the pictures, set up optimisers and averages."""
        recipe = config.recipe
        self.batch, self.lr, self.check_every = plan.batch, plan.lr, engine.check_every
        self.plan, self.engine, self._recipe, self._seed = plan, engine, recipe, config.seed
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self._budget = config.amount
        self._pictures = pictures
        self._training, self._held_out = pictures.split(config.seed)
        self._batches = Batches(pictures, self._training, plan, config.seed, engine)
        self.noise = NoiseScale(plan, recipe, engine.ranks, measures=not config.shard)
        self._sharded = config.shard
        self.denoiser = (denoiser if config.shard else engine.prepare(denoiser)).train()
        self._shadow = copy.deepcopy(self.denoiser).eval().requires_grad_(False)
        if config.shard:
            shard(self.denoiser.net, engine.device, engine.dtype)
            shard(self._shadow.net, engine.device, engine.dtype)
        # A sharded net changes precision by itself, and averages its gradients by itself.
        dtype = torch.float32 if config.shard else engine.dtype
        self._twin, self._quick = Twin(self.denoiser, dtype), Twin(self._shadow, dtype)
        self._denoise: Denoiser = self._twin.module
        if not config.shard:
            self._denoise = engine.ranks.parallel(self._twin.module)
        self._optimizers = build_optimizers(
            self.denoiser.net,
            recipe.optimizer,
            plan.lr,
            plan.adam_lr,
            recipe.momentum,
            recipe.betas,
            recipe.weight_decay,
        )
        self._ema = EMA(self.denoiser, recipe.ema_shares)
        self._guard = LossGuard()
        self._losses: list[float] = []
        self._kept = [p.detach().clone() for p in self.denoiser.parameters()]
        self._kept_as: dict[str, Any] = {"loss": math.inf, "share": None, "images": 0}
        self._seen = 0
        self._against = ""
        self._sampler = SamplerSettings(
            sigma_max=recipe.sigma_max, sigma_min=recipe.sigma_min, num_steps=recipe.num_steps
        )
        self._reference: Reference | None = None
        self._held: HeldOut | None = None

    def begin(self, seconds: float | None) -> Judgement:
        """Prepare the held-out batch and the real pictures' features."""
        self._held = self._held_batch()
        if self._recipe.distance_images:
            real, self._against = self._real()
            self._reference = Reference(self._pictures.tensor(real))
        return Judgement(
            event=f"training on {len(self._training)} pictures, {len(self._held_out)} held out; "
            f"on {self.engine.describe()}{self._compile()}"
        )

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """One optimiser step on one batch."""
        engine, n = self.engine, self.batch
        batch = self._batches.next(images, self.noise.num_parts(step))
        with self._dropout(step):
            if self.noise.due(step):
                plain = self._twin.module  # a compiled net would be compiled anew for the parts
                loss_of = partial(self._loss, plain)
                loss = self.noise.backward(batch, loss_of, plain.parameters())
            else:
                loss = self._loss(self._denoise, batch)
                (loss * engine.ranks.scale(n)).backward()
        self._twin.gather()
        norm = torch.nn.utils.clip_grad_norm_(self._optimizers.parameters, self._recipe.clip)
        self._optimizers.step(factor)
        self._twin.refresh()
        self._ema.update(n, images + n)
        self._seen = images + n
        return torch.stack([engine.ranks.mean(loss.detach().float(), n), whole(norm)])

    def _loss(self, denoise: Denoiser, batch: Batch) -> Tensor:
        """Mean denoising loss."""
        x0, sigma, noise, labels = batch.x0, batch.sigma, batch.noise, batch.labels
        return denoising_loss(denoise, x0, sigma, noise, self.plan.weight, labels).mean()

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say that the loss runs off, or None."""
        return self._guard.trouble(measured["loss"])

    @torch.no_grad()
    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Held-out loss of every average; the distance of the best one; the best ever is kept."""
        self._losses = losses = self._heldout_losses()
        best = min(range(len(losses)), key=lambda at: (math.isnan(losses[at]), losses[at]))
        loss, kept = losses[best], self._kept_as
        trouble = self._guard.climbed(loss, kept["loss"])
        self._ema.copy_to(self._shadow, best)
        # Where nothing is held out, the loss cannot tell learning from learning by heart.
        if not trouble and (loss < kept["loss"] or not len(self._held_out)):
            share = self._recipe.ema_shares[best]
            self._kept_as = {"loss": loss, "share": share, "images": self._seen}
            copy_all(self._kept, list(self._shadow.parameters()))
        measures = full and self._reference is not None and math.isfinite(loss)
        distance = self._distance(seconds) if measures else None
        return Judgement(loss if math.isfinite(loss) else None, distance, trouble=trouble)

    def finish(self, seconds: float | None) -> Judgement:
        """Keep the average with the lowest held-out loss ever, measure it, choose its sampler."""
        judgement = self.judge(False, seconds)
        shares, losses, kept = self._recipe.ema_shares, self._losses, self._kept_as
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
        if kept["images"] < self._seen:
            event += (
                f" as it was after {kept['images']:,} of {self._seen:,} images, where the "
                f"held-out loss was lowest, {kept['loss']:.4f}"
            )
        if kept["images"] < _WASTED * self._seen:
            event += (
                "; what came after made it worse: more pictures, a shorter budget or a lower "
                "learning rate would help"
            )
        event += f" (held-out losses at the end {listed}){why}"
        return Judgement(heldout_loss=kept["loss"], distance=distance, event=event)

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
            num_images = min(
                num_images, max(_FEWEST, (self._budget.images or 0) // _IMAGES_A_CHOICE)
            )
        clock = self.engine.ranks.clock
        choice = choose_sampler(
            model, self._reference, inputs, self._sampler, num_images, seconds, clock
        )
        self._sampler = choice.settings
        self.stats["sampler"] = choice.to_dict()
        return f"; sampler {choice.settings.reason}"

    def _compile(self) -> str:
        """Compile the net where a long budget earns it back; returns what was measured."""
        plain = self._twin.module
        if (
            self._sharded
            or (self._budget.seconds or 0) < LONG_ENOUGH
            or not isinstance(getattr(plain.net, "config", None), dict)
        ):
            return ""
        found = compile_if_quicker(plain.net, self.engine.device, self.batch)
        quick = Preconditioned(found.net, plain.sigma_data, plain.prediction)
        self._denoise = self.engine.ranks.parallel(quick)
        return f"; {found.reason}"

    def retreat(self) -> str:
        """Nothing but the learning rate changes."""
        self._guard.forget()
        return ""

    def noise_scale(self) -> float | None:
        """Noise scale of the gradient in the last steps, in pictures; None until it is bounded."""
        return self.noise.value

    def measured_noise(self) -> Measurement | None:
        """The same with its interval, for laws; None before there is enough."""
        return self.noise.measurement()

    def learned(self) -> dict[str, Any]:
        """Weights, optimisers and averages."""
        return {
            "weights": self.denoiser.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "ema": self._ema.state_dict(),
        }

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore what `learned` gave."""
        own = self.denoiser.state_dict()
        weights = {
            name: like(value, own.get(name, value)) for name, value in state["weights"].items()
        }
        self.denoiser.load_state_dict(weights)
        self._twin.refresh()
        self._optimizers.load_state_dict(state["optimizers"])
        self._optimizers.zero_grad()
        self._ema.load_state_dict(state["ema"])

    def rest(self) -> dict[str, Any]:
        """Random state, best average, sampler, and what was measured."""
        return {
            "draws": self._batches.get_state(),
            "kept": self._kept,
            "kept_as": self._kept_as,
            "seen": self._seen,
            "sampler": asdict(self._sampler),
            "stats": self.stats,
            "guard": self._guard.state,
            "noise": self.noise.state_dict(),
        }

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore what `rest` gave."""
        self._batches.set_state(state["draws"])
        self._guard.state = state.get("guard", self._guard.state)  # older versions had none
        if "noise" in state:
            self.noise.load_state_dict(state["noise"])
        self.stats = state["stats"]
        copy_all(self._kept, state["kept"])
        self._kept_as, self._seen = state["kept_as"], state["seen"]
        self._sampler = SamplerSettings(**state["sampler"])

    @torch.no_grad()
    def keep_best(self, denoiser: Preconditioned) -> None:
        """Write the best weights so far into a denoiser of the same architecture."""
        copy_all(list(denoiser.parameters()), self._kept)

    def best(self) -> Preconditioned:
        """Return a denoiser with the best weights, in eval mode; it is reused by later calls."""
        self.keep_best(self._shadow)
        return self._shadow

    def model_config(self) -> ModelConfig:
        """Return what teacher/config.json shall say."""
        plan, pictures = self.plan, self._pictures
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

    def _heldout_losses(self) -> list[float]:
        assert self._held is not None
        losses = []
        for index in range(len(self._recipe.ema_shares)):
            self._ema.copy_to(self._shadow, index)
            self._quick.refresh()
            losses.append(self._held.loss(self._quick.module))
        return losses

    def _distance(self, seconds: float | None) -> float:
        """Distance of the shadow's pictures to real ones: as many as the time allows."""
        assert self._reference is not None
        self._quick.refresh()
        teacher = Teacher(self._quick.module, self.model_config())
        clock = self.engine.ranks.clock
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

    def _held_batch(self) -> HeldOut:
        chosen = self._held_out[: self._recipe.heldout_images]
        if not len(chosen):  # too few pictures to hold any out
            chosen = self._training[: self._recipe.heldout_images]
        x0, labels = self._pictures.tensor(chosen), self._batches.labels(chosen)
        return HeldOut(x0, labels, self.plan, self.engine)

    def _real(self) -> tuple[np.ndarray, str]:
        """Pictures that the distance is measured against: held-out ones where there are enough."""
        most = self._recipe.reference_images
        if len(self._held_out) >= _ENOUGH_HELD_OUT:
            return self._held_out[:most], "held-out pictures"
        return self._training[:most], "training pictures (too few are held out)"

    def _dropout(self, step: int) -> AbstractContextManager[None]:
        if not self._recipe.dropout:
            return nullcontext()
        ranks = self.engine.ranks
        return self.engine.seeded(self._seed * 1_000_003 + step * ranks.world + ranks.rank)
