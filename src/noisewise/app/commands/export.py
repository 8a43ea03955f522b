"""`noisewise export`: a finished model in a format of somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from noisewise.app.command import Command
from noisewise.app.options import JsonOption, RunFolder
from noisewise.app.terminal.answer import show
from noisewise.export.formats import FormatName, format_named
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class ExportOptions(JsonOption):
    """Write a finished model as a page to send, or for ONNX, PyTorch, diffusers, the Hub.

    The result is compared with torch before it is put in its place.
    """

    run: RunFolder
    """Folder of a run, of a teacher or of a generator."""
    out: Annotated[str, Shown("OUT", positional=True)]
    """A file ending in .html, .onnx or .pt2; for diffusers and hub a new folder."""
    to: FormatName
    """html: one page that draws in a browser, to send to people. onnx: one file for ONNX Runtime;
    it is timed beside torch. pt2: one file for PyTorch alone. diffusers: a pipeline folder. hub: a
    folder for the Hugging Face Hub with a model card."""
    teacher: bool = False
    """Export the teacher in place of the generator."""
    overwrite: bool = False
    """Replace what an earlier export wrote at this place."""
    license: Annotated[str | None, Shown("NAME")] = None
    """Licence of the model, such as cc0-1.0, for the model card or the page."""
    note: Annotated[str | None, Shown("TEXT")] = None
    """What people should know, such as the intended use, for the card or the page."""
    push: Annotated[str | None, Shown("USER/NAME")] = None
    """Also upload the folder to the Hugging Face Hub under this name; with --to hub."""

    def __post_init__(self) -> None:
        """Refuse an upload of something else than a folder for the Hub."""
        if self.push is not None and self.to != "hub":
            raise ValueError(f"--push goes with --to hub, not with --to {self.to}")


def _export(options: ExportOptions, _: Sequence[str]) -> int:
    from noisewise.app.terminal.notices import warn_of_damage

    warn_of_damage(options.run)
    format_named(options.to).check_packages()
    if options.push is not None:
        from noisewise.export.hub_model import check_login

        check_login(options.push)
    from noisewise.export.export import write

    exported = write(
        options.run,
        options.to,
        options.out,
        teacher=options.teacher,
        overwrite=options.overwrite,
        license=options.license or "",
        note=options.note or "",
        repo=options.push or "",
    )
    values: dict[str, Any] = exported.to_dict()
    text = str(exported)
    if options.to == "onnx":
        from noisewise.app.engines import in_words, seconds_of_engines

        values["seconds_per_picture"] = seconds_of_engines(
            options.run, options.out, options.teacher
        )
        text = f"{text}\nspeed: {in_words(values['seconds_per_picture'])}"
    if options.push is not None:
        from noisewise.export.hub_model import HubModel

        values["address"] = HubModel.from_pretrained(options.out).push_to_hub(options.push)
        text = f"{text}\nuploaded: {values['address']}"
    show(values, options.json, text.split("\n"))
    return 0


COMMAND = Command(
    name="export",
    usage="RUN OUT --to FORMAT",
    summary="the model as a page to send, for ONNX, PyTorch, diffusers, Hub",
    options=ExportOptions,
    action=_export,
    examples=(
        "noisewise export runs/mine mine.html --to html",
        "noisewise export runs/mine mine.onnx --to onnx",
        "noisewise export runs/mine mine_hub --to hub --license cc0-1.0",
    ),
    less_memory="export on a machine with more of it",
)
