"""`noisewise lr ...`: batch size and learning rate, from a gradient's noise and from branches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from noisewise.app.command import Command, Group
from noisewise.app.options import File, JsonOption
from noisewise.app.plots.saving import checked_picture
from noisewise.app.terminal.answer import show
from noisewise.training.settings.shown import Shown

if TYPE_CHECKING:
    from noisewise.scaling import Measurement

MeasurementFile = Annotated[str, Shown("FILE", positional=True)]
MeasurementFiles = Annotated[tuple[str, ...], Shown("FILE", positional=True)]

_TEXT = """\
Batch size and learning rate, from the measured noise of the gradient.

FILE is a measurement: RUN/noise.json of a run, or what your own PyTorch loop saved with
  scaling.watch(model, optimizer).measurement().save(FILE)
  scaling.calibrate(model, loss, batches, optimizer).save(FILE)

RUN is the folder of a run of noisewise train.

See docs/scaling.md, and noisewise lr advise --help for the flags of advise."""


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(JsonOption):
    """Print the learning rate for another batch size, the rule behind it, and how sure it is."""

    measurement: MeasurementFiles
    """A saved measurement, such as RUN/noise.json; several of one training, in order of time."""
    batch: float
    """The new batch: examples in each step, over all devices and accumulation."""
    hold: Literal["examples", "steps", "trajectory"] = "examples"
    """What stays the same: all examples seen, the number of steps, or the path of the weights."""
    lr: float | None = None
    """Your tuned learning rate at the old batch. Default: the measurement's."""
    batch0: float | None = None
    """The old batch. Default: the measurement's."""
    unit: Literal["examples", "labels"] | None = None
    """What the batches count, if the measurement counts labels (tokens)."""
    epsilon: float | None = None
    """Adam's epsilon in the new run, if it is another one: what it does to the rate."""
    ema: float | None = None
    """Decay of your average of the weights at the old batch; prints the new one."""
    verbose: bool = False
    """Also print the reason, the settings that stay, and the rules that were not used."""
    plot: File = None
    """Draw every law, the direct measurement and your own point to this file: .svg, .png, .pdf."""


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(JsonOption):
    """Draw the best learning rate against the batch for several epsilons, by two theories."""

    out: Annotated[str, Shown("FILE")]
    """Picture to write: .svg, .png or .pdf."""
    epsilons: tuple[float, ...] = (0.0, 0.003, 0.03, 0.3)
    """One to eight values of Adam's epsilon, in units of one example's deviation."""
    signal: float = 0.03
    """Gradient divided by one example's deviation, the same for every coordinate."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not self.epsilons or min(self.epsilons) < 0 or len(self.epsilons) > 8:
            raise ValueError("--epsilons takes one to eight numbers, 0 or more")
        if not 0 < self.signal <= 100:
            raise ValueError(f"a signal of {self.signal:g} cannot be drawn; use for example 0.03")


@dataclass(frozen=True, kw_only=True)
class WatchOptions(JsonOption):
    """Print the noise scale of a training each time it saves its measurement. Ctrl-C ends it."""

    measurement: MeasurementFile
    """Measurement that a training saves again and again."""
    every: float = 5.0
    """Seconds between looks at the file."""
    once: bool = False
    """Print the present measurement and stop."""

    def __post_init__(self) -> None:
        """Refuse a pause that is too short or too long."""
        if not 0.1 <= self.every <= 86400:
            raise ValueError(f"--every {self.every:g} does not work; use 0.1 to 86400 seconds")


@dataclass(frozen=True, kw_only=True)
class BranchOptions(JsonOption):
    """Train short branches of a run at larger batches, and print the critical batch."""

    run: Annotated[str, Shown("RUN", positional=True)]
    """Folder of a run of noisewise train; it is only read."""
    images: int | None = None
    """Images of each branch. Default: a fifth of those seen, at least 16 steps of the largest."""
    batches: tuple[int, ...] = ()
    """Larger batches to try. Default: 2, 4 and 8 times the run's."""
    powers: tuple[float, ...] = (0.5, 0.0, 1.0)
    """Rates to try at batch B: the run's times (B / batch)^power. The first is tried first."""
    lr: float | None = None
    """Rate of the run's own batch. Default: the run's."""
    share: float = 0.8
    """A batch is good if it gets as far as the run's with this share of the images."""
    tolerance: float | None = None
    """Instead of --share: held-out loss that a larger batch may lose."""
    budget: str | None = None
    """Begin no branch that would end later: 90s, 20m, 1h. Default: no limit."""
    data: str | None = None
    """Where the pictures are now, if they were moved."""
    out: File = None
    """Also write what was found to this file (JSON), for noisewise lr warmup."""


