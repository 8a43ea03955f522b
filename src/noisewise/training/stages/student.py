"""The second stage: a generator of one network call learns from the teacher alone, without data.

Papers: Zhou et al. 2024 (SiD) for the loss and the alternation; Su 2024, Huang et al. 2024 (FGM)
for lambda. The guards are our own: a generator's loss looks the same whether it converges or
collapses, so pixels, spread, score gap (see `guard`) and distance are watched, and training goes
back when one of them runs off.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from noisewise.diffusion import (
    EDMWeight,
    Preconditioned,
    draw_from_dict,
    fake_score_loss,
    score_identity_loss,
    stratified,
)
from noisewise.quality.distance import Reference
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import Twin
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Teacher, one_call, second_call
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.guards import Guard
from noisewise.training.stages.optimizers import Optimizers, adam
from noisewise.training.stages.plan import fake_noise, generator_noise, student_values
from noisewise.training.stages.stage import Judgement, Pace
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.training.settings.config import DistillConfig

_SHEET = 64  # pictures on a sample sheet
_CHUNK = 64  # pictures drawn at a time
_FEWEST = 128  # pictures for a distance, whatever the time
_IMAGES_A_PICTURE = 12  # images trained on for each picture of a distance, at least
_SEED = 0  # of the pictures that are measured


def student_pace(recipe: StudentRecipe) -> Pace:
    """When things happen, as the recipe has it."""
    return Pace(
        recipe.warmup,
        recipe.decay_from,
        recipe.distance_every,
        recipe.distance_every,
        recipe.evaluation_share,
        recipe.tries,
    )


class StudentStage:
    """Distillation as the loop drives it; see `Stage` for the methods.

    Args:
        teacher: frozen; generator and fake score start as copies of it.
        config: seed and recipe.
        engine: where to compute.
    """

    name = "generator"
    measures: tuple[str, ...] = ("loss", "grad_norm", "fake_loss", "fisher", "_max", "_std")
    finish_cost = 2.5  # the last distance, and the choice of a second call

    def __init__(self, teacher: Teacher, config: DistillConfig, engine: Engine) -> None:
        """Copy the teacher twice, set up optimisers and averages."""
        if not isinstance(teacher.denoiser, Preconditioned):
            raise ValueError("only a teacher trained by noisewise can be distilled")
        recipe, described = config.recipe, teacher.config
        values = {
            name: item.value for name, item in student_values(config, described.sigma_data).items()
        }
        self.batch, self.lr, self.check_every = values["batch"], values["lr"], engine.check_every
        self.sigma_init: float = values["sigma_init"]
        self.lam: float = values["lam"]
        self.engine, self._recipe, self._seed = engine, recipe, config.seed
        self._budget = config.amount
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self._teacher = engine.prepare(copy.deepcopy(teacher)).eval().requires_grad_(False)
        self._generator = copy.deepcopy(self._frozen).requires_grad_(True)
        self._fake = copy.deepcopy(self._frozen).requires_grad_(True)
        self._shadow = copy.deepcopy(self._frozen)
        self._teacher.denoiser.to(engine.dtype)
        self._twin = Twin(self._generator, engine.dtype)
        self._fake_twin = Twin(self._fake, engine.dtype)
        self._call = engine.ranks.parallel(self._twin.module)
        self._fake_call = engine.ranks.parallel(self._fake_twin.module)
        self._part = engine.ranks.part(self.batch)
        fake_lr = recipe.fake_lr * self.lr / recipe.lr
        self._optimizers = Optimizers([adam(self._generator.parameters(), self.lr, recipe.betas)])
        self._fake_optimizers = Optimizers([adam(self._fake.parameters(), fake_lr, recipe.betas)])
        self._ema = EMA(self._generator, recipe.ema_shares)
        self._weight = EDMWeight(described.sigma_data)
        self._fake_noise = fake_noise(recipe, draw_from_dict(described.noise))
        histogram = torch.tensor(described.label_histogram, dtype=torch.float32)
        self._labels_law = histogram.to(engine.device) if described.classes else None
        self._draws = engine.generator(config.seed)
        self._guard = Guard(recipe, described.sigma_data)
        self._reference: Reference | None = None
        self._num_images = 0
        self._cost = 0.0
        self._best_weights = [p.detach().clone() for p in self._generator.parameters()]
        self._best: dict[str, Any] = {}

    def begin(self, seconds: float | None) -> Judgement:
        """Draw the teacher's own pictures, and measure the generator before its first step."""
        self._reference = Reference(self._teachers_pictures(seconds))
        if self._best:
            return Judgement()
        start = time.monotonic()
        pictures = self._pictures(self._generator, self._num_images)
        self._guard.begin(pictures.std().item())
        distance = self._reference.distance(pictures)
        self._cost = (time.monotonic() - start) / self._num_images
        self._keep(distance.value, distance.high, share=None)
        self.preview = pictures[:_SHEET]
        event = (
            f"distance {distance.value:.4f} in one call of the teacher, to {self._num_images} "
            "pictures of its own sampler"
        )
        return Judgement(distance=float(distance.value), event=event)

    def step(self, step: int, images: int, factor: float, progress: float) -> Tensor:
        """One step of the fake score and one of the generator, on the same pictures."""
        recipe, engine, n = self._recipe, self.engine, self.batch
        only_fake = step < recipe.fake_warmup_steps
        labels = self._labels()
        with torch.set_grad_enabled(not only_fake):
            x_g = one_call(self._call, self._normal(), self.sigma_init, labels)
        fake_loss = torch.zeros((), device=engine.device)
        for _ in range(recipe.fake_steps):
            fake_loss = self._fake_step(x_g, labels, factor)
        seen = x_g.detach().float()
        spread = [engine.ranks.largest(seen.abs().amax()), self._std(seen)]
        if only_fake:
            nothing = torch.zeros_like(fake_loss)
            return torch.stack([nothing, nothing, fake_loss, nothing, *spread])
        noise = generator_noise(recipe, progress)
        sigma = stratified(noise, n, self._draws, engine.device)[self._part]
        identity = score_identity_loss(
            self._frozen,
            self._fake_twin.module,
            x_g,
            sigma,
            self._normal(),
            labels,
            lam=self.lam,
            weight=recipe.weight,
            grad_through=recipe.grad_through,
            sigma_data=self._teacher.config.sigma_data,
        )
        (identity.loss * engine.ranks.scale(n)).backward()
        self._twin.gather()
        norm = torch.nn.utils.clip_grad_norm_(self._optimizers.parameters, recipe.clip)
        self._optimizers.step(factor)
        self._twin.refresh()
        self._ema.update(n, images + n)
        loss, fisher = (engine.ranks.mean(x, n) for x in (identity.loss.detach(), identity.fisher))
        return torch.stack([loss, norm, fake_loss, fisher, *spread]).float()

    def trouble(self, measured: dict[str, float], progress: float) -> str | None:
        """Pixels, spread and score gap must stay in their ranges."""
        return self._guard.trouble(measured, progress)

    @torch.no_grad()
    def judge(self, full: bool, seconds: float | None) -> Judgement:
        """Distance of every average's pictures to the teacher's own; the best ever is kept."""
        assert self._reference is not None
        found, num_images = [], self._affordable(seconds)
        for index, share in enumerate(self._recipe.ema_shares):
            self._ema.copy_to(self._shadow, index)
            pictures = self._pictures(self._shadow, num_images)
            if not pictures.isfinite().all():
                return Judgement(trouble="a generated pixel is no number")
            distance = self._reference.distance(pictures)
            found.append(distance)
            if distance.value < self._best["distance"]:
                self._keep(distance.value, distance.high, share)
                self.preview = pictures[:_SHEET]
        nearest = min(found, key=lambda distance: distance.value)
        limit = self._recipe.distance_jump * max(self._best["high"], 0.0)
        climbed = nearest.low > limit and nearest.value > self._best["distance"]
        trouble = f"the distance climbed to {nearest.value:.4f} from {self._best['distance']:.4f}"
        return Judgement(distance=float(nearest.value), trouble=trouble if climbed else None)

    def finish(self, seconds: float | None) -> Judgement:
        """Take the best weights; choose the noise of a second call by the distance."""
        judgement = replace(self.judge(True, seconds), trouble=None)
        best = self._best
        one_call, sigma, distance = self._last_distances()
        share = "the start" if best["share"] is None else f"a share of {best['share']:g}"
        event = (
            f"kept the weight average over {share}, distance {one_call:.4f} in one call; "
            f"{distance:.4f} in two calls with noise {sigma:g} between them"
        )
        self.stats |= {
            "distance": one_call,
            "distance_two_calls": distance,
            "distance_against": "the teacher's own pictures",
            "ema_share": best["share"],
        }
        return replace(judgement, event=event, distance=one_call)

    def retreat(self) -> str:
        """Lower lambda, and learn anew what an ordinary score gap is."""
        self._guard.forget()
        if self.lam <= self._recipe.safe_lam:
            return ""
        self.lam = self._recipe.safe_lam
        return f"lambda lowered to {self.lam:g}"

    def noise_scale(self) -> float | None:
        """Not measured: the loss of a generator has no fixed target."""
        return None

    def measured_noise(self) -> None:
        """Nothing, as `noise_scale`."""

    def learned(self) -> dict[str, Any]:
        """Both nets, their optimisers, and the averages."""
        return {
            "generator": self._generator.state_dict(),
            "fake": self._fake.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "fake_optimizers": self._fake_optimizers.state_dict(),
            "ema": self._ema.state_dict(),
        }

    def load_learned(self, state: dict[str, Any]) -> None:
        """Restore what `learned` gave."""
        self._generator.load_state_dict(state["generator"])
        self._fake.load_state_dict(state["fake"])
        self._twin.refresh()
        self._fake_twin.refresh()
        for optimizers, name in (
            (self._optimizers, "optimizers"),
            (self._fake_optimizers, "fake_optimizers"),
        ):
            optimizers.load_state_dict(state[name])
            optimizers.zero_grad()
        self._ema.load_state_dict(state["ema"])

    def rest(self) -> dict[str, Any]:
        """Random state, the best weights, lambda, the guards, and what was measured."""
        return {
            "draws": self._draws.get_state(),
            "best_weights": self._best_weights,
            "best": self._best,
            "lam": self.lam,
            "guard": self._guard.state,
            "num_images": self._num_images,
            "cost": self._cost,
            "stats": self.stats,
            "preview": self.preview,  # a sheet is written again where nothing became better
        }

    def load_rest(self, state: dict[str, Any]) -> None:
        """Restore what `rest` gave."""
        self._draws.set_state(state["draws"])
        torch._foreach_copy_(self._best_weights, state["best_weights"])
        self._best, self.stats = state["best"], state["stats"]
        self.preview = state.get("preview")
        self.lam, self._guard.state = state["lam"], state["guard"]
        self._num_images, self._cost = state["num_images"], state["cost"]

    @torch.no_grad()
    def best(self) -> Preconditioned:
        """Return a denoiser with the best weights so far, in eval mode; reused by later calls."""
        torch._foreach_copy_(list(self._shadow.parameters()), self._best_weights)
        return self._shadow

    def model_config(self) -> ModelConfig:
        """Return what generator/config.json shall say."""
        return replace(
            self._teacher.config,
            kind="generator",
            sigma_init=self.sigma_init,
            two_call_sigma=self.stats.get("two_call_sigma"),
            stats=self.stats,
        )

    @property
    def _frozen(self) -> Preconditioned:
        denoiser = self._teacher.denoiser
        assert isinstance(denoiser, Preconditioned)
        return denoiser

    def _fake_step(self, x_g: Tensor, labels: Tensor | None, factor: float) -> Tensor:
        engine, n, fake = self.engine, self.batch, self._fake_twin
        sigma = stratified(self._fake_noise, n, self._draws, engine.device)[self._part]
        loss = fake_score_loss(
            self._fake_call, x_g, sigma, self._normal(), self._weight, labels
        ).mean()
        (loss * engine.ranks.scale(n)).backward()
        fake.gather()
        torch.nn.utils.clip_grad_norm_(self._fake_optimizers.parameters, self._recipe.clip)
        self._fake_optimizers.step(factor)
        fake.refresh()
        return engine.ranks.mean(loss.detach(), n)

    def _std(self, seen: Tensor) -> Tensor:
        """Standard deviation of all pixels of the batch."""
        ranks, n = self.engine.ranks, self.batch
        if ranks.world == 1:
            return seen.std()
        mean = ranks.mean(seen.mean(), n)
        square = ranks.mean((seen - mean).square().mean(), n)
        pixels = n * seen[0].numel()
        return (square * pixels / (pixels - 1)).sqrt()

    def _keep(self, value: float, high: float, share: float | None) -> None:
        """Remember weights as the best so far: an average's, or those of the start."""
        weights = self._generator if share is None else self._shadow
        torch._foreach_copy_(self._best_weights, [p.detach() for p in weights.parameters()])
        self._best = {"distance": float(value), "high": float(high), "share": share}

    def _teachers_pictures(self, seconds: float | None) -> Tensor:
        """Pictures of the teacher's own sampler, as many as time allows; as many after a resume."""
        wanted = self._num_images or self._recipe.distance_images
        if self._budget.images is not None:  # then no seconds bound it: the run's own length does
            wanted = min(wanted, max(_FEWEST, self._budget.images // _IMAGES_A_PICTURE))
        start, parts, drawn = time.monotonic(), [], 0
        while drawn < wanted:
            count = min(_CHUNK, wanted - drawn)
            parts.append(self._teacher.draw(_SEED, drawn, count).float().cpu())
            drawn += count
            if not self._num_images and seconds is not None and time.monotonic() - start > seconds:
                break
        self._num_images = drawn
        return torch.cat(parts)

    @torch.no_grad()
    def _pictures(self, denoiser: Preconditioned, num_images: int) -> Tensor:
        """Pictures in one call, float [num_images, c, h, w] in [-1, 1] on the CPU."""
        parts, quick = [], Twin(denoiser, self.engine.dtype).module
        for start in range(0, num_images, _CHUNK):
            count = min(_CHUNK, num_images - start)
            z = self._teacher.noise(_SEED, start, count, stream=1)
            labels = self._teacher.labels(_SEED, start, count, None)
            drawn = one_call(quick, z, self.sigma_init, labels)
            parts.append(drawn.float().clamp(-1, 1).cpu())
        return torch.cat(parts)

    def _affordable(self, seconds: float | None) -> int:
        """How many pictures of each average can be judged in this time."""
        if seconds is None or not self._cost:
            return self._num_images
        most = int(seconds / (self._cost * len(self._recipe.ema_shares)))
        return min(max(most, _FEWEST), self._num_images)

    def _last_distances(self) -> tuple[float, float, float]:
        """Distance of the best weights in one call; the best noise before a second; that distance.

        Of all pictures: the distance that chose the weights is the least of many, and so too low.
        """
        assert self._reference is not None
        pictures = self._pictures(self.best(), self._num_images)
        one_call = float(self._reference.distance(pictures).value)
        tried = {}
        for sigma in self._recipe.two_call_sigmas:
            distance = self._reference.distance(self._second_calls(pictures, sigma))
            tried[sigma] = float(distance.value)
        sigma = min(tried, key=tried.__getitem__)
        self.stats |= {
            "two_call_sigma": sigma,
            "two_call_distances": {f"{s:g}": d for s, d in tried.items()},
        }
        return one_call, sigma, tried[sigma]

    @torch.no_grad()
    def _second_calls(self, pictures: Tensor, sigma: float) -> Tensor:
        parts = []
        for start in range(0, len(pictures), _CHUNK):
            part = pictures[start : start + _CHUNK].to(self.engine.device)
            noise = self._teacher.noise(_SEED, start, len(part), stream=3)
            labels = self._teacher.labels(_SEED, start, len(part), None)
            parts.append(second_call(self._frozen, part, sigma, noise, labels).float().cpu())
        return torch.cat(parts)

    def _labels(self) -> Tensor | None:
        if self._labels_law is None:
            return None
        drawn = torch.multinomial(self._labels_law, self.batch, True, generator=self._draws)
        return drawn[self._part]

    def _normal(self) -> Tensor:
        described = self._teacher.config
        shape = (self.batch, described.channels, described.size, described.size)
        noise = torch.randn(shape, generator=self._draws, device=self.engine.device)
        return self.engine.tensor(noise[self._part])
