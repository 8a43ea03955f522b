"""`noisewise lr advise | curves | watch`: batch size and learning rate, from a gradient's noise."""

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
    usage="advise|curves|watch",
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