@dataclass(frozen=True, kw_only=True)
class WarmupOptions(JsonOption):
    """Print a schedule in which the batch doubles when the critical batch has passed it."""

    found: Annotated[tuple[str, ...], Shown("FILE", positional=True)]
    """What noisewise lr branch --out wrote, at one or more checkpoints of one training."""
    most: int | None = None
    """Largest batch. Default: no limit but the critical batch."""
    power: float | None = None
    """The rate grows by (B / batch)^power. Default: as the best rates of the branches did."""
    examples: int | None = None
    """Examples of the whole training: also print the steps saved."""


def _advise(options: AdviseOptions, _: Sequence[str]) -> int:
    picture = None if options.plot is None else checked_picture(options.plot, "--plot")
    from noisewise.scaling import Measurement, advise

    advice = advise(
        [Measurement.load(file) for file in options.measurement],
        batch=options.batch,
        hold=options.hold,
        lr=options.lr,
        batch0=options.batch0,
        unit=options.unit,
        epsilon=options.epsilon,
        ema=options.ema,
    )
    values, text = advice.to_dict(), advice.text(options.verbose)
    if picture is not None:
        from noisewise.app.plots.lr_advice import draw_advice

        draw_advice(advice, picture)
        values["plot"] = str(picture)
        text += f"\npicture        {picture}"
    show(values, options.json, text.split("\n"), allow_nan=False)
    return 0


def _curves(options: CurvesOptions, _: Sequence[str]) -> int:
    picture = checked_picture(options.out, "--out")
    from noisewise.app.plots.lr_advice import draw_panels
    from noisewise.app.plots.lr_theory import panels

    found = panels(options.epsilons, options.signal)
    draw_panels(found, picture)
    values = {"out": str(picture), "panels": [panel.to_dict() for panel in found]}
    lines = [str(picture)]
    for panel in found:
        for line in panel.lines:
            end = "rises to the end" if line.peak is None else f"falls beyond B = {line.peak:.3g}"
            lines.append(f"{panel.title}, epsilon {line.epsilon:g}: {end}")
    show(values, options.json, lines, allow_nan=False)
    return 0


def _watch(options: WatchOptions, _: Sequence[str]) -> int:
    from noisewise.scaling import Measurement

    path, seen = Path(options.measurement), None
    while True:
        if options.once or path.exists():
            at = path.stat().st_mtime_ns if path.exists() else None
            if at is None or at != seen:
                _tell(Measurement.load(path), options.json)
                seen = at
        if options.once:
            return 0
        time.sleep(options.every)


def _branch(options: BranchOptions, _: Sequence[str]) -> int:
    out = None if options.out is None else _new_json(options.out)
    seconds = None
    if options.budget is not None:
        from noisewise.training.settings.budget import parse_duration

        seconds = parse_duration(options.budget)
    from noisewise.app.terminal.stderr import tell
    from noisewise.training.branch_run import branch_run

    def say(batch: int, lr: float, images: int) -> None:
        tell(f"branch: batch {batch}, rate {lr:.4g}, {images:,} images")

    found = branch_run(
        options.run,
        images=options.images,
        batches=options.batches,
        powers=options.powers,
        lr=options.lr,
        share=options.share,
        tolerance=options.tolerance,
        seconds=seconds,
        data=options.data,
        on_branch=say,
    )
    values, lines = found.to_dict(), found.text().split("\n")
    if out is not None:
        found.save(out)
        values["out"] = str(out)
        lines.append(f"written         {out}")
    show(values, options.json, lines, allow_nan=False)
    return 0


