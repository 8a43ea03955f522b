"""The teacher stage: a denoiser learns a set of pictures.

Papers: Karras et al. 2022 (EDM) for the loss; Karras et al. 2024 (EDM2) for the weight averages.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import Denoiser, denoising_loss
from noisewise.nets.recomputing import recompute
from noisewise.nets.timing import compile_if_quicker, long_enough
from noisewise.scaling import Measurement
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.devices.sharding import gather, shard, sharded_like
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.networks import network, with_network
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch, Batches
from noisewise.training.stages.gradient_noise import NoiseScale
from noisewise.training.stages.growth import Scale, scale_at, touched_by_all
from noisewise.training.stages.optimizers import build_optimizers
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement, Pace, StageName
from noisewise.training.stages.teacher_judge import TeacherJudge
from noisewise.training.stages.told import Told, can_be_told, parameters_of
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import TrainConfig


def teacher_pace(recipe: TeacherRecipe) -> Pace:
    """The schedule of a recipe."""
    return Pace(
        recipe.warmup,
        recipe.decay_from,
        recipe.heldout_every,
        recipe.distance_every,
        recipe.evaluation_share,
        recipe.tries,
    )


class TeacherStage:
    """Training of a teacher; see `Stage` for the methods.

    Args:
        pictures: pictures to learn.
        denoiser: any module ``D(x, sigma, condition) -> x0``; trained in place.
        plan: the values derived from the pictures.
        config: seed and recipe.
        engine: device and precision.
    """

    name: StageName = "teacher"
    measures: tuple[str, ...] = ("loss", "grad_norm")
    finish_cost = 20.0  # a final distance, and the choice of the sampler

    def __init__(
        self,
        pictures: Pictures,
        denoiser: nn.Module,
        plan: TeacherPlan,
        config: TrainConfig,
        engine: Engine,
    ) -> None:
        """Split the pictures, set up optimisers and averages."""
        recipe = config.recipe
        if plan.augment and not can_be_told(denoiser):
            plan = replace(plan, augment={})
        self.batch, self.lr, self.check_every = plan.batch, plan.lr, engine.check_every
        self.speed = engine.speed
        self.plan, self.engine, self._recipe, self._seed = plan, engine, recipe, config.seed
        self._budget, self._sharded = config.amount, config.shard
        self._training, self._held_out = pictures.split(config.seed)
        self._batches = Batches(pictures, self._training, plan, config.seed, engine)
        recompute(network(denoiser), plan.recompute)
        self.noise = NoiseScale(plan, recipe, engine.ranks, measures=not config.shard)
        self.denoiser = (denoiser if config.shard else engine.prepare(denoiser)).train()
        shadow = copy.deepcopy(self.denoiser).eval().requires_grad_(False)
        if config.shard:
            shard(network(self.denoiser), engine.device, engine.dtype)
            shard(network(shadow), engine.device, engine.dtype)
        # A sharded net converts its precision and averages its gradients itself.
        dtype = torch.float32 if config.shard else engine.dtype
        self._master_weights = MasterWeights(self.denoiser, dtype)
        self._denoise: Denoiser = self._master_weights.module
        if not config.shard:
            self._denoise = engine.ranks.parallel(self._master_weights.module)
        self._plain = self._denoise  # not compiled, for coarse scales
        self._told = Told.of(self.denoiser, plan, config.seed, engine)
        self._optimizers = build_optimizers(
            network(self.denoiser),
            recipe.optimizer,
            plan.lr,
            plan.adam_lr,
            recipe.momentum,
            recipe.betas,
            recipe.weight_decay,
        )
        if self._told is not None:
            self._optimizers = self._told.with_optimizer(self._optimizers, plan, recipe)
        self._ema = EMA(self.denoiser, recipe.ema_shares)
        self._seen, self._work = 0, 0.0
        self._scales = () if config.shard else plan.scales
        self._coarsest, self._coarse = len(self._scales), bool(self._scales)
        self.judged = TeacherJudge(
            shadow,
            MasterWeights(shadow, dtype),
            self._ema,
            pictures,
            (self._training, self._held_out),
            plan,
            recipe,
            config.amount,
            engine,
        )

    @property
    def at_full_size(self) -> bool:
        """Whether the last step was on whole pictures, and not on a coarse scale."""
        return not self._coarse

    # ------------------------------------------------------------------ for the loop
    def begin(self, seconds: float | None) -> Judgement:
        """Prepare the held-out batch and the features of the real pictures."""
        expected = self.judged.prepare()
        return Judgement(
            event=f"training on {len(self._training)} pictures, {len(self._held_out)} held out; "
            f"device: {self.engine.describe()}{self._compile()}",
            expected=expected,
        )

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Take one optimiser step on one batch."""
        engine, n = self.engine, self.batch
        scale = self._scale(progress)
        batch = self._batches.next(images, self.noise.num_parts(step), scale)
        with self._dropout(step):
            if scale is not None:
                loss = self._backward(self._plain, batch, scale)
            elif self.noise.due(step):
                plain = (
                    self._master_weights.module
                )  # the compiled net would be compiled again for the parts
                loss_of = partial(self._loss, plain)
                weights = [*plain.parameters(), *parameters_of(self._told)]
                loss = self.noise.backward(batch, loss_of, weights)
            else:
                loss = self._backward(self._denoise, batch, None)
        self._master_weights.collect_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self._optimizers.parameters, self._recipe.clip)
        self._optimizers.step(factor)
        self._master_weights.update_copy()
        work = n if scale is None else n * scale.work
        self._seen, self._work = images + n, self._work + work
        self._ema.update(work, self._work)
        return torch.stack([engine.ranks.mean(loss.detach().float(), n), gather(norm)])

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say that the loss diverges; None if it does not."""
        return self.judged.guard.trouble(measured["loss"])

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Measure every average's held-out loss and the best one's distance; keep the best ever."""
        # Pictures of a net whose finest levels have not learnt anything say nothing.
        return self.judged.judge(self._seen, full and not self._coarse, seconds)

    def finish(self, seconds: float | None, left: float | None = None) -> Judgement:
        """Choose the average with the lowest held-out loss ever, measure it, choose its sampler."""
        return self.judged.finish(self._seen, seconds, left)

    def retreat(self) -> str:
        """Change nothing here: the loop lowers the learning rate."""
        self.judged.guard.forget()
        return ""

    def noise_scale(self) -> float | None:
        """Gradient noise scale of the last steps, in pictures; None until it has an upper bound."""
        return self.noise.value

    # ------------------------------------------------------------------ for checkpoints
    def learned(self) -> dict[str, Any]:
        """Weights, optimisers and weight averages."""
        return {
            "weights": self.denoiser.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "ema": self._ema.state_dict(),
            **({} if self._told is None else {"told": self._told.state_dict()}),
        }

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore the result of `learned`."""
        own = self.denoiser.state_dict()
        weights = {
            name: sharded_like(value, own.get(name, value))
            for name, value in state["weights"].items()
        }
        self.denoiser.load_state_dict(weights)
        self._master_weights.update_copy()
        self._optimizers.load_state_dict(state["optimizers"])
        self._optimizers.zero_grad()
        self._ema.load_state_dict(state["ema"])
        if self._told is not None:
            self._told.load_state_dict(state["told"])

    def rest(self) -> dict[str, Any]:
        """Random state, best average, sampler, and measurements."""
        return {
            "draws": self._batches.get_state(),
            "seen": self._seen,
            "work": self._work,
            "coarsest": self._coarsest,
            "noise": self.noise.state_dict(),
            **self.judged.state_dict(),
        }

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore the result of `rest`."""
        self._batches.set_state(state["draws"])
        self._seen = state["seen"]
        self._work = state.get("work", self._seen)  # older versions trained whole pictures only
        self._coarsest = min(self._coarsest, state.get("coarsest", 0))
        if "noise" in state:  # older versions did not measure it
            self.noise.load_state_dict(state["noise"])
        self.judged.load_state_dict(state)

    # ------------------------------------------------------------------ for the run
    def write_best(self, denoiser: nn.Module) -> None:
        """Write the best weights so far into a denoiser of the same architecture."""
        self.judged.write_best(denoiser)

    def best(self) -> nn.Module:
        """A denoiser with the best weights, in eval mode; later calls reuse it."""
        return self.judged.best()

    def best_so_far(self) -> dict[str, Any] | None:
        """Which weights `best` has; None before the first evaluation."""
        return self.judged.best_so_far()

    def model_config(self) -> ModelConfig:
        """The content of teacher/config.json."""
        return self.judged.model_config()

    def stats(self) -> dict[str, Any]:
        """The measurements of the finished teacher."""
        return self.judged.stats

    def preview(self) -> Tensor | None:
        """Pictures of the last distance, for a sample sheet."""
        return self.judged.preview

    def measured_noise(self) -> Measurement | None:
        """The gradient noise with its interval, for the laws; None before enough was measured."""
        return self.noise.measurement()

    # ------------------------------------------------------------------ inside a step
    def _loss(self, denoise: Denoiser, batch: Batch, scale: Scale | None = None) -> Tensor:
        """Mean denoising loss of a batch."""
        x0, sigma, noise, labels = batch.x0, batch.sigma, batch.noise, batch.labels
        weight = self.plan.weight if scale is None else scale.weight
        multiscale = self.plan.multiscale and scale is None
        if self._told is not None:
            denoise = self._told.telling(denoise, batch.told)
        loss = denoising_loss(denoise, x0, sigma, noise, weight, labels, multiscale).mean()
        if scale is not None and self.engine.ranks.world > 1:
            loss = touched_by_all(loss, self._master_weights.module.parameters())
        return loss

    def _backward(self, denoise: Denoiser, batch: Batch, scale: Scale | None) -> Tensor:
        """Add the gradient of a batch, part by part; return its mean loss."""
        total, parts = torch.zeros((), device=batch.x0.device), self.plan.accumulate
        size = math.ceil(len(batch) / parts)
        for start in range(0, len(batch), size):
            part = batch.rows(slice(start, start + size)) if parts > 1 else batch
            share = len(part) / len(batch)
            loss = self._loss(denoise, part, scale)
            (loss * (share * self.engine.ranks.scale(self.batch))).backward()
            total = total + share * loss.detach()
        if self._told is not None:
            self._told.average_gradients(self.engine.ranks)
        return total

    def _scale(self, progress: float) -> Scale | None:
        """The scale to train now; None: whole pictures."""
        scale = scale_at(self._scales, progress, self._coarsest)
        levels = 0 if scale is None else scale.levels
        if levels < self._coarsest:
            self._coarsest = levels
            self.judged.guard.forget()  # another scale has another usual loss
        self._coarse = levels > 0
        return scale

    def _dropout(self, step: int) -> AbstractContextManager[None]:
        if not (self.plan.dropout or self._recipe.dropout):
            return nullcontext()
        ranks = self.engine.ranks
        return self.engine.seeded(self._seed * 1_000_003 + step * ranks.world + ranks.rank)

    def _compile(self) -> str:
        """Compile the net if the budget is long enough; return what was measured, in words."""
        plain = self._master_weights.module
        net = network(plain)
        config, seconds = getattr(net, "config", None), self._budget.seconds or 0.0
        if self._sharded or not isinstance(config, dict):
            return ""
        if not long_enough(config, self.engine.device, seconds):
            return ""
        told = 0 if self._told is None else self._told.width
        found = compile_if_quicker(net, self.engine.device, self.batch, told)
        self._denoise = self.engine.ranks.parallel(with_network(plain, found.net))
        return f"; {found.reason}"
