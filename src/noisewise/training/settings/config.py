"""What a user may set, as frozen values: flags on the command line, lines in run.json.

Every field that is None or "auto" is derived (see `plan`) and printed with its reason. The
constants behind the derivations are the two recipes, `TeacherRecipe` and `StudentRecipe`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

from noisewise.pictures.request import Crop
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

Precision = Literal["auto", "float32", "bfloat16"]
AdapterStart = Literal["lora-ga", "lora", "full"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")
_IMAGES = re.compile(r"(\d+(?:\.\d+)?)(k|M)?images")


def parse_duration(text: str) -> float:
    """Length of time in seconds from ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Raises:
        ValueError: if text is not a positive length of time.

    Example:
        >>> parse_duration("90s"), parse_duration("2h"), parse_duration("1h30m")
        (90.0, 7200.0, 5400.0)
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a length of time; write 90s, 30m or 2h")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds > 0:
        raise ValueError(f"{text!r} is no time at all; write for example 90s, 30m or 2h")
    return seconds


@dataclass(frozen=True)
class Budget:
    """How much training: a length of time, or a number of images seen; exactly one of the two.

    Args:
        seconds: wall-clock time of the stage, evaluations and checkpoints included.
        images: images seen, each repetition counted.

    Raises:
        ValueError: if not exactly one is given, or it is not positive.

    Example:
        >>> Budget.parse("200000images")
        Budget(seconds=None, images=200000)
        >>> Budget.parse("5m").progress(seconds=75, images=9999)
        0.25
    """

    seconds: float | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        """Check that there is one positive amount."""
        given = [value for value in (self.seconds, self.images) if value is not None]
        if len(given) != 1:
            raise ValueError("a budget is either a length of time or a number of images")
        if not 0 < given[0] < math.inf:
            raise ValueError(f"a budget of {given[0]:g} trains nothing; write 5m or 200000images")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``90s``, ``30m``, ``2h``, ``200000images`` or ``200kimages``.

        Raises:
            ValueError: if text is none of these, or zero.
        """
        text = text.strip().replace("_", "")
        match = _IMAGES.fullmatch(text)
        if match:
            scale = {"": 1, "k": 1000, "M": 1_000_000}[match[2] or ""]
            return cls(images=round(float(match[1]) * scale))
        if _DURATION.fullmatch(text):
            return cls(seconds=parse_duration(text))
        raise ValueError(f"{text!r} is no budget; write 90s, 30m, 2h or 200000images")

    def progress(self, seconds: float, images: int) -> float:
        """Share of the budget used, from 0; above 1 when it is overspent."""
        if self.seconds is not None:
            return seconds / self.seconds
        assert self.images is not None
        return images / self.images

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        if self.images is not None:
            return f"{self.images}images"
        assert self.seconds is not None
        for unit, length in (("h", 3600.0), ("m", 60.0)):
            if self.seconds >= length and self.seconds % length == 0:
                return f"{self.seconds / length:g}{unit}"
        return f"{self.seconds:g}s"


@dataclass(frozen=True)
class TrainConfig:
    """Training a teacher on a folder of pictures. What is None or "auto" is derived and printed."""

    budget: str = "5m"
    """How much training: 90s, 30m, 2h, or 200000images."""
    size: int | None = None
    """Side of the square pictures in pixels; None: as the pictures suggest."""
    channels: int | None = None
    """1 grey, 3 colour; None: as the pictures are."""
    crop: Crop = "centre"
    """Of pictures that are not square: centre, random, or pad (all of it, on the background)."""
    background: str = "white"
    """Under transparency and around padded pictures: a name or #rrggbb."""
    classes: bool = False
    """Condition on the class subfolders (or labels), so that samples can be asked by class."""
    kinds: int | None = None
    """Without classes, sort the pictures into so many kinds by likeness and condition on these;
    None: by how many pictures there are; 0: do not."""
    flips: Literal["auto", "on", "off"] = "auto"
    """Mirror half of the pictures left to right; auto: where the set looks mirrored already."""
    net: Literal["auto", "unet", "uvit", "vit"] = "auto"
    """Architecture; auto: by size."""
    widths: tuple[int, ...] = ()
    """Channels of each resolution of the net, finest first; empty: by budget and device."""
    batch: int | None = None
    """Images a step."""
    lr: float | None = None
    """Learning rate of the main optimiser at its highest."""
    lr_from: str | None = None
    """A run whose learning rate is taken, scaled to this batch by the noise measured there."""
    seed: int = 0
    """Source of everything random; the same seed and an image budget give the same weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Arithmetic inside the net; auto: bfloat16 on GPUs that have it, else float32."""
    threads: int | None = None
    """CPU threads; None: as torch decides."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    shard: bool = False
    """Part the net among several processes (FSDP2), for nets that outgrow one device."""
    recipe: TeacherRecipe = field(default_factory=TeacherRecipe)
    """The constants of the recipe."""

    @property
    def amount(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained before any picture is read."""
        Budget.parse(self.budget)
        _check_common(self.seed, self.batch, self.lr, self.threads, self.checkpoint_seconds)
        _check_choice("precision", self.precision, get_args(Precision))
        _check_choice("flips", self.flips, ("auto", "on", "off"))
        _check_choice("crop", self.crop, get_args(Crop))
        _check_choice("net", self.net, ("auto", "unet", "uvit", "vit"))
        _check_choice("optimizer", self.recipe.optimizer, ("muon", "adamw"))
        if self.lr is not None and self.lr_from is not None:
            raise ValueError("lr and lr_from are both set; leave one of them out")
        if self.recipe.noise_every < 0:
            raise ValueError(f"noise_every is {self.recipe.noise_every}; use 0 to measure no noise")
        if self.size is not None and self.size < 8:
            raise ValueError(f"a size of {self.size} pixels is too small; the smallest is 8")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"{self.channels} channels cannot be had; use 1 (grey) or 3 (colour)")
        if self.kinds is not None and self.kinds < 0:
            raise ValueError(f"{self.kinds} kinds cannot be had; use 0 for none, or 2 and more")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be positive numbers of channels")


