"""Derives every value that training needs from pictures, machine and recipe, with a reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from noisewise.diffusion import AnyDraw, LogNormal, Prediction, Weight, draw_to_dict
from noisewise.nets.bands import Bands, levels_for, measured_bands, overall
from noisewise.nets.costs import Costs, costs_of
from noisewise.nets.derive import Derived, build, derive
from noisewise.nets.recomputing import recompute
from noisewise.sizes import Size, divisible, mean_side, spelled, written
from noisewise.training.devices.hardware import free_memory
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.settings.student_choices import RANK
from noisewise.training.stages.choose_palette import plan_palette
from noisewise.training.stages.few_pictures import plan_few
from noisewise.training.stages.growth import Scale, scales
from noisewise.training.stages.kinds import num_kinds
from noisewise.training.stages.noise_plan import (
    generator_input,
    later_levels,
    loss_weight,
    plan_noise,
)
from noisewise.training.stages.step_plan import plan_step, step_room
from noisewise.training.stages.student_batch import student_batch

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.devices.engine import Engine
    from noisewise.training.models.model_config import ModelConfig
    from noisewise.training.settings.config import DistillConfig, Loss, TrainConfig
    from noisewise.training.settings.recipes import TeacherRecipe


_MEASURED = 256  # pictures that the bands are measured on
_FEWEST = 16  # of them for very large pictures
_USUAL_IMAGES = 100_000  # the budget from which `nets.derive` chooses the usual net
_TESTS = "our early tests (single runs on 2 CPU cores)"
_WEIGHTS = {
    "sigma": "by the noise level alone, as the identity behind the loss requires",
    "l1": "1 / mean |x_g - teacher|, as in SiD and DMD",
    "none": "all pictures alike, as in FGM",
}
_THROUGH = {
    "both": "through teacher and fake score, as in SiD (Zhou et al. 2024)",
    "none": "through neither, as in DMD (Yin et al. 2024)",
}

_DATA = {
    "realuid": "the fake score learns from real pictures too, without an adversary, as in RealUID",
    "sida": "the fake score's encoder tells real pictures from generated ones, as in SiDA (Zhou et "
    "al. 2024, arXiv 2410.14919), where the weight is 0.5",
}

_BY_HAND = "set by hand"


@dataclass(frozen=True)
class Reasoned:
    """A derived value and the reason for it."""

    value: Any
    reason: str


@dataclass(frozen=True)
class TeacherPlan:
    """Every value that training a teacher needs, for these pictures on this machine.

    `reasons` explains each derived value; run.json and --dry-run show `to_dict`. `notes` is what
    people should know about the pictures, in a plan that is only shown. `start` is the name of the
    base that training begins with, "" for nothing.
    """

    size: Size
    channels: int
    classes: tuple[str, ...]
    net: dict[str, Any]
    prediction: Prediction | Literal["denoiser"]
    sigma_data: float
    noise: AnyDraw
    noise_scale: float
    sigma_max: float
    loss: Loss
    multiscale: bool
    batch: int
    accumulate: int
    cost: dict[str, Any]
    lr: float
    adam_lr: float
    flips: bool
    reasons: dict[str, str]
    scales: tuple[Scale, ...] = ()
    crops: int = 0
    notes: tuple[str, ...] = ()
    recompute: bool = False
    start: str = ""
    palette: Palette = NO_PALETTE
    augment: dict[str, Any] = field(default_factory=dict)

    @property
    def dropout(self) -> float:
        """Share of features that the net drops in training, at its lowest resolution."""
        return float(self.net.get("dropout", 0.0))

    @property
    def num_classes(self) -> int:
        """Number of classes (or kinds) that the net is conditioned on; 0 for none."""
        return len(self.classes)

    @property
    def weight(self) -> Weight:
        """Weight of the denoising loss, for each noise level."""
        return loss_weight(self.loss, self.sigma_data, self.noise_scale)

    def derived(self) -> dict[str, Reasoned]:
        """Every derived value with its reason."""
        changed = {
            "noise": draw_to_dict(self.noise),
            "size": written(self.size),
            "palette": self.palette.text,
            "dropout": self.dropout,
        }
        values = {**asdict(self), **changed}
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
    derived, speed, costs = _net(config, pictures, len(classes), engine)
    steps = plan_step(config, derived.net, speed, free_memory(engine.device), costs)
    levels = plan_noise(config, pictures, sigma_data, _finest(derived.net))
    coarse, why_scales = _scales(recipe, derived.net)
    flips, why_flips = _flips(config, pictures)
    few = plan_few(config, pictures, _images(config, speed), flips)
    lr, adam_lr, why_lr = _learning_rates(config)
    palette = plan_palette(config, pictures)
    return TeacherPlan(
        size=size,
        channels=channels,
        classes=classes,
        net={**derived.net, "dropout": few.dropout},
        prediction=derived.prediction,
        sigma_data=sigma_data,
        noise=levels.noise,
        noise_scale=levels.noise_scale,
        sigma_max=levels.sigma_max,
        loss=config.loss,
        multiscale=config.multiscale,
        batch=steps.batch,
        accumulate=steps.accumulate,
        cost=steps.cost,
        lr=lr,
        adam_lr=adam_lr,
        flips=flips,
        reasons={
            "size": _why(config.size, "from the pictures"),
            "channels": _why(config.channels, _why_channels(pictures)),
            "classes": why_classes,
            "net": derived.reason,
            "sigma_data": "standard deviation of all training pixels in [-1, 1]",
            **levels.reasons,
            **steps.reasons,
            "lr": why_lr,
            "adam_lr": why_lr,
            "flips": why_flips,
            "palette": palette.reason,
            **few.reasons,
            **({"scales": why_scales} if coarse else {}),
            **why_crops(pictures),
        },
        scales=coarse,
        recompute=steps.recompute,
        crops=config.crops,
        palette=palette,
        augment=few.augment,
    )


def _why_channels(pictures: Pictures) -> str:
    """What was measured about transparency; else that it comes from the pictures."""
    kept = [note for note in pictures.notes if note.startswith("transparency is kept")]
    return kept[0] if kept else "from the pictures"


def why_crops(pictures: Pictures) -> dict[str, str]:
    """What was cut, as the reason of "crops"; empty if nothing was."""
    if pictures.groups is None:
        return {}
    size, num_files = pictures.size, len(set(pictures.names))
    what = f"{len(pictures):,} pieces of {spelled(size)} pixels from {num_files:,} pictures"
    return {"crops": f"most of each picture, set by hand: {what}"}


def student_values(
    config: DistillConfig, teacher: ModelConfig, memory: int | None = None
) -> dict[str, Reasoned]:
    """The values of a distillation with their reasons, for training, report and --dry-run.

    Args:
        config: the user's settings.
        teacher: what the teacher's config.json says.
        memory: free bytes that a step must fit into; None: not looked at.

    Raises:
        ValueError: if a step does not fit.
    """
    recipe = config.recipe
    sigma_init = generator_input(
        recipe, teacher.sigma_data, teacher.noise_scale, teacher.sigma_range
    )
    lam = recipe.lam if config.lam is None else config.lam
    constants = config.constants
    return {
        "lam": Reasoned(
            lam,
            _why(
                config.lam, f"best in the SiD paper; as good as 1 and better than 0.5 in {_TESTS}"
            ),
        ),
        "lr": _student_lr(config),
        "batch": Reasoned(*student_batch(config, teacher, memory)),
        "weight": Reasoned(constants.weight, _why(config.weight, _WEIGHTS[constants.weight])),
        "through": Reasoned(
            constants.grad_through, _why(config.through, _THROUGH[constants.grad_through])
        ),
        "fake_steps": Reasoned(
            constants.fake_steps, _why(config.fake_steps, "as in SiD; DMD2 takes 5")
        ),
        "sigma_init": Reasoned(*sigma_init),
        **_of_student(config, teacher, sigma_init[0]),
    }


def _student_lr(config: DistillConfig) -> Reasoned:
    """The rate of a generator: adapters need more, since their first step moves a weight less."""
    recipe, best = config.recipe, f"best of 1e-4, 3e-4 and 1e-3 in {_TESTS}"
    if config.student == "full":
        return Reasoned(config.lr or recipe.lr, _why(config.lr, best))
    scale = recipe.adapter_lr_scale
    why = f"{scale:g} times that of all weights: a step of B moves a weight by about a tenth of it"
    return Reasoned(config.lr or scale * recipe.lr, _why(config.lr, why))


def _of_student(
    config: DistillConfig, teacher: ModelConfig, sigma_init: float
) -> dict[str, Reasoned]:
    """What is chosen beyond one call of all weights without data; empty if nothing is."""
    found = {}
    if config.calls > 1:
        levels = later_levels(
            config.recipe,
            sigma_init,
            teacher.sigma_data,
            teacher.noise_scale,
            teacher.sigma_range,
            config.calls,
        )
        found |= {"calls": Reasoned(config.calls, _BY_HAND), "later_sigmas": Reasoned(*levels)}
    if config.student == "lora":
        rank = config.rank or RANK
        found |= {
            "student": Reasoned(config.student, _BY_HAND),
            "rank": Reasoned(rank, _why(config.rank, "as of noisewise adapt")),
        }
    if config.guidance != 1:
        found["guidance"] = Reasoned(config.guidance, _why_guided(teacher))
    if config.data_weight:
        found["data_weight"] = Reasoned(config.data_weight, _BY_HAND)
        found["data_term"] = Reasoned(config.data_term, _DATA[config.data_term])
    return found


def _why_guided(teacher: ModelConfig) -> str:
    """Where a distillation is guided, and by whom."""
    low, high = teacher.sampler.guidance_interval
    return (
        f"{_BY_HAND}: teacher and fake score alike, from noise {high:.3g} to {low:.3g}, as in "
        "SiD-LSG (Zhou et al. 2024, arXiv 2406.01561), whose distance is lowest with 1.5"
    )


def _classes(config: TrainConfig, pictures: Pictures) -> tuple[tuple[str, ...], str]:
    if not config.classes:
        if pictures.kinds:
            return tuple(pictures.classes), f"kinds of similar pictures: {pictures.kinds}"
        return (), f"none without --classes; {num_kinds(config, len(pictures))[1]}"
    if pictures.labels is None or len(pictures.classes) < 2:
        start = "no classes: "
        why = [note.removeprefix(start) for note in pictures.notes if note.startswith(start)]
        raise ValueError(
            f"{pictures.source} has no classes to learn: "
            f"{'; '.join(why) or 'it has no class subfolders and no labels'}; "
            f"{'mend that, or ' if why else ''}train without --classes"
        )
    return tuple(pictures.classes), "class subfolders or labels of the pictures"


def _net(
    config: TrainConfig, pictures: Pictures, num_classes: int, engine: Engine
) -> tuple[Derived, float | None, Costs]:
    """Choose a net whose width suits the budget; tell its speed in pictures per second, its costs.

    The speed of the usual net is measured here. With a budget of images nothing is measured, so the
    net is the same on every machine: the usual one, or a wider one for a very large budget.
    """
    given, side = (pictures.size, pictures.channels), mean_side(pictures.size)
    bands = _bands(pictures)
    rest = (config.net, config.widths, num_classes, config.recipe.dropout, bands, config.depth)
    usual, seconds = derive(*given, None, *rest), config.amount.seconds
    if seconds is None:
        assert config.amount.images is not None
        images = max(_USUAL_IMAGES, config.amount.images)
        chosen = usual if config.widths else derive(*given, images, *rest)
        return chosen, None, costs_of(chosen.net)
    batch = config.batch or max(4, int(config.recipe.batch * min(1.0, (64 / side) ** 2)))
    net, room = build(usual.net), step_room(free_memory(engine.device))
    costs = plain = costs_of(usual.net)
    if costs.fitting(room) < 1:
        recompute(net, True)
        costs = costs.recomputed()
    if costs.fitting(room) < 1:  # nothing can be timed; `plan_step` says so
        return usual, None, plain
    speed = engine.images_per_second(net, min(batch, costs.fitting(room)))
    if config.widths:
        return usual, speed, plain
    found = derive(*given, speed * seconds, *rest)
    why = f"{found.reason}: {speed:.0f} pictures/s measured here, {seconds:.0f} s"
    costs = plain if found.net == usual.net else costs_of(found.net)
    return replace(found, reason=why), speed * plain.flops / costs.flops, costs


def _bands(pictures: Pictures) -> Bands | None:
    """The bands of large pictures; None if their size cannot be halved so often."""
    levels = levels_for(pictures.size)
    if not levels or not divisible(pictures.size, 2**levels):
        return None
    most = max(_FEWEST, int(_MEASURED * min(1.0, (256 / mean_side(pictures.size)) ** 2)))
    if pictures.total:  # a plan reads only some pictures, and should not take longer than that
        most //= 4
    some = np.random.default_rng(0).permutation(len(pictures))[:most]
    return measured_bands(pictures.tensor(some), levels)


def _finest(net: dict[str, Any]) -> float | None:
    """Standard deviation of the weakest band of a net that has bands."""
    if net.get("name") != "pyramid" or not net["detail_sd"]:
        return None
    return min(overall(row) for row in net["detail_sd"])


def _scales(recipe: TeacherRecipe, net: dict[str, Any]) -> tuple[tuple[Scale, ...], str]:
    relative = LogNormal(recipe.noise_mean, recipe.noise_std)
    found = scales(net, recipe.coarse_share, relative)
    parts = ", ".join(f"{s.side} pixels until {s.until:.0%} of the budget" for s in found)
    return found, f"coarse scales first, at many times the speed: {parts}"


def _images(config: TrainConfig, speed: float | None) -> float | None:
    """Pictures that the budget trains on; None if the speed is unknown."""
    budget = config.amount
    return budget.images if budget.seconds is None else speed and speed * budget.seconds


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
    return reason if given is None else _BY_HAND
