"""What a user may set, as frozen values: flags on the command line, lines in run.json.

Every field that is None or "auto" is derived (see `plan`) and printed with its reason. The
constants behind the derivations are the two recipes, `TeacherRecipe` and `StudentRecipe`. The text
below a field is also its help on the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, get_args

from noisewise.pictures.palette_files import palette_of, written_out
from noisewise.pictures.request import Crop, check_channels, check_crops
from noisewise.sizes import as_size, check_size, written
from noisewise.training.settings.augment import changes_of
from noisewise.training.settings.budget import Budget
from noisewise.training.settings.larger import check_pixels, parse_larger
from noisewise.training.settings.overrides import overridden
from noisewise.training.settings.recipes import (
    MOST_FAKE_STEPS,
    GradThrough,
    LossWeight,
    StudentRecipe,
    TeacherRecipe,
    check_lam,
)
from noisewise.training.settings.shown import RARE, Shown
from noisewise.training.settings.student_choices import (
    DataKind,
    Student,
    check_calls,
    check_data,
    check_distilled_guidance,
    check_rank,
)

Precision = Literal["auto", "float32", "bfloat16"]
Flips = Literal["auto", "on", "off"]
Architecture = Literal["auto", "unet", "pyramid", "uvit", "vit"]
Schedule = Literal["lognormal", "logit-normal", "cosine", "interpolated"]
Loss = Literal["edm", "eps", "v", "flow", "sigmoid", "min-snr"]
AdapterStart = Literal["lora-ga", "lora", "full"]
MAY_CHANGE = (
    *("budget", "device", "precision", "threads", "checkpoint_seconds", "shard"),
    *("accumulate", "allow_enlarging"),
)
"""Settings that may differ when a run resumes."""

_DEEPEST = 64  # transformer blocks; more are a slip of the pen


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of every training: of a teacher, of an adapted teacher, of a generator."""

    budget: str = "5m"
    """How long to train: a time (90s, 30m, 2h) or a number of images (200000images)."""
    batch: int | None = None
    """Images in each step. Default: derived."""
    lr: float | None = None
    """Peak learning rate of the schedule. Default: derived."""
    seed: int = 0
    """Random seed. With a budget in images, the same seed gives the same weights."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Annotated[Precision, RARE] = "auto"
    """Number format inside the net. auto: bfloat16 on GPUs that support it, else float32."""
    threads: Annotated[int | None, RARE] = None
    """CPU threads. Default: torch decides."""
    checkpoint_seconds: Annotated[float, RARE] = 60.0
    """Seconds between checkpoints."""

    @property
    def amount(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def __post_init__(self) -> None:
        """Refuse settings that cannot train anything."""
        Budget.parse(self.budget)
        check_seed(self.seed)
        _check_choice("precision", self.precision, get_args(Precision))
        batch, lr, threads = self.batch, self.lr, self.threads
        if batch is not None and batch < 1:
            raise ValueError(
                f"a batch of {batch} images is too small; use 1 or more, best 32 to 256"
            )
        if lr is not None and not 0 < lr < math.inf:
            raise ValueError(f"learning rate {lr:g} trains nothing; it must be above 0")
        if threads is not None and threads < 1:
            raise ValueError(f"{threads} threads are too few; use 1 or more")
        if not self.checkpoint_seconds > 0:
            raise ValueError(
                f"checkpoint_seconds is {self.checkpoint_seconds:g}; it must be above 0"
            )


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How pictures take the shape that is trained."""

    crop: Crop = "auto"
    """How pictures get the shape: cut the centre, cut at random, or pad. auto: pad sprites with
    transparency, else cut."""
    background: Annotated[str, Shown("COLOUR")] = "auto"
    """Colour behind transparent pixels and of padding: a name, or #rrggbb. auto: transparency
    stays."""
    crops: int = 0
    """Cut up to this many pieces out of each large picture, at its own scale. 0: use it whole."""
    keep_whole: Annotated[bool, RARE] = False
    """With --crops: use the whole pictures too. Default: crops alone, as textures need."""

    def __post_init__(self) -> None:
        """Refuse a way that does not exist."""
        _check_choice("crop", self.crop, get_args(Crop))
        check_crops(self.crops, self.keep_whole)


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(PictureSettings, TrainingSettings):
    """The settings of training a teacher, from nothing or from another teacher."""

    flips: Flips = "auto"
    """Mirror half of the pictures. auto: if they still fit the set."""
    palette: Annotated[str, Shown("auto|none|FILE")] = "auto"
    """Colours of drawn pictures. auto: the palette of the folder, if it has one. FILE: a .gpl,
    .pal, .hex or .png of 2 to 256 colours."""

    def __post_init__(self) -> None:
        """Refuse settings before any picture is read."""
        TrainingSettings.__post_init__(self)
        PictureSettings.__post_init__(self)
        _check_choice("flips", self.flips, get_args(Flips))
        object.__setattr__(self, "palette", _palette(self.palette))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TeacherSettings):
    """Training a teacher on a folder of pictures. What is None or "auto" is derived and printed."""

    start_from: Annotated[str | None, Shown("RUN|TEACHER|auto|none", name="--from")] = None
    """Start from another teacher's weights, mapped to these pictures. auto: the best packaged base
    or none, by a short trial."""
    size: Annotated[str | int | None, Shown("SIZE")] = None
    """Pixels of a side, or WIDTHxHEIGHT (48x32). Default: a square, from the pictures."""
    allow_enlarging: Annotated[bool, RARE] = False
    """Train at this size even if it is 4 or more times that of most files. Default: refused."""
    channels: Annotated[int | None, RARE] = None
    """1 for grey, 3 for colour, 4 for colour with transparency. Default: as the pictures are."""
    classes: bool = False
    """Learn the classes (subfolders or labels), to draw one later."""
    kinds: Annotated[int | None, RARE] = None
    """Sort the pictures into this number of groups of similar ones. 0: do not. Default: derived."""
    augment: Annotated[str, Shown("LIST")] = "auto"
    """Change some pictures, told to the net: flips,turns,shifts,hue,channels. auto: if each is seen
    often. none: do not."""
    net: Architecture = "auto"
    """Architecture of the net. auto: by the size of the pictures."""
    widths: Annotated[tuple[int, ...], RARE] = ()
    """Channels at each resolution of the net, finest first. Default: by budget and device."""
    depth: Annotated[int | None, RARE] = None
    """Transformer blocks at the lowest resolution of the net, for hours. Default: none."""
    schedule: Annotated[Schedule, RARE] = "lognormal"
    """How noise levels are drawn in training; each is shifted as far as the pictures need."""
    loss: Annotated[Loss, RARE] = "edm"
    """Weight of each noise level in the loss."""
    multiscale: Annotated[bool, RARE] = False
    """Add the loss of smaller versions of the pictures, down to 32 pixels. Default: not added."""
    accumulate: Annotated[int | None, RARE] = None
    """Parts of a batch that are computed one after the other, to save memory. Default: derived."""
    lr_from: Annotated[str | None, RARE] = None
    """Run whose learning rate to use, scaled to this batch by the noise measured there."""
    shard: Annotated[bool, RARE] = False
    """Split the net across several processes (FSDP2), for nets too large for one device."""
    recipe: TeacherRecipe = field(default_factory=TeacherRecipe)
    """The constants of the recipe."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained before any picture is read."""
        super().__post_init__()
        if changes_of(self.augment) and self.shard:
            raise ValueError("augment and shard do not work together; leave one of them out")
        _check_choice("net", self.net, get_args(Architecture))
        _check_choice("schedule", self.schedule, get_args(Schedule))
        _check_choice("loss", self.loss, get_args(Loss))
        if self.lr is not None and self.lr_from is not None:
            raise ValueError("lr and lr_from are both set; leave one of them out")
        if self.start_from == "none":
            object.__setattr__(self, "start_from", None)
        if self.start_from == "auto" and self.shard:
            raise ValueError(
                "start_from auto compares starts, and a split net (shard) cannot: name a run, or "
                "none"
            )
        if self.size is not None:
            object.__setattr__(self, "size", _checked_size(self.size))
        check_channels(self.channels, self.background)
        if self.kinds is not None and self.kinds < 0:
            raise ValueError(f"{self.kinds} kinds do not work; use 0 for none, or 2 and more")
        if self.kinds and self.classes:
            raise ValueError("classes and kinds are both set; leave one of them out")
        if any(width < (1 if at else 0) for at, width in enumerate(self.widths)):
            raise ValueError(f"widths {self.widths} must be positive numbers of channels")
        if self.depth is not None and not 0 <= self.depth <= _DEEPEST:
            raise ValueError(f"depth is {self.depth}; use 0 to {_DEEPEST} transformer blocks")
        if self.accumulate is not None and self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}; use 1 or more parts of a batch")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TeacherSettings):
    """Adapting a run's teacher to another folder of pictures. What is None is derived."""

    rank: int = 8
    """Rank of the adapter in each layer. Smaller layers get their own full rank."""
    start: AdapterStart = "lora-ga"
    """lora-ga: starts along the full gradient. lora: at random. full: all weights, no adapter."""
    size: Annotated[str | int | None, Shown("SIZE")] = None
    """With --start full: another size of the pictures, as for train. Default: the teacher's."""
    channels: Annotated[int | None, RARE] = None
    """With start full: other channels of the pictures, as for train. Default: the teacher's."""
    augment: Annotated[str, Shown("LIST")] = "auto"
    """Change some pictures, told to the net, as for train. auto: only where --start full changes
    size, channels or classes, and each is seen often. none: do not."""
    samples: Annotated[int, RARE] = 512
    """Pictures behind the gradient that lora-ga starts from."""
    recipe: TeacherRecipe = field(
        default_factory=lambda: TeacherRecipe(optimizer="adamw", betas=(0.9, 0.99))
    )
    """The constants of the recipe. Its noise is not used: the teacher's is."""

    def training(self, classes: bool, batch: int | None = None) -> TrainConfig:
        """The same as a configuration of teacher training."""
        shared = {f.name: getattr(self, f.name) for f in fields(TeacherSettings)}
        recipe = replace(self.recipe, optimizer="adamw")
        form = {"size": self.size, "channels": self.channels, "augment": self.augment}
        config = TrainConfig(**shared, **form, classes=classes, recipe=recipe)
        return config if batch is None else replace(config, batch=batch)

    def __post_init__(self) -> None:
        """Refuse what cannot be adapted before any picture is read."""
        super().__post_init__()
        _check_choice("start", self.start, get_args(AdapterStart))
        changes_of(self.augment)
        if self.start != "full" and not (self.size is None and self.channels is None):
            raise ValueError(
                "an adapter works only at the size and channels of its teacher; use --start full, "
                "or leave size and channels out"
            )
        if self.size is not None:
            object.__setattr__(self, "size", _checked_size(self.size))
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} adapts nothing; use 1 or more, best 4 to 32")
        if self.samples < 1:
            raise ValueError(f"{self.samples} pictures have no gradient; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingSettings):
    """Distilling a trained teacher into a generator of one network call, or of a few."""

    calls: int = 1
    """Network calls that the generator is trained for: 1, 2 or 4."""
    student: Student = "full"
    """Train all weights (full), or adapters on one net (lora)."""
    rank: int | None = None
    """Rank of the adapters. Smaller layers get their own full rank. Default: 8."""
    guidance: float = 1.0
    """Learn the teacher guided by this much towards each class, up to 5; 1: not guided."""
    data_weight: float = 0.0
    """Weight of real pictures, up to 0.5; 0: none."""
    data_term: Annotated[DataKind, RARE] = "realuid"
    """How real pictures are used. realuid: the fake score learns from them too. sida: its encoder
    tells them from generated ones, as in a GAN."""
    lam: float | None = None
    """lambda of the loss L2 - lambda L1, 0 to 1.5. 0.5 is safest. Default: from the recipe."""
    weight: LossWeight | None = None
    """Weight of each picture in the generator's loss. sigma: by its noise level alone. l1: by its
    error too, as in the papers. none: all alike. Default: from the recipe."""
    through: GradThrough | None = None
    """Where gradients flow. both: through teacher and fake score, as in SiD. none: through neither,
    as in DMD, which is cheaper. Default: from the recipe."""
    fake_steps: Annotated[int | None, RARE] = None
    """Steps of the fake score for each step of the generator. Default: from the recipe."""
    recipe: StudentRecipe = field(default_factory=StudentRecipe)
    """The constants of the recipe."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        super().__post_init__()
        if self.lam is not None:
            check_lam(self.lam)
        check_calls(self.calls)
        _check_choice("student", self.student, get_args(Student))
        check_rank(self.student, self.rank)
        check_distilled_guidance(self.guidance)
        for name, choices in (("weight", get_args(LossWeight)), ("through", get_args(GradThrough))):
            if (value := getattr(self, name)) is not None:
                _check_choice(name, value, choices)
        _check_choice("data_term", self.data_term, get_args(DataKind))
        check_data(self.data_weight, self.data_term, self.constants.grad_through)
        if self.fake_steps is not None and not 1 <= self.fake_steps <= MOST_FAKE_STEPS:
            raise ValueError(
                f"fake_steps is {self.fake_steps}; use 1 to {MOST_FAKE_STEPS}, best 1 or 2"
            )

    @property
    def constants(self) -> StudentRecipe:
        """The recipe with what was set by hand."""
        given = {"weight": self.weight, "grad_through": self.through, "fake_steps": self.fake_steps}
        return overridden(self.recipe, given)


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """The settings of drawing pictures from a run."""

    num_images: Annotated[int | None, Shown(short="-n")] = None
    """Number of pictures to draw. Default: 64, or 1 with --larger."""
    teacher: bool = False
    """Use the teacher, even if the run has a generator."""
    calls: int | None = None
    """Network calls for each picture. Generator: 1, 2, or as trained. Teacher: any; heun: odd."""
    sampler: str | None = None
    """The teacher's: heun, ddim, ddpm, dpmpp_2m or dpmpp_2m_sde. Default: the model's own."""
    guidance: float | None = None
    """Push the teacher's pictures towards their class: 1 is none, 1.5 some; costs more calls.
    Default: as measured."""
    seed: int = 0
    """Random seed. Picture i depends on the seed and on i only."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        check_seed(self.seed)
        if self.guidance is not None and not 1 <= self.guidance < math.inf:
            raise ValueError(
                f"guidance of {self.guidance:g} does not work; use 1 for none, or more, such as 1.5"
            )


@dataclass(frozen=True, kw_only=True)
class SampleConfig(DrawingSettings):
    """Drawing pictures from a run."""

    label: Annotated[str | None, Shown("CLASS")] = None
    """Draw only this class, by name or number. Default: all, as often as in the pictures."""
    larger: Annotated[str | None, Shown("WIDTHxHEIGHT")] = None
    """Draw larger pictures than trained, without seams: for textures. The teacher draws them."""
    palette: Annotated[str, Shown("auto|none|FILE")] = "auto"
    """Colours of the pictures. auto: as the model was trained. none: as they are drawn. FILE: a
    .gpl, .pal, .hex or .png of 2 to 256 colours."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"{self.num_images} pictures cannot be drawn; use 1 or more")
        object.__setattr__(self, "palette", _palette(self.palette))
        if self.larger_size is not None:
            check_pixels(self.larger_size, self.count)

    @property
    def count(self) -> int:
        """Number of pictures to draw."""
        if self.num_images is not None:
            return self.num_images
        return 64 if self.larger is None else 1

    @property
    def larger_size(self) -> tuple[int, int] | None:
        """Height and width of larger pictures; None: those of the model."""
        return None if self.larger is None else parse_larger(self.larger)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DrawingSettings):
    """Measuring a run's pictures against real ones."""

    num_images: Annotated[int, Shown(short="-n")] = 2000
    """Number of pictures to draw and measure."""
    against: Annotated[str | None, Shown("PICTURES")] = None
    """Real pictures to compare with: a folder, .zip or .npz. Default: the held-out pictures."""
    data: Annotated[str | None, Shown("PICTURES")] = None
    """Where the training pictures are now, if they were moved. The run notes it."""
    fid_weights: Annotated[str | None, Shown("FILE")] = None
    """Also give FID and KID, with InceptionV3 weights from this file. Nothing is downloaded."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        super().__post_init__()
        if not isinstance(self.num_images, int):
            raise ValueError(f"num_images is {self.num_images!r}; use a whole number")
        if self.num_images < 16:
            raise ValueError(f"{self.num_images} pictures are too few to measure; use 16 or more")


NUM_SEEDS = 2**64
"""Seeds that torch's generators take: 0 to one less."""


def check_seed(seed: int) -> None:
    """Refuse a seed that torch's generators do not take.

    Raises:
        ValueError: if it is negative or 2^64 and more.
    """
    if not 0 <= seed < NUM_SEEDS:
        raise ValueError(f"seed {seed} does not work; use 0 to {NUM_SEEDS - 1}")


def _checked_size(size: object) -> int | str:
    """A size as it is written, whatever form it was given in: 32 or 48x32."""
    found = as_size(size)
    check_size(found)
    return written(found)


def _palette(given: str) -> str:
    """A palette as settings hold it: auto, none, or its colours; a file is read once, here."""
    return given if given in ("auto", "none") else written_out(palette_of(given))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word from a file or a call that the type would have forbidden."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(choices)}")
