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
    DataTerm,
    Draw,
    Hearing,
    OfCall,
    ScoreIdentity,
    Told,
    draw_from_dict,
    fake_loss_with_adversary,
    fake_loss_with_data,
    fake_score_loss,
    fooling_loss,
    innermost,
    inputs_of_calls,
    score_identity_loss,
    stratified,
    which_call,
)
from noisewise.sizes import sides
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.hardware import free_memory
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.models import Teacher, one_call
from noisewise.training.models.networks import network
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.settings.student_choices import RANK
from noisewise.training.stages.guards import GeneratorGuard
from noisewise.training.stages.noise_plan import fake_noise, generator_noise, loss_weight
from noisewise.training.stages.optimizers import Optimizers, adam
from noisewise.training.stages.plan import student_values
from noisewise.training.stages.stage import Judgement, Pace, StageName
from noisewise.training.stages.student_guidance import Guide, check_guided
from noisewise.training.stages.student_judge import StudentJudge
from noisewise.training.stages.student_labels import in_shares
from noisewise.training.stages.student_nets import AdaptedNets, StudentNets, WholeNets
from noisewise.training.stages.student_start import own_generator
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.training.settings.config import DistillConfig
    from noisewise.training.stages.real_batches import RealBatches

_MARK_LR = 0.01  # of the marks that tell calls apart, in deviations of a pixel
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


def _nets(
    frozen: nn.Module, teacher: Teacher, config: DistillConfig, engine: Engine
) -> StudentNets:
    """The nets that the settings ask for; `frozen` is the teacher's copy on the device."""
    described = teacher.config

    def tell(fake: nn.Module) -> nn.Module:
        if config.calls == 1 or not config.recipe.fake_told:
            return fake
        shape = (described.channels, *sides(described.size))
        return Told(fake, config.calls, shape, described.sigma_data)

    own = own_generator(teacher, config.recipe, config.seed)
    if config.student == "full":
        own = None if own is None else own.to(engine.device)
        return WholeNets(frozen, engine.dtype, tell, own)
    if own is not None:
        raise ValueError(
            "recipe: adapters are added to the teacher's own weights; leave generator_widths and "
            "generator_start out, or use --student full"
        )
    rank = config.rank or RANK
    return AdaptedNets(frozen, teacher.denoiser, engine.dtype, tell, rank, config.seed)


