"""The flags of `noisewise lr advise | curves | watch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

MeasurementFile = Annotated[str, arg(metavar="FILE")]
Plot = Annotated[str | None, arg(metavar="FILE")]
Rate = Annotated[float | None, arg(metavar="FLOAT")]

HELP = """\
usage: noisewise lr advise | curves | watch ...

Batch size and learning rate, from the measured noise of the gradient.

  advise  FILE --batch B   the learning rate for another batch, why, and how sure (--hold, --lr,
                           --batch0, --plot FILE.svg, --json)
  curves  --out FILE.svg   the theory's own picture: best learning rate against batch for several
                           epsilons, with and without the surge (--epsilons, --signal, --json)
  watch   FILE             the noise scale of a training that saves its measurement there (--every,
                           --once, --json)

FILE is what scaling.watch(model, optimizer).measurement().save(FILE) or
scaling.calibrate(model, loss, batches, optimizer).save(FILE) wrote: see docs/scaling.md.
"""


@dataclass(frozen=True, kw_only=True)
class LrAdviseOptions:
    """Say which learning rate another batch size wants, by which rule, and how sure it is."""

    measurement: Positional[MeasurementFile]
    """A saved measurement (JSON)."""
    batch: float
    """The new batch: examples a step, all devices and accumulation together."""
    hold: Literal["examples", "steps", "trajectory"] = "examples"
    """What stays fixed: examples in all, steps, or the path through the weights."""
    lr: Rate = None
    """Your tuned learning rate at the old batch; none: the optimiser's when it was measured."""
    batch0: Rate = None
    """The old batch; none: the measurement's."""
    plot: Plot = None
    """Draw every law, the direct measurement and your own point here (.svg, .png, .pdf)."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class LrCurvesOptions:
    """Draw best learning rate against batch for several epsilons, with and without the surge."""

    out: Annotated[str, arg(metavar="FILE")]
    """Picture to write (.svg, .png, .pdf)."""
    epsilons: tuple[float, ...] = (0.0, 0.003, 0.03, 0.3)
    """Adam's epsilon, in units of one example's deviation."""
    signal: float = 0.03
    """Gradient over one example's deviation, the same for every coordinate."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not self.epsilons or min(self.epsilons) < 0 or len(self.epsilons) > 8:
            raise ValueError("--epsilons takes one to eight numbers, none below 0")
        if not 0 < self.signal <= 100:
            raise ValueError(f"a signal of {self.signal} cannot be drawn; use e.g. 0.03")


@dataclass(frozen=True, kw_only=True)
class LrWatchOptions:
    """Follow a saved measurement while its training goes on; Ctrl-C ends it."""

    measurement: Positional[MeasurementFile]
    """A measurement that a training writes again and again."""
    every: float = 5.0
    """Seconds between two looks."""
    once: bool = False
    """Print what is there now and end."""
    json: bool = False
    """Print JSON objects, one a line."""

    def __post_init__(self) -> None:
        """Refuse a pause that is none."""
        if not 0.1 <= self.every <= 86400:
            raise ValueError(f"looking every {self.every} s is not possible; use 0.1 to 86400")


LrOptions = LrAdviseOptions | LrCurvesOptions | LrWatchOptions
LR_COMMANDS: dict[str, type[LrOptions]] = {
    "lr advise": LrAdviseOptions,
    "lr curves": LrCurvesOptions,
    "lr watch": LrWatchOptions,
}
