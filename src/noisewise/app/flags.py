"""The flags of each command: the frozen configurations of `train.config`, and a few more.

Each class below is a configuration with a few flags added (`--out`, `--json`, `--dry-run`) and
the rarely set values taken off the command line: those are set in a file, `--config FILE.json`,
and no help text is longer than a screen. tests/app/test_cli.py freezes the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional, Suppress, arg

from noisewise.app.commands.lr_options import LR_COMMANDS, LrOptions
from noisewise.app.config_file import config_path, read_values
from noisewise.pictures.request import Crop
from noisewise.training.settings.config import (
    AdaptConfig,
    DistillConfig,
    EvaluateConfig,
    Precision,
    SampleConfig,
    TrainConfig,
)
from noisewise.training.settings.recipes import StudentRecipe, TeacherRecipe

Config = TypeVar("Config", TrainConfig, AdaptConfig, DistillConfig, SampleConfig, EvaluateConfig)

Folder = Annotated[str, arg(metavar="FOLDER")]
RunFolder = Annotated[str, arg(metavar="RUN")]
OptionalInt = Annotated[int | None, arg(metavar="INT")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT")]
OptionalStr = Annotated[str | None, arg(metavar="STR")]
File = Annotated[str | None, arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Look at pictures: what is there, what will be skipped and why, the measured noise."""

    folder: Positional[Folder]
    """Folder (subfolders may be classes), .zip, .npz or .npy."""
    size: OptionalInt = None
    """Side in pixels that training would use; none: as the pictures suggest."""
    crop: Crop = "centre"
    """Of pictures that are not square: centre, random, or pad (all of it, on the background)."""
    background: str = "white"
    """Under transparency and around padded pictures: a name or #rrggbb."""
    out: File = None
    """Write a contact sheet here, a PNG."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainConfig):
    """Train a diffusion model on a folder of pictures; go on when called again on the same run."""

    folder: Positional[Folder]
    """Folder (subfolders may be classes), .zip, .npz or .npy."""
    out: Annotated[str | None, arg(metavar="RUN")] = None
    """Folder of the run, new or to be gone on with; not needed with --dry-run."""
    size: OptionalInt = None
    """Side of the square pictures in pixels; none: as the pictures suggest."""
    lr: OptionalFloat = None
    """Learning rate at its highest; none: derived."""
    dry_run: bool = False
    """Print every derived value with its reason, and train nothing."""
    config: File = None
    """JSON file of further values; flags override it."""
    json: bool = False
    """Print one JSON object."""
    batch: Suppress[int | None] = None
    lr_from: Suppress[str | None] = None
    channels: Suppress[int | None] = None
    crop: Suppress[Crop] = "centre"
    background: Suppress[str] = "white"
    widths: Suppress[tuple[int, ...]] = ()
    precision: Suppress[Precision] = "auto"
    threads: Suppress[int | None] = None
    checkpoint_seconds: Suppress[float] = 60.0
    shard: Suppress[bool] = False
    recipe: Suppress[TeacherRecipe] = field(default_factory=TeacherRecipe)


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(AdaptConfig):
    """Adapt a run's teacher to another folder by low-rank adapters; a new run, ready to distil."""

    run: Positional[RunFolder]
    """Folder of a run that has a teacher, or a teacher's folder."""
    folder: Positional[Folder]
    """New pictures: folder, .zip, .npz or .npy."""
    out: Annotated[str | None, arg(metavar="RUN")] = None
    """Folder of the new run, or of one to be gone on with."""
    batch: OptionalInt = None
    """Images a step; none: derived."""
    lr: OptionalFloat = None
    """Learning rate at its highest; none: derived."""
    config: File = None
    """JSON file of further values; flags override it."""
    json: bool = False
    """Print one JSON object."""
    samples: Suppress[int] = 512
    precision: Suppress[Precision] = "auto"
    threads: Suppress[int | None] = None
    checkpoint_seconds: Suppress[float] = 60.0
    recipe: Suppress[TeacherRecipe] = field(default_factory=lambda: AdaptConfig().recipe)