def _fake_adams(
    fake: nn.Module, lr: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """An optimiser of the fake score; one more for the marks of calls, which are pixels."""
    if not isinstance(fake, Told):
        return [adam(fake.parameters(), lr, betas)]
    return [adam(fake.denoiser.parameters(), lr, betas), adam([fake.marks], _MARK_LR, betas)]


class StudentStage:
    """Distillation of a teacher into a generator; see `Stage` for the methods.

    Args:
        teacher: any denoiser with its description; it is not changed. Generator and fake score
            start as copies of it, or are adapters on one copy.
        config: seed and recipe.
        engine: device and precision.
        real: the pictures that a data weight needs; None: none.

    Raises:
        ValueError: if the teacher has no parameters, or cannot have the adapters, the guidance or
            the adversary, or real pictures are needed and not given.
    """

    name: StageName = "generator"
    measures: tuple[str, ...] = ("loss", "grad_norm", "fake_loss", "fisher", "_max", "_std")
    speed = 0.0  # a step has several nets; the best while tells what is possible
    at_full_size = True
    finish_cost = 2.5  # the final distance, and the choice of the noise before a second call

    def __init__(
        self,
        teacher: Teacher,
        config: DistillConfig,
        engine: Engine,
        real: RealBatches | None = None,
    ) -> None:
        """Copy the teacher, set up optimisers and averages."""
        if config.data_weight and real is None:
            raise ValueError("a data weight needs real pictures; leave --data-weight out")
        if not any(True for _ in teacher.denoiser.parameters()):
            raise ValueError(
                "this teacher has no parameters, so a generator cannot start from it; pass the "
                "torch.nn.Module itself, not a function that calls it"
            )
        check_guided(teacher, config.guidance)
        recipe, described = config.constants, teacher.config
        derived = student_values(config, described, free_memory(engine.device))
        values = {name: item.value for name, item in derived.items()}
        self.batch, self.lr, self.check_every = values["batch"], values["lr"], engine.check_every
        self.sigma_init: float = values["sigma_init"]
        self.sigmas: tuple[float, ...] = (self.sigma_init, *values.get("later_sigmas", ()))
        self.lam: float = values["lam"]
        self.fake_steps = recipe.fake_steps
        self.engine, self._recipe = engine, recipe
        self._teacher = engine.prepare(copy.deepcopy(teacher)).eval().requires_grad_(False)
        self._frozen = self._teacher.denoiser
        self._nets = _nets(self._frozen, teacher, config, engine)
        self._generator, self._fake = self._nets.generator, self._nets.fake
        self._told = isinstance(self._fake, Told)
        own = network(self._generator) if recipe.generator_widths else None
        self._net: dict[str, Any] = described.net if own is None else dict(own.config)  # pyrefly: ignore
        self._master_weights = self._nets.generator_weights
        self._fake_master_weights = self._nets.fake_weights
        self._call = engine.ranks.parallel(self._master_weights.module)
        self._guide = Guide.of(self._teacher, config.guidance, recipe.label_drop)
        self._aim = self._guide.around(self._frozen)
        self._scored = self._guide.around(self._fake_master_weights.module)
        self._fake_call = engine.ranks.parallel(self._scored)
        self._part = engine.ranks.part(self.batch)
        fake_lr = recipe.fake_lr * self.lr / recipe.lr
        self._optimizers = Optimizers([adam(self._generator.parameters(), self.lr, recipe.betas)])
        self._fake_optimizers = Optimizers(_fake_adams(self._fake, fake_lr, recipe.betas))
        self._ema = EMA(self._generator, recipe.ema_shares)
        self._weight = loss_weight(described.loss, described.sigma_data, described.noise_scale)
        self._fake_noise = fake_noise(recipe, draw_from_dict(described.noise))
        histogram = torch.tensor(described.label_histogram, dtype=torch.float32)
        self._labels_law = histogram.to(engine.device) if described.classes else None
        self._draws = engine.generator(config.seed)
        self._real = real if config.data_weight else None
        self._adversary: nn.Module | None = None
        self._data_weight = config.data_weight
        if config.data_term == "sida":
            self._adversary = innermost(self._nets.heard)
        mixed = 0.0 if self._adversary is not None else config.data_weight
        self._term = DataTerm(mixed, recipe.data_target)
        self._guard = GeneratorGuard(recipe, described.sigma_data)
        self.judged = StudentJudge(
            self._teacher,
            self._nets,
            self._ema,
            self.sigmas,
            recipe,
            config.amount,
            engine,
            config.guidance,
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
        labels, which = self._labels(), self._which()
        with torch.set_grad_enabled(not only_fake):
            x_g = self._drawn(labels, which)
        fake_loss = torch.zeros((), device=engine.device)
        for _ in range(self.fake_steps):
            fake_loss = self._fake_step(x_g, labels, which, factor)
        seen = x_g.detach().float()
        spread = [engine.ranks.largest(seen.abs().amax()), self._std(seen)]
        if only_fake:
            nothing = torch.zeros_like(fake_loss)
            return torch.stack([nothing, nothing, fake_loss, nothing, *spread])
        fake = self._of_call(self._scored, which)
        fake = fake if self._adversary is None else Hearing(fake, self._adversary)
        identity = score_identity_loss(
            self._aim,
            fake,
            x_g,
            self._levels(generator_noise(recipe, progress, self._teacher.config.noise_scale)),
            self._normal(),
            labels,
            lam=self.lam,
            weight=recipe.weight,
            grad_through=recipe.grad_through,
            sigma_data=self._teacher.config.sigma_data,
            target=self._term.generated,
        )
        own = self._with_fooling(identity, fake, progress)
        (own * engine.ranks.scale(n)).backward()
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
        return self._nets.whole(self.judged.best())

    def best_so_far(self) -> dict[str, Any] | None:
        """Which weights `best` has; None before the first evaluation."""
        return self.judged.best_as or None

    def model_config(self) -> ModelConfig:
        """The content of generator/config.json."""
        stats, began = self.judged.stats, self._teacher.config.stats.get("start")
        return replace(
            self._teacher.config,
            kind="generator",
            net=self._net,
            sigma_init=self.sigma_init,
            two_call_sigma=stats.get("two_call_sigma"),
            later_sigmas=self.sigmas[1:],
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
    def _which(self) -> Tensor | None:
        """The call after which each picture of a batch stops; None: there is one."""
        calls = len(self.sigmas)
        if calls == 1:
            return None
        return which_call(self.batch, calls, self._draws, self.engine.device)[self._part]

    def _of_call(self, fake: nn.Module, which: Tensor | None) -> nn.Module:
        """The fake score for these pictures, which is told their calls if it can be."""
        return OfCall(fake, which) if which is not None and self._told else fake

    def _drawn(self, labels: Tensor | None, which: Tensor | None) -> Tensor:
        """The generator's pictures; of several calls, the last of each picture has a graph."""
        z = self._normal()
        if which is None:
            return one_call(self._call, z, self.sigma_init, labels)
        noises = [self._normal() for _ in self.sigmas[1:]]
        alone = self._master_weights.module
        x, sigma = inputs_of_calls(alone, z, self.sigmas, noises, which, labels)
        return self._call(x, sigma, labels)

    def _with_fooling(self, identity: ScoreIdentity, fake: nn.Module, progress: float) -> Tensor:
        """The generator's loss; with an adversary, once it has learnt a little, its loss too."""
        recipe, share = self._recipe, self._data_weight
        if not isinstance(fake, Hearing) or progress < recipe.adversarial_from:
            return identity.loss
        scale = recipe.adversarial_scale * self.engine.ranks.mean(identity.weight, self.batch)
        return (1 - share) * identity.loss + share * scale * fooling_loss(fake.logits)

    def _fake_step(
        self, x_g: Tensor, labels: Tensor | None, which: Tensor | None, factor: float
    ) -> Tensor:
        engine, n, weights = self.engine, self.batch, self._fake_master_weights
        if self._real is None:
            fake, sigma = self._of_call(self._fake_call, which), self._levels(self._fake_noise)
            told = self._guide.untold(labels, n, self._part, self._draws)
            loss = fake_score_loss(fake, x_g, sigma, self._normal(), self._weight, told).mean()
        else:
            loss = self._loss_with_data(self._real, x_g, labels, which)
        (loss * engine.ranks.scale(n)).backward()
        weights.collect_gradients()
        torch.nn.utils.clip_grad_norm_(self._fake_optimizers.parameters, self._recipe.clip)
        self._fake_optimizers.step(factor)
        weights.update_copy()
        return engine.ranks.mean(loss.detach(), n)

    def _loss_with_data(
        self, real: RealBatches, x_g: Tensor, labels: Tensor | None, which: Tensor | None
    ) -> Tensor:
        """The fake score's loss on generated and as many real pictures."""
        device, part = self.engine.device, self._part
        pictures, classes = real.batch(self.batch, self._draws)
        both = None if which is None else torch.cat([which, which])  # real ones are of every call
        if labels is not None and classes is not None:
            labels = torch.cat([labels, classes.to(device)[part]])
        labels = self._guide.untold(labels, self.batch, part, self._draws, batches=2)
        fake, shown = (
            self._of_call(self._fake_call, both),
            self.engine.tensor(pictures.to(device)[part]),
        )
        if self._adversary is not None:
            return self._told_apart(Hearing(fake, self._adversary), x_g, shown, labels)
        return fake_loss_with_data(
            fake,
            x_g,
            shown,
            torch.cat([self._levels(self._fake_noise) for _ in range(2)]),
            torch.cat([self._normal() for _ in range(2)]),
            self._weight,
            self._term,
            labels,
        )

    def _told_apart(
        self, fake: Hearing, x_g: Tensor, real: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The fake score's loss, and that of the adversary in it; both have the same noise."""
        sigma, noise = self._levels(self._fake_noise), self._normal()
        mean_weight = self.engine.ranks.mean(self._weight(sigma).mean(), self.batch)
        return fake_loss_with_adversary(
            fake, x_g, real, sigma, noise, self._weight, labels, mean_weight
        )

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
        if self._recipe.balanced:
            return in_shares(self._labels_law, self.batch, self._draws)[self._part]
        drawn = torch.multinomial(self._labels_law, self.batch, True, generator=self._draws)
        return drawn[self._part]

    def _normal(self) -> Tensor:
        described = self._teacher.config
        shape = (self.batch, described.channels, *sides(described.size))
        noise = torch.randn(shape, generator=self._draws, device=self.engine.device)
        return self.engine.tensor(noise[self._part])
