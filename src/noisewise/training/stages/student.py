"""The generator stage: a generator of one network call learns from the teacher, without pictures.

Papers: Zhou et al. 2024 (SiD) for the loss and the alternation; Su 2024, Huang et al. 2024 (FGM)
for lambda. The guards are our own: the loss of a generator looks the same whether it converges or
collapses. So pixels, spread, score gap (see `guards`) and distance are watched, and training goes
back if one of them leaves its range.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import (
    Draw,
    draw_from_dict,
    fake_score_loss,
    score_identity_loss,
    stratified,
)
from noisewise.sizes import sides
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.hardware import free_memory
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Teacher, one_call
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.guards import GeneratorGuard
from noisewise.training.stages.noise_plan import fake_noise, generator_noise, loss_weight
from noisewise.training.stages.optimizers import Optimizers, adam
from noisewise.training.stages.plan import student_values
from noisewise.training.stages.stage import Judgement, Pace, StageName
from noisewise.training.stages.student_judge import StudentJudge
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.training.settings.config import DistillConfig

_MOST_FAKE_STEPS = 4  # after going back: a fake score that lags behind lets a generator collapse


def student_pace(recipe: StudentRecipe) -> Pace:
    """The schedule of a recipe."""
    return Pace(
        recipe.warmup,
        recipe.decay_from,
        recipe.distance_every,
        recipe.distance_every,
        recipe.evaluation_share,
        recipe.tries,
    )


class StudentStage:
    """Distillation of a teacher into a generator; see `Stage` for the methods.

    Args:
        teacher: any denoiser with its description; it is not changed. Generator and fake score
            start as copies of it.
        config: seed and recipe.
        engine: device and precision.

    Raises:
        ValueError: if the teacher has no parameters.
    """

    name: StageName = "generator"
    measures: tuple[str, ...] = ("loss", "grad_norm", "fake_loss", "fisher", "_max", "_std")
    speed = 0.0  # a step has several nets; the best while tells what is possible
    at_full_size = True
    finish_cost = 2.5  # the final distance, and the choice of the noise before a second call

    def __init__(self, teacher: Teacher, config: DistillConfig, engine: Engine) -> None:
        """Copy the teacher twice, set up optimisers and averages."""
        if not any(True for _ in teacher.denoiser.parameters()):
            raise ValueError(
                "this teacher has no parameters, so a generator cannot start from it; pass the "
                "torch.nn.Module itself, not a function that calls it"
            )
        recipe, described = config.constants, teacher.config
        derived = student_values(config, described, free_memory(engine.device))
        values = {name: item.value for name, item in derived.items()}
        self.batch, self.lr, self.check_every = values["batch"], values["lr"], engine.check_every
        self.sigma_init: float = values["sigma_init"]
        self.lam: float = values["lam"]
        self.fake_steps = recipe.fake_steps
        self.engine, self._recipe = engine, recipe
        self._teacher = engine.prepare(copy.deepcopy(teacher)).eval().requires_grad_(False)
        self._frozen = self._teacher.denoiser
        self._generator = copy.deepcopy(self._frozen).requires_grad_(True)
        self._fake = copy.deepcopy(self._frozen).requires_grad_(True)
        shadow = copy.deepcopy(self._frozen)
        self._frozen.to(engine.dtype)
        self._master_weights = MasterWeights(self._generator, engine.dtype)
        self._fake_master_weights = MasterWeights(self._fake, engine.dtype)
        self._call = engine.ranks.parallel(self._master_weights.module)
        self._fake_call = engine.ranks.parallel(self._fake_master_weights.module)
        self._part = engine.ranks.part(self.batch)
        fake_lr = recipe.fake_lr * self.lr / recipe.lr
        self._optimizers = Optimizers([adam(self._generator.parameters(), self.lr, recipe.betas)])
        self._fake_optimizers = Optimizers([adam(self._fake.parameters(), fake_lr, recipe.betas)])
        self._ema = EMA(self._generator, recipe.ema_shares)
        self._weight = loss_weight(described.loss, described.sigma_data, described.noise_scale)
        self._fake_noise = fake_noise(recipe, draw_from_dict(described.noise))
        histogram = torch.tensor(described.label_histogram, dtype=torch.float32)
        self._labels_law = histogram.to(engine.device) if described.classes else None
        self._draws = engine.generator(config.seed)
        self._guard = GeneratorGuard(recipe, described.sigma_data)
        self.judged = StudentJudge(
            self._teacher,
            self._generator,
            shadow,
            self._ema,
            self.sigma_init,
            recipe,
            config.amount,
            engine,
        )

    # ------------------------------------------------------------------ for the loop
    def begin(self, seconds: float | None) -> Judgement:
        """Draw the teacher's own pictures, and measure the generator before its first step."""
        judgement, spread = self.judged.begin(seconds)
        if spread is not None:
            self._guard.begin(spread)
        return judgement

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """Take one step of the fake score and one of the generator, on the same pictures."""
        recipe, engine, n = self._recipe, self.engine, self.batch
        only_fake = step < recipe.fake_warmup_steps
        labels = self._labels()
        with torch.set_grad_enabled(not only_fake):
            x_g = one_call(self._call, self._normal(), self.sigma_init, labels)
        fake_loss = torch.zeros((), device=engine.device)
        for _ in range(self.fake_steps):
            fake_loss = self._fake_step(x_g, labels, factor)
        seen = x_g.detach().float()
        spread = [engine.ranks.largest(seen.abs().amax()), self._std(seen)]
        if only_fake:
            nothing = torch.zeros_like(fake_loss)
            return torch.stack([nothing, nothing, fake_loss, nothing, *spread])
        identity = score_identity_loss(
            self._frozen,
            self._fake_master_weights.module,
            x_g,
            self._levels(generator_noise(recipe, progress, self._teacher.config.noise_scale)),
            self._normal(),
            labels,
            lam=self.lam,
            weight=recipe.weight,
            grad_through=recipe.grad_through,
            sigma_data=self._teacher.config.sigma_data,
        )
        (identity.loss * engine.ranks.scale(n)).backward()
        self._master_weights.collect_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self._optimizers.parameters, recipe.clip)
        self._optimizers.step(factor)
        self._master_weights.update_copy()
        self._ema.update(n, images + n)
        loss, fisher = (engine.ranks.mean(x, n) for x in (identity.loss.detach(), identity.fisher))
        return torch.stack([loss, norm, fake_loss, fisher, *spread]).float()

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Say which of pixels, spread and score gap left its range; None if none did."""
        return self._guard.trouble(measured, progress)

    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Measure every average's distance to the teacher's own pictures; keep the best ever."""
        return self.judged.judge(seconds)

    def finish(self, seconds: float | None, left: float | None = None) -> Judgement:
        """Choose the best weights, and the noise before a second call, by distance."""
        return self.judged.finish(seconds, left)

    def retreat(self) -> str:
        """Lower lambda, then let the fake score learn more; measure the usual score gap again."""
        self._guard.forget()
        if self.lam > self._recipe.safe_lam:
            self.lam = self._recipe.safe_lam
            return f"lambda lowered to {self.lam:g}"
        if self.fake_steps >= _MOST_FAKE_STEPS:
            return ""
        self.fake_steps = min(2 * self.fake_steps, _MOST_FAKE_STEPS)
        return f"{self.fake_steps} steps of the fake score for each step"

    def noise_scale(self) -> float | None:
        """Not measured: the loss of a generator has no fixed target."""
        return None

    # ------------------------------------------------------------------ for checkpoints
    def learned(self) -> dict[str, Any]:
        """Both nets, their optimisers, and the weight averages."""
        return {
            "generator": self._generator.state_dict(),
            "fake": self._fake.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "fake_optimizers": self._fake_optimizers.state_dict(),
            "ema": self._ema.state_dict(),
        }

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore the result of `learned`."""
        self._generator.load_state_dict(state["generator"])
        self._fake.load_state_dict(state["fake"])
        self._master_weights.update_copy()
        self._fake_master_weights.update_copy()
        for optimizers, name in (
            (self._optimizers, "optimizers"),
            (self._fake_optimizers, "fake_optimizers"),
        ):
            optimizers.load_state_dict(state[name])
            optimizers.zero_grad()
        self._ema.load_state_dict(state["ema"])

    def rest(self) -> dict[str, Any]:
        """Random state, best weights, lambda, guards, and measurements."""
        return {
            "draws": self._draws.get_state(),
            "lam": self.lam,
            "fake_steps": self.fake_steps,
            "guard": self._guard.state,
            **self.judged.state_dict(),
        }

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore the result of `rest`."""
        self._draws.set_state(state["draws"])
        self.lam, self._guard.state = state["lam"], state["guard"]
        self.fake_steps = state.get("fake_steps", self.fake_steps)  # older versions kept them
        self.judged.load_state_dict(state)

    # ------------------------------------------------------------------ for the run
    def best(self) -> nn.Module:
        """A denoiser with the best weights so far, in eval mode; later calls reuse it."""
        return self.judged.best()

    def best_so_far(self) -> dict[str, Any] | None:
        """Which weights `best` has; None before the first evaluation."""
        return self.judged.best_as or None

    def model_config(self) -> ModelConfig:
        """The content of generator/config.json."""
        stats, began = self.judged.stats, self._teacher.config.stats.get("start")
        return replace(
            self._teacher.config,
            kind="generator",
            sigma_init=self.sigma_init,
            two_call_sigma=stats.get("two_call_sigma"),
            flats=self.judged.flats,
            palette=self.judged.palette,
            stats=stats if began is None else {**stats, "start": began},
        )

    def stats(self) -> dict[str, Any]:
        """The measurements of the finished generator."""
        return self.judged.stats

    def preview(self) -> Tensor | None:
        """Pictures of the best weights, from the evaluation that chose them."""
        return self.judged.preview

    def measured_noise(self) -> None:
        """Not measured, see `noise_scale`."""

    # ------------------------------------------------------------------ inside a step
    def _fake_step(self, x_g: Tensor, labels: Tensor | None, factor: float) -> Tensor:
        engine, n, fake = self.engine, self.batch, self._fake_master_weights
        sigma = self._levels(self._fake_noise)
        loss = fake_score_loss(
            self._fake_call, x_g, sigma, self._normal(), self._weight, labels
        ).mean()
        (loss * engine.ranks.scale(n)).backward()
        fake.collect_gradients()
        torch.nn.utils.clip_grad_norm_(self._fake_optimizers.parameters, self._recipe.clip)
        self._fake_optimizers.step(factor)
        fake.update_copy()
        return engine.ranks.mean(loss.detach(), n)

    def _levels(self, law: Draw) -> Tensor:
        """Noise levels of this process's part of a batch, within the teacher's range."""
        sigma = stratified(law, self.batch, self._draws, self.engine.device)[self._part]
        known = self._teacher.config.sigma_range
        return sigma if known is None else sigma.clamp(*known)

    def _std(self, seen: Tensor) -> Tensor:
        """Standard deviation of all pixels of the batch, over all processes."""
        ranks, n = self.engine.ranks, self.batch
        if ranks.world == 1:
            return seen.std()
        mean = ranks.mean(seen.mean(), n)
        square = ranks.mean((seen - mean).square().mean(), n)
        pixels = n * seen[0].numel()
        return (square * pixels / (pixels - 1)).sqrt()

    def _labels(self) -> Tensor | None:
        if self._labels_law is None:
            return None
        drawn = torch.multinomial(self._labels_law, self.batch, True, generator=self._draws)
        return drawn[self._part]

    def _normal(self) -> Tensor:
        described = self._teacher.config
        shape = (self.batch, described.channels, *sides(described.size))
        noise = torch.randn(shape, generator=self._draws, device=self.engine.device)
        return self.engine.tensor(noise[self._part])