@dataclass(frozen=True)
class DistillConfig:
    """Distilling a trained teacher into a generator of one network call; no data is read."""

    budget: str = "5m"
    """How much training: 90s, 30m, 2h, or 200000images."""
    lam: float | None = None
    """lambda of the loss L2 - lambda L1; None: the recipe's; 0.5 is safest, beyond 1.5 diverges."""
    batch: int | None = None
    """Images a step."""
    lr: float | None = None
    """Learning rate of generator and fake score at its highest."""
    seed: int = 0
    """Source of everything random; the same seed and an image budget give the same weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Arithmetic inside the nets; auto: bfloat16 on GPUs that have it, else float32."""
    threads: int | None = None
    """CPU threads; None: as torch decides."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    recipe: StudentRecipe = field(default_factory=StudentRecipe)
    """The constants of the recipe."""

    @property
    def amount(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        Budget.parse(self.budget)
        _check_common(self.seed, self.batch, self.lr, self.threads, self.checkpoint_seconds)
        _check_choice("precision", self.precision, get_args(Precision))
        _check_choice("weight", self.recipe.weight, ("l1", "sigma", "none"))
        _check_choice("grad_through", self.recipe.grad_through, ("both", "none"))
        if self.lam is not None and not 0 <= self.lam <= 1.5:
            raise ValueError(f"lambda {self.lam:g} diverges; use 0.5 to 1.2")


@dataclass(frozen=True)
class AdaptConfig:
    """Adapting a run's teacher to another folder of pictures. What is None is derived."""

    budget: str = "5m"
    """How much training: 90s, 30m, 2h, or 200000images."""
    rank: int = 8
    """Rank of the adapter in each layer; in layers that are smaller, all of theirs."""
    start: AdapterStart = "lora-ga"
    """lora-ga: first steps follow full fine-tuning; lora: random; full: all weights, no adapter."""
    samples: int = 512
    """Pictures behind the gradient that lora-ga starts from."""
    flips: Literal["auto", "on", "off"] = "auto"
    """Mirror half of the pictures left to right; auto: where the set looks mirrored already."""
    batch: int | None = None
    """Images a step."""
    lr: float | None = None
    """Learning rate of AdamW at its highest."""
    seed: int = 0
    """Source of everything random; the same seed and an image budget give the same weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """Arithmetic inside the net; auto: bfloat16 on GPUs that have it, else float32."""
    threads: int | None = None
    """CPU threads; None: as torch decides."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    recipe: TeacherRecipe = field(
        default_factory=lambda: TeacherRecipe(optimizer="adamw", betas=(0.9, 0.99))
    )
    """The constants of the recipe; its noise is not used: that is the teacher's."""

    @property
    def amount(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def training(self, classes: bool, batch: int | None = None) -> TrainConfig:
        """The same as a configuration of teacher training."""
        return TrainConfig(
            budget=self.budget,
            classes=classes,
            flips=self.flips,
            batch=batch or self.batch,
            lr=self.lr,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            checkpoint_seconds=self.checkpoint_seconds,
            recipe=replace(self.recipe, optimizer="adamw"),
        )

    def __post_init__(self) -> None:
        """Refuse what cannot be adapted before any picture is read."""
        if self.start not in get_args(AdapterStart):
            known = ", ".join(get_args(AdapterStart))
            raise ValueError(f"start {self.start!r} is unknown; use one of {known}")
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} adapts nothing; use 1 or more, best 4 to 32")
        if self.samples < 1:
            raise ValueError(f"{self.samples} pictures have no gradient; use 1 or more")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"learning rate {self.lr:g} trains nothing; it must be above 0")
        self.training(False)