@dataclass(frozen=True, kw_only=True)
class DistillOptions(DistillConfig):
    """Distil a run's teacher into a generator of one network call; no picture is read."""

    run: Positional[RunFolder]
    """Folder of a run that has a teacher; with --teacher, of a new one."""
    teacher: Annotated[str | None, arg(metavar="PATH")] = None
    """Another run, or a teacher's folder, to begin with."""
    lam: OptionalFloat = None
    """lambda of the loss L2 - lambda L1; none: the recipe's; 0.5 is safest, beyond 1.5 diverges."""
    batch: OptionalInt = None
    """Images a step; none: derived."""
    lr: OptionalFloat = None
    """Learning rate at its highest; none: derived."""
    dry_run: bool = False
    """Print every derived value with its reason, and train nothing."""
    config: File = None
    """JSON file of further values; flags override it."""
    json: bool = False
    """Print one JSON object."""
    precision: Suppress[Precision] = "auto"
    threads: Suppress[int | None] = None
    checkpoint_seconds: Suppress[float] = 60.0
    recipe: Suppress[StudentRecipe] = field(default_factory=StudentRecipe)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(SampleConfig):
    """Draw pictures: a sheet, or a folder of single files."""

    run: Positional[RunFolder]
    """Folder of a run, or a teacher or generator folder."""
    num_images: Annotated[int, arg(aliases=["-n"], metavar="INT")] = 64
    """How many pictures."""
    label: OptionalStr = None
    """A class, by name or number; none: as often as in the training data."""
    calls: OptionalInt = None
    """Network calls a picture: 1 or 2 of the generator; an odd number of the teacher."""
    steps: OptionalInt = None
    """Steps of the teacher's sampler, with --teacher; none: as measured best."""
    out: File = None
    """PNG for one sheet, else a folder of single pictures; none: RUN/samples/seed-N.png."""
    scale: int = 1
    """Enlarge each pixel to a square of so many."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse steps that mean nothing."""
        super().__post_init__()
        if self.steps is not None and not self.teacher:
            raise ValueError("--steps is of the teacher's sampler; add --teacher, or use --calls 2")
        if self.steps is not None and self.calls is not None:
            raise ValueError("--steps and --calls say the same; give one of them")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"{self.steps} steps draw nothing; use 1 or more")
        if not 1 <= self.scale <= 64:
            raise ValueError(f"a scale of {self.scale} cannot be drawn; use 1 to 64")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluateConfig):
    """Measure a run's pictures: distance with interval and floor, copies, time a picture."""

    run: Positional[RunFolder]
    """Folder of a run."""
    against: OptionalStr = None
    """Real pictures to measure against; none: those held out from training."""
    num_images: Annotated[int, arg(aliases=["-n"], metavar="INT")] = 2000
    """How many pictures to generate."""
    calls: OptionalInt = None
    """Network calls a picture: 1 or 2 of the generator; an odd number of the teacher."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write one self-contained page about a run, at whatever stage it is."""

    run: Positional[RunFolder]
    """Folder of a run."""
    out: File = None
    """Where to write it; none: RUN/report.html."""
    num_images: Annotated[int, arg(aliases=["-n"], metavar="INT")] = 1000
    """Pictures to generate for each distance on the page."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse too few pictures."""
        if self.num_images < 64:
            raise ValueError(f"{self.num_images} pictures are too few for a page; use at least 64")


Options = (
    InspectOptions
    | TrainOptions
    | AdaptOptions
    | DistillOptions
    | SampleOptions
    | EvaluateOptions
    | ReportOptions
    | LrOptions
)

COMMANDS: dict[str, type[Options]] = {
    "inspect": InspectOptions,
    "train": TrainOptions,
    "adapt": AdaptOptions,
    "distill": DistillOptions,
    "sample": SampleOptions,
    "evaluate": EvaluateOptions,
    "report": ReportOptions,
    **LR_COMMANDS,
}


def parse(command: str, arguments: Sequence[str]) -> Options:
    """Read the flags of one command; what --config names comes first, flags override it.

    Raises:
        ValueError: when the file cannot be used.
        SystemExit: from tyro, for --help (0) and for flags that cannot be read (2).
    """
    kind = COMMANDS[command]
    return tyro.cli(
        kind,
        prog=f"noisewise {command}",
        args=list(arguments),
        default=_from_file(kind, config_path(arguments)),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def plain(options: Options, kind: type[Config]) -> Config:
    """The configuration inside the options, without the flags that only a person needs."""
    return kind(**{f.name: getattr(options, f.name) for f in fields(kind)})


def _from_file(kind: type[Options], path: str | None) -> Any:  # noqa: ANN401 (tyro's own type)
    """Defaults of a command: those of its class, with the file's values over them."""
    missing = {f.name: tyro.MISSING for f in fields(kind) if f.name in ("folder", "run")}
    if path is None:
        # The class's own defaults: tyro reads them, and checks only what it has built in the end.
        return tyro.MISSING_NONPROP
    values = read_values(kind, path, but=("config", "dry_run", "json"))
    return kind(**{**missing, **values})
