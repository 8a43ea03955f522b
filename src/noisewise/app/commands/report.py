"""`noisewise report`: one page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from noisewise.app.command import Command
from noisewise.app.options import File, JsonOption, RunFolder
from noisewise.app.terminal.answer import show
from noisewise.training.settings.shown import Shown

_FEWEST = 64  # pictures of a page


@dataclass(frozen=True, kw_only=True)
class ReportOptions(JsonOption):
    """Write one self-contained page about a run, finished or not."""

    run: RunFolder
    """Folder of a run."""
    out: File = None
    """Write the page to this file, an .html. Default: RUN/report.html."""
    data: Annotated[str | None, Shown("PICTURES")] = None
    """Where the training pictures are now, if they were moved. The run notes it."""
    num_images: Annotated[int, Shown(short="-n")] = 1000
    """Number of pictures to draw and to measure for each way to draw."""
    license: Annotated[str | None, Shown("NAME")] = None
    """Licence of the model, such as cc0-1.0, to be shown on the page."""
    note: Annotated[str | None, Shown("TEXT")] = None
    """What people should know, such as the intended use, to be shown on the page."""

    def __post_init__(self) -> None:
        """Refuse too few pictures."""
        if self.num_images < _FEWEST:
            raise ValueError(
                f"{self.num_images} pictures are too few for a page; use {_FEWEST} or more"
            )


def _report(options: ReportOptions, _: Sequence[str]) -> int:
    from noisewise.app.report.collect import report
    from noisewise.app.terminal.forecast import Forecast
    from noisewise.app.terminal.notices import warn_of_damage
    from noisewise.app.terminal.progress import Progress

    warn_of_damage(options.run)
    with Progress() as progress:
        forecast = Forecast(progress.note, f"-n {max(_FEWEST, options.num_images // 4)}")

        def on_part(part: str, done: int, total: int) -> None:
            forecast.part(part, done, total)
            progress.part(f"report: {part}", done, total, "pictures")

        path = report(
            options.run,
            options.out,
            data=options.data,
            num_images=options.num_images,
            tell=progress.note,
            on_part=on_part,
            license=options.license or "",
            note=options.note or "",
        )
    show({"report": str(path), "bytes": path.stat().st_size}, options.json, [f"report: {path}"])
    return 0


COMMAND = Command(
    name="report",
    usage="RUN",
    summary="one page about all of it",
    options=ReportOptions,
    action=_report,
    examples=("noisewise report runs/mine",),
    less_memory="measure fewer pictures with -n",
)
