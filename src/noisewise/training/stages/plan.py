"""Derives every value that training needs from pictures, machine and recipe, with a reason."""

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


_MEASURED = 256  # pictures that the shift of the noise levels is measured on
_USUAL_IMAGES = 100_000  # the budget from which `nets.derive` chooses the usual net
_TESTS = "our early tests (single runs on 2 CPU cores)"


@dataclass(frozen=True)
class Reasoned:
    """A derived value and the reason for it."""

    value: Any
    reason: str


@dataclass(frozen=True)
class TeacherPlan:
    """Every value that training a teacher needs, for these pictures on this machine.

    `reasons` explains each derived value; run.json and --dry-run show `to_dict`.
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
        """Number of classes (or kinds) that the net is conditioned on; 0 for none."""
        return len(self.classes)

    @property
    def weight(self) -> Weight:
        """Weight of the denoising loss (EDM): at the start the loss is 1 at every noise level."""
        return EDMWeight(self.sigma_data)

    def derived(self) -> dict[str, Reasoned]:
        """Every derived value with its reason."""
        values = {**asdict(self), "noise": draw_to_dict(self.noise)}
        return {name: Reasoned(values[name], reason) for name, reason in self.reasons.items()}

    def to_dict(self) -> dict[str, Any]:
        """`derived` as JSON values."""
        return {name: asdict(derived) for name, derived in self.derived().items()}


def plan_teacher(config: TrainConfig, pictures: Pictures, engine: Engine) -> TeacherPlan:
    """Derive every value that the user has not set from the pictures and the machine.

    Args:
        config: the user's settings.
        pictures: training pictures, already sorted into kinds if there are kinds.
        engine: device and precision.

    Raises:
        ValueError: if there are too few pictures, all pixels are equal, or the net cannot use this
            size.
    """
    recipe, size, channels = config.recipe, pictures.size, pictures.channels
    if len(pictures) < 2:
        raise ValueError(
            f"{pictures.source} has {len(pictures)} pictures; training needs at least 2"
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
            "size": _why(config.size, "from the pictures"),
            "channels": _why(config.channels, "from the pictures"),
            "classes": why_classes,
            "net": derived.reason,
            "sigma_data": "standard deviation of all training pixels in [-1, 1]",
            "noise": why_noise,
            "batch": _why(config.batch, f"best of 32, 64 and 128 in {_TESTS}"),
            "lr": why_lr,
            "adam_lr": why_lr,
            "flips": why_flips,
        },
    )


def generator_noise(recipe: StudentRecipe, progress: float) -> KarrasUniform:
    """Distribution of noise levels in the generator's loss, at a share of the budget (0 to 1)."""
    begin, end = recipe.t_falls
    left = min(1.0, max(0.0, (end - progress) / (end - begin))) if end > begin else 0.0
    return KarrasUniform(
        recipe.sigma_min, recipe.sigma_max, t_min=recipe.t_min * left, t_max=recipe.t_max
    )


def fake_noise(
    recipe: StudentRecipe, teachers: LogNormal | ShiftedCosine | KarrasUniform
) -> LogNormal | ShiftedCosine | KarrasUniform:
    """Distribution of noise levels in the fake score's loss: the teacher's, a LogNormal shifted."""
    if not isinstance(teachers, LogNormal):
        return teachers
    return replace(teachers, mean=teachers.mean + recipe.fake_noise_shift)


def student_values(
    config: DistillConfig, sigma_data: float, sigma_range: tuple[float, float] | None = None
) -> dict[str, Reasoned]:
    """The values of a distillation with their reasons, for run.json and --dry-run.

    Args:
        config: the user's settings.
        sigma_data: standard deviation of the teacher's training pixels.
        sigma_range: lowest and highest noise level that the teacher was trained on; None: any.
    """
    recipe = config.recipe
    sigma_init = recipe.sigma_init_scale * sigma_data
    why_init = f"{recipe.sigma_init_scale:g} times sigma_data; SiD uses 2.5 at sigma_data 0.5"
    if sigma_range is not None and sigma_init > sigma_range[1]:
        sigma_init = sigma_range[1]
        why_init = "the highest noise level that the teacher was trained on"
    lam = recipe.lam if config.lam is None else config.lam
    return {
        "lam": Reasoned(
            lam,
            _why(
                config.lam, f"best in the SiD paper; as good as 1 and better than 0.5 in {_TESTS}"
            ),
        ),
        "lr": Reasoned(
            config.lr or recipe.lr,
            _why(config.lr, f"best of 1e-4, 3e-4 and 1e-3 in {_TESTS}"),
        ),
        "batch": Reasoned(
            config.batch or recipe.batch,
            _why(config.batch, "at least 64, as in SiD on small sets"),
        ),
        "sigma_init": Reasoned(sigma_init, why_init),
    }


def _classes(config: TrainConfig, pictures: Pictures) -> tuple[tuple[str, ...], str]:
    if not config.classes:
        if pictures.kinds:
            return tuple(pictures.classes), f"kinds of similar pictures: {pictures.kinds}"
        return (), f"none without --classes; {num_kinds(config, len(pictures))[1]}"
    if pictures.labels is None or len(pictures.classes) < 2:
        raise ValueError(
            f"{pictures.source} has no class subfolders and no labels; train without --classes"
        )
    return tuple(pictures.classes), "class subfolders or labels of the pictures"


def _net(
    config: TrainConfig, size: int, channels: int, num_classes: int, engine: Engine
) -> Derived:
    """Choose a net whose width suits the budget; the speed of the usual net is measured here.

    With a budget of images nothing is measured, so the net is the same on every machine: the usual
    one, or a wider one for a very large budget.
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
    why = f"{found.reason}: {speed:.0f} pictures/s measured here, {seconds:.0f} s"
    return replace(found, reason=why)


def _noise(recipe: TeacherRecipe, sigma_data: float, pictures: Pictures) -> tuple[LogNormal, str]:
    why = f"mean of ln sigma is ln sigma_data {recipe.noise_mean:+g}"
    shift = 0.0
    if pictures.size > 64:  # the same noise hides less of a large picture (Hoogeboom et al. 2023)
        chosen = np.random.default_rng(0).permutation(len(pictures))[:_MEASURED]
        found = measured_shift(pictures.tensor(chosen))
        shift = -found.log_shift / 2  # log_shift is in ln SNR, shift in ln sigma
        why += (
            f", plus {shift:.2f}: reducing these pictures to 64 pixels multiplies their signal-to-"
            f"noise ratio by {math.exp(2 * shift):.2f} "
            f"(flat pictures: {math.exp(-found.formula_shift):.2f})"
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
    why = _why(config.lr, f"best for {recipe.optimizer} in {_TESTS}")
    return lr, recipe.adam_lr * lr / main, why


def _why(given: object, reason: str) -> str:
    return reason if given is None else "set by hand"