def _new_json(name: str) -> Path:
    """A file that can be written; said before an hour of branches, not after."""
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--out {name} cannot be written: name a file in a folder that exists")
    return path


def _warmup(options: WarmupOptions, _: Sequence[str]) -> int:
    if options.examples is not None and options.examples < 1:
        raise ValueError(f"--examples {options.examples} is no training; give 1 or more")
    from noisewise.scaling.batch_warmup import batch_warmup
    from noisewise.scaling.branching import Branching

    found = batch_warmup(
        [Branching.load(file) for file in options.found],
        most=options.most,
        power=options.power,
    )
    values: dict[str, Any] = found.to_dict()
    if options.examples is not None:
        values["steps"] = found.steps(options.examples)
    show(values, options.json, found.text(options.examples).split("\n"), allow_nan=False)
    return 0


def _tell(found: Measurement, as_json: bool) -> None:
    """One line about one measurement."""
    values: dict[str, Any] = {
        name: getattr(found, name).to_dict()
        for name in ("g2", "trace_sigma", "b_simple", "b_noise")
    }
    lr = found.optimizer.lr if math.isfinite(found.optimizer.lr) else None
    values |= {"batch": found.batch, "lr": lr, "unit": found.unit, "source": found.source}
    values |= {"warnings": list(found.warnings)}
    scale = "noise scale" if not found.b_noise.known else "B_noise"
    value = found.b_noise if found.b_noise.known else found.b_simple
    rate = "not known" if lr is None else f"{lr:.3g}"
    line = f"batch {found.batch or 0:g}, lr {rate}: {scale} {value} {found.unit}"
    show(values, as_json, ["; ".join([line, *found.warnings])], allow_nan=False)


COMMAND = Group(
    name="lr",
    usage="advise|branch|...",
    summary="the learning rate for another batch size, from measured noise",
    parts=(
        Command(
            name="advise",
            usage="FILE [FILE ...] --batch B",
            summary="the learning rate for another batch, the rule, and how sure it is",
            options=AdviseOptions,
            action=_advise,
            examples=(
                "noisewise lr advise runs/mine/noise.json --batch 512 --plot advice.svg",
                "noisewise lr advise third.json later.json --batch 512 --ema 0.9999 --verbose",
            ),
        ),
        Command(
            name="branch",
            usage="RUN",
            summary="the critical batch of a run, by training short branches of it",
            options=BranchOptions,
            action=_branch,
            examples=(
                "noisewise lr branch runs/mine --budget 20m --out b1.json",
                "noisewise lr branch runs/mine --batches 128 256 --images 20000",
            ),
        ),
        Command(
            name="warmup",
            usage="FILE [FILE ...]",
            summary="a schedule in which the batch grows with the training",
            options=WarmupOptions,
            action=_warmup,
            examples=("noisewise lr warmup b1.json b2.json --most 512 --examples 1000000",),
        ),
        Command(
            name="curves",
            usage="--out FILE",
            summary="a picture of the theory: best learning rate against batch",
            options=CurvesOptions,
            action=_curves,
            examples=("noisewise lr curves --out curves.svg",),
        ),
        Command(
            name="watch",
            usage="FILE",
            summary="the noise scale of a training that saves its measurement",
            options=WatchOptions,
            action=_watch,
            examples=("noisewise lr watch m.json --every 30",),
        ),
    ),
    text=_TEXT,
)
