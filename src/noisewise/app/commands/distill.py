"""`noisewise distill`: a run's teacher becomes a generator of one network call, or of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from noisewise.app.command import Command
from noisewise.app.config_file import save_settings
from noisewise.app.flags import plain
from noisewise.app.options import JsonOption, LogOption, RunFolder, SettingsOptions
from noisewise.training.settings.config import DistillConfig
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class DistillOptions(DistillConfig, JsonOption, SettingsOptions, LogOption):
    """Distil a run's teacher into a generator of one network call, or of a few.

    Reads no pictures, unless --data-weight asks for them. Run the same command again to resume.
    """

    run: RunFolder
    """Run with a teacher. With --teacher: the folder of a new run."""
    teacher: Annotated[str | None, Shown("PATH")] = None
    """Another run, a teacher's folder, or a folder of diffusers in pixels (UNet2DModel or
    DiTTransformer2DModel), to distil into the new run."""
    data: Annotated[str | None, Shown("PICTURES")] = None
    """Where the training pictures are now, if they were moved; only for --data-weight."""


def _distill(options: DistillOptions, words: Sequence[str]) -> int:
    config = plain(options, DistillConfig)
    save_settings(options.save_config, config)
    from noisewise.app.sinks.sending import both, logging_to
    from noisewise.app.terminal.signals import Stop
    from noisewise.app.terminal.training import progress_of, show_plan, show_result, stream
    from noisewise.training.devices.hardware import free_memory
    from noisewise.training.distill import distill
    from noisewise.training.load import load
    from noisewise.training.models.models import Teacher
    from noisewise.training.run.run import Run
    from noisewise.training.stages.plan import student_values
    from noisewise.training.stages.student_nets import check_student

    if options.dry_run:
        model = load(options.teacher or options.run, "teacher")
        assert isinstance(model, Teacher)
        check_student(config, model)
        values = student_values(config, model.config, free_memory(model.device))
        derived = {k: {"value": v.value, "reason": v.reason} for k, v in values.items()}
        return show_plan(derived, config.budget, options.json)
    with (
        Stop(stream()) as stop,
        progress_of(config.amount) as progress,
        logging_to(options.log_to, Path(options.run), progress.note) as sink,
    ):
        distill(
            options.run,
            teacher=options.teacher,
            config=config,
            on_record=both(progress.update, sink),
            stop=stop,
            data=options.data,
        )
    run = Run.open(options.run)
    return show_result(run, "generator", stop, options.json, ["distill", *words])


COMMAND = Command(
    name="distill",
    usage="RUN",
    summary="a generator of one network call from RUN's teacher; no pictures",
    options=DistillOptions,
    action=_distill,
    examples=(
        "noisewise distill runs/mine --budget 30m",
        "noisewise distill runs/new --teacher runs/mine --budget 30m",
        "noisewise distill runs/new --teacher my_diffusers_pipeline --budget 30m",
        "noisewise distill runs/mine --calls 2 --budget 30m",
    ),
    less_memory="use a smaller --batch",
    several_processes=True,
)