@dataclass(frozen=True)
class SampleConfig:
    """Drawing pictures from a run."""

    num_images: int = 64
    """How many pictures."""
    seed: int = 0
    """Picture i depends on the seed and on i alone."""
    label: str | None = None
    """A class, by name or number; None: as often as in the training data."""
    teacher: bool = False
    """Use the teacher although there is a generator."""
    calls: int | None = None
    """Network calls a picture: 1 or 2 of the generator; an odd number of the teacher."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.num_images < 1:
            raise ValueError(f"{self.num_images} pictures: ask for at least 1")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")


@dataclass(frozen=True)
class EvaluateConfig:
    """Measuring a run's pictures against real ones."""

    against: str | None = None
    """Folder, zip or npz of real pictures; None: the pictures held out from training."""
    num_images: int = 2000
    """How many pictures to generate."""
    seed: int = 0
    """Picture i depends on the seed and on i alone."""
    teacher: bool = False
    """Judge the teacher although there is a generator."""
    calls: int | None = None
    """Network calls a picture: 1 or 2 of the generator; an odd number of the teacher."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.num_images < 16:
            raise ValueError(f"{self.num_images} pictures tell nothing; use at least 16")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")


def _check_common(
    seed: int, batch: int | None, lr: float | None, threads: int | None, checkpoint_seconds: float
) -> None:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    if batch is not None and batch < 1:
        raise ValueError(f"a batch of {batch} images trains nothing; use 1 or more, best 32 to 256")
    if lr is not None and not 0 < lr < math.inf:
        raise ValueError(f"learning rate {lr:g} trains nothing; it must be above 0")
    if threads is not None and threads < 1:
        raise ValueError(f"{threads} threads cannot work; use 1 or more")
    if not checkpoint_seconds > 0:
        raise ValueError(f"checkpoint_seconds is {checkpoint_seconds:g}; it must be above 0")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word from a file or a call that the type would have forbidden."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(choices)}")
