"""`noisewise sample`: pictures from a run onto one sheet or into a folder of single files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.app.command import Command
from noisewise.app.numbers import milliseconds
from noisewise.app.options import File, JsonOption, RunFolder
from noisewise.app.terminal.answer import show
from noisewise.plain_files import check_parts
from noisewise.sizes import spelled
from noisewise.training.settings.config import SampleConfig

if TYPE_CHECKING:
    from noisewise.training.models.models import Generator, Teacher


_BYTES = 12  # of a value: float32, a copy of it, and 8 bits on a sheet


@dataclass(frozen=True, kw_only=True)
class SampleOptions(SampleConfig, JsonOption):
    """Draw pictures from a run: one sheet, or a folder of single files."""

    run: RunFolder
    """Folder of a run, of a teacher or of a generator."""
    out: File = None
    """A .png for one sheet, else a folder for single files, seed-SEED-00000.png and so on; it takes
    several seeds. Default: RUN/samples/seed-SEED.png."""
    overwrite: bool = False
    """Replace pictures of this seed in a folder. A sheet always replaces the one before."""
    scale: int = 1
    """Enlarge each pixel to a square with this side, 1 to 64."""
    steps: int | None = None
    """Steps of the teacher's sampler, with --teacher. Default: the number measured as best."""

    def __post_init__(self) -> None:
        """Refuse steps that mean nothing."""
        super().__post_init__()
        if self.steps is not None and not self.teacher:
            raise ValueError(
                "--steps is for the teacher's sampler; add --teacher, or use --calls 2"
            )
        if self.steps is not None and self.calls is not None:
            raise ValueError("--steps and --calls set the same thing; leave one out")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"{self.steps} steps draw nothing; use 1 or more")
        if not 1 <= self.scale <= 64:
            raise ValueError(f"a scale of {self.scale} does not work; use 1 to 64")


def draw(
    options: SampleOptions, on_drawn: Callable[[int], None] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Draw the pictures and write them.

    Args:
        options: of the command.
        on_drawn: called with the number of pictures drawn so far.

    Returns:
        What was done, as JSON values and as lines for people.

    Raises:
        ValueError: if there is no such model, or the place for the pictures cannot be used.
    """
    from noisewise.app.drawn_files import write_folder, write_sheet
    from noisewise.app.plots.svg import as_pixels
    from noisewise.training.load import load
    from noisewise.training.run.places import run_name

    out = _place(options)
    which = "teacher" if options.teacher else "auto"
    model = load(options.run, which, options.device)
    model.set_palette(options.palette)
    calls = _calls(model, options)
    _check_memory(model, options)
    start = time.perf_counter()
    ways, larger = (calls, options.sampler, options.guidance), options.larger_size
    drawn = model.sample(options.count, options.seed, options.label, *ways, on_drawn, larger)
    if not drawn.isfinite().all():
        raise ValueError(
            f"the model of {options.run} draws values that are not finite, and no pictures; "
            "use another model, or train it again"
        )
    pictures = as_pixels(drawn)
    seconds = time.perf_counter() - start
    network_calls = model.network_calls(*ways)
    values = {
        "out": str(out),
        "model": model.config.kind,
        "num_images": len(pictures),
        "seed": options.seed,
        "label": options.label,
        "height": pictures.shape[1],
        "width": pictures.shape[2],
        "network_calls": network_calls,
        "sampler": options.sampler,
        "guidance": options.guidance,
        "palette": model.config.palette.text,
        "seconds": round(seconds, 4),
        "device": str(model.device),
    }
    colours = model.config.palette.colours
    if out.suffix.lower() == ".png":
        write_sheet(pictures, out, options.scale, colours)
    else:
        noted = {**values, "out": run_name(out)}  # the file goes wherever the pictures go
        write_folder(pictures, out, options.scale, options.seed, noted, options.overwrite, colours)
    return values, [str(out), _described(model, values, larger is not None)]


def _described(model: Generator | Teacher, values: dict[str, Any], in_windows: bool) -> str:
    """What was drawn and how long it took, for people."""
    count, calls = values["num_images"], values["network_calls"]
    nouns = "picture" if count == 1 else "pictures"
    words = "call" if calls == 1 else "calls"
    each = f"for each window of {spelled(model.size)}" if in_windows else "each"
    size = f"{values['width']} x {values['height']} " if in_windows else ""
    return (
        f"{count:,} {size}{nouns} of the {model.config.kind}, {calls} network {words} {each}, "
        f"{milliseconds(values['seconds'] / count)} for each picture "
        "(on this machine, as busy as it was just now)"
    )


def _calls(model: Generator | Teacher, options: SampleOptions) -> int | None:
    """Network calls that the flags ask for; None: the model's own number."""
    from noisewise.training.models.models import Teacher

    if options.steps is None:
        return options.calls
    assert isinstance(model, Teacher), "--steps goes with --teacher"
    return model.sampler.chosen(options.sampler).num_calls(options.steps)


def _check_memory(model: Generator | Teacher, options: SampleOptions) -> None:
    """Refuse more pictures than fit into memory, before the first is drawn."""
    import torch

    from noisewise.sizes import num_pixels
    from noisewise.training.devices.hardware import free_memory

    free = free_memory(torch.device("cpu"))
    pixels = math.prod(options.larger_size or (num_pixels(model.size),))
    each = _BYTES * model.channels * pixels
    if free is not None and options.count * each > free:
        most = max(1, int(0.5 * free / each))
        raise ValueError(
            f"{options.count:,} pictures do not fit into memory at once; draw at most {most:,}, "
            "several times with other seeds (--seed 1, --seed 2, ...)"
        )


def _place(options: SampleOptions) -> Path:
    """Where the pictures go; before anything is drawn, refuse to write over other files."""
    if options.out is None:
        check_parts(Path(options.run), folders=["samples"])
        return Path(options.run) / "samples" / f"seed-{options.seed}.png"
    from noisewise.app.drawn_files import check_place

    out = Path(options.out)
    check_place(out, options.seed, options.overwrite)
    return out


def _sample(options: SampleOptions, _: Sequence[str]) -> int:
    from noisewise.app.terminal.notices import warn_of_damage
    from noisewise.app.terminal.progress import Progress

    warn_of_damage(options.run)
    with Progress() as progress:

        def on_drawn(done: int) -> None:
            progress.part("drawing", done, options.count, "pictures")

        values, lines = draw(options, on_drawn)
    show(values, options.json, lines)
    return 0


COMMAND = Command(
    name="sample",
    usage="RUN",
    summary="draw pictures with the generator, or with the teacher",
    options=SampleOptions,
    action=_sample,
    examples=(
        "noisewise sample runs/mine -n 64 --out mine.png",
        "noisewise sample runs/mine -n 1000 --seed 1 --out many",
    ),
    less_memory="draw fewer pictures at once with -n; with another --seed you get more of them",
)
