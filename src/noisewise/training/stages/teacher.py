"""The first stage: a denoiser learns a set of pictures.

Papers: Karras et al. 2022 (EDM) for the loss; Karras et al. 2024 (EDM2) for the weight averages.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import Denoiser, denoising_loss
from noisewise.nets.timing import LONG_ENOUGH, compile_if_quicker
from noisewise.scaling import Measurement
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import Twin
from noisewise.training.devices.sharding import like, shard, whole
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.networks import network, with_network
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch, Batches
from noisewise.training.stages.gradient_noise import NoiseScale
from noisewise.training.stages.optimizers import build_optimizers
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement, Pace, StageName
from noisewise.training.stages.teacher_judge import TeacherJudge
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import TrainConfig


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
        denoiser: any module ``D(x, sigma, condition) -> x0``; trained in place.
        plan: everything derived from the pictures.
        config: seed and recipe.
        engine: where to compute.
    """

    name: StageName = "teacher"
    measures: tuple[str, ...] = ("loss", "grad_norm")
    finish_cost = 20.0  # a last distance, and the choice of the sampler

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
        self.batch, self.lr, self.check_every = plan.batch, plan.lr, engine.check_every
        self.plan, self.engine, self._recipe, self._seed = plan, engine, recipe, config.seed
        self._budget, self._sharded = config.amount, config.shard
        self._training, self._held_out = pictures.split(config.seed)
        self._batches = Batches(pictures, self._training, plan, config.seed, engine)
        self.noise = NoiseScale(plan, recipe, engine.ranks, measures=not config.shard)
        self.denoiser = (denoiser if config.shard else engine.prepare(denoiser)).train()
        shadow = copy.deepcopy(self.denoiser).eval().requires_grad_(False)
        if config.shard:
            shard(network(self.denoiser), engine.device, engine.dtype)
            shard(network(shadow), engine.device, engine.dtype)
        # A sharded net changes precision by itself, and averages its gradients by itself.
        dtype = torch.float32 if config.shard else engine.dtype
        self._twin = Twin(self.denoiser, dtype)
        self._denoise: Denoiser = self._twin.module
        if not config.shard:
            self._denoise = engine.ranks.parallel(self._twin.module)
        self._optimizers = build_optimizers(
            network(self.denoiser),
            recipe.optimizer,
            plan.lr,
            plan.adam_lr,
            recipe.momentum,
            recipe.betas,
            recipe.weight_decay,
        )
        self._ema = EMA(self.denoiser, recipe.ema_shares)
        self._seen = 0
        self.judged = TeacherJudge(
            shadow,
            Twin(shadow, dtype),
            self._ema,
            pictures,
            (self._training, self._held_out),
            plan,
            recipe,
            config.amount,
            engine,
        )

    # ------------------------------------------------------------------ for the loop
    def begin(self, seconds: float | None) -> Judgement:
        """Prepare the held-out batch and the real pictures' features."""
        self.judged.prepare()
        return Judgement(
            event=f"training on {len(self._training)} pictures, {len(self._held_out)} held out; "
            f"on {self.engine.describe()}{self._compile()}"
        )

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Take one optimiser step on one batch."""
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

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say that the loss runs off, or None."""
        return self.judged.guard.trouble(measured["loss"])

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Held-out loss of every average; the distance of the best one; keep the best ever."""
        return self.judged.judge(self._seen, full, seconds)

    def finish(self, seconds: float | None) -> Judgement:
        """Keep the average with the lowest held-out loss ever, measure it, choose its sampler."""
        return self.judged.finish(self._seen, seconds)

    def retreat(self) -> str:
        """Nothing but the learning rate changes."""
        self.judged.guard.forget()
        return ""

    def noise_scale(self) -> float | None:
        """Noise scale of the gradient in the last steps, in pictures; None until it is bounded."""
        return self.noise.value

    # ------------------------------------------------------------------ for checkpoints
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
            "seen": self._seen,
            "noise": self.noise.state_dict(),
            **self.judged.state_dict(),
        }

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore what `rest` gave."""
        self._batches.set_state(state["draws"])
        self._seen = state["seen"]
        if "noise" in state:  # older versions measured none
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
        """What `best` is; None before the first judgement."""
        return self.judged.best_so_far()

    def model_config(self) -> ModelConfig:
        """What teacher/config.json shall say."""
        return self.judged.model_config()

    def stats(self) -> dict[str, Any]:
        """What was measured of the finished teacher."""
        return self.judged.stats

    def preview(self) -> Tensor | None:
        """Pictures of the last distance."""
        return self.judged.preview

    def measured_noise(self) -> Measurement | None:
        """The gradient's noise with its interval, for laws; None before there is enough."""
        return self.noise.measurement()

    # ------------------------------------------------------------------ inside a step
    def _loss(self, denoise: Denoiser, batch: Batch) -> Tensor:
        """Mean denoising loss."""
        x0, sigma, noise, labels = batch.x0, batch.sigma, batch.noise, batch.labels
        return denoising_loss(denoise, x0, sigma, noise, self.plan.weight, labels).mean()

    def _dropout(self, step: int) -> AbstractContextManager[None]:
        if not self._recipe.dropout:
            return nullcontext()
        ranks = self.engine.ranks
        return self.engine.seeded(self._seed * 1_000_003 + step * ranks.world + ranks.rank)

    def _compile(self) -> str:
        """Compile the net where a long budget earns it back; returns what was measured."""
        plain = self._twin.module
        net = network(plain)
        if (
            self._sharded
            or (self._budget.seconds or 0) < LONG_ENOUGH
            or not isinstance(getattr(net, "config", None), dict)
        ):
            return ""
        found = compile_if_quicker(net, self.engine.device, self.batch)
        self._denoise = self.engine.ranks.parallel(with_network(plain, found.net))
        return f"; {found.reason}"
