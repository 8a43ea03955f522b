"""From pictures, machine and recipe to all that training needs, each value with its reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from noisewise.diffusion import (
    EDMWeight,
    KarrasUniform,
    LogNormal,
    Prediction,
    ShiftedCosine,
    Weight,
    draw_to_dict,
    measured_shift,
)
from noisewise.nets.derive import Derived, build, derive
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe
from noisewise.training.stages.kinds import num_kinds

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.devices.engine import Engine
    from noisewise.training.settings.config import DistillConfig, TrainConfig


_MEASURED = 256  # pictures that say how far the schedule is shifted
_USUAL_IMAGES = 100_000  # from here on the usual net is chosen, see nets.derive


@dataclass(frozen=True)
class Reasoned:
    """A derived value and why it is what it is."""

    value: Any
    reason: str


@dataclass(frozen=True)
class TeacherPlan:
    """Everything that teacher training needs to know about these pictures on this machine.

    `reasons` explains each derived value; `to_dict` is what run.json and --dry-run show.
    """

    size: int
    channels: int
    classes: tuple[str, ...]
    net: dict[str, Any]
    prediction: Prediction | Literal["denoiser"]
    sigma_data: float
    noise: LogNormal
    batch: int
    lr: float
    adam_lr: float
    flips: bool
    reasons: dict[str, str]

    @property
    def num_classes(self) -> int:
        """Number of classes that the net is conditioned on; 0 for none."""
        return len(self.classes)

    @property
    def weight(self) -> Weight:
        """Weight of the denoising loss: EDM's, a loss of 1 at every noise level at the start."""
        return EDMWeight(self.sigma_data)

    def derived(self) -> dict[str, Reasoned]:
        """Every derived value with its reason."""
        values = {**asdict(self), "noise": draw_to_dict(self.noise)}
        return {name: Reasoned(values[name], reason) for name, reason in self.reasons.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return `derived` as plain JSON values."""
        return {name: asdict(derived) for name, derived in self.derived().items()}


def plan_teacher(config: TrainConfig, pictures: Pictures, engine: Engine) -> TeacherPlan:
    """Derive everything that the configuration leaves open from the pictures and the machine.

    Args:
        config: what the user set.
        pictures: sorted into kinds already, where the configuration asks for kinds.
        engine: where to compute.

    Raises:
        ValueError: if there is nothing to learn from, or the net cannot take the size.
    """
    recipe, size, channels = config.recipe, pictures.size, pictures.channels
    if len(pictures) < 2:
        raise ValueError(
            f"{pictures.source} holds {len(pictures)} pictures; training needs 2 at least"
        )
    classes, why_classes = _classes(config, pictures)
    sigma_data = float(pictures.sigma_data())
    if not sigma_data > 0:
        raise ValueError(f"all pixels in {pictures.source} are equal; there is nothing to learn")
    derived = _net(config, size, channels, len(classes), engine)
    noise, why_noise = _noise(recipe, sigma_data, pictures)
    flips, why_flips = _flips(config, pictures)
    lr, adam_lr, why_lr = _learning_rates(config)
    return TeacherPlan(
        size=size,
        channels=channels,
        classes=classes,
        net=derived.net,
        prediction=derived.prediction,
        sigma_data=sigma_data,
        noise=noise,
        batch=config.batch or recipe.batch,
        lr=lr,
        adam_lr=adam_lr,
        flips=flips,
        reasons={
            "size": _why(config.size, "as the pictures are"),
            "channels": _why(config.channels, "as the pictures are"),
            "classes": why_classes,
            "net": derived.reason,
            "sigma_data": "standard deviation of all training pixels in [-1, 1]",
            "noise": why_noise,
            "batch": _why(config.batch, "best of 32, 64, 128 in single prototype runs on 2 cores"),
            "lr": why_lr,
            "adam_lr": why_lr,
            "flips": why_flips,
        },
    )


def generator_noise(recipe: StudentRecipe, progress: float) -> KarrasUniform:
    """Noise levels of the generator's loss at a share of the budget, 0 to 1."""
    begin, end = recipe.t_falls
    left = min(1.0, max(0.0, (end - progress) / (end - begin))) if end > begin else 0.0
    return KarrasUniform(
        recipe.sigma_min, recipe.sigma_max, t_min=recipe.t_min * left, t_max=recipe.t_max
    )


def fake_noise(
    recipe: StudentRecipe, teachers: LogNormal | ShiftedCosine | KarrasUniform
) -> LogNormal | ShiftedCosine | KarrasUniform:
    """Noise levels of the fake score's loss: the teacher's own, shifted up where it is a normal."""
    if not isinstance(teachers, LogNormal):
        return teachers
    return replace(teachers, mean=teachers.mean + recipe.fake_noise_shift)


def student_values(
    config: DistillConfig, sigma_data: float, sigma_range: tuple[float, float] | None = None
) -> dict[str, Reasoned]:
    """Values of a distillation with their reasons, for run.json and --dry-run.

    Args:
        config: as the user set it.
        sigma_data: the teacher's standard deviation of pixels.
        sigma_range: lowest and highest noise level that the teacher knows; None: all.
    """
    recipe = config.recipe
    sigma_init = recipe.sigma_init_scale * sigma_data
    why_init = f"{recipe.sigma_init_scale:g} sigma_data, SiD's 2.5 for sigma_data 0.5"
    if sigma_range is not None and sigma_init > sigma_range[1]:
        sigma_init, why_init = sigma_range[1], "the highest noise level that the teacher knows"
    lam = recipe.lam if config.lam is None else config.lam
    return {
        "lam": Reasoned(
            lam, _why(config.lam, "SiD's best; level with 1 in prototype runs, ahead of 0.5")
        ),
        "lr": Reasoned(
            config.lr or recipe.lr,
            _why(config.lr, "best of 1e-4, 3e-4, 1e-3 in single prototype runs"),
        ),
        "batch": Reasoned(
            config.batch or recipe.batch, _why(config.batch, "64 at least (SiD, small sets)")
        ),
        "sigma_init": Reasoned(sigma_init, why_init),
    }


def _classes(config: TrainConfig, pictures: Pictures) -> tuple[tuple[str, ...], str]:
    if not config.classes:
        if pictures.kinds:
            return tuple(pictures.classes), f"kinds of pictures by likeness: {pictures.kinds}"
        return (), f"not asked for (--classes); {num_kinds(config, len(pictures))[1]}"
    if pictures.labels is None or len(pictures.classes) < 2:
        raise ValueError(
            f"{pictures.source} has no class subfolders or labels; train without --classes"
        )
    return tuple(pictures.classes), "class subfolders or labels of the data"


def _net(
    config: TrainConfig, size: int, channels: int, num_classes: int, engine: Engine
) -> Derived:
    """A net as wide as this machine can train within the budget: the usual one is timed here.

    A budget in images is not timed, so that it gives the same net everywhere: the usual one, or a
    wider one where there are very many.
    """
    given = (size, channels)
    rest = (config.net, config.widths, num_classes, config.recipe.dropout)
    usual, seconds = derive(*given, None, *rest), config.amount.seconds
    if config.widths:
        return usual
    if seconds is None:
        assert config.amount.images is not None
        return derive(*given, max(_USUAL_IMAGES, config.amount.images), *rest)
    batch = config.batch or config.recipe.batch
    speed = engine.images_per_second(build(usual.net), batch)
    found = derive(*given, speed * seconds, *rest)
    why = f"{found.reason}: {speed:.0f} a second measured here, {seconds:.0f} s"
    return replace(found, reason=why)


def _noise(recipe: TeacherRecipe, sigma_data: float, pictures: Pictures) -> tuple[LogNormal, str]:
    why = f"ln sigma around ln sigma_data {recipe.noise_mean:+g}"
    shift = 0.0
    if pictures.size > 64:  # large pictures hide noise (Hoogeboom et al. 2023): measured how much
        chosen = np.random.default_rng(0).permutation(len(pictures))[:_MEASURED]
        found = measured_shift(pictures.tensor(chosen))
        shift = -found.log_shift / 2  # of ln sigma; the other is of ln SNR
        why += (
            f", and {shift:.2f} more: averaged to 64 pixels, these pictures gain a factor of "
            f"{math.exp(2 * shift):.2f} over noise (flat ones {math.exp(-found.formula_shift):.2f})"
        )
    mean = recipe.noise_mean + math.log(sigma_data) + shift
    return LogNormal(mean, recipe.noise_std), why


def _flips(config: TrainConfig, pictures: Pictures) -> tuple[bool, str]:
    if config.flips != "auto":
        return config.flips == "on", "set by hand"
    return pictures.suggest_flip()


def _learning_rates(config: TrainConfig) -> tuple[float, float, str]:
    recipe = config.recipe
    main = recipe.lr if recipe.optimizer == "muon" else recipe.adamw_lr
    lr = config.lr or main
    why = _why(config.lr, f"best for {recipe.optimizer} in single prototype runs")
    return lr, recipe.adam_lr * lr / main, why


def _why(given: object, reason: str) -> str:
    return reason if given is None else "set by hand"
